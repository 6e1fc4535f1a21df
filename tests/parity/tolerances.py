"""Every tolerance of the parity suite, and where it comes from. The judge is float64: NumPy for operations, else torch.

**Operations.** See :func:`agnostic.testing.operations.tolerance`.

**Layers, values and gradients without kinks.** Rounding errors of another order of summation are another draw from the
same distribution as those of torch in float32, whose distance from float64 is measured, for each array by itself: the
noise floor. A plain sum of K terms errs by about sqrt(K) eps, a pairwise one by about log2(K) eps: for the longest
reduction of the embedded network, K = 1280, that is 3.5 times as much, and two draws differ: ``FACTOR`` 8. Nothing is
expected below ``FACTOR * eps``, one rounding each. Measured: at most 1.4 floors, in all layers, on all engines.
A test computes what a wrong epsilon in one batch normalization costs, and sees that it is refused.

**Ascents with kinks.** Where the input of a ReLU6 is nearer to 0 or 6 than rounding, two correct gradients differ by
that unit's whole part, and the steps that follow amplify it. How much depends on the network, not on the framework, and
can be asked of the judge alone: it climbs again, in float64, from starts that are off by ``LAYER_NOISE`` (the relative
error of a layer in float32), and the largest distance between those climbs is what rounding may cost. As a jump may be
missed in a few runs, four times that.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

EPS = float(np.finfo(np.float32).eps)
FACTOR = 8.0
LAYER_NOISE = 2e-6
MOVED_RUNS = 3
MOVED_FACTOR = 4.0


def distance(a: Array, b: Array) -> float:
    """Relative error of ``a`` in the Euclidean norm; ``b`` is right."""
    norm = float(np.linalg.norm(b.astype(np.float64)))
    return float(np.linalg.norm(a.astype(np.float64) - b.astype(np.float64))) / (norm or 1.0)


def smooth(single: Array, right: Array) -> float:
    """The largest distance allowed, from torch in float32 and in float64."""
    return FACTOR * max(distance(single, right), EPS)


def kinked(moved: list[Array], single: Array, right: Array) -> float:
    """The largest distance allowed for an ascent through ReLUs."""
    return max(smooth(single, right), MOVED_FACTOR * max(distance(x, right) for x in moved))
