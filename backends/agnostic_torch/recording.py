"""Runs of torch modules, recorded at the dispatcher; see :mod:`agnostic.contracts.recording`.

While a run is recorded, what torch fuses by itself is off: the fast path of attention, oneDNN (whose LSTM is one opaque
operator without float64) and fused attention. ``linear`` is one operator, whatever torch makes of it for the memory at
hand.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import _VF, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from agnostic.errors import InvalidInput
from agnostic.patching import Replacement, held, patched
from agnostic.program.nodes import Array, Leaf, Node, Program, Role, Value, map_values
from agnostic.program.runs import LayerRun, Run
from agnostic.program.vocabulary import operators
from agnostic_torch import calls, values
from agnostic_torch.aliases import GATHER, SCATTER, Aliases, gathered
from agnostic_torch.exact import exact, tensor
from agnostic_torch.layers import check_initialized, unwrap
from agnostic_torch.lowering import OWN, lowered
from agnostic_torch.taps import leaves, without_fast_attention

LINEAR = "aten.linear.default"
RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
"""Functions that run layers of a recurrent network, which are one operator here."""

_HALVES = ("float16", "bfloat16")
_EMPTY = ("empty", "new_empty", "empty_like", "empty_strided")


def obstacle(model: nn.Module) -> str | None:
    """See :meth:`agnostic.contracts.recording.Recordings.obstacle`."""
    if isinstance(unwrap(model), torch.jit.ScriptModule):
        return "a scripted module runs outside of Python: compare the module that it was made from"
    if any(x.is_quantized or x.layout != torch.strided for x in unwrap(model).state_dict().values() if _is_tensor(x)):
        return "quantized and sparse tensors have no float64"
    return None


def record(model: nn.Module, inputs: Any) -> Run:
    """See :meth:`agnostic.contracts.recording.Recordings.record`."""
    model = unwrap(model)
    check_initialized(model)
    names = {id(module): name for name, module in model.named_modules()}
    recorder = OperatorRecorder(type(model).__name__, "torch", {n: type(m).__name__ for n, m in model.named_modules()})
    for name, parameter in model.named_parameters():
        recorder.leaf(parameter, name, "parameter")
    for name, buffer in model.named_buffers():
        recorder.leaf(buffer, name, "buffer")

    def call(original: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return recorder.layer(names.get(id(module)), lambda *a, **k: original(module, *a, **k), module, args, kwargs)

    with patched([(nn.Module, "__call__", call)]), recorder.recording():
        run = recorder.run(calls.returned(model, inputs))
    return lowered(run, computed)


class OperatorRecorder:
    """Writes down operators, and names the values that they give.

    Args:
        name, framework, modules: as in :class:`agnostic.program.nodes.Program`.

    """

    def __init__(self, name: str, framework: str, modules: Mapping[str, str]) -> None:
        self._path: list[tuple[str, str]] = []  # of the layers that run: their paths and class names
        self._about = name, framework, modules
        self._calls: list[LayerRun] = []
        self._numbers: dict[str, int] = {}
        self._aliases = Aliases(self._emit)
        self._nodes: list[Node] = []
        self._leaves: list[Leaf] = []
        self._arrays: dict[Value, Array] = {}
        self._drawn: list[Value] = []
        self._notes: dict[str, None] = {}
        self._count = 0
        self._paused = True  # until the model is called: its inputs are prepared before

    # Leaves ----------------------------------------------------------------------------------------------------------
    def leaf(self, x: Tensor, name: str, role: Role) -> Value:
        """A tensor that the run starts from; one that shares all of its memory with an earlier leaf is that leaf."""
        known = self._aliases.read(x)
        if known is not None and role != "input":
            return known
        value = self._value(x)
        array = np.array(values.to_numpy(x), copy=role != "parameter")
        self._leaves.append(Leaf(name, role, value))
        self._arrays[value] = array
        self._aliases.bind(x, value)
        return value

    def given(self, inputs: Any) -> None:
        """What the model was called with; from here on, operators are written down."""
        for k, x in enumerate(leaves(inputs)):
            self.leaf(x, f"input_{k}", "input")
        self._paused = False

    def layer(self, name: str | None, run: Callable[..., Any], of: Any, args: Any, kwargs: Any) -> Any:
        """Run a layer; what it runs is its own. With the outermost one, which is the model, all begins and ends.

        Args:
            name: its path; None for one that belongs to the layer around it.
            run: runs it.
            of: the layer.
            args, kwargs: what it is called with.
        """
        outermost = not self._path
        self._path.append((self._path[-1][0] if name is None and self._path else name or "", type(of).__name__))
        try:
            if outermost:
                self.given((args, kwargs))
            received = self._named((args, kwargs))
            result = run(*args, **kwargs)
            if name and not self._paused:
                number = self._numbers.get(name, 0)
                self._numbers[name] = number + 1
                self._calls.append(LayerRun(name, number, received, self._named(result)))
            return result
        finally:
            self._path.pop()
            if outermost:  # what follows is no part of the model
                self._paused = True

    def _named(self, arrays: Any) -> tuple[Value, ...]:
        """The values of those tensors that have any."""
        with self.paused():
            return tuple(x for x in map(self._aliases.read, leaves(arrays)) if x is not None)

    # Operators -------------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Inside, each operator is written down."""
        with (
            without_fast_attention(),
            held("torch.backends.mkldnn", _without_onednn),
            held("torch.backends.cudnn", lambda: torch.backends.cudnn.flags(enabled=True, allow_tf32=False)),
            sdpa_kernel(SDPBackend.MATH),
            patched([(nn.functional, "linear", self.linear), *self._layers()]),
            _Functions(self),
            _Operators(self),
        ):
            yield

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, nothing is written down."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    @property
    def is_paused(self) -> bool:
        """Whether nothing is written down."""
        return self._paused

    def call(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run an operator of the dispatcher, and write it down."""
        with self.paused():
            operands, attributes, written = self._bound(function, args, kwargs)
            result = function(*args, **kwargs)
            if function.overloadpacket is torch.ops.aten.as_strided:
                return result  # its result is found by the memory that it shows
            self._given(str(function), operands, attributes, list(leaves(result)), written,
                        drawn=torch.Tag.nondeterministic_seeded in function.tags)  # fmt: skip
        return result

    def linear(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Run F.linear as one operator."""
        if self._paused or not isinstance(args[0], Tensor):
            return function(*args, **kwargs)
        with self.paused():
            given = dict(zip(("input", "weight", "bias"), args, strict=False)) | dict(kwargs)
            operands = tuple(self._operand(given.get(k)) for k in ("input", "weight", "bias"))
            result = function(*args, **kwargs)
            self._given(LINEAR, operands, {}, [result], [], drawn=False)
        return result

    def recurrent(self, name: str, function: Any, *args: Any) -> Any:
        """Run the layers of an LSTM, a GRU or an RNN as one operator; packed sequences run step by step."""
        is_packed, drops = isinstance(args[3], list | tuple), args[5] and args[6]
        if self._paused or is_packed or drops:
            return function(*args)
        with self.paused():
            operands, attributes, _ = self._bound(getattr(torch.ops.aten, name).input, args, {})
            result = function(*args)
            self._given(f"aten.{name}.input", operands, attributes, list(leaves(result)), [], drawn=False)
        return result

    def _layers(self) -> list[tuple[Any, str, Replacement]]:
        return [(_VF, name, functools.partial(self.recurrent, name)) for name in RECURRENT]

    def note(self, sentence: str) -> None:
        """What the record does not hold."""
        self._notes[sentence] = None

    def _bound(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Any, list[Tensor]]:
        """The operands and attributes of a call by its schema, and the tensors that it writes to."""
        operands: list[Any] = []
        attributes: dict[str, Any] = {}
        written: list[Tensor] = []
        for k, argument in enumerate(function._schema.arguments):
            name = argument.name
            given = args[k] if k < len(args) else kwargs.get(name, argument.default_value)
            if "Tensor" in str(argument.type):
                operands.append(self._operand(given))
                if argument.alias_info is not None and argument.alias_info.is_write:
                    written += leaves(given)
            elif name != "generator":
                attributes[name] = _plain(given)
        return tuple(operands), attributes, written

    def _operand(self, x: Any) -> Any:
        if isinstance(x, Tensor):
            found = self._aliases.read(x)
            return found if found is not None else self.leaf(x, f"constant_{self._count}", "constant")
        if isinstance(x, list | tuple):
            return tuple(map(self._operand, x))
        return x

    def _given(self, name: str, operands: Any, attributes: Any, results: list[Tensor], written: list[Tensor],
               *, drawn: bool) -> None:  # fmt: skip
        fresh = [x for x in results if not any(x is y for y in written)]
        found = [self._value(x) for x in (*fresh, *written)]
        for x, value in zip(fresh, found, strict=False):
            self._aliases.bind(x, value)
        for x, value in zip(written, found[len(fresh) :], strict=True):
            self._aliases.write(x, value)
        self._add(name, operands, attributes, found)
        if drawn:
            self._drawn += found
            for x, value in zip((*fresh, *written), found, strict=True):
                self._arrays[value] = np.array(values.to_numpy(x))

    def _emit(self, name: str, operands: tuple[Any, ...], attributes: dict[str, Any], like: Tensor) -> Value:
        value = self._value(like)
        self._add(name, operands, attributes, [value])
        return value

    def _add(self, name: str, operands: Any, attributes: Any, found: list[Value]) -> None:
        module, kind = self._path[-1] if self._path else ("", "")
        file, line = _user_line()
        self._nodes.append(Node(name, operands, attributes, tuple(found), module, kind, file, line))

    def _value(self, x: Tensor) -> Value:
        self._count += 1
        return Value(self._count, tuple(x.shape), str(x.dtype).removeprefix("torch."))

    # The end ---------------------------------------------------------------------------------------------------------
    def run(self, outputs: Sequence[Tensor]) -> Run:
        """All of it, with what the model returned."""
        with self.paused():
            named = {("" if len(outputs) == 1 else str(k)): x for k, x in enumerate(outputs)}
            paths = tuple((path, self._operand(x)) for path, x in named.items())
            arrays = {path: np.array(values.to_numpy(x)) for path, x in named.items()}
        name, framework, modules = self._about
        program = Program(name, framework, tuple(self._leaves), tuple(self._nodes), paths, modules)
        return Run(program, self._arrays, frozenset(self._drawn), arrays, tuple(self._notes), tuple(self._calls))


@contextlib.contextmanager
def _without_onednn() -> Iterator[None]:
    # Not by torch.backends.mkldnn.flags, which sets TF32 as well, and warns where there is none.
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


class _Operators(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # True would import torch._dynamo with the first operation: seconds, and triton, beside which tensorflow aborts.
        return False

    def __init__(self, recorder: OperatorRecorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return function(*args, **kwargs) if self.recorder.is_paused else self.recorder.call(function, args, kwargs)


class _Functions(TorchFunctionMode):
    def __init__(self, recorder: OperatorRecorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.recorder.is_paused and function in (Tensor.numpy, Tensor.tolist, Tensor.item, Tensor.__array__):
            self.recorder.note("numbers leave torch inside of the model (numpy, item or tolist)")
        return function(*args, **kwargs)


def _is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor)


def _plain(x: Any) -> Any:
    """An argument that is no tensor, in words that JSON can carry."""
    if isinstance(x, torch.dtype):
        return str(x).removeprefix("torch.")
    if isinstance(x, list | tuple):
        return tuple(map(_plain, x))
    return x if isinstance(x, bool | int | float | complex | str | None) else f"{type(x).__name__} {x}"


_FOREIGN = tuple(
    f"{os.sep}{x}{os.sep}" for x in ("torch", "keras", "agnostic_torch", "agnostic_keras", "contextlib.py")
)


def _user_line() -> tuple[str | None, int | None]:
    """The innermost line of the run that is no framework's; None where the framework called the operator by itself."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code is not calls.returned.__code__:
        file = frame.f_code.co_filename
        if not any(x in file for x in _FOREIGN) and not file.startswith("<"):
            return (file, frame.f_lineno) if f"{os.sep}agnostic{os.sep}" not in file else (None, None)
        frame = frame.f_back
    return None, None


# Again, in float64 ---------------------------------------------------------------------------------------------------
def evaluates(operator: str) -> bool:
    """See :meth:`agnostic.contracts.recording.Recordings.evaluates`."""
    if operator in (GATHER, SCATTER) or operator in operators():
        return True
    namespace, _, name = operator.partition(".")
    packet, _, overload = name.rpartition(".")
    found = getattr(getattr(torch.ops.aten, packet, None), overload, None) if namespace == "aten" and packet else None
    # A stranger's record must not reach files: no operator on arrays takes the name of one.
    return found is not None and not any(x.name == "filename" for x in found._schema.arguments)


def evaluate(node: Node, operands: Sequence[Any]) -> tuple[Array, ...]:
    """See :meth:`agnostic.contracts.recording.Recordings.evaluate`."""
    return computed(node, operands) if node.operator.startswith((OWN, "view.")) else exact(node, operands)


def computed(node: Node, operands: Sequence[Any]) -> tuple[Array, ...]:
    """What an operator of the dispatcher gives in float64.

    Raises:
        InvalidInput: it does not take such operands.
    """
    name = node.operator
    given = [map_arrays(x) for x in operands]
    if name in (GATHER, SCATTER):
        shape = node.attributes.get("shape")
        return (_numpy(gathered(name, tuple(given), node.attributes["places"], shape)),)
    _, operator, overload = name.split(".")
    if operator in _EMPTY:  # what was in that memory is overwritten before it is read
        shape = node.outputs[0].shape
        return (np.zeros(shape, _wide(node.outputs[0].dtype)),)
    try:
        with torch.no_grad(), _without_onednn():
            return _computed(node, operator, overload, given)
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
        raise InvalidInput(f"{name} does not take these operands: {str(error).splitlines()[0][:200]}") from error


def _computed(node: Node, operator: str, overload: str, given: list[Any]) -> tuple[Array, ...]:
    attributes = dict(node.attributes)
    if operator in ("view", "_unsafe_view", "reshape") and overload == "default":
        return (_numpy(given[0].reshape(_shape(given[0], attributes))),)
    if operator == "view" and overload == "dtype":
        narrow = given[0].to(getattr(torch, _type(node.operands[0])))
        return (_numpy(narrow.view(getattr(torch, attributes["dtype"]))),)
    if operator == "_to_copy" and attributes["dtype"] in _HALVES:
        return (_numpy(given[0].to(getattr(torch, attributes["dtype"]))),)
    function: Any = torch.ops
    for part in node.operator.split("."):
        function = getattr(function, part)
    args, kwargs, written = _arguments(function, given, attributes)
    results = function(*args, **kwargs)
    fresh = [x for x in leaves(results) if not any(x is y for y in written)]
    return tuple(_numpy(x) for x in (*fresh, *written))


def _arguments(function: Any, given: list[Any], attributes: dict[str, Any]) -> tuple[list[Any], dict[str, Any], Any]:
    """The arguments of an operator by its schema; what it writes to is a copy."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    written: list[Tensor] = []
    rest = iter(given)
    for argument in function._schema.arguments:
        if "Tensor" in str(argument.type):
            x = next(rest)
            if argument.alias_info is not None and argument.alias_info.is_write:
                x = [y.clone() for y in x] if isinstance(x, list | tuple) else x.clone()
                written += leaves(x)
        elif argument.name == "generator":
            continue
        else:
            x = _native(argument.name, attributes.get(argument.name, argument.default_value))
        if argument.kwarg_only:
            kwargs[argument.name] = x
        else:
            args.append(x)
    return args, kwargs, written


def _native(name: str, x: Any) -> Any:
    if name in ("device", "layout", "memory_format", "pin_memory", "out_dtype"):
        return None
    if name in ("dtype", "self_dtype", "other_dtype") and isinstance(x, str):
        return getattr(torch, _wide(x))
    return list(x) if isinstance(x, tuple) else x


def _shape(x: Tensor, attributes: Mapping[str, Any]) -> Any:
    return list(attributes.get("size", attributes.get("shape", ())))


def map_arrays(x: Any) -> Any:
    """Arrays as tensors, floating point ones in float64."""
    if isinstance(x, np.ndarray | np.generic):
        array = np.asarray(x)
        return tensor(array.astype(_wide(array.dtype.name), copy=False))
    return [map_arrays(y) for y in x] if isinstance(x, tuple | list) else x


def _numpy(x: Tensor) -> Array:
    found: Array = values.to_numpy(x)
    return found.astype(_wide(found.dtype.name), copy=False)


def _wide(dtype: str) -> str:
    """The type in which a replay holds numbers of a type."""
    if dtype.startswith("complex"):
        return "complex128"
    return "float64" if dtype.startswith(("float", "bfloat")) else dtype


def _type(operand: Any) -> str:
    found: list[str] = []
    map_values(operand, lambda value: found.append(value.dtype))
    return found[0]
