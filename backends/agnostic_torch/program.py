"""Read what a torch model computes: the twin of :mod:`agnostic.program`.

``torch.export`` runs the model once on tensors without data and gives the graph of what it called, operator by operator
and before anything is taken apart, with the path of the module and the line of the user's code.
:mod:`agnostic_torch.aten` writes each of those operators in the vocabulary.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import re
import sys
import traceback
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.modules import transformer
from torch.utils import _pytree as pytree
from torch.utils import _triton

from agnostic.errors import InvalidInput
from agnostic.patching import patched
from agnostic.program.builder import Builder, NodeOrigin
from agnostic.program.nodes import Node, Program, Value
from agnostic_torch import answers, custom, packed, stochastic
from agnostic_torch import aten_composed as _composed  # noqa: F401 (fills the table of readers)
from agnostic_torch.aten import READERS, Call, Reader, Unreadable, is_mask, name_of, stopped
from agnostic_torch.calls import unchanged
from agnostic_torch.expansion import expansion, silent
from agnostic_torch.functional import Memory
from agnostic_torch.layers import check_initialized, unwrap
from agnostic_torch.selections import Selection, applied, holds, selected, written
from agnostic_torch.taps import _arguments

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in ')


def program(model: nn.Module, inputs: Any, opaque: Collection[str] = ()) -> Program:
    """See :meth:`agnostic.contracts.program.Programs.program`.

    Args:
        model: any module that ``torch.export`` can follow: without branches on values.
        inputs: as in :func:`agnostic.capture`.
        opaque: names of operators and autograd functions that are not followed into.

    Raises:
        InvalidInput: the model branches on values or leaves torch; says in which layer, and on which line.
    """
    with contextlib.ExitStack() as stack:
        return _exported(model, inputs, opaque, stack).program()


def recorded(model: nn.Module, inputs: Any, opaque: Collection[str] = ()) -> list[tuple[list[Any], list[Any]]]:
    """See :meth:`agnostic.contracts.program.Programs.recorded`."""
    with contextlib.ExitStack() as stack:
        return _exported(model, inputs, opaque, stack).recorded()


@dataclass(frozen=True)
class _Exported:
    """A model as torch exports it.

    Attributes:
        model, args, kwargs: the model, and what it was called with.
        graph: what ``torch.export`` made of it.
        opaque: operators that are not put into the words of the vocabulary.
        called: the names of autograd functions by those of the operators that stand for them.
        followed: the names of those whose forward was followed.
        objects: class names of what the model returns beside arrays.
        fixed: sentences on what was read with the numbers that the model was given.
    """

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    graph: torch.export.ExportedProgram
    opaque: Collection[str]
    called: Mapping[str, str]
    followed: Collection[str]
    objects: Collection[str]
    fixed: Sequence[str] = ()

    def program(self) -> Program:
        """In the words of the vocabulary."""
        modules = {path: type(module).__name__ for path, module in self.model.named_modules()}
        name = type(self.model).__name__
        notes = tuple(
            f"The forward of the autograd function {function} was followed, and its backward was not: gradients are "
            "those of the operators in its forward."
            for function in sorted(self.followed)
        ) + tuple(
            f"An object of class {kind} in the output is left out: it is no array, dict, list or tuple."
            for kind in sorted(self.objects)
        )
        try:
            found = _Reader(name, self.opaque, self.called).read(self.graph, modules)
        except GuardOnDataDependentSymNode as error:
            raise InvalidInput(_refusal(self.model, error)) from error
        notes = (*notes, *self.fixed)
        return replace(found, nodes=tuple(self._with_axes(node) for node in found.nodes), notes=notes)

    def _with_axes(self, node: Node) -> Node:
        """A dropout of stochastic depth with the axes along which it draws."""
        depths = stochastic.depths(self.model) if node.operator == "dropout" else {}
        if node.module not in depths:
            return node
        return replace(node, attributes={**node.attributes, "axes": depths[node.module][1]})

    def recorded(self) -> list[tuple[list[Any], list[Any]]]:
        """What each custom operator was given and gave, in order."""
        reader = _Reader(type(self.model).__name__, self.opaque, self.called)
        reader.read(self.graph, {})
        custom_nodes = set(reader.customs)
        kept: list[tuple[Any, Any]] = []
        with torch.no_grad():
            runner = custom.Watching(self.graph.graph_module, custom_nodes.__contains__, kept)
            runner.run(*_flat_inputs(self.graph, self.args, self.kwargs))
        return [([*_arrays(given)], [*_arrays(gave)]) for given, gave in kept]


def _arrays(given: Any) -> Iterator[Any]:
    for x in pytree.tree_leaves(given):
        if isinstance(x, torch.Tensor):
            x = x.detach().cpu()
            yield (x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).numpy()


def _flat_inputs(exported: torch.export.ExportedProgram, args: Any, kwargs: Any) -> list[Any]:
    """What the placeholders of a graph stand for, in order."""
    user = iter(pytree.tree_leaves((args, dict(kwargs))))
    found = []
    for spec in exported.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            found.append(next(user))
        elif str(spec.target) in exported.state_dict:
            found.append(exported.state_dict[str(spec.target)])
        else:
            found.append(exported.constants[str(spec.target)])
    return found


_ASKED = (torch.SymInt, torch.SymFloat, torch.SymBool)
"""What a graph of fixed sizes holds where the model goes on with the number of an array."""

_FAILURES = (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError, AttributeError, LookupError)
"""What export raises is of many classes, none of which is its own."""


def _exported(model: nn.Module, inputs: Any, opaque: Collection[str], stack: contextlib.ExitStack) -> _Exported:
    """Export a model; what cannot be followed into becomes one operator, as long as that is a function of tensors.

    Args:
        stack: those operators are registered until it is closed.
    """
    model = unwrap(model)
    check_initialized(model)
    args, kwargs = _arguments(model, inputs)
    with unchanged(model):
        found = refused = None
        try:
            found = _followed(model, args, kwargs, opaque, stack)
            if not any(isinstance(node.meta.get("val"), _ASKED) for node in found.graph.graph.nodes):
                return found
        except InvalidInput as error:
            refused = error
        known = answers.asked(model, args, kwargs)
        with answers.told(model, known) as used:
            try:
                told = _followed(model, args, kwargs, opaque, stack)
            except InvalidInput as error:
                if found is not None:
                    return found
                raise (refused or error) from None
        return replace(told, fixed=answers.notes(used))


def _followed(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], opaque: Collection[str],
    stack: contextlib.ExitStack,
) -> _Exported:  # fmt: skip
    closed = custom.named_functions(opaque)
    seen = custom.run_once(model, args, kwargs, closed) if closed else custom.Seen({}, {})
    while True:
        called: dict[str, str] = {}
        followed: set[str] = set()
        try:
            with contextlib.ExitStack() as inner:
                inner.enter_context(custom.registered(seen, called, followed))
                objects: set[str] = set()
                graph = _export(model, args, kwargs, objects)
                stack.push(inner.pop_all())
            return _Exported(model, args, kwargs, graph, opaque, called, followed, objects)
        except _FAILURES as error:
            inside = custom.function_in(error.__traceback__)
            more = closed if inside is None else closed | {inside}
            if (_DATA.search(str(error)) and inside is None) or (seen.operators and more == closed):
                raise InvalidInput(_refusal(model, error)) from error
            try:
                seen, before = custom.run_once(model, args, kwargs, more), seen
            except _FAILURES:
                raise InvalidInput(_refusal(model, error)) from error
            if more == closed and seen.operators.keys() == before.operators.keys():
                raise InvalidInput(_refusal(model, error)) from error
            closed = more


def _export(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], objects: set[str]
) -> torch.export.ExportedProgram:
    """Export a model; the class names of what it returns beside arrays are added to ``objects``."""

    def returned(original: Any, *given: Any, **named: Any) -> Any:
        def one(x: Any) -> Any:
            if isinstance(x, torch.Tensor | int | float | complex | str | torch.dtype | torch.device | None):
                return x
            objects.add(type(x).__name__)
            return None

        return pytree.tree_map(one, original(*given, **named))

    loggers = ("torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes")
    with contextlib.ExitStack() as stack, warnings.catch_warnings(), silent(*loggers):
        warnings.simplefilter("ignore")
        # Where it fails, it prints the graph so far.
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        stack.enter_context(patched([(transformer, "_detect_is_causal_mask", _as_hinted)]))
        stack.enter_context(stochastic.seen(model))
        stack.enter_context(patched([(model, "forward", returned)]))
        stack.enter_context(packed.padded(packed.longest(model, args, kwargs)))
        stack.enter_context(_without_triton())
        return torch.export.export(model, args, dict(kwargs), strict=False)


@contextlib.contextmanager
def _without_triton() -> Iterator[None]:
    """Inside, triton is not imported where Keras is: Keras imports TensorFlow whenever it saves, and a process that has
    it and triton aborts. It stays out where TensorFlow is there already, and can be imported afterwards elsewhere.
    """
    if "keras" not in sys.modules or "triton" in sys.modules:
        yield
        return
    sys.modules["triton"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if "tensorflow" not in sys.modules:
            del sys.modules["triton"]
            # What was found inside is remembered, and torch.compile asks for it on a GPU.
            _triton.has_triton_package.cache_clear()
            _triton.has_triton.cache_clear()


def _as_hinted(original: Any, mask: Any, is_causal: bool | None = None, size: int | None = None) -> bool:
    """Whether a mask is causal, without looking at it: no is always right, since the mask is applied then."""
    return bool(is_causal)


_DATA = re.compile(r"data-dependent|\.numpy\(\) is not supported|aten\._local_scalar_dense|unbacked|Eq\(u\d")
"""What export says where the model looks at values."""

_REASONS = (
    (re.compile(r"\.numpy\(\) is not supported"), "it leaves torch for NumPy"),
    (re.compile(r"data-dependent|unbacked|_local_scalar_dense"), "what it does next depends on values of the data"),
)


def _refusal(model: nn.Module, error: Exception) -> str:
    message = str(error)
    said = next((line.strip() for line in message.splitlines() if line.strip()), type(error).__name__)[:200]
    reason = next((found for pattern, found in _REASONS if pattern.search(message)), said)
    file, line, layer = _place(model, error)
    where = f" at {file}:{line}" if file else ""
    code = linecache.getline(file, line).strip() if file else ""
    looks = reason is not said
    advice = "; a program needs a forward without branches on values, .item() or NumPy" if looks else ""
    return (
        f"torch.export cannot follow {type(model).__name__}{f' in layer {layer!r}' if layer else ''}{where}: {reason}"
        f"{f' ({code[:120]})' if code else ''}{advice}"
    )


def _place(model: nn.Module, error: Exception) -> tuple[str, int, str]:
    """File and line of the user's that led to an error, and the path of the layer that ran it."""
    names = {id(module): name for name, module in model.named_modules()}
    file, line, layer = "", 0, ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        # A module wrapped by export answers for the one inside.
        layer = names.get(id(owner), layer) if isinstance(owner, nn.Module) else layer
        path = frame.f_code.co_filename
        if not _INTERNAL.search(path) and not path.startswith("<"):
            file, line = path, number
    return file, line, layer


_INTERNAL = re.compile(r"[\\/](torch|agnostic|agnostic_torch)[\\/](?!.*[\\/]tests[\\/])")
"""Files that are not the user's."""


def _user_frame(trace: str) -> tuple[str, int] | None:
    """The innermost line of a stack trace that is not torch's own."""
    frames = [(file, int(line)) for file, line in _FRAME.findall(trace)]
    own = [frame for frame in frames if not re.search(r"[\\/]torch[\\/]", frame[0])]
    return own[-1] if own else None


def _output_paths(exported: torch.export.ExportedProgram) -> list[str]:
    """A path per output in the order of the graph: keys and places joined by dots; ``""`` for a lone tensor."""
    spec = exported.call_spec.out_spec
    assert spec is not None
    leaves = list(range(spec.num_leaves))
    keyed, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(leaves, spec))
    return [".".join(str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path)
            for path, _ in keyed]  # fmt: skip


class _Held:
    """Keeps fx from walking into what a node stands for."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Reader:
    """Writes an exported graph in the words of the vocabulary.

    Args:
        name: the model's.
        opaque: operators that are not put into words.
        called: see :class:`_Exported`.
    """

    def __init__(self, name: str, opaque: Collection[str], called: Mapping[str, str]) -> None:
        self.name = name
        self.opaque = opaque
        self.called = called
        self.builder, self.memory = Builder(), Memory()
        self.customs: list[fx.Node] = []
        self.buffers: dict[fx.Node, str] = {}
        self._depth = 0  # of operators that are taken apart

    def read(self, exported: torch.export.ExportedProgram, modules: Mapping[str, str]) -> Program:
        """The program."""
        signature = exported.graph_signature
        # Buffers that a state_dict leaves out are constants.
        targets = {spec.arg.name: (InputKind.CONSTANT_TENSOR if spec.persistent is False else spec.kind, spec.target)
                   for spec in signature.input_specs if hasattr(spec.arg, "name")}  # fmt: skip
        for node in exported.graph.nodes:
            if node.op == "placeholder":
                kind, target = targets.get(node.name, (InputKind.USER_INPUT, None))
                self._leaf(node, kind, str(target), exported)
        results = self._run(exported.graph_module)
        if any(isinstance(result, Selection) for result in results):
            raise InvalidInput(f"{self.name} returns numbers that a mask picks: the data say how many there are")
        paths = _output_paths(exported)
        user = [r for r, s in zip(results, signature.output_specs, strict=True) if s.kind is OutputKind.USER_OUTPUT]
        outputs = {path: value for path, value in zip(paths, user, strict=True) if isinstance(value, Value)}
        return self.builder.program(self.name, "torch", outputs, modules)

    def _leaf(self, node: fx.Node, kind: InputKind, target: str, exported: torch.export.ExportedProgram) -> None:
        known = node.meta.get("val")
        if not isinstance(known, torch.Tensor):
            self.memory.bind(node, known)
            return
        dtype, shape = dtype_name(known.dtype), known.shape
        if kind is InputKind.USER_INPUT:
            value = self.builder.leaf(node.name, "input", shape, dtype)
        elif kind is InputKind.PARAMETER:
            value = self.builder.leaf(target, "parameter", shape, dtype)
        elif kind is InputKind.BUFFER:
            value = self.builder.leaf(target, "buffer", shape, dtype)
            self.buffers[node] = target
        else:
            constant = exported.constants[target]
            if target in exported.graph_signature.buffers:
                self.buffers[node] = target
            if not isinstance(constant, torch.Tensor):
                raise InvalidInput(f"{self.name} uses an object of class {type(constant).__name__} as a constant")
            value = self.builder.leaf(target, "constant", shape, dtype, constant.detach().cpu().numpy())
        self.memory.bind(node, value)

    def _run(self, graph: fx.GraphModule) -> list[Any]:
        """Write the calls of a graph; returns what its output node holds."""
        for node in graph.graph.nodes:
            if node.op == "call_function":
                self.builder.origin = _origin(node, self.builder.origin)
                self._call(graph, node)
            elif node.op == "get_attr":
                self.memory.bind(node, getattr(graph, node.target))
            elif node.op == "output":
                held: Any = lambda n: _Held(self.memory.read(n, self.builder))  # noqa: E731 - map_arg is narrower
                found: Any = fx.node.map_arg(node.args[0], held)
                return [x.value if isinstance(x, _Held) else x for x in found]
        return []

    def _call(self, graph: fx.GraphModule, node: fx.Node) -> None:
        name, builder, memory = name_of(node.target), self.builder, self.memory
        if name == "getitem":
            source, index = node.args
            assert isinstance(source, fx.Node)
            assert isinstance(index, int)
            memory.part(node, source, index)
            if node.users and isinstance(node.meta.get("val"), torch.Tensor) and memory.read(node, builder) is None:
                raise InvalidInput(
                    f"result {index} of operator {source.target} has no translation yet: {builder.origin}"
                )
            return
        if name in ("wrap_with_set_grad_enabled", "wrap_with_autocast"):
            self._inline(graph, node)
            return
        if isinstance(node.meta.get("val"), torch.SymInt | torch.SymBool | torch.SymFloat):
            memory.bind(node, None)  # a number of places that a mask picks; what needs it is refused
            return
        if (name == "copy_" and self._is_kept(node)) or name == "_assert_tensor_metadata":
            return
        call = Call(node, builder, lambda n: memory.read(n, builder))
        in_place, reader = call.name != name, READERS.get(call.name)
        start = len(builder.nodes)
        try:
            call.read_operands()
            result = self._translated(call, reader)
        except Unreadable as error:
            del builder.nodes[start:]
            if self._depth:
                raise
            result = self._custom(call, str(error), in_place)
        result = _typed(node, result, builder)
        target = node.args[0] if node.args else None
        if in_place and isinstance(target, fx.Node):
            memory.write(target, result, builder)
            memory.alias(node, target)
            self._check_state(memory.owner(target))
        else:
            memory.bind(node, result, builder.nodes[start:])

    def _is_kept(self, node: fx.Node) -> bool:
        """Whether a buffer is assigned what each call makes anew, such as positions: of no input and no buffer."""
        target, source = node.args[:2]
        if target not in self.buffers or not isinstance(source, fx.Node):
            return False
        left = [self.memory.read(source, self.builder)]
        seen: set[Value] = set()
        while left:
            value = left.pop()
            leaf, giver = self.builder.leaf_of(value), self.builder.giver(value)
            if (leaf is None and giver is None) or (leaf is not None and leaf.role not in ("parameter", "constant")):
                return False
            more = set(giver.reads) - seen if giver is not None else set()
            left += more
            seen |= more
        return True

    def _check_state(self, owner: fx.Node) -> None:
        """Raise InvalidInput where a call changes what the next call begins with."""
        name = self.buffers.get(owner)
        if name is not None and not name.endswith("num_batches_tracked"):
            raise InvalidInput(
                f"buffer {name!r} is changed by each call, so that the model computes something else in the next: "
                f"{self.builder.origin}"
            )

    def _translated(self, call: Call, reader: Reader | None) -> Any:
        """An operator by its reader, or else by the operators that torch itself defines it by."""
        if self._is_opaque(call.node.target):
            raise Unreadable("has no translation yet")
        name, mask = call.name, call.get("indices")
        if isinstance(mask, tuple) and len(mask) == 1 and is_mask(mask[0]) and not holds(call.given["self"]):
            return selected(call, call["self"], mask[0]) if name == "index" else written(call, call["values"])
        start, reason = len(self.builder.nodes), "has no translation yet"
        try:
            if any(map(holds, call.given.values())):
                return applied(call, reader)
            if reader is not None:
                found = reader(call)
                call.check_seen()
                return found
        except Unreadable as error:
            reason = str(error)
            del self.builder.nodes[start:]
        known = expansion(call.node)
        if known is None and reader is None and (array := _constant(call.node)) is not None:
            return self.builder.leaf(f"constant_{len(self.builder.leaves)}", "constant", array.shape, call.dtype, array)
        if known is None:
            raise Unreadable(reason)
        self._depth += 1
        try:
            for placeholder, operand in zip(known.placeholders, known.operands, strict=True):
                self.memory.bind(placeholder, self.memory.read(operand, self.builder))
            results = self._run(known.graph)
        except (Unreadable, InvalidInput):
            raise Unreadable(reason) from None
        finally:
            self._depth -= 1
        return results[0] if known.is_single else tuple(results)

    def _is_opaque(self, target: Any) -> bool:
        name = str(target._schema.name)
        return name in self.opaque or not name.startswith(("aten::", "prims::", f"agnostic::{packed.OPERATOR}"))

    def _custom(self, call: Call, reason: str, in_place: bool) -> Any:
        """An operator that has no translation, as one node."""
        node = call.node
        schema = getattr(node.target, "_schema", None)
        known = node.meta.get("val")
        tensors: list[Any] = list(known) if isinstance(known, list | tuple) else [known]
        if schema is None or not all(isinstance(x, torch.Tensor) for x in tensors):
            raise InvalidInput(f"operator {node.target} {reason}: {self.builder.origin}")
        if schema.is_mutable and not in_place:
            raise InvalidInput(f"operator {node.target} changes its operands in place: {self.builder.origin}")
        if any(isinstance(n, torch.SymInt) for x in tensors for n in x.shape):
            raise InvalidInput(
                f"operator {node.target} gives an array whose shape depends on the data: {self.builder.origin}"
            )
        operands = tuple(_plain(x) for x in call.given.values())
        names = [argument.name for argument in schema.arguments]
        defaults = [argument.default_value if argument.has_default_value() else ... for argument in schema.arguments]
        while names and defaults[len(names) - 1] is not ... and operands[-1] == _plain(defaults[len(names) - 1]):
            operands = operands[:-1]
            names.pop()
        shapes = tuple(tuple(int(n) for n in x.shape) for x in tensors)
        self.customs.append(node)
        return self.builder.emit(
            "custom", operands, dtype=dtype_name(tensors[0].dtype), arguments=tuple(names), reason=reason,
            name=self.called.get(schema.name, schema.name),
            shapes=shapes if isinstance(known, list | tuple) else shapes[0],
        )  # fmt: skip

    def _inline(self, graph: fx.GraphModule, node: fx.Node) -> None:
        modules = [arg for arg in node.args if isinstance(arg, fx.Node) and arg.op == "get_attr"]
        inner = getattr(graph, str(modules[0].target))
        operands = node.args[node.args.index(modules[0]) + 1 :]
        placeholders = [n for n in inner.graph.nodes if n.op == "placeholder"]
        for placeholder, operand in zip(placeholders, operands, strict=True):
            assert isinstance(operand, fx.Node)
            self.memory.alias(placeholder, operand)
        found = self._run(inner)
        if node.args[0] is False:  # torch.no_grad()
            found = [stopped(self.builder, x) if isinstance(x, Value) else x for x in found]
        self.memory.bind(node, tuple(found))


def _constant(node: fx.Node) -> Any:
    """What an operator gives that is applied to no tensors, such as indices of a triangle; None for another."""
    schema = getattr(node.target, "_schema", None)
    known = node.meta.get("val")
    if schema is None or node.all_input_nodes or not isinstance(known, torch.Tensor) or schema.is_mutable:
        return None
    if torch.Tag.nondeterministic_seeded in node.target.tags:  # type: ignore[union-attr]
        return None
    return node.target(*node.args, **{**node.kwargs, "device": "cpu"}).numpy()  # type: ignore[operator]


def _plain(x: Any) -> Any:
    """An argument as a value, a number, text, or several of these."""
    if isinstance(x, tuple | list):
        return tuple(map(_plain, x))
    if x is None or isinstance(x, Value | bool | int | float | complex | str):
        return x
    return str(x).removeprefix("torch.")


def _typed(node: fx.Node, result: Any, builder: Builder) -> Any:
    """Give the result the type and check the shape that torch says it has."""
    known = node.meta.get("val")
    if isinstance(result, Value) and isinstance(known, torch.Tensor):
        if tuple(known.shape) != result.shape:
            raise AssertionError(
                f"{node.target} gives {tuple(known.shape)}, and its translation {result.shape}: {builder.origin}"
            )
        return builder.retype(result, dtype_name(known.dtype))
    if isinstance(result, tuple) and isinstance(known, list | tuple):
        return tuple(
            builder.retype(value, dtype_name(tensor.dtype))
            if isinstance(value, Value) and isinstance(tensor, torch.Tensor)
            else value
            for value, tensor in zip(result, known, strict=False)
        )
    return result


def _origin(node: fx.Node, before: NodeOrigin) -> NodeOrigin:
    stack = node.meta.get("nn_module_stack", {})
    if not stack:
        return before
    # A key ends in @n in the call after n others.
    calls = tuple(path + key[key.rfind("@") :] * ("@" in key) for key, (path, _) in stack.items())
    path, cls = list(stack.values())[-1]
    kind = cls if isinstance(cls, str) else cls.__name__
    frame = _user_frame(node.meta.get("stack_trace") or "")
    file, line = frame or (None, None)
    return NodeOrigin(path, kind.rpartition(".")[2], file, line, calls)


def dtype_name(dtype: torch.dtype) -> str:
    """NumPy's name of a torch type."""
    return str(dtype).removeprefix("torch.")
