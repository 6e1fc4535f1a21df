"""Checks of what moves: gradient ascent, optimizers, learning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from agnostic.contracts.ascent import ASCENT
from agnostic.contracts.calls import CALLS
from agnostic.contracts.learning import LEARNING
from agnostic.contracts.optimizers import OPTIMIZERS
from agnostic.contracts.weights import WEIGHTS
from agnostic.optimizers import SGD, Adam, build
from agnostic.registry import optimizer_backend
from agnostic.testing.subject import Subject, require
from agnostic.visualization.ascent import Settings
from agnostic.visualization.objectives import channel
from agnostic.visualization.verb import Options, prepare, visualize


def an_ascent_climbs(subject: Subject) -> None:
    """Pictures in [0, 1], a rising score, the same pixels for the same seed, whatever the micro-batch."""
    model = subject.model()
    objective = channel(subject.layer, [0, 1, 0])
    for recipe in subject.recipes:

        def climb(micro_batch: int, recipe: str = recipe) -> Any:
            return visualize(
                model, objective, recipe=recipe, size=subject.size, steps=8, seed=2, micro_batch=micro_batch,
                dtype="float32",
            )  # fmt: skip

        images = climb(3)
        shape = (3, subject.size, subject.size, subject.channels)
        require(images.shape == shape, ASCENT, "ascend", f"{recipe}: images {images.shape}, not {shape}")
        inside = images.dtype == np.float32 and images.min() >= 0 and images.max() <= 1
        require(inside, ASCENT, "ascend", f"{recipe}: images are not float32 in [0, 1]")
        rises = np.asarray(images.scores[-1] > images.scores[0])
        require(recipe != "classic" or rises.all(), ASCENT, "ascend", f"{recipe}: the objective does not rise")
        require(not any(images.remarks), ASCENT, "ascend", f"{recipe}: no gradient is said to reach images that climb")
        require(np.array_equal(climb(3), images), ASCENT, "ascend", f"{recipe}: the same seed gave other pixels")
        apart = float(np.abs(np.asarray(climb(2)) - np.asarray(images)).max())
        # Another batch may be summed in another order; eight steps of a smooth ascent amplify that little.
        require(apart < 1e-3, ASCENT, "ascend", f"{recipe}: another micro-batch moved a pixel by {apart:.1e}")


def silence_is_told(subject: Subject) -> None:
    """``Climbed.reached``: where all weights are zero, no gradient comes back to any image."""
    backend, model = subject.owner, subject.model()
    backend[WEIGHTS].set_weights(model, {name: np.zeros_like(x) for name, x in backend[WEIGHTS].weights(model).items()})
    if any(x.any() for x in backend[WEIGHTS].weights(model).values()):
        return  # which weights_go_out_and_in says
    _, ascent = prepare(model, channel(subject.layer, [0, 1]), Options("classic", subject.size, 2))
    for climbed in backend[ASCENT].ascend(model, ascent, Settings(dtype="float32")):
        require(not climbed.reached.any(), ASCENT, "ascend", "a gradient is said to come from a layer without weights")


def silent_parts_are_told(subject: Subject) -> None:
    """``Climbed.parts``: of a sum, which summands a gradient comes from."""
    layer = subject.layer
    objective = channel(layer, [0, 1]) + 0 * channel(layer, [1, 0])
    model = subject.model()
    _, ascent = prepare(model, objective, Options("classic", subject.size, 2))
    for climbed in subject.owner[ASCENT].ascend(model, ascent, Settings(dtype="float32")):
        require(climbed.parts is not None, ASCENT, "ascend", "of an objective with two parts Climbed.parts is None")
        right = [[True, False]] * len(climbed.images)
        told = np.array_equal(np.asarray(climbed.parts), right)
        require(told, ASCENT, "ascend", "Climbed.parts of x + 0 * y is not [True, False] for each image")


def other_inputs_are_given(subject: Subject) -> None:
    """``Ascent.call`` and ``Ascent.others``: the model is given its other inputs, to each image its own row."""
    if subject.several is None:
        return
    model, inputs = subject.several()

    def moved(x: Any, *by: float) -> Any:
        if isinstance(x, Mapping):
            return {name: moved(value, *by) for name, value in x.items()}
        if isinstance(x, tuple | list):
            return type(x)(moved(value, *by) for value in x)
        return np.concatenate([x + n for n in by]) if isinstance(x, np.ndarray) else x

    def climb(inputs: Any, micro_batch: int = 3) -> Any:
        objective = channel(subject.layer, [0, 1, 0])
        return visualize(
            model, objective, recipe="classic", inputs=inputs, size=subject.size, steps=3, micro_batch=micro_batch,
            dtype="float32",
        ).scores  # fmt: skip

    first, other = climb(inputs), climb(moved(inputs, 1.0))
    ignored = np.array_equal(first, other)
    require(not ignored, ASCENT, "ascend", "other values of the other inputs change nothing: see Ascent.others")
    rows = climb(moved(inputs, 0.0, 1.0, 0.0), 2)
    right = np.where(np.arange(3) == 1, other, first)
    # Three steps of float32 in another micro-batch.
    own = np.allclose(rows, right, rtol=1e-3, atol=1e-5)
    require(own, ASCENT, "ascend", "inputs with a row for each image do not give each image its own")


def parameters_are_listed(subject: Subject) -> None:
    """``inventory`` names the trainable parameters; ``members`` yields them again."""
    backend, model = subject.owner, subject.model()
    found = backend[OPTIMIZERS].inventory(model)
    require(found.backend == subject.backend, OPTIMIZERS, "inventory", f"its backend is {found.backend!r}")
    require(len(found.parameters) > 0, OPTIMIZERS, "inventory", "no parameter is trainable")
    unknown = {name for _, names in found.layers for name in names} - set(found.parameters)
    require(not unknown, OPTIMIZERS, "inventory", f"layers hold unknown parameters: {', '.join(sorted(unknown))}")
    given = list(found.parameters.values())
    again = [parameter for _, parameter in backend[OPTIMIZERS].members(given)]
    same = len(again) == len(given) and all(a is b for a, b in zip(again, given, strict=True))
    require(same, OPTIMIZERS, "members", "the parameters of a list come back as others")


def optimizers_are_built_and_read(subject: Subject) -> None:
    """``build`` makes an optimizer that is the backend's, and ``read`` gives the specification back."""
    backend, model = subject.owner, subject.model()
    spec = Adam(0.125, epsilon=0.5, beta_1=0.75)
    optimizer = build(spec, model)
    found = optimizer_backend(optimizer).name
    require(found == subject.backend, OPTIMIZERS, "build", f"the optimizer belongs to {found!r}: see optimizer_classes")
    snapshot = backend[OPTIMIZERS].read(optimizer, model)
    read = snapshot.groups[0][0]
    for name in ("learning_rate", "epsilon", "beta_1"):
        value = getattr(read, name)
        # A framework may hold it in float32.
        require(abs(value - getattr(spec, name)) < 1e-6, OPTIMIZERS, "read", f"{name} is {value}")
    names = list(backend[OPTIMIZERS].inventory(model).parameters)
    require(list(snapshot.shapes) == names, OPTIMIZERS, "read", f"the parameters are {list(snapshot.shapes)}")
    last = snapshot.outputs_last == backend.facts.kernels_last
    require(last, OPTIMIZERS, "read", "outputs_last is not what the facts say of kernels")


def gradients_descend(subject: Subject) -> None:
    """``gradients``: along them the loss changes as they say; the model is as before."""
    backend, model = subject.owner, subject.model()
    images, before = subject.images(model), backend[WEIGHTS].weights(model)
    found = backend[LEARNING].gradients(model, images)
    require(set(found) <= set(before), LEARNING, "gradients", "a gradient has a name that no weight has")
    length = float(np.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in found.values())))
    size = 0.01 / length
    losses = []
    for sign in (1, -1):
        moved = {name: x + (sign * size * found[name] if name in found else 0) for name, x in before.items()}
        backend[WEIGHTS].set_weights(model, {k: x.astype(before[k].dtype) for k, x in moved.items()})
        outputs = backend[CALLS].run(model, images)
        losses.append(sum(np.square(backend[CALLS].numpy(y), dtype=np.float64).mean() / 2 for y in outputs))
    backend[WEIGHTS].set_weights(model, before)
    # The central difference errs by the third derivative times 1e-4 / 6, and by what rounding makes of the losses.
    slope = (losses[0] - losses[1]) / (2 * size)
    off = abs(slope / length**2 - 1)
    require(off < 0.02, LEARNING, "gradients", f"the loss changes by {slope / length**2:.3f} of what they say")


def steps_follow_the_rule(subject: Subject) -> None:
    """``steps``: gradient descent subtracts the learning rate times the gradient, and leaves the model as it was."""
    backend, model = subject.owner, subject.model()
    images, before = subject.images(model), backend[WEIGHTS].weights(model)
    rates = [0.5, 0.25]
    now = dict(before)
    for rate, (used, after) in zip(rates, backend[LEARNING].steps(model, images, SGD(1.0), rates), strict=True):
        for name, g in used.items():
            right = now[name] - rate * g
            apart = float(np.abs(after[name] - right).max())
            most = 4 * np.finfo(np.float32).eps * max(1.0, float(np.abs(right).max()))
            require(apart <= most, LEARNING, "steps", f"{name!r} errs by {apart:.1e} after a step of {rate}")
        now |= after
    same = all(np.array_equal(x, before[name]) for name, x in backend[WEIGHTS].weights(model).items())
    require(same, LEARNING, "steps", "the model is not as before afterwards")


CHECKS: Mapping[str, Sequence[Callable[[Subject], None]]] = {
    "ascent": (an_ascent_climbs, silence_is_told, silent_parts_are_told, other_inputs_are_given),
    "optimizers": (parameters_are_listed, optimizers_are_built_and_read),
    "learning": (gradients_descend, steps_follow_the_rule),
}
