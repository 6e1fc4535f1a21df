"""Taps by forward hooks, on any torch module.

A record must hold what a layer returned, and a run should end after the last wanted layer. Neither can be known from
the module alone: a function may change an array in place after the layer, and a layer may be called again. So the first
run for inputs of a certain shape is a whole one, watched closely; what it teaches (a :class:`Plan`) makes the next ones
cheap. A plan is used only while nothing has changed that could change the order of the calls: the modules and their
plain attributes, the shapes of the inputs; and a run is cut short only if no computed value decided what ran next, and
the model keeps no account of its runs.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import itertools
import random
import sys
import threading
import types
import typing
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from agnostic.arrays import of_numbers
from agnostic.errors import InvalidInput
from agnostic.layers import Layer
from agnostic.patching import held
from agnostic.taps.records import Activations
from agnostic.text import counted
from agnostic_torch import values
from agnostic_torch.layers import Listing, named_layers, tree, unwrap

Recorded = dict[str, list[Any]]


class _Stop(BaseException):
    """Ends a run after the last wanted layer; a BaseException, so that a model's own handlers let it pass."""

    def __init__(self, run: _Run) -> None:
        self.run = run


# Nested structures ---------------------------------------------------------------------------------------------------
def leaves(value: Any) -> Iterator[Tensor]:
    """The tensors in tuples, lists, dicts, named tuples and dataclasses, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from leaves(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name, None))


def _mapped(function: Callable[[Tensor], Any], value: Any) -> Any:
    """The same structure with ``function`` of each tensor; containers that can be changed are copied."""
    changed: Any
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        if type(value) is dict:
            return {key: _mapped(function, item) for key, item in value.items()}
        # Subclasses keep their type and attributes: OrderedDict, and the outputs of model libraries.
        changed = copy.copy(value)
        for key, item in value.items():
            changed[key] = _mapped(function, item)
        return changed
    if isinstance(value, tuple):
        items = [_mapped(function, item) for item in value]
        if all(a is b for a, b in zip(items, value, strict=True)):
            return value
        # _make, since a named tuple may have a constructor of its own (PackedSequence has).
        return type(value)._make(items) if hasattr(value, "_make") else type(value)(items)
    if isinstance(value, list):
        return [_mapped(function, item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = copy.copy(value)
        for field in dataclasses.fields(value):
            if hasattr(value, field.name):
                object.__setattr__(changed, field.name, _mapped(function, getattr(value, field.name)))
        return changed
    return value


def to_numpy(value: Any) -> Any:
    """The same structure with NumPy arrays, see :func:`agnostic_torch.values.to_numpy`."""
    return _mapped(values.to_numpy, value)


# Inputs --------------------------------------------------------------------------------------------------------------
def devices_of(model: nn.Module) -> set[torch.device]:
    """Where the weights and buffers of a model are."""
    return {x.device for x in itertools.chain(model.parameters(), model.buffers())}


def _native(model: nn.Module, value: Any, devices: set[torch.device]) -> Any:
    """Arrays on the model's device, NumPy's as tensors and, floating point ones, in its type; all else as it is.

    Args:
        devices: of the model, which tensors are moved to.
    """
    if isinstance(value, Tensor):
        return _moved(value, devices)
    if isinstance(value, np.ndarray):
        first = next(model.parameters(), torch.empty(0))
        if first.is_cuda and value.flags.c_contiguous and value.flags.writeable:
            tensor = torch.from_numpy(of_numbers(value))
            # From page-locked memory the processor need not wait; see agnostic_torch.copies.
            tensor = tensor.to(first.device, non_blocking=tensor.is_pinned())
        else:
            tensor = torch.from_numpy(np.array(of_numbers(value), order="C")).to(first.device)
        return tensor.to(first.dtype) if tensor.is_floating_point() else tensor
    if type(value) in (tuple, list):
        return type(value)(_native(model, item, devices) for item in value)
    if type(value) is dict:
        return {key: _native(model, item, devices) for key, item in value.items()}
    return value


def _moved(tensor: Tensor, devices: set[torch.device]) -> Tensor:
    """A tensor on the model's device; as it is for a model that has several, which moves its arrays by itself."""
    if len(devices) != 1 or tensor.device in devices:
        return tensor
    if tensor.is_meta:
        raise InvalidInput("the input is on the device 'meta', where it has no values: give one that has them")
    return tensor.to(next(iter(devices)))


def _arguments(
    model: nn.Module, inputs: Any, devices: set[torch.device] | None = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments: of a tuple, of a dict, or of one input.

    Args:
        devices: of the model, where they are known.
    """
    inputs = _native(model, inputs, devices_of(model) if devices is None else devices)
    if isinstance(inputs, tuple):
        return inputs, {}
    if type(inputs) is dict and all(isinstance(key, str) for key in inputs) and not _takes_one_dict(model, inputs):
        return (), inputs
    return (inputs,), {}


def _takes_one_dict(model: nn.Module, inputs: dict[str, Any]) -> bool:
    """Whether a model cannot be called with these names, and can with the dict as its one input."""
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):  # no Python function
        return False
    parameters = [x for x in signature.parameters.values() if x.kind is not x.VAR_POSITIONAL]
    if any(x.name in inputs or x.kind is x.VAR_KEYWORD for x in parameters):
        return False
    return sum(x.default is x.empty and x.kind is not x.KEYWORD_ONLY for x in parameters) == 1


# Records that nothing changes afterwards -----------------------------------------------------------------------------
class _Kept:
    """One recorded output or input: the tensors themselves, and what is needed should they be changed in place."""

    def __init__(self, value: Any, given: tuple[Any, ...], copies: bool) -> None:
        """Keep ``value``; ``passed`` is what the model must go on with.

        Args:
            value: what the layer returned, or was called with.
            given: what the layer was called with: an output that shares memory with it must reach the model itself.
            copies: keep copies, because a later change in place is expected or not excluded.
        """
        # A list or dict may be changed by the model after the layer as well.
        self._value = _mapped(_same, value)
        self._seen: list[Tensor] = list(leaves(value))
        self._backups: list[Tensor | None] = [None] * len(self._seen)
        self.passed = value
        if copies:
            shared = {_memory(x) for x in leaves(given)}
            for i, tensor in enumerate(self._seen):
                if _is_fresh(tensor) and _memory(tensor) not in shared and _is_immutable(value):
                    # The model goes on with a copy, so that the record is what the model's output depends on, and
                    # gradients with respect to it can be asked for.
                    self._seen[i] = values.copied(tensor)
                else:
                    self._backups[i] = values.copied(tensor)
            if any(a is not b for a, b in zip(self._seen, leaves(value), strict=True)):
                replacements = iter(self._seen)
                self.passed = _mapped(lambda _: next(replacements), value)
        self._versions = [_version(x) for x in self._seen]

    @property
    def spoiled(self) -> bool:
        """Whether a tensor was changed in place after the layer, or may have been."""
        return any(v is None or _version(x) != v for x, v in zip(self._seen, self._versions, strict=True))

    @property
    def value(self) -> Any:
        """What was kept, as it was then."""
        chosen = iter(
            backup if backup is not None and (v is None or _version(x) != v) else None
            for x, v, backup in zip(self._seen, self._versions, self._backups, strict=True)
        )
        return _mapped(lambda x: x if (backup := next(chosen)) is None else backup, self._value)


def _same(x: Tensor) -> Tensor:
    return x


def _is_immutable(value: Any) -> bool:
    """Whether nobody could tell a structure from one with equal tensors in it."""
    return all(map(_is_immutable, value)) if isinstance(value, tuple) else value is None or isinstance(value, Tensor)


def _version(tensor: Tensor) -> int | None:
    """Counts changes in place, of all views of the same memory together; None where nobody counts."""
    return None if tensor.is_inference() else tensor._version


def _is_fresh(tensor: Tensor) -> bool:
    """Whether a tensor is the result of a differentiable operation, and not a view of something else."""
    return torch.is_grad_enabled() and tensor.grad_fn is not None and tensor._base is None


def _memory(tensor: Tensor) -> int:
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse tensors and wrappers have no storage
        return id(tensor)


# What one whole run teaches ------------------------------------------------------------------------------------------
@dataclasses.dataclass
class Plan:
    """What a whole run taught, for inputs of one shape.

    Attributes:
        layers: in the order in which they first ran, with shapes and axes.
        calls: how often each layer ran.
        fixed: whether the same calls come again: no computed value and no random number decided what ran, and the
            model's attributes are the same after the run as before.
        spoiled: for a set of taps, those whose tensors are changed in place before the run ends: (event, which call).
        harmless: the sets of taps after which the model was cut short and its attributes were as before.
    """

    layers: list[Layer]
    calls: Mapping[str, int]
    fixed: bool
    spoiled: dict[Events, frozenset[tuple[Event, int]]] = dataclasses.field(default_factory=dict)
    harmless: set[Events] = dataclasses.field(default_factory=set)


Event = tuple[str, bool]
"""A layer's name, and whether its inputs (True) or its outputs (False) are meant."""
Events = frozenset[Event]

_PLANS_PER_MODEL = 16
_plans: weakref.WeakKeyDictionary[nn.Module, OrderedDict[Hashable, Plan]] = weakref.WeakKeyDictionary()
_plans_lock = threading.Lock()
_PLAIN = frozenset({int, bool, float, str, type(None), types.FunctionType, types.MethodType})
_NESTED = frozenset({tuple, list, dict})
STANDARD = frozenset(vars(nn.Module()))
"""The attributes that every module has: what of them matters is looked at otherwise, or is the user's hooks."""


def _state(model: nn.Module) -> Hashable:
    """All that decides what runs, apart from the inputs: the modules, and their attributes that are plain values."""
    state: list[Any] = []
    for module in model.modules():
        attributes = vars(module)
        state += (type(module), *((name, id(child)) for name, child in module._modules.items()))
        state += [value for value in attributes.values() if type(value) in _PLAIN]
        own = [value for name, value in attributes.items() if name not in STANDARD]
        state += [_plain(value) for value in own if type(value) in _NESTED]
    return tuple(state)


def _plain(value: Any) -> Hashable:
    """Plain values by value, all others by identity."""
    if type(value) in _PLAIN:
        plain: Hashable = value
        return plain
    if type(value) is dict:
        return tuple((_plain(key), _plain(item)) for key, item in value.items())
    return tuple(map(_plain, value)) if type(value) in (tuple, list) else id(value)


def _signature(value: Any) -> Hashable:
    """Structure, shapes and types of inputs, and the values of what is no tensor."""
    if isinstance(value, Tensor):
        return (tuple(value.shape), value.dtype, value.device)
    if isinstance(value, Mapping):
        return (type(value), tuple((key, _signature(item)) for key, item in value.items()))
    if isinstance(value, tuple | list):
        return (type(value), tuple(_signature(item) for item in value))
    return (type(value), value)


def _known(model: nn.Module, key: Hashable) -> Plan | None:
    with _plans_lock:
        plans = _plans.get(model)
        if plans is None or key not in plans:
            return None
        plans.move_to_end(key)
        return plans[key]


def _last_layers(model: nn.Module) -> list[Layer] | None:
    """The layers as the last whole run saw them, if there was one."""
    with _plans_lock:
        return next((plan.layers for plan in reversed(_plans.get(model, {}).values())), None)


def _remember(model: nn.Module, key: Hashable | None, plan: Plan) -> None:
    if key is None:
        return
    with _plans_lock:
        plans = _plans.setdefault(model, OrderedDict())
        plans[key] = plan
        while len(plans) > _PLANS_PER_MODEL:
            plans.popitem(last=False)


class _ValuesAsked(TorchDispatchMode):
    """Notices operations that hand a computed value, or a shape that depends on one, to Python; tells of all."""

    asked = False

    def __init__(self, operator: Callable[[Any, Sequence[Any], Mapping[str, Any], Any], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operator = operator

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # True would import torch._dynamo with the first operation: 4 seconds, and triton, beside which tensorflow
        # aborts.
        return False

    _TAGS = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Operators that call functions (conditions, loops) have no tags and may do anything.
        if self._TAGS.intersection(getattr(func, "tags", self._TAGS)):
            self.asked = True
        result = func(*args, **(kwargs or {}))
        self._operator(func, args, kwargs or {}, result)
        return result


class _ValuesTaken(TorchFunctionMode):
    """Notices methods that hand values to Python without an operation."""

    taken = False
    _METHODS = frozenset({Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__dlpack__})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self._METHODS:
            self.taken = True
        return func(*args, **(kwargs or {}))


def _drawn() -> Hashable:
    """Changes when a random number is drawn from a generator whose numbers reach Python unseen; torch's are seen."""
    _, key, *position = np.random.get_state()  # noqa: NPY002 - read only, to see whether the model drew from it
    return (random.getstate(), np.asarray(key).tobytes(), *position)


# Runs ----------------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def hooks() -> Iterator[list[Any]]:
    """A list for handles of hooks, all removed at the end."""
    handles: list[Any] = []
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def without_fast_attention() -> Iterator[None]:
    """Inside, nn.TransformerEncoder and its layers call the layers in them, also in evaluation mode.

    Otherwise one fused kernel does their work: no layer inside is called, and nested tensors take the place of padded
    ones. The setting belongs to the process, and several threads and abandoned generators may be inside at once.
    """
    with held("torch.backends.mha", _without_fast_attention):
        yield


@contextlib.contextmanager
def _without_fast_attention() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """Inside, a model runs as it was written, layer by layer: compiled code calls no hooks that came later."""
    # Where the compiler was never loaded, nothing is compiled.
    loaded = "torch._dynamo" in sys.modules
    stance = held("torch.compiler", lambda: torch.compiler.set_stance("force_eager"))
    with without_fast_attention(), stance if loaded else contextlib.nullcontext():
        yield


class _Run:
    """One forward pass that records."""

    def __init__(self, modules: Mapping[str, nn.Module], events: Sequence[Event], plan: Plan | None) -> None:
        self.kept: dict[Event, list[_Kept]] = {event: [] for event in events}
        self.cut = False
        self._modules = modules
        self._thread = threading.get_ident()
        self._left = -1
        self._spoiled: frozenset[tuple[Event, int]] | None = None
        if plan is not None and plan.fixed and all(plan.calls.get(name) for name, _ in events):
            self._left = sum(plan.calls[name] for name, _ in events)
            self._spoiled = plan.spoiled.get(frozenset(events))

    def hook(self, handles: list[Any]) -> None:
        for event in self.kept:
            name, of_inputs = event
            module = self._modules[name]
            if of_inputs:
                handles.append(module.register_forward_pre_hook(self._before(event), with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(self._after(event), with_kwargs=True))

    def _before(self, event: Event) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, *rest: Any) -> None:
            if threading.get_ident() == self._thread:
                (kwargs,) = rest
                self._keep(event, (args, kwargs), (args, kwargs))

        return hook

    def _after(self, event: Event) -> Callable[..., Any]:
        # Another thread may run the same model meanwhile; and if this one removes the hook while that one is on its way
        # to call it, it is called without kwargs.
        def hook(module: nn.Module, args: Any, *rest: Any) -> Any:
            if threading.get_ident() != self._thread:
                return None
            kwargs, output = rest
            passed = self._keep(event, output, (args, kwargs))
            return None if passed is output else passed

        return hook

    def _keep(self, event: Event, value: Any, given: Any) -> Any:
        self._left -= 1
        kept = self.kept[event]
        copies = self._left != 0 and (self._spoiled is None or (event, len(kept)) in self._spoiled)
        kept.append(_Kept(value, given, copies))
        if self._left == 0:
            raise _Stop(self)
        return kept[-1].passed

    def spoiled(self) -> frozenset[tuple[Event, int]]:
        """Which records were changed in place after they were taken."""
        return frozenset((event, i) for event, kept in self.kept.items() for i, one in enumerate(kept) if one.spoiled)

    @property
    def trusted(self) -> bool:
        """Whether every record that was changed in place was copied before."""
        return self._spoiled is None or self.spoiled() <= self._spoiled


class TapRecorder:
    """Records what named layers return, or are called with, and stops the model after the last of them.

    Prepared once, called often: made for loops. The modules and attributes of the model must stay as they are between
    the calls; its weights and its mode (train, eval) may change, and are left to the caller, as is the gradient mode.
    The first call for inputs of a new shape runs the whole model; see the module's docstring.

    Gradients flow if they are enabled: the model's output depends on the records, so that the gradient of either can be
    asked for. (The exception: an output that shares memory with the layer's input and is changed in place later is
    recorded as a copy beside the model's own path.)
    """

    def __init__(self, model: nn.Module, outputs: Sequence[str] = (), inputs: Sequence[str] = ()) -> None:
        """Prepare.

        Args:
            model: not a wrapper, see :func:`agnostic_torch.layers.unwrap`.
            outputs: layers whose outputs are recorded.
            inputs: layers whose inputs are recorded, as ``(args, kwargs)``.
        """
        self._model = model
        self._modules = named_layers(model)
        self._events = [*((name, False) for name in outputs), *((name, True) for name in inputs)]
        self._set = frozenset(self._events)
        self._state = _state(model)
        self.partial: list[Layer] = []
        """After a run that failed: the layers as far as it came."""

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Recorded, Recorded]:
        """(outputs, inputs) by layer name, one record a call; no record for a layer that did not run."""
        record, _ = self.run(args, kwargs)
        return record

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Recorded, Recorded], Plan]:
        """As :meth:`__call__`, with the plan that was followed or made."""
        modes = (torch.is_grad_enabled(), *(module.training for module in self._modules.values()))
        key: Hashable | None = (self._state, modes, _signature(args), _signature(kwargs))
        try:
            plan = _known(self._model, key)
        except TypeError:  # an argument that has no hash
            key = plan = None
        if plan is not None and not self._events:
            return ({}, {}), plan
        before = None if plan is None or self._set in plan.harmless else _state(self._model)
        done, plan = self._run(args, kwargs, plan, key)
        if done.cut and before is not None:
            if _state(self._model) == before:
                plan.harmless.add(self._set)
            else:
                # The model keeps an account of its runs that it sets right at the end of them: let it.
                plan.fixed = False
                done, plan = self._run(args, kwargs, plan, key)
        if not done.trusted:
            # The plan was wrong, for a reason that its key does not show: learn anew.
            done, plan = self._run(args, kwargs, None, key)
        results: tuple[Recorded, Recorded] = ({}, {})
        for (name, of_inputs), kept in done.kept.items():
            results[of_inputs][name] = [one.value for one in kept]
        return results, plan

    def _run(self, args: Any, kwargs: Any, plan: Plan | None, key: Hashable | None) -> tuple[_Run, Plan]:
        done = _Run(self._modules, self._events, plan)
        with eager(), contextlib.ExitStack() as stack:
            given = tuple(leaves((args, kwargs)))
            learned = None if plan is not None else stack.enter_context(_listing(self._model, self._modules, given))
            done.hook(stack.enter_context(hooks()))
            try:
                self._model(*args, **kwargs)
            except _Stop as stop:
                # A model may itself be, or hold, a submodel that is cut short.
                if stop.run is not done:
                    raise
                done.cut = True
            except Exception:
                self.partial = learned().layers if learned is not None else plan.layers if plan is not None else []
                raise
        if learned is not None:
            plan = learned()
            _remember(self._model, key, plan)
        assert plan is not None
        plan.spoiled.setdefault(self._set, done.spoiled())
        return done, plan


@contextlib.contextmanager
def _listing(
    model: nn.Module, modules: Mapping[str, nn.Module], given: Sequence[Tensor]
) -> Iterator[Callable[[], Plan]]:
    """Watch the whole of what the model does inside with given inputs; afterwards, the plan."""
    listing = Listing(model)
    listing.axes.start(given)
    thread = threading.get_ident()

    def before(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            if threading.get_ident() == thread:
                listing.enter(name, args)

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if threading.get_ident() == thread:
                listing.leave(name, args, output)

        return hook

    before_run, fixed = (_state(model), _drawn()), False
    with hooks() as handles:
        for name, module in modules.items():
            handles.append(module.register_forward_pre_hook(before(name)))
            handles.append(module.register_forward_hook(after(name)))
        with _ValuesTaken() as taken, _ValuesAsked(listing.axes.operator) as asked, listing.flops:
            yield lambda: Plan(listing.layers(), dict(listing.calls), fixed)
    fixed = not (asked.asked or taken.taken) and before_run == (_state(model), _drawn())


@contextlib.contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Inference mode and no gradients inside; afterwards each module is in the mode that it was in."""
    # Inside torch.inference_mode, changes in place are not counted.
    with torch.inference_mode(False), torch.no_grad(), _Evaluated(model):
        yield


class _Evaluated:
    """Inside of it a model is in evaluation mode.

    Several threads may be inside at once with one model, or with models that share modules: the first that finds a
    module in training mode notes it, and it is set back when nobody is inside with it or with one of its children,
    since setting the mode of a module sets that of its children.
    """

    _lock = threading.Lock()
    _training: typing.ClassVar[dict[nn.Module, None]] = {}
    _inside: typing.ClassVar[list[_Evaluated]] = []

    def __init__(self, model: nn.Module) -> None:
        self._model, self._modules = model, set(model.modules())

    def __enter__(self) -> None:
        with self._lock:
            training = [module for module in self._model.modules() if module.training]
            self._inside.append(self)
            self._training.update(dict.fromkeys(training))
            if training:
                _set_mode(self._model, False)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside.remove(self)
            used: set[nn.Module] = set().union(*(one._modules for one in self._inside))
            free = [x for x in self._training if used.isdisjoint(x.modules())]
            was = {x: x in self._training or x.training for root in free for x in root.modules()}
            for module in free:
                del self._training[module]
            for module, training in was.items():
                if module.training != training:
                    _set_mode(module, training)


def _set_mode(module: nn.Module, training: bool) -> None:
    """``module.train(training)``, which may do more than set a flag; only the flag where a module refuses it."""
    try:
        module.train(training)
    except NotImplementedError:
        # What torch.export made computes in the mode that it was exported in, whatever its flag says.
        for one in module.modules():
            one.training = training


# The verbs -----------------------------------------------------------------------------------------------------------
def capture(model: nn.Module, inputs: Any, names: Sequence[str]) -> Activations:
    """See :meth:`agnostic.contracts.taps.Taps.capture`."""
    model = unwrap(model)
    args, kwargs = _arguments(model, inputs)
    with inference(model):
        (calls, _), plan = TapRecorder(model, names).run(args, kwargs)
    known = {x.name: x for x in plan.layers}
    return Activations({name: known[name] for name in names}, calls, to_numpy)


@contextlib.contextmanager
def watch(model: nn.Module, names: Sequence[str], *, detach: bool = False) -> Iterator[Activations]:
    """See :meth:`agnostic.contracts.taps.Taps.watch`."""
    if isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:
        raise InvalidInput("DataParallel runs copies of the model on several devices at once: watch its .module")
    model = unwrap(model)
    modules = named_layers(model)
    known = {x.name: x for x in (_last_layers(model) or tree(model))}
    kept: dict[str, list[_Kept]] = {name: [] for name in names}
    thread = threading.get_ident()

    def after(name: str) -> Callable[..., Any]:
        # Without kwargs where another thread is on its way here while this one removes the hook.
        def hook(module: nn.Module, args: Any, *rest: Any) -> Any:
            if threading.get_ident() != thread or torch._C._current_graph_task_id() != -1:
                # Another thread's call, or the backward pass, which computes a checkpointed part again.
                return None
            kwargs, output = rest
            if detach:
                kept[name].append(_Kept(_mapped(_detached_copy, output), (), copies=False))
                return None
            # What follows is not known, so it is assumed to change the array in place.
            kept[name].append(_Kept(output, (args, kwargs), copies=True))
            return None if kept[name][-1].passed is output else kept[name][-1].passed

        return hook

    with eager(), hooks() as handles:
        for name in names:
            handles.append(modules[name].register_forward_hook(after(name), with_kwargs=True))
        yield Activations({name: known[name] for name in names}, _Values(kept), to_numpy)


def loop(model: nn.Module, names: Sequence[str], *, dtype: str | None = None) -> Callable[[Any], Recorded] | None:
    """See :meth:`agnostic.contracts.taps.Taps.loop`. Images are given with their channels last in memory.

    Convolutions are faster so, and their outputs have the layout of their inputs. A model that views an array in a way
    that this layout does not allow, or that looks at how an array lies in memory, is given the other one from its first
    run on.
    """
    model = unwrap(model)
    recorder = TapRecorder(model, names)
    # Where the model is, is looked up once: that goes through all weights.
    devices = devices_of(model)
    layout: torch.memory_format | None = None

    def computed(inputs: Any, layout: torch.memory_format) -> Recorded:
        args, kwargs = _mapped(lambda x: _laid_out(x, layout), _arguments(model, inputs, devices))
        with inference(model), _computing(dtype, devices):
            outputs, _ = recorder(*args, **kwargs)
        return outputs

    def run(inputs: Any) -> Recorded:
        nonlocal layout
        if layout is None:
            layout = torch.channels_last
            memory = _LooksAtMemory()
            try:
                with memory:
                    outputs = computed(inputs, layout)
            except RuntimeError as error:
                if "view size is not compatible" not in str(error):
                    raise
                memory.is_looked_at = True
            if not memory.is_looked_at:
                return outputs
            layout = torch.contiguous_format
        return computed(inputs, layout)

    return run


class _LooksAtMemory(TorchFunctionMode):
    """Notes whether code asks for the strides of an array, or sets them: what it computes may depend on them."""

    _ASKING = frozenset({"as_strided", "stride", "dim_order"})

    def __init__(self) -> None:
        super().__init__()
        self.is_looked_at = False

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.is_looked_at |= getattr(function, "__name__", "") in self._ASKING
        return function(*args, **(kwargs or {}))


def _laid_out(x: Tensor, layout: torch.memory_format) -> Tensor:
    """Images in this order of memory; any other array as it is."""
    if x.layout != torch.strided or x.dim() != 4 or not x.is_floating_point():
        return x
    return x.contiguous(memory_format=layout)


def _computing(dtype: str | None, devices: set[torch.device]) -> contextlib.AbstractContextManager[Any]:
    if dtype is None:
        return contextlib.nullcontext()
    kind = next(iter(devices)).type if devices else "cpu"
    return torch.autocast(kind, dtype=getattr(torch, dtype))


def _detached_copy(x: Tensor) -> Tensor:
    return values.copied(x.detach())


class _Values(Mapping[str, list[Any]]):
    """What was kept, read when it is asked for: a record may be changed in place until then."""

    def __init__(self, kept: Mapping[str, list[_Kept]]) -> None:
        self._kept = kept

    def __getitem__(self, name: str) -> list[Any]:
        return [one.value for one in self._kept[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)


class Submodel(nn.Module):
    """Returns the outputs of layers of another model, whose modules, weights and state dict are its own as well.

    It runs the model as far as the last of the layers. Gradients flow, in train and eval mode alike.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        # The same dicts, not copies: parameters and buffers are the model's under the model's own names, and stay so
        # when either is moved, changed or loaded.
        for shared in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[shared] = model.__dict__[shared]
        # Not as a child: every weight would have a second name.
        self.__dict__["_model"] = model
        self._names = tuple(names)
        self.training = model.training

    def __reduce__(self) -> Any:
        return Submodel, (self.__dict__["_model"], self._names)

    def train(self, mode: bool = True) -> Submodel:
        """Set the mode of the model as well."""
        self.__dict__["_model"].train(mode)
        self.training = mode
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The output of the one layer, or a list of the outputs of several."""
        if torch.compiler.is_compiling():
            outputs = self._traced(args, kwargs)
        else:
            outputs, _ = TapRecorder(self.__dict__["_model"], self._names)(*args, **kwargs)
        for name in self._names:
            if len(outputs[name]) != 1:
                times = f"ran {counted(len(outputs[name]), 'time')}" if outputs[name] else "did not run"
                raise InvalidInput(f"layer {name!r} {times}; a submodel returns layers that run once")
        found = [outputs[name][0] for name in self._names]
        return found[0] if len(found) == 1 else found

    def _traced(self, args: Any, kwargs: Any) -> Recorded:
        """The whole forward pass, with hooks that the compiler follows; it drops by itself what no output needs."""
        model, outputs = self.__dict__["_model"], {}
        modules = [model.get_submodule(name) for name in self._names]
        before = [module._forward_hooks for module in modules]
        for name, module in zip(self._names, modules, strict=True):
            calls: list[Any] = []

            def hook(module: nn.Module, args: Any, output: Any, calls: list[Any] = calls) -> None:
                calls.append(_mapped(torch.clone, output))

            outputs[name] = calls
            # Registering a hook counts hooks in a class attribute, which the compiler does not follow.
            module._forward_hooks = {**module._forward_hooks, "submodel": hook}
        model(*args, **kwargs)
        for module, hooks in zip(modules, before, strict=True):
            module._forward_hooks = hooks
        return outputs

    def extra_repr(self) -> str:
        return f"outputs of {', '.join(map(repr, self._names))}"


def submodel(model: nn.Module, names: Sequence[str]) -> Submodel:
    """See :meth:`agnostic.contracts.taps.Taps.submodel`."""
    return Submodel(unwrap(model), names)
