"""Read what a torch model computes: the twin of :mod:`agnostic.program`.

``torch.export`` runs the model once on tensors without data and gives the graph of what it called, operator by operator
and before anything is taken apart, with the path of the module and the line of the user's code.
:mod:`agnostic_torch.aten` writes each of those operators in the vocabulary.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from agnostic.errors import InvalidInput
from agnostic.program.builder import Builder, Origin
from agnostic.program.nodes import Program, Value
from agnostic_torch.aten import READERS, Call, Unreadable, name_of
from agnostic_torch.functional import Memory
from agnostic_torch.layers import unwrap
from agnostic_torch.taps import _arguments

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in ')


def program(model: nn.Module, inputs: Any) -> Program:
    """See :meth:`agnostic.contracts.program.Programs.program`.

    Args:
        model: any module that ``torch.export`` can follow: without branches on values.
        inputs: as in :func:`agnostic.capture`.

    Raises:
        InvalidInput: the model branches on values or leaves torch, or runs an operator that has no translation; says
            which, in which layer, and on which line.
    """
    model = unwrap(model)
    args, kwargs = _arguments(model, inputs)
    try:
        with warnings.catch_warnings(), _silent("torch._subclasses.fake_tensor"):
            warnings.simplefilter("ignore")
            exported = torch.export.export(model, args, dict(kwargs), strict=False)
    except (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError, AttributeError) as error:
        # What export raises is of many classes, none of which is its own.
        raise InvalidInput(_refusal(model, error)) from error
    modules = {path: type(module).__name__ for path, module in model.named_modules()}
    return _read(exported, type(model).__name__, modules)


@contextlib.contextmanager
def _silent(logger: str) -> Iterator[None]:
    """Inside, a logger says nothing: what it would say of a failure is in the error."""
    found = logging.getLogger(logger)
    before = found.disabled
    found.disabled = True
    try:
        yield
    finally:
        found.disabled = before


def _refusal(model: nn.Module, error: Exception) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return (
        f"torch.export cannot follow {type(model).__name__}{_line_of(str(error))}: {first[:200]}; a program needs a "
        "forward without branches on values, .item() or NumPy"
    )


def _line_of(message: str) -> str:
    found = _user_frame(message)
    return "" if found is None else f" at {found[0]}:{found[1]}"


def _user_frame(trace: str) -> tuple[str, int] | None:
    """The innermost line of a stack trace that is not torch's own."""
    frames = [(file, int(line)) for file, line in _FRAME.findall(trace)]
    own = [frame for frame in frames if not re.search(r"[\\/]torch[\\/]", frame[0])]
    return own[-1] if own else None


def _read(exported: torch.export.ExportedProgram, name: str, modules: Mapping[str, str]) -> Program:
    builder, memory = Builder(), Memory()
    signature = exported.graph_signature
    targets = {spec.arg.name: (spec.kind, spec.target) for spec in signature.input_specs if hasattr(spec.arg, "name")}
    for node in exported.graph.nodes:
        if node.op != "placeholder":
            continue
        kind, target = targets.get(node.name, (InputKind.USER_INPUT, None))
        known = node.meta.get("val")
        if not isinstance(known, torch.Tensor):
            memory.bind(node, known)
            continue
        dtype, shape = dtype_name(known.dtype), known.shape
        if kind is InputKind.USER_INPUT:
            value = builder.leaf(node.name, "input", shape, dtype)
        elif kind is InputKind.PARAMETER:
            value = builder.leaf(str(target), "parameter", shape, dtype)
        elif kind is InputKind.BUFFER:
            value = builder.leaf(str(target), "buffer", shape, dtype)
        else:
            constant = exported.constants[str(target)]
            if not isinstance(constant, torch.Tensor):
                raise InvalidInput(f"{name} uses an object of class {type(constant).__name__} as a constant")
            value = builder.leaf(str(target), "constant", shape, dtype, constant.detach().cpu().numpy())
        memory.bind(node, value)
    results = _run(exported.graph_module, builder, memory)
    paths = _output_paths(exported)
    user = [r for r, s in zip(results, signature.output_specs, strict=True) if s.kind is OutputKind.USER_OUTPUT]
    outputs = {path: value for path, value in zip(paths, user, strict=True) if isinstance(value, Value)}
    return builder.program(name, "torch", outputs, modules)


def _output_paths(exported: torch.export.ExportedProgram) -> list[str]:
    """A path per output in the order of the graph: keys and places joined by dots; ``""`` for a lone tensor."""
    spec = exported.call_spec.out_spec
    assert spec is not None
    leaves = list(range(spec.num_leaves))
    keyed, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(leaves, spec))
    return [".".join(str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path)
            for path, _ in keyed]  # fmt: skip


def _run(graph: fx.GraphModule, builder: Builder, memory: Memory) -> list[Any]:
    """Write the calls of a graph; returns what its output node holds."""
    for node in graph.graph.nodes:
        if node.op == "call_function":
            builder.origin = _origin(node, builder.origin)
            _call(graph, node, builder, memory)
        elif node.op == "get_attr":
            memory.bind(node, getattr(graph, node.target))
        elif node.op == "output":
            held: Any = lambda n: _Held(memory.read(n, builder))  # noqa: E731 - map_arg's own type is narrower
            found: Any = fx.node.map_arg(node.args[0], held)
            return [x.value if isinstance(x, _Held) else x for x in found]
    return []


class _Held:
    """Keeps fx from walking into what a node stands for."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _call(graph: fx.GraphModule, node: fx.Node, builder: Builder, memory: Memory) -> None:
    name = name_of(node.target)
    if name == "getitem":
        source, index = node.args
        assert isinstance(source, fx.Node)
        assert isinstance(index, int)
        memory.part(node, source, index)
        return
    if name in ("wrap_with_set_grad_enabled", "wrap_with_autocast"):
        _inline(graph, node, builder, memory, name)
        return
    in_place = name.endswith("_") and not name.endswith("__") and name.rstrip("_") in READERS
    reader = READERS.get(name.rstrip("_") if in_place else name)
    if reader is None:
        raise InvalidInput(f"operator {node.target} has no translation yet: {builder.origin}")
    call = Call(node, builder, lambda n: memory.read(n, builder))
    try:
        call.read_operands()
        start = len(builder.nodes)
        result = reader(call)
    except Unreadable as error:
        raise InvalidInput(f"operator {node.target} {error}: {builder.origin}") from None
    result = _typed(node, result, builder)
    target = node.args[0] if node.args else None
    if in_place and isinstance(target, fx.Node):
        memory.write(target, result, builder)
        memory.alias(node, target)
    else:
        memory.bind(node, result, builder.nodes[start:])


def _inline(graph: fx.GraphModule, node: fx.Node, builder: Builder, memory: Memory, name: str) -> None:
    modules = [arg for arg in node.args if isinstance(arg, fx.Node) and arg.op == "get_attr"]
    if name == "wrap_with_autocast" and bool(node.args[2]):
        raise InvalidInput(f"autocast inside of a model has no translation yet: {builder.origin}")
    inner = getattr(graph, str(modules[0].target))
    operands = node.args[node.args.index(modules[0]) + 1 :]
    placeholders = [n for n in inner.graph.nodes if n.op == "placeholder"]
    for placeholder, operand in zip(placeholders, operands, strict=True):
        assert isinstance(operand, fx.Node)
        memory.alias(placeholder, operand)
    memory.bind(node, tuple(_run(inner, builder, memory)))


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


def _origin(node: fx.Node, before: Origin) -> Origin:
    stack = node.meta.get("nn_module_stack", {})
    if not stack:
        return before
    # A key ends in @n in the call after n others.
    calls = tuple(path + key[key.rfind("@") :] * ("@" in key) for key, (path, _) in stack.items())
    path, cls = list(stack.values())[-1]
    kind = cls if isinstance(cls, str) else cls.__name__
    frame = _user_frame(node.meta.get("stack_trace") or "")
    file, line = frame or (None, None)
    return Origin(path, kind.rpartition(".")[2], file, line, calls)


def dtype_name(dtype: torch.dtype) -> str:
    """NumPy's name of a torch type."""
    return str(dtype).removeprefix("torch.")
