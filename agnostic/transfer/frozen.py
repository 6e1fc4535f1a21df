"""A norm that is written as its arithmetic: which of its vectors is the scale, the shift, the mean, the variance.

A batch norm with statistics that no longer change is ``x * s + t`` with ``s = scale / sqrt(variance + epsilon)`` and
``t = shift - mean * s``, in whatever order the code computes that. Which vector has which part is found by changing one
at a time; that the arithmetic is just this is checked on other numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agnostic.program.nodes import Array
from agnostic.transfer.weights import ProgramWeights, WeightPart

Steps = Sequence[tuple[str, WeightPart]]


def folded_norm(steps: Steps, weights: ProgramWeights) -> tuple[dict[str, WeightPart], dict[str, Any]] | None:
    """The parts of a norm and its epsilon; as one scale and one shift, where its vectors cannot be told apart.

    Args:
        steps: what is done to the array, one after the other: ``"scale"``, ``"shift"``, ``"minus"`` or ``"over"``.
    """
    names = {n for _, part in steps if part.value is not None for n in weights.names(part.value) or ()}
    size = max(weights.numbers(part).size for _, part in steps)
    whole = _line(steps, weights, {})
    both = {"scale": WeightPart(None, fixed=whole[0]), "shift": WeightPart(None, fixed=whole[1])}
    if any(weights.arrays[name].size != size for name in names):
        return both, {"leaves": sorted(names)}
    rng = np.random.default_rng(0)
    numbers: dict[str, Array] = {
        name: np.asarray(rng.uniform(1, 2, weights.arrays[name].shape)) for name in sorted(names)
    }
    roles = _roles(steps, weights, numbers)
    if roles is None:
        return both, {"leaves": sorted(names)}
    epsilon = _epsilon(steps, weights, numbers, roles)
    if epsilon is None:
        return both, {"leaves": sorted(names)}
    values = {leaf.name: leaf.value for leaf in weights.program.leaves}
    parts = {role: WeightPart(values[name], lambda x: x.reshape(-1)) for role, name in roles.items()}
    return parts, {"epsilon": epsilon} if "variance" in roles else {}


def _line(steps: Steps, weights: ProgramWeights, instead: Mapping[str, Array]) -> tuple[Array, Array]:
    """(s, t) of ``x * s + t``."""
    size = max(weights.numbers(part).size for _, part in steps)
    scale, shift = np.ones(size), np.zeros(size)
    for role, part in steps:
        x = np.asarray(weights.numbers(part, instead), np.float64).reshape(-1)
        if role in ("scale", "over"):
            x = 1 / x if role == "over" else x
            scale, shift = scale * x, shift * x
        else:
            shift = shift + (x if role == "shift" else -x)
    return scale, shift


def _roles(steps: Steps, weights: ProgramWeights, numbers: Mapping[str, Array]) -> dict[str, str] | None:
    scale, shift = _line(steps, weights, numbers)
    found: dict[str, str] = {}
    for name, x in numbers.items():
        more, moved = _line(steps, weights, {**numbers, name: 2 * x})
        if np.allclose(more, scale):
            change = (moved - shift) / x.reshape(-1)
            role = "shift" if np.allclose(change, 1) else "mean" if np.allclose(change, -scale) else ""
        else:
            role = "scale" if np.allclose(more, 2 * scale) else "variance"
        if not role or role in found:
            return None
        found[role] = name
    return found


def _epsilon(
    steps: Steps, weights: ProgramWeights, numbers: Mapping[str, Array], roles: Mapping[str, str]
) -> float | None:
    """What is added to the variance; None where the arithmetic is another one."""
    given = {role: numbers[name].reshape(-1) for role, name in roles.items()}
    scale, shift = _line(steps, weights, numbers)
    gamma = given.get("scale", np.ones(scale.size))
    epsilon = 0.0
    if "variance" in given:
        none = _line(steps, weights, {**numbers, roles["variance"]: np.zeros_like(numbers[roles["variance"]])})[0]
        found = np.square(gamma / none)
        epsilon = float(np.median(found))
        if not np.allclose(scale, gamma / np.sqrt(given["variance"] + epsilon)):
            return None
    elif not np.allclose(scale, gamma):
        return None
    wanted = given.get("shift", np.zeros(scale.size)) - given.get("mean", np.zeros(scale.size)) * scale
    return epsilon if np.allclose(shift, wanted) else None
