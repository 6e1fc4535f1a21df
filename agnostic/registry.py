"""The registered backends, the owner of a value, and the capabilities of its backend: only this module knows backends.

Every backend, ours included, is registered by the entry-point group ``agnostic.backends``. The entry point names a
:class:`Registration` in a module that imports no framework. The registration is enough to find the owner of a value;
its modules are imported when a capability is requested.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, TypeVar

from agnostic.contracts.capability import Capability, Model
from agnostic.contracts.ops import OPS, Ops
from agnostic.errors import InvalidInput, MissingDependency, UnknownName, nearest

GROUP = "agnostic.backends"

_OURS = ("agnostic_torch", "agnostic_keras")
"""A checkout that is not installed has no entry points; these two are found anyway, and come first."""

C = TypeVar("C")

__all__ = [
    "GROUP",
    "Backend",
    "Facts",
    "Model",
    "Registration",
    "array_owner",
    "backend_name",
    "backend_of",
    "capability",
    "default_backend",
    "engine_environment",
    "facts_of",
    "get_backend",
    "loaded",
    "model_backend",
    "model_owner",
    "optimizer_backend",
    "own_registrations",
    "owner",
    "registrations",
    "view",
    "view_method",
    "weight_reader",
]


@dataclass(frozen=True)
class Facts:
    """Facts in which frameworks differ, stated by the backend.

    Attributes:
        channels_last: whether a batch of images is (N, H, W, C) by default, else (N, C, H, W).
        kernels_last: whether weights have the axes (..., inputs, outputs), else (outputs, inputs, ...).
        momentum_kept: whether the momentum of a batch normalization is the share of the old statistics that is kept,
            else the share that is replaced.
        recurrent_biases: number of bias vectors per recurrent layer.
        attention_inputs: what the positional inputs of an attention layer are, in order.
        rate_schedules: whether a learning rate may be a schedule, a function of the step.
        set_inference: how to make a model run in inference mode, as a clause: ``"call model.eval() first"``.
    """

    channels_last: bool = True
    kernels_last: bool = True
    momentum_kept: bool = True
    recurrent_biases: int = 1
    attention_inputs: tuple[str, str, str] = ("query", "key", "value")
    rate_schedules: bool = False
    set_inference: str = "switch the model to inference mode first"


@dataclass(frozen=True)
class Registration:
    """The value that an entry point of the group ``agnostic.backends`` names.

    A class is given as ``"module:Class"``; it is looked up among the modules already loaded, never imported.

    Attributes:
        name: the backend's name, as users give it.
        requires: the module that must be importable, such as ``"torch"``.
        extra: what to install if it is not, such as ``"agnostic-ml[torch]"``.
        provides: capability -> ``"module"`` or ``"module:object"`` that implements it, for example
            ``{"taps": "agnostic_torch.taps"}``; see :mod:`agnostic.contracts`.
        model_classes: classes whose instances are this backend's models.
        array_classes: classes whose instances are its arrays and parameters.
        optimizer_classes: classes whose instances are its optimizers.
        title: the framework's name in sentences; ``""``: the backend's name.
        facts: how the framework differs from others.
        specs: prefix of a specification -> an example: ``{"torchvision": "torchvision:vgg16"}``.
        model_files: suffixes of files that hold a whole model: ``(".keras",)``.
        weight_files: suffixes of files that it writes.
        engines: names of its engines, one of them per process; empty if it has none.
        engine_variable: the environment variable that chooses among them before the framework is imported.
        weight_readers: suffix of a weight file -> ``"module:callable"`` that reads it as NumPy arrays by name, and
            imports no framework, so that every backend can read it: ``{".pth": "agnostic_torch.pth:read_checkpoint"}``.
        views: objects of this framework that objects of the core can become: kind of object -> name of the view ->
            ``"module:callable"``, which is called with the object. The kinds are ``"augmentation"``
            (:class:`agnostic.augmentation.Augmentation`) and ``"batches"`` (:class:`agnostic.data.Batches`).
        quiet: environment variables that silence messages below errors, for the command line.
    """

    name: str
    requires: str
    extra: str
    provides: Mapping[str, str]
    model_classes: tuple[str, ...]
    array_classes: tuple[str, ...] = ()
    optimizer_classes: tuple[str, ...] = ()
    title: str = ""
    facts: Facts = field(default_factory=Facts)
    specs: Mapping[str, str] = field(default_factory=dict)
    model_files: tuple[str, ...] = ()
    weight_files: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    engine_variable: str = ""
    weight_readers: Mapping[str, str] = field(default_factory=dict)
    views: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    quiet: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.title:
            object.__setattr__(self, "title", self.name)

    @property
    def packages(self) -> tuple[str, ...]:
        """The import packages that implement the backend."""
        return tuple(dict.fromkeys(path.partition(":")[0].partition(".")[0] for path in self.provides.values()))


class Backend:
    """A registered backend: ``backend[TAPS]`` is its implementation of :class:`agnostic.contracts.taps.Taps`.

    Nothing is imported before a capability is requested.
    """

    def __init__(self, registration: Registration) -> None:
        self.registration = registration
        self._modules: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"Backend({self.name!r})"

    @property
    def name(self) -> str:
        """The backend's name, as users give it."""
        return self.registration.name

    @property
    def facts(self) -> Facts:
        """The facts in which its framework differs from others."""
        return self.registration.facts

    @property
    def engine(self) -> str:
        """The engine that computes; the backend's own name if it has no engines."""
        return self[OPS].engine()

    @property
    def ops(self) -> Ops:
        """The array operations that shared mathematics is written in."""
        return self[OPS].ops_for()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(
                f"a backend has no attribute {name!r}: its functions are grouped by capability, such as "
                "backend[TAPS].capture; see agnostic.contracts",
                name=name,
                obj=self,
            )

    def __contains__(self, key: Capability[Any]) -> bool:
        return key.name in self.registration.provides

    def implementation(self, key: Capability[Any]) -> Any:
        """The module or object that is registered for a capability, complete or not."""
        return _imported(self.registration, self.registration.provides[key.name])

    def __getitem__(self, key: Capability[C]) -> C:
        """What implements a capability.

        Raises:
            InvalidInput: the backend does not provide it, or lacks some of its functions; the message names them.
            MissingDependency: the framework is not installed.
        """
        if key.name not in self._modules:
            self._modules[key.name] = _implementation(self.registration, key)
        found: C = self._modules[key.name]
        return found


def _implementation(registration: Registration, key: Capability[Any]) -> Any:
    name = registration.name
    if key.name not in registration.provides:
        raise InvalidInput(
            f"the backend {name!r} cannot {key.purpose}: its Registration provides no {key.name!r} "
            f"(see agnostic.contracts.{key.name})"
        )
    found = _imported(registration, registration.provides[key.name])
    if missing := key.missing(found):
        raise InvalidInput(
            f"the backend {name!r} cannot {key.purpose}: {registration.provides[key.name]} has no "
            f"{', '.join(f'{member}()' for member in missing)} (see agnostic.contracts.{key.name})"
        )
    return found


def _imported(registration: Registration, path: str) -> Any:
    """What ``"module"`` or ``"module:attribute"`` names."""
    module, _, attribute = path.partition(":")
    # An installed but broken framework is reported with its own error; only a missing one is translated.
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != registration.requires.partition(".")[0]:
            raise
        raise MissingDependency(
            f"backend {registration.name!r} needs the package {registration.requires!r}: "
            f"pip install '{registration.extra}'"
        ) from None
    return getattr(found, attribute) if attribute else found


@functools.cache
def registrations() -> Mapping[str, Registration]:
    """All registered backends by name.

    Raises:
        InvalidInput: two packages register one name, or an entry point names no Registration.
    """
    found: dict[str, Registration] = {}
    for registration in (*own_registrations(), *_from_entry_points()):
        if found.setdefault(registration.name, registration) != registration:
            first, second = found[registration.name].packages, registration.packages
            raise InvalidInput(
                f"two installed packages register a backend {registration.name!r}: {', '.join(first)} and "
                f"{', '.join(second)}; uninstall one of them"
            )
    return found


def own_registrations() -> Iterator[Registration]:
    """The registrations of the backends that come with agnostic."""
    for module in _OURS:
        try:
            yield importlib.import_module(module).registration
        except ModuleNotFoundError as error:
            if error.name != module:
                raise


def _from_entry_points() -> Iterator[Registration]:
    for point in entry_points(group=GROUP):
        registration = point.load()
        if not isinstance(registration, Registration):
            raise InvalidInput(
                f"entry point {point.value!r} of group {GROUP!r} must name a Registration, not {registration!r}"
            )
        yield registration


# Whose a value is -----------------------------------------------------------------------------------------------------
def owner(value: Any) -> Registration | None:
    """The registration that a model, an array or an optimizer belongs to; None for anything else, including NumPy.

    Nothing is imported. A value may belong to two frameworks: a Keras model on the torch engine is a torch module as
    well. The class nearest to its own in the method resolution order decides.
    """
    return _owner(value, ("model_classes", "array_classes", "optimizer_classes"))


def _owner(value: Any, kinds: tuple[str, ...]) -> Registration | None:
    order = type(value).__mro__
    found: tuple[int, Registration] | None = None
    for registration in registrations().values():
        for cls in _loaded([path for kind in kinds for path in getattr(registration, kind)]):
            # A virtual base class is as far away as can be.
            depth = order.index(cls) if cls in order else len(order) if isinstance(value, cls) else None
            if depth is not None and (found is None or depth < found[0]):
                found = depth, registration
    return None if found is None else found[1]


def _loaded(paths: Sequence[str]) -> Iterator[type]:
    """Those of the classes whose modules are loaded."""
    for path in paths:
        module, _, name = path.partition(":")
        cls = getattr(sys.modules.get(module), name, None)
        if isinstance(cls, type):
            yield cls


def backend_of(value: Any) -> Backend:
    """The backend that a model, an array or an optimizer belongs to; no framework is imported.

    Args:
        value: a model, an array or an optimizer of a registered backend.

    Returns:
        The backend, whose ``name`` is ``"torch"`` or ``"keras"`` for ours.

    Raises:
        InvalidInput: no backend knows the value's class.

    Example:
        >>> import torch
        >>> backend_of(torch.nn.Linear(2, 1)).name
        'torch'
    """
    return _known(value, owner(value), "model, array or optimizer")


def model_backend(model: Model) -> Backend:
    """The backend that a model belongs to; no framework is imported.

    Raises:
        InvalidInput: the value is not a model of a registered backend.
    """
    return _known(model, model_owner(model), "model")


def optimizer_backend(optimizer: Any) -> Backend:
    """The backend that an optimizer belongs to; no framework is imported.

    Raises:
        InvalidInput: the value is not an optimizer of a registered backend.
    """
    return _known(optimizer, _owner(optimizer, ("optimizer_classes",)), "optimizer")


def model_owner(value: Any) -> Registration | None:
    """The registration that a model belongs to; None for anything else."""
    return _owner(value, ("model_classes",))


def array_owner(value: Any) -> Registration | None:
    """The registration that an array or a parameter belongs to; None for anything else, including NumPy."""
    return _owner(value, ("array_classes",))


def _known(value: Any, found: Registration | None, what: str) -> Backend:
    if found is not None:
        return get_backend(found.name)
    specs = [example for registration in registrations().values() for example in registration.specs.values()]
    hint = f"; a specification such as {specs[0]!r} goes to agnostic.load first" if specs and "model" in what else ""
    raise InvalidInput(
        f"{type(value).__module__}.{type(value).__qualname__} is not a {what} of a registered backend "
        f"({', '.join(registrations())}){hint}"
    )


def backend_name(model: Model) -> str:
    """The name of the backend that a model belongs to.

    Raises:
        InvalidInput: the value is not a model of a registered backend.
    """
    return model_backend(model).name


def capability(value: Any, key: Capability[C]) -> C:
    """The capability of the backend that owns a model, an array or an optimizer.

    Args:
        value: a value of a framework.
        key: of one of :mod:`agnostic.contracts`.

    Raises:
        InvalidInput: no backend knows the value's class, or its backend does not provide the capability.
    """
    return backend_of(value)[key]


@functools.cache
def get_backend(name: str) -> Backend:
    """The backend of that name. Its framework is imported when a capability is requested.

    Raises:
        UnknownName: no such backend is registered.
    """
    known = registrations()
    if name not in known:
        raise UnknownName(f"no backend {name!r} ({', '.join(known)} are registered){nearest(name, known)}")
    return Backend(known[name])


def loaded(key: Capability[C]) -> Iterator[C]:
    """The capability of each backend that provides it and whose framework is loaded; no framework is imported."""
    for registration in registrations().values():
        if sys.modules.get(registration.requires) is not None and key.name in registration.provides:
            yield get_backend(registration.name)[key]


def weight_reader(suffix: str) -> Callable[..., Any] | None:
    """The function that reads weight files of a suffix as NumPy arrays, without a framework; None if none does."""
    for registration in registrations().values():
        if suffix in registration.weight_readers:
            found: Callable[..., Any] = _imported(registration, registration.weight_readers[suffix])
            return found
    return None


def view(kind: str, name: str) -> Callable[..., Any]:
    """The function that makes a view of an object of the core; see :attr:`Registration.views`.

    Raises:
        UnknownName: no registered backend has such a view.
        MissingDependency: its framework is not installed.
    """
    known = {}
    for registration in registrations().values():
        known.update(dict.fromkeys(registration.views.get(kind, ()), registration))
    if name not in known:
        raise UnknownName(f"no view {name!r}: there are {', '.join(known)}{nearest(name, known)}")
    found: Callable[..., Any] = _imported(known[name], known[name].views[kind][name])
    return found


def view_method(value: Any, kind: str, name: str) -> Callable[..., Any]:
    """A view as a method of the object, for its class's ``__getattr__``."""
    if not any(name in registration.views.get(kind, ()) for registration in registrations().values()):
        raise AttributeError(f"{type(value).__name__!r} object has no attribute {name!r}", name=name, obj=value)
    return functools.partial(view(kind, name), value)


def engine_environment(engine: str | None) -> dict[str, str]:
    """The environment variables that select an engine for a process; none for None."""
    return {x.engine_variable: engine for x in registrations().values() if engine is not None and engine in x.engines}


def default_backend() -> Backend:
    """The first registered backend whose framework is installed: our own first, then others.

    Raises:
        MissingDependency: there is none.
    """
    for registration in registrations().values():
        if importlib.util.find_spec(registration.requires) is not None:
            return get_backend(registration.name)
    extras = " or ".join(f"pip install '{registration.extra}'" for registration in registrations().values())
    raise MissingDependency(f"no framework is installed: {extras}")


def facts_of(name: str) -> Facts:
    """The facts of a backend by its name, as a file may give it; those of an unknown one are the usual ones."""
    known = registrations().get(name)
    return Facts() if known is None else known.facts
