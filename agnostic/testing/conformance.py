"""Does a backend keep the contract? One function a promise; its failure says which method breaks it, and what is due.

For example ``assert not run(Subject(TinyBackend, make_model, layer="conv"))``.
"""

from __future__ import annotations

import importlib
import inspect
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import agnostic as ag
from agnostic.contracts.ascent import ASCENT
from agnostic.contracts.capability import Capability
from agnostic.contracts.inputs import INPUTS
from agnostic.contracts.layers import LAYERS
from agnostic.contracts.models import MODELS
from agnostic.contracts.ops import OPS
from agnostic.contracts.taps import TAPS
from agnostic.contracts.weights import WEIGHTS
from agnostic.errors import InvalidWeights, UnknownName
from agnostic.models.forms import Input
from agnostic.models.inputs import image_input, run_layers
from agnostic.reference.ops import NumpyOps
from agnostic.registry import Backend, Model, backend_name
from agnostic.testing import operations
from agnostic.visualization.ascent import Settings, prepare

KEYS: tuple[Capability[Any], ...] = (LAYERS, INPUTS, TAPS, ASCENT, MODELS, WEIGHTS, OPS)


@dataclass(frozen=True)
class Subject:
    """What is examined.

    Attributes:
        factory: gives the backend.
        model: makes a small model of it, with the same weights each time.
        layer: the name of one of its layers, with height, width and at least two channels, that runs once.
        size: height and width of the images to try.
        recipes: those that the backend can climb by.

    Example:
        >>> ag.testing.Subject(lambda: ag.backend_of(model), lambda: model, layer="conv").size
        16
    """

    factory: Callable[[], Backend]
    model: Callable[[], Model]
    layer: str
    size: int = 16
    recipes: tuple[str, ...] = ("classic", "fourier")


class Broken(AssertionError):
    """A promise of the contract is not kept."""


def run(subject: Subject) -> list[str]:
    """What is wrong with a backend: one sentence a broken promise, none if it conforms.

    A function that is missing ends the examination.

    Args:
        subject: the backend, and a small model of it.

    Returns:
        Sentences; empty where the backend conforms.

    Example:
        >>> subject = ag.testing.Subject(lambda: ag.backend_of(model), lambda: copy.deepcopy(model), layer="conv")
        >>> ag.testing.run(subject)
        []
    """
    absent = missing(subject.factory())
    if absent:
        return absent
    failures = []
    for check in CHECKS:
        try:
            check(subject)
        except Broken as error:
            failures.append(f"{check.__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - whatever a stranger's code raises is a failure with a name
            failures.append(f"{check.__name__}: {type(error).__name__}: {error}")
    return failures


def missing(backend: Backend) -> list[str]:
    """The functions that the modules of a backend lack, each with what it must return, in the contract's words."""
    found = []
    for key in KEYS:
        if key in backend:
            module = importlib.import_module(backend.registration.provides[key.name])
            found += [_due(key, name) for name in key.members if not hasattr(module, name)]
    return found


def _due(key: Capability[Any], name: str) -> str:
    method = getattr(key.contract, name)
    summary = (inspect.getdoc(method) or "").partition("\n")[0]
    returns = str(inspect.signature(method).return_annotation)
    return f"{key.name}: {name!r} is missing; it must return {returns}: {summary}"


def _require(holds: bool, method: str, said: str) -> None:
    if not holds:
        raise Broken(f"{said}. {_contract(method)}")


def _contract(method: str) -> str:
    found = next((getattr(key.contract, method) for key in KEYS if method in key.members), None)
    summary = (inspect.getdoc(found) or "").partition("\n")[0] if found is not None else ""
    return f"The contract of {method!r}: {summary}" if summary else f"See agnostic.ops.Ops.{method}"


def _images(subject: Subject) -> tuple[Backend, Model, Any]:
    backend, model = subject.factory(), subject.model()
    pixels = np.random.default_rng(0).random((2, subject.size, subject.size, _image_channels(subject)), np.float32)
    return backend, model, backend[INPUTS].native_inputs(model, [_form(subject).arrange(pixels)])


def _form(subject: Subject) -> Input:
    return image_input(subject.factory(), subject.model(), size=subject.size)


def _image_channels(subject: Subject) -> int:
    return _form(subject).length("C") or 0


# The promises -------------------------------------------------------------------------------------------------------
def a_model_is_recognized(subject: Subject) -> None:
    """``backend_of`` finds the backend by the model's class."""
    backend = subject.factory()
    found = backend_name(subject.model())
    if found != backend.name:
        raise Broken(f"the model belongs to backend {found!r}, not {backend.name!r}: check Registration.model_classes")


def operations_equal_the_reference(subject: Subject) -> None:
    """Every operation of ``ops`` in float32."""
    reference = dict(operations.results(NumpyOps()))
    for name, result in operations.results(subject.factory().ops):
        right, method = reference[name], name.partition(" ")[0]
        _require(result.shape == right.shape, method, f"ops: {name} has shape {result.shape}, not {right.shape}")
        same = np.isfinite(right) == np.isfinite(result)
        error = np.abs(result.astype(np.float64) - right.astype(np.float64))[np.isfinite(right)].max(initial=0.0)
        most = operations.tolerance(right)
        _require(bool(same.all() and error <= most), method, f"ops: {name} errs by {error:.1e}, allowed {most:.1e}")


def layers_are_listed(subject: Subject) -> None:
    """``tree`` and ``layers`` name the same layers; shapes, axes and channels fit each other."""
    backend, model, images = _images(subject)
    tree, listing = backend[LAYERS].tree(model), run_layers(backend, model, images)
    names = [x.name for x in listing]
    _require(len(set(names)) == len(names), "trial", "two layers have one name")
    _require({x.name for x in tree} == set(names), "tree", "tree and layers name different layers")
    _require(subject.layer in names, "trial", f"layer {subject.layer!r} is not listed")
    _require(all(x.calls == 0 and x.shape is None for x in tree), "tree", "tree tells shapes or calls")
    for x in listing:
        if x.shape is not None and x.axes is not None:
            _require(len(x.shape) == len(x.axes), "trial", f"{x.name}: {x.axes} are not the axes of {x.shape}")
            if "C" in x.axes:
                _require(x.channels == x.shape[x.axes.index("C")], "trial", f"{x.name}: channels and shape differ")


def captures_what_the_listing_says(subject: Subject) -> None:
    """``capture`` records one array of the listed shape, as ``watch`` and ``submodel`` do."""
    backend, model, images = _images(subject)
    listed = next(x for x in run_layers(backend, model, images) if x.name == subject.layer)
    captured = backend[TAPS].capture(model, images, [subject.layer]).numpy()[subject.layer]
    _require(captured.ndim == len(listed.shape or ()), "capture", f"shape {captured.shape}, listed {listed.shape}")
    fits = all(n in (None, m) for n, m in zip(listed.shape or (), captured.shape, strict=True))
    _require(fits, "capture", f"shape {captured.shape}, listed {listed.shape}")
    part = backend.ops.numpy(backend[TAPS].submodel(model, [subject.layer])(images))
    most = operations.tolerance(captured)
    _require(np.abs(part - captured).max() <= most, "submodel", "a submodel returns something else than capture")
    with backend[TAPS].watch(model, [subject.layer]) as record:
        model(images)
        model(images)
    _require(len(record.calls(subject.layer)) == 2, "watch", "two calls of the model did not make two records")
    model(images)
    _require(len(record.calls(subject.layer)) == 2, "watch", "the hooks stayed after the context")


def unknown_layers_are_refused(subject: Subject) -> None:
    """The verbs name the nearest layer."""
    model = subject.model()
    try:
        ag.submodel(model, subject.layer + "x")
    except UnknownName as error:
        _require(subject.layer in str(error), "tree", f"the error does not name {subject.layer!r}: {error}")
    else:
        raise Broken(f"layer {subject.layer + 'x'!r} does not exist, and is accepted")


def weights_go_out_and_in(subject: Subject) -> None:
    """``set_weights(weights())`` changes nothing; other weights do; what does not fit is refused, nothing set."""
    backend, model, images = _images(subject)

    def output() -> np.ndarray[Any, Any]:
        return backend[TAPS].capture(model, images, [subject.layer]).numpy()[subject.layer]  # type: ignore[no-any-return]

    before, weights = output(), {name: np.array(x) for name, x in backend[WEIGHTS].weights(model).items()}
    backend[WEIGHTS].set_weights(model, weights)
    _require(np.array_equal(output(), before), "set_weights", "the model's own weights changed its output")
    backend[WEIGHTS].set_weights(model, {name: x + x.dtype.type(1) for name, x in weights.items()})
    _require(not np.array_equal(output(), before), "set_weights", "other weights changed nothing")
    backend[WEIGHTS].set_weights(model, weights)
    first, *others = weights
    for broken in ({name: weights[name] for name in others}, {**weights, first: np.zeros((1, 2, 3, 4, 5), np.float32)}):
        try:
            backend[WEIGHTS].set_weights(model, broken)
        except InvalidWeights:
            continue
        raise Broken(f"a missing or misshapen {first!r} was accepted. {_contract('set_weights')}")
    _require(np.array_equal(output(), before), "set_weights", "weights that do not fit were set in part")


def missing_files_are_refused(subject: Subject) -> None:
    """``read_weights`` raises InvalidWeights."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            subject.factory()[WEIGHTS].read_weights(Path(folder) / "none.safetensors")
        except InvalidWeights:
            return
    raise Broken(f"a file that is not there was read. {_contract('read_weights')}")


def an_ascent_climbs(subject: Subject) -> None:
    """Pictures in [0, 1], a rising score, the same pixels for the same seed, whatever the micro-batch."""
    model = subject.model()
    objective = ag.objectives.channel(subject.layer, [0, 1, 0])
    for recipe in subject.recipes:

        def climb(micro_batch: int, recipe: str = recipe) -> Any:
            return ag.visualize(
                model, objective, recipe=recipe, size=subject.size, steps=8, seed=2, micro_batch=micro_batch,
                dtype="float32",
            )  # fmt: skip

        images = climb(3)
        shape = (3, subject.size, subject.size, _image_channels(subject))
        _require(images.shape == shape, "ascend", f"{recipe}: images {images.shape}, not {shape}")
        inside = images.dtype == np.float32 and images.min() >= 0 and images.max() <= 1
        _require(bool(inside), "ascend", f"{recipe}: images are not float32 in [0, 1]")
        rises = np.asarray(images.scores[-1] > images.scores[0])
        _require(recipe != "classic" or bool(rises.all()), "ascend", f"{recipe}: the objective does not rise")
        _require(not any(images.remarks), "ascend", f"{recipe}: no gradient is said to reach images that climb")
        _require(np.array_equal(climb(3), images), "ascend", f"{recipe}: the same seed gave other pixels")
        apart = float(np.abs(np.asarray(climb(2)) - np.asarray(images)).max())
        # Another batch may be summed in another order; eight steps of a smooth ascent amplify that little.
        _require(apart < 1e-3, "ascend", f"{recipe}: another micro-batch moved a pixel by {apart:.1e}")


def silence_is_told(subject: Subject) -> None:
    """``Climbed.reached``: where all weights are zero, no gradient comes back to any image."""
    backend, model = subject.factory(), subject.model()
    backend[WEIGHTS].set_weights(model, {name: np.zeros_like(x) for name, x in backend[WEIGHTS].weights(model).items()})
    if any(x.any() for x in backend[WEIGHTS].weights(model).values()):
        return  # which weights_go_out_and_in says
    _, ascent = prepare(
        model, ag.objectives.channel(subject.layer, [0, 1]), recipe="classic", size=subject.size, steps=2
    )
    for climbed in backend[ASCENT].ascend(model, ascent, Settings(dtype="float32")):
        _require(not climbed.reached.any(), "ascend", "a gradient is said to have come from a layer without weights")


CHECKS: tuple[Callable[[Subject], None], ...] = (
    a_model_is_recognized,
    operations_equal_the_reference,
    layers_are_listed,
    captures_what_the_listing_says,
    unknown_layers_are_refused,
    weights_go_out_and_in,
    missing_files_are_refused,
    an_ascent_climbs,
    silence_is_told,
)
