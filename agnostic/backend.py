"""The Backend contract, the registry of backends, and the question which backend a model belongs to.

A backend comes in by the entry-point group ``agnostic.backends``, ours as anybody's. The entry point names a
:class:`Registration`, in a module that imports no framework: what it says is enough to tell whose a model is. The
backend itself is loaded when a model of its framework arrives, or when it is asked for by name.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from agnostic.errors import InvalidInput, InvalidWeights, MissingDependency, UnknownName, nearest

if TYPE_CHECKING:
    from agnostic.compare.calls import Around
    from agnostic.description import LayerDescription
    from agnostic.layers import Layer
    from agnostic.models.architecture import Architecture
    from agnostic.models.cards import Preprocessing
    from agnostic.models.inputs import Input, Trial
    from agnostic.ops import Ops
    from agnostic.program.nodes import Program
    from agnostic.taps.records import Activations
    from agnostic.transfer.access import Access
    from agnostic.visualization.ascent import Ascent, Climbed, Settings

Model = Any
"""A model of the framework at hand: torch.nn.Module, keras.Model, or what a plug-in brings."""

GROUP = "agnostic.backends"


@dataclass(frozen=True)
class Registration:
    """What an entry point of the group ``agnostic.backends`` names.

    Attributes:
        name: the backend's name, as users give it.
        model_classes: ``"module:Class"`` of the classes whose instances are this backend's models. The module is
            looked up among those already loaded, never imported.
        factory: ``"module:callable"`` that returns the :class:`Backend`; importing it may import the framework.
        requires: the module that must be importable, such as ``"torch"``.
        extra: what to install when it is not, such as ``"agnostic-ml[torch]"``.
        quiet: environment variables by which the framework says nothing less than an error, for the command line.
    """

    name: str
    model_classes: tuple[str, ...]
    factory: str
    requires: str
    extra: str
    quiet: Mapping[str, str] = field(default_factory=dict)


class Backend(ABC):
    """What one framework supplies. Images cross this interface as NumPy (N, H, W, C) unless said otherwise."""

    name: str
    """The backend's name: ``"torch"``, ``"keras"``."""

    engine: str
    """What computes: equal to ``name``, except for Keras, where it is ``"torch"``, ``"jax"`` or ``"tensorflow"``."""

    ops: Ops
    """The array operations that shared mathematics is written in."""

    # Looking inside -------------------------------------------------------------------------------------------------
    @abstractmethod
    def tree(self, model: Model) -> list[Layer]:
        """The model's layers as they are registered, without running it: no shapes, axes, channels or calls."""

    def layer_name(self, model: Model, layer: Any) -> str | None:
        """The name in :meth:`tree` of one of the model's own layer objects; None for anything else."""
        return None

    def expected(self, model: Model, layer: str | None) -> str | None:
        """What the named layer takes, or the model itself, in words for an error; None where that is not known."""
        return None

    def is_refusal(self, error: Exception) -> bool:
        """Whether an error of a run may say that the model does not take its inputs: not where memory ran out."""
        kinds = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
        return isinstance(error, kinds) and "RESOURCE_EXHAUSTED" not in str(error)

    def layers(self, model: Model, inputs: Any) -> list[Layer]:
        """The model's layers in the order in which they first run; those that do not run follow at the end.

        Args:
            inputs: what the model is called with: a native array, a NumPy array in the model's own layout, or a tuple
                or dict of them.
        """
        trial = self.trial(model, inputs)
        if trial.error is not None:
            raise trial.error
        return list(trial.layers)

    @abstractmethod
    def trial(self, model: Model, inputs: Any) -> Trial:
        """Run the model once in inference mode, for what its layers receive and return; also where the run fails.

        Args:
            inputs: as in :meth:`layers`.

        Returns:
            What the run told. An error of the model is in ``Trial.error``, not raised.
        """

    def describe(self, model: Model, names: Sequence[str] | None = None) -> list[LayerDescription]:
        """What layers compute, in words and weights that belong to no framework.

        Args:
            names: which layers, by the names of :meth:`tree`; None: all of them, in that order.

        Returns:
            One description a name; kind ``"other"`` where this backend does not know better.
        """
        from agnostic.description import LayerDescription

        chosen = [x.name for x in self.tree(model)] if names is None else names
        return [LayerDescription(name, "other", {"framework": self.name}) for name in chosen]

    @abstractmethod
    def watch(
        self, model: Model, layers: Sequence[str], *, detach: bool = False
    ) -> AbstractContextManager[Activations]:
        """Record the outputs of the named layers of whatever runs inside the context; hooks go even after an error."""

    def guard(self, model: Model) -> AbstractContextManager[None]:
        """Raise NonFinite inside for the first layer, loss term or gradient of the model that is not finite.

        Raises:
            InvalidInput: the backend has no guard.
        """
        raise InvalidInput(f"the backend {self.name!r} cannot tell where a number stops being finite")

    @abstractmethod
    def capture(self, model: Model, inputs: Any, layers: Sequence[str]) -> Activations:
        """Run the model in inference mode, stop after the last of the named layers, and return what was recorded.

        A layer that did not run has no calls in the record.
        """

    @abstractmethod
    def submodel(self, model: Model, layers: Sequence[str]) -> Model:
        """A native model that returns the outputs of the named layers: one array for one layer, else a list."""

    def stated_inputs(self, model: Model) -> Sequence[Input] | None:
        """The inputs that the model itself declares, in order; None where it declares none, and must be tried out."""
        return None

    def stated_preprocessing(self, model: Model) -> Preprocessing | None:
        """From images in [0, 1] to the range that the model's own first layer expects; None where it does not tell."""
        return None

    def input_count(self, model: Model) -> int:
        """Number of inputs that a call of the model requires."""
        return 1

    @abstractmethod
    def native_inputs(self, model: Model, arrays: Sequence[npt.NDArray[Any]]) -> Any:
        """What the model is called with, of NumPy arrays in its own layout: one array, or all of them in its structure.

        Arrays are moved to the model's device and, if they are floating point, to its type.
        """

    # Comparing ------------------------------------------------------------------------------------------------------
    def intercept(self, model: Model, names: Sequence[str], around: Around) -> AbstractContextManager[None]:
        """Inside, each call of the named layers is handed to ``around`` instead; eager on every engine.

        Raises:
            InvalidInput: this backend cannot do it.
        """
        raise InvalidInput(
            f"the backend {self.name!r} cannot be traced: it does not say how calls of its layers are intercepted"
        )

    def run(self, model: Model, inputs: Any, *, seed: int = 0) -> tuple[Any, ...]:
        """Run the model as it is, in the mode that it is in, without gradients.

        What the run changes (running statistics, states of random generators) is as before afterwards.

        Args:
            inputs: as in :func:`agnostic.capture`.
            seed: of what the model itself draws.

        Returns:
            The native arrays in what the model returned, in order.
        """
        raise InvalidInput(f"the backend {self.name!r} cannot be traced: it does not say how its models are run")

    def in_float64(self, model: Model) -> AbstractContextManager[bool]:
        """Inside, the model computes in float64, and True is given; False where the framework has no exact float64."""
        return nullcontext(False)

    def is_training(self, model: Model) -> bool:
        """Whether any layer is in training mode."""
        return False

    def to_numpy(self, x: Any) -> npt.NDArray[Any]:
        """A native array as NumPy, without a copy if possible; bfloat16 comes as float32."""
        found: npt.NDArray[Any] = self.ops.numpy(x)
        return found

    def to_native(self, x: npt.NDArray[Any], like: Any, *, dtype: str | None = None) -> Any:
        """NumPy as a native array of the kind, device and type of another one, or of the named type."""
        return self.ops.asarray(x, dtype or self.ops.dtype(like))

    def gradients_of_loss(self, model: Model, inputs: Any) -> Mapping[str, npt.NDArray[Any]]:
        """The gradients of the loss of :mod:`agnostic.compare.learning`, by the names of :meth:`weights`.

        The model is as before afterwards.
        """
        raise InvalidInput(f"the backend {self.name!r} cannot record gradients")

    def training_steps(
        self, model: Model, inputs: Any, optimizer: Any, rates: Sequence[float]
    ) -> Iterator[tuple[Mapping[str, npt.NDArray[Any]], Mapping[str, npt.NDArray[Any]]]]:
        """Take steps of an optimizer on that loss, one a learning rate.

        Whoever reads may set the model's weights between two steps, if he sets them back.

        Args:
            optimizer: a specification of :mod:`agnostic.optimizers`, all but its learning rate.

        Yields:
            (the gradients of a step, the trainable weights after it), by the names of :meth:`weights`. Once it ends or
            is closed the model is as before.
        """
        raise InvalidInput(f"the backend {self.name!r} cannot record what an optimizer does")

    def program(self, model: Model, inputs: Any) -> Program:
        """What the model computes, as it is, for :func:`agnostic.program`.

        Args:
            inputs: as in :func:`agnostic.capture`.

        Raises:
            InvalidInput: the model cannot be followed, or this backend reads no programs.
        """
        raise InvalidInput(f"the backend {self.name!r} reads no programs yet: it has no method program(model, inputs)")

    def versions(self) -> Mapping[str, str]:
        """What computes here, by package."""
        return {}

    # Ascent ---------------------------------------------------------------------------------------------------------
    @abstractmethod
    def ascend(self, model: Model, ascent: Ascent, settings: Settings) -> Iterator[Climbed]:
        """Run the ascent in micro-batches; the mathematics is :class:`agnostic.visualization.ascent.Ascent`'s.

        A path without a gradient is a gradient of zeros, never an error: see ``reached`` of
        :class:`agnostic.visualization.ascent.Climbed`.

        Yields:
            What every micro-batch gave, as soon as it is finished.

        Raises:
            NonFinite: the objective or its gradient is not finite; says at which step.
        """

    # Models and weights ---------------------------------------------------------------------------------------------
    @abstractmethod
    def build(self, architecture: Architecture) -> Model:
        """A native model of a described architecture, in inference mode, with random weights."""

    @abstractmethod
    def load(self, spec: str, weights: str | Path | None, *, trust: bool = False) -> Model:
        """A model by a specification that only this framework understands, such as ``"torchvision:vgg16"``.

        Args:
            trust: a file that describes a model may name any function, and hold code.
        """

    @abstractmethod
    def weights(self, model: Model) -> Mapping[str, np.ndarray[Any, Any]]:
        """Every parameter and buffer by name, as NumPy in the framework's own layout."""

    @abstractmethod
    def set_weights(self, model: Model, weights: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Set every parameter and buffer; a missing, unexpected or misshapen entry raises InvalidWeights."""

    @abstractmethod
    def read_weights(self, path: Path) -> Mapping[str, np.ndarray[Any, Any]]:
        """Read a weight file of this framework without executing code from it.

        Raises:
            InvalidWeights: missing, corrupt, or a pickle that needs code execution.
        """

    def on_device(self, name: str) -> AbstractContextManager[Callable[[Model], Model]]:
        """Inside, models are built and run on a device; given is a function that brings a model there, and returns it.

        Args:
            name: ``"cpu"``, ``"cuda"`` or ``"gpu"`` (one thing), with a number as ``"cuda:1"``, or another that the
                framework knows.

        Raises:
            InvalidInput: it is not there.
        """
        raise InvalidInput(f"the backend {self.name!r} does not let a device be chosen: leave device out")

    def load_weights(self, model: Model, path: Path, name: str) -> None:
        """Set every parameter and buffer from a weight file, also of a format that only the model itself can read.

        Args:
            name: of the model, for people.

        Raises:
            InvalidWeights: the file cannot be read, or does not fit.
        """
        entries = self.read_weights(path)
        try:
            self.set_weights(model, entries)
        except InvalidWeights as error:
            raise InvalidWeights(f"{path} does not fit {name}: {error}") from None

    def check_transform(self, transform: Any) -> None:
        """Refuse a module of this framework that cannot change one image; see :meth:`transform_image`.

        Raises:
            InvalidInput: it cannot, which is so for every module unless the backend says otherwise.
        """
        raise InvalidInput(
            f"augmentation is a {type(transform).__name__}, and modules of its framework cannot be seeded for each "
            "image; wrap it in a function (image, *, seed, epoch, index), or give an agnostic Augmentation"
        )

    def transform_image(self, transform: Any, image: npt.NDArray[Any], draws: int) -> npt.NDArray[Any]:
        """An image that a module of this framework changed, all of whose random numbers follow from ``draws``.

        Args:
            transform: the module; :meth:`check_transform` let it pass.
            image: (H, W, C).
            draws: 0 to 2^63 - 1, another one for each image and epoch.

        Returns:
            (H, W, C), of whatever shape and dtype the module made it.
        """
        raise NotImplementedError

    def save(self, model: Model, path: Path) -> None:
        """Write a model, or its weights, in the format that the file's name ends in; whole, or not at all.

        Raises:
            InvalidInput: this framework has no such format, or the file cannot be written.
        """
        raise InvalidInput(f"the backend {self.name!r} cannot write {path.name!r}: it has no method save(model, path)")

    def access(self, model: Model) -> Access:
        """A model as :func:`agnostic.transfer` sees it.

        Raises:
            InvalidInput: this backend cannot transfer.
        """
        raise InvalidInput(f"the backend {self.name!r} cannot transfer weights: it has no method access(model)")


@functools.cache
def registrations() -> Mapping[str, Registration]:
    """All registered backends by name. Two of the same name are an error of the environment, and raise."""
    found: dict[str, Registration] = {}
    for registration in (*_own(), *_from_entry_points()):
        if found.setdefault(registration.name, registration) != registration:
            raise InvalidInput(
                f"two installed packages register a backend {registration.name!r}: "
                f"{found[registration.name].factory} and {registration.factory}; uninstall one of them"
            )
    return found


def _own() -> Iterator[Registration]:
    # A checkout that is not installed has no entry points; its two backends are found all the same.
    for module in ("agnostic_torch", "agnostic_keras"):
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


@functools.cache
def get_backend(name: str) -> Backend:
    """The backend of that name, its framework imported.

    Raises:
        UnknownName: no such backend is registered.
        MissingDependency: its framework is not installed.
    """
    known = registrations()
    if name not in known:
        raise UnknownName(f"no backend {name!r} ({', '.join(known)} are registered){nearest(name, known)}")
    registration = known[name]
    # A framework that is there but broken must be reported as it is, so only its absence is translated.
    try:
        importlib.import_module(registration.requires)
    except ModuleNotFoundError as error:
        if error.name != registration.requires.partition(".")[0]:
            raise
        raise MissingDependency(
            f"backend {name!r} needs the package {registration.requires!r}: pip install '{registration.extra}'"
        ) from None
    module, _, attribute = registration.factory.partition(":")
    factory: Callable[[], Backend] = getattr(importlib.import_module(module), attribute)
    return factory()


def loaded_twins(module: str) -> Iterator[ModuleType]:
    """The module of that name of each backend that has one and whose framework is loaded; no framework is imported."""
    for registration in registrations().values():
        if sys.modules.get(registration.requires) is None:
            continue
        name = f"{registration.factory.partition(':')[0].rpartition('.')[0]}.{module}"
        try:
            yield importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, name.rpartition(".")[0]):
                raise


def backend_name(model: Model) -> str:
    """The name of the backend that a model belongs to; nothing is imported.

    A Keras model on the torch engine is a torch module as well: the class nearest to the model's own in its method
    resolution order decides.

    Raises:
        InvalidInput: no backend knows the model's class.
    """
    owners = dict(_loaded_classes(registrations().values()))
    for cls in type(model).__mro__:
        if cls in owners:
            return owners[cls]
    raise InvalidInput(
        f"{type(model).__module__}.{type(model).__qualname__} is no model of a registered backend "
        f"({', '.join(registrations())}); a specification such as 'torchvision:vgg16' goes to agnostic.load first"
    )


def _loaded_classes(known: Iterable[Registration]) -> Iterator[tuple[type, str]]:
    for registration in known:
        for path in registration.model_classes:
            module, _, name = path.partition(":")
            cls = getattr(sys.modules.get(module), name, None)
            if isinstance(cls, type):
                yield cls, registration.name


def backend_of(model: Model) -> Backend:
    """The backend that a model belongs to. Imports no framework: one whose model is here is loaded already.

    Raises:
        InvalidInput: no backend knows the model's class.
    """
    return get_backend(backend_name(model))


def default_backend() -> Backend:
    """The first registered backend whose framework is installed, in the order torch, keras, then others.

    Raises:
        MissingDependency: none is.
    """
    for registration in registrations().values():
        if importlib.util.find_spec(registration.requires) is not None:
            return get_backend(registration.name)
    raise MissingDependency("no framework is installed: pip install 'agnostic-ml[torch]' or 'agnostic-ml[keras]'")
