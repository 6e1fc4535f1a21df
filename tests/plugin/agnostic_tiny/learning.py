"""Capabilities: ops, gradients, ascent, optimizers and learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agnostic import contracts
from agnostic.errors import InvalidInput
from agnostic.layers import Layer
from agnostic.optimizers import build, rules
from agnostic.optimizers.inventory import Inventory, ParameterGroup
from agnostic.optimizers.snapshot import ParameterState, Snapshot
from agnostic.reference.ops import NumpyOps
from agnostic.reference.optimizers import initial_state
from agnostic.visualization.ascent import Climbed
from agnostic.visualization.taps import Tap
from agnostic_tiny import tape
from agnostic_tiny.looking import taps
from agnostic_tiny.storing import weights
from agnostic_tiny.tape import Tensor


class TinyOps(NumpyOps):
    """The operations of the reference, on tensors."""

    name = "tiny"

    def asarray(self, value, dtype=None):
        tensor = value if isinstance(value, Tensor) else Tensor(value)
        return tensor if dtype is None else tensor.astype(dtype)

    def stop_gradient(self, x):
        return Tensor(x)


class Operations(contracts.Operations):
    def ops_for(self, arrays=()):
        return TinyOps()

    def engine(self):
        return "tiny"


class Gradients(contracts.Gradients):
    def detached(self, inputs):
        return [Tensor(x.value) for x in inputs]

    def pullback(self, function, inputs, cotangents):
        leaves = self.detached(inputs)
        outputs = function(*leaves)
        found = tape.gradients(outputs, cotangents(outputs), leaves)
        return [None if g is None else Tensor(g) for g in found]

    def per_sample(self, function, inputs, batch, cotangents):
        rows = zip(*(map(Tensor, x.value) for x in batch), strict=True)
        found = [self.pullback(lambda *x, row=row: function(*x, *row), inputs, cotangents) for row in rows]
        return [_stacked(x, own) for x, own in zip(inputs, zip(*found, strict=True), strict=True)]

    def jacobian(self, function, inputs):
        leaves, rows = self.detached(inputs), []
        for y in function(*leaves):
            units = np.eye(y.value.size, dtype=y.dtype).reshape(-1, *y.shape)
            found = zip(*(tape.gradients([y], [unit], leaves) for unit in units), strict=True)
            rows.append([_stacked(x, own).reshape(y.shape + x.shape) for x, own in zip(leaves, found, strict=True)])
        return rows


def _stacked(like: Tensor, gradients: Sequence[Any]) -> Tensor:
    return Tensor(np.stack([np.zeros_like(like.value) if g is None else np.asarray(g) for g in gradients]))


class Ascents(contracts.Ascents):
    def ascend(self, model, ascent, settings):
        size = ascent.count if ascent.objective.coupled else settings.micro_batch or ascent.count
        for start in range(0, ascent.count, size):
            yield _climb(model, ascent, range(start, min(start + size, ascent.count)), settings.dtype or "float32")


def _climb(model: Any, ascent: Any, images: range, dtype: str) -> Climbed:
    def native(x: Any) -> Tensor:
        return Tensor(np.asarray(x, dtype if np.asarray(x).dtype.kind == "f" else None))

    def forward(inputs: Tensor) -> dict[str, Tap]:
        given.append(inputs)
        with taps.watch(model, list(model.layers)) as record:
            output = model(inputs)
        return {"": Tap("", output, "NC")} | {name: Tap(name, x, model.layers[name].axes) for name, x in record.items()}

    given: list[Tensor] = []
    ops, scores, reached = TinyOps(), [], np.zeros(len(images), bool)
    parameters, schedule = native(ascent.initial(images)), ascent.schedule(images)
    state = ascent.recipe.update.initial_state(parameters)
    constants = {name: native(x) for name, x in ascent.constants().items()}
    arrays = [tuple(map(native, own)) for own in ascent.arrays(images)]
    parts = np.zeros((len(images), len(ascent.objective.parts())), bool)
    for step in range(ascent.steps):
        now = {name: native(x[step]) for name, x in schedule.items()}
        if step in (0, ascent.steps - 1):
            found = ascent.part_scores(ops, forward, parameters, now, arrays, constants)
            pixels = given.pop()
            for part, x in zip(parts.T, found, strict=True):
                (seen,) = tape.gradients([x], [np.ones(len(images))], [pixels])
                part |= False if seen is None else seen.reshape(len(images), -1).any(axis=1)
        score = ascent.score(ops, forward, parameters, now, arrays, constants)
        # What comes back from the network to the images, and what arrives at the parameters.
        seen, gradient = tape.gradients([score], [np.ones(len(images))], [given.pop(), parameters])
        reached |= False if seen is None else seen.reshape(len(images), -1).any(axis=1)
        scores.append(score.value)
        gradient = native(np.zeros(parameters.shape) if gradient is None else gradient)
        parameters, state = ascent.update(ops, Tensor(parameters), gradient, state, now)
        parameters = Tensor(parameters)  # without the tape of this step
    pixels = np.asarray(ascent.display(ops, parameters, constants), np.float32)
    return Climbed(images, pixels, np.stack(scores).astype(np.float64), reached, parts)


class Optimizer:
    """Moves the parameters of groups, each by its own specification."""

    def __init__(self, groups: Sequence[tuple[Any, ParameterGroup]]) -> None:
        self.groups = [(spec, dict(group.parameters)) for spec, group in groups if group.trainable]
        if any(spec.accumulate > 1 or spec.ema_momentum is not None for spec, _ in self.groups):
            raise InvalidInput("tiny optimizers accumulate no gradients and average no weights")
        self.state = {name: initial_state(spec, p.shape) for spec, own in self.groups for name, p in own.items()}
        self.steps = 0

    def step(self, gradients: Mapping[str, Any], rate: float | None = None) -> None:
        """One step with gradients by name, with the specifications' learning rates or another."""
        ops = NumpyOps()
        self.steps += 1
        for spec, own in self.groups:
            moving = {name: np.asarray(gradients[name]) for name in own if name in gradients}
            for name, g in zip(moving, rules.clip(ops, spec, list(moving.values())), strict=True):
                p, state = own[name], self.state[name]
                kept = {key: state[key] for key in rules.scalar_slots(spec)}
                lr = spec.learning_rate if rate is None else rate
                numbers, kept = rules.python_numbers(spec, self.steps, lr, kept)
                p.value, arrays = rules.step(ops, spec, p.value, g, state, {**numbers, "outputs_last": True})
                self.state[name] = {**arrays, **{key: np.asarray(x) for key, x in kept.items()}}


class Optimizers(contracts.Optimizers):
    def inventory(self, model):
        own = model.parameters()
        holders = {name: tuple(f"{name}.{key}" for key in x.weights) for name, x in model.layers.items()}
        held = {**{name: names for name, names in holders.items() if names}, **{name: (name,) for name in own}}
        return Inventory(own, [(Layer(n, "Layer", None, None, None, 0), names) for n, names in held.items()], "tiny")

    def members(self, params):
        return ((str(i), p) for i, p in enumerate(params if isinstance(params, list | tuple) else [params]))

    def build(self, spec, resolved, native, options):
        if native or options:
            raise InvalidInput("tiny has no optimizers of its own: leave native=True and options out")
        return Optimizer(resolved)

    def read(self, optimizer, model=None):
        own = {name: p for _, group in optimizer.groups for name, p in group.items()}
        steps, state = optimizer.steps, optimizer.state
        states = {name: ParameterState(p.shape, steps, state[name] if steps else {}) for name, p in own.items()}
        groups = tuple((spec, tuple(group)) for spec, group in optimizer.groups)
        return Snapshot(groups, states, {name: p.shape for name, p in own.items()}, True, groups[0][0].learning_rate)

    def averaged_weights(self, optimizer):
        raise InvalidInput("tiny optimizers keep no average of the weights")

    def restore(self, optimizer, snapshot, names, parameters):
        for name, known in snapshot.states.items():
            optimizer.steps = known.step
            optimizer.state[name] = {**optimizer.state[name], **known.slots}


class Learning(contracts.LearningSteps):
    def gradients(self, model, inputs):
        own = model.parameters()
        loss = np.mean(np.square(model(inputs))) / 2
        found = tape.gradients([loss], [1.0], list(own.values()))
        return {name: g for name, g in zip(own, found, strict=True) if g is not None}

    def steps(self, model, inputs, spec, rates):
        before, optimizer = weights.weights(model), build(spec, model)
        try:
            for rate in rates:
                used = self.gradients(model, inputs)
                optimizer.step(used, rate)
                yield used, weights.weights(model)
        finally:
            weights.set_weights(model, before)


ops, gradients, ascent, optimizers, learning = Operations(), Gradients(), Ascents(), Optimizers(), Learning()
