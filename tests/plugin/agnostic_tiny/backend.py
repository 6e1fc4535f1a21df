"""The backend: a convolution, a ReLU, a mean over positions and a matrix product, in NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from agnostic.errors import InvalidInput, InvalidWeights
from agnostic.layers import Layer
from agnostic.models.forms import Input, Trial
from agnostic.models.weights import fit
from agnostic.reference.ops import NumpyOps
from agnostic.taps.records import Activations
from agnostic.visualization.ascent import Climbed
from agnostic.visualization.objectives import Channel
from agnostic.visualization.parameterization import Pixels
from agnostic.visualization.taps import Tap

Array = np.ndarray[Any, Any]
AXES = {"conv": "NHWC", "relu": "NHWC", "mean": "NC", "dense": "NC"}


class Tiny:
    """(N, H, W, 3) to (N, 5). Its weights are in ``weights``, its hooks in ``hooks``."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.weights: dict[str, Array] = {
            "conv.kernel": rng.normal(0, 0.3, (3, 3, 3, 4)).astype(np.float32),
            "dense.kernel": rng.normal(0, 0.5, (4, 5)).astype(np.float32),
        }
        self.hooks: list[dict[str, list[Array]]] = []

    def layer(self, name: str, x: Array) -> Array:
        """The output of one layer."""
        if name == "conv":
            windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
            return np.einsum("nyxcij,ijck->nyxk", windows, self.weights["conv.kernel"])
        if name == "relu":
            return np.maximum(x, 0)
        return x.mean((1, 2)) if name == "mean" else x @ self.weights["dense.kernel"]

    def __call__(self, x: Array) -> Array:
        """The logits."""
        return self.run(x)["dense"]

    def run(self, x: Array) -> dict[str, Array]:
        """The output of each layer."""
        outputs = {}
        for name in AXES:
            outputs[name] = x = self.layer(name, x)
            for hook in self.hooks:
                if name in hook:
                    hook[name].append(x)
        return outputs


_OPS = NumpyOps()


def tree(model: Tiny) -> list[Layer]:
    return [Layer(name, name, None, None, None, _size(model, name), calls=0) for name in AXES]


def trial(model: Tiny, inputs: Any) -> Trial:
    try:
        outputs = model.run(inputs)
    except ValueError as error:  # what NumPy raises for shapes that do not fit
        return Trial(tree(model), error)
    return Trial(
        [
            Layer(name, name, (None, *x.shape[1:]), AXES[name], x.shape[-1], _size(model, name))
            for name, x in outputs.items()
        ]
    )


def _size(model: Tiny, name: str) -> int:
    return sum(x.size for key, x in model.weights.items() if key.startswith(f"{name}."))


@contextmanager
def watch(model: Tiny, layers: Sequence[str], *, detach: bool = False) -> Iterator[Activations]:
    hook: dict[str, list[Array]] = {name: [] for name in layers}
    model.hooks.append(hook)
    try:
        yield Activations({x.name: x for x in layers_of(model) if x.name in layers}, hook, np.array)
    finally:
        model.hooks.remove(hook)


def layers_of(model: Tiny) -> list[Layer]:
    """The layers with their axes; the hooks do not see this run."""
    hooks, model.hooks = model.hooks, []
    try:
        return run_layers_of(model, np.zeros((1, 16, 16, 3), np.float32))
    finally:
        model.hooks = hooks


def capture(model: Tiny, inputs: Any, layers: Sequence[str]) -> Activations:
    with watch(model, layers) as record:
        model.run(inputs)
    return record


def submodel(model: Tiny, layers: Sequence[str]) -> Any:
    def part(x: Array) -> Any:
        outputs = [model.run(x)[name] for name in layers]
        return outputs[0] if len(outputs) == 1 else outputs

    return part


def stated_inputs(model: Tiny) -> list[Input]:
    return [Input((1, None, None, 3), "NHWC")]


def native_inputs(model: Tiny, arrays: Sequence[Array]) -> Array:
    return arrays[0]


# Ascent ---------------------------------------------------------------------------------------------------------
def ascend(model: Tiny, ascent: Any, settings: Any) -> Iterator[Climbed]:
    objective, recipe = ascent.objective, ascent.recipe
    if not (isinstance(objective, Channel) and isinstance(recipe.image, Pixels) and ascent.views == 1):
        raise InvalidInput("the tiny backend climbs channel(...) by the recipe 'classic', and no other")
    size = settings.micro_batch or ascent.count
    for start in range(0, ascent.count, size):
        images = range(start, min(start + size, ascent.count))
        x, state = ascent.initial(images), ()
        schedule, arrays, scores = ascent.schedule(images), ascent.arrays(images), []
        reached = np.zeros(len(images), bool)
        for step in range(ascent.steps):
            now = {name: a[step] for name, a in schedule.items()}
            forward = model.run(x)

            def taps(_: Array, forward: Mapping[str, Array] = forward) -> dict[str, Tap]:
                return {name: Tap(name, value, AXES[name]) for name, value in forward.items()}

            scores.append(ascent.score(_OPS, taps, x, now, arrays, {}))
            gradient = _gradient(model, forward, str(objective.layer), arrays[0][0])
            reached |= gradient.any((1, 2, 3))
            x, state = ascent.update(_OPS, x, gradient, state, now)
        pixels = ascent.display(_OPS, x, {}).astype(np.float32)
        yield Climbed(images, pixels, np.stack(scores), reached)


def _gradient(model: Tiny, forward: Mapping[str, Array], layer: str, channels: Array) -> Array:
    """Of the spatial mean of one channel a row, with respect to the pixels: by hand."""
    n, height, width, count = forward["conv"].shape
    back = np.eye(count)[channels][:, None, None] / (height * width) * np.ones((n, height, width, count))
    if layer == "relu":
        back = back * (forward["conv"] > 0)
    padded = np.pad(back, ((0, 0), (2, 2), (2, 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    return np.einsum("nyxkij,ijck->nyxc", windows, model.weights["conv.kernel"][::-1, ::-1])


# Models and weights ---------------------------------------------------------------------------------------------
def build(architecture: Any) -> Tiny:
    raise InvalidInput(f"the tiny backend cannot build {architecture.name}: it has one network of its own")


def load(spec: str, weights: Any, *, trust: bool = False) -> Tiny:
    return Tiny()


def weights(model: Tiny) -> dict[str, Array]:
    return {name: x.copy() for name, x in model.weights.items()}


def set_weights(model: Tiny, weights: Mapping[str, Array]) -> None:
    fit({k: x.shape for k, x in model.weights.items()}, {k: x.shape for k, x in weights.items()})
    model.weights = {name: np.array(weights[name]) for name in model.weights}


def read_weights(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise InvalidWeights(f"cannot read weights from {path}: there is no such file")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def run_layers_of(model: Tiny, inputs: Any) -> list[Layer]:
    """The layers of a run."""
    return list(trial(model, inputs).layers)


def layer_name(model: Tiny, layer: Any) -> None:
    """None: layers are no objects here."""


def expected(model: Tiny, layer: str | None) -> None:
    """None: not known."""


def stated_preprocessing(model: Tiny, place: int = 0) -> None:
    """None: images stay in [0, 1]."""


def stated_card(model: Tiny) -> None:
    """None: it has no card."""


def input_count(model: Tiny) -> int:
    """One."""
    return 1


def input_names(model: Tiny) -> list[str]:
    """It has no name."""
    return []


def is_refusal(error: Exception) -> bool:
    """What NumPy raises for shapes that do not fit."""
    return isinstance(error, ValueError)


def load_weights(model: Tiny, path: Path, name: str) -> None:
    """See :mod:`agnostic.contracts.weights`."""
    set_weights(model, read_weights(path))


def save(model: Tiny, path: Path) -> None:
    """See :mod:`agnostic.contracts.weights`."""
    np.savez(path, **model.weights)


def ops_for(arrays: Sequence[Any] = ()) -> NumpyOps:
    """See :mod:`agnostic.contracts.ops`."""
    return _OPS


def engine() -> str:
    """NumPy computes here."""
    return "tiny"
