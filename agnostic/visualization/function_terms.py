"""An objective from a user's own function, tried on arrays that refuse what no compiler can follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.errors import InvalidInput
from agnostic.layers import Layer
from agnostic.ops import Array, Ops
from agnostic.visualization.objective import ModelLookup, Objective, Term, View, check_ran
from agnostic.visualization.taps import Tap
from agnostic.visualization.tracing import Traced, TracingOps, unwrapped

_ROWS = 3


@dataclass(frozen=True, repr=False)
class FunctionTerm(Term):
    """The result of a function of layers' outputs, one number per row.

    Attributes:
        function: of the array operations and of the outputs (rows, channels, positions ...) by layer, as named in
            ``reads``.
        reads: the layers, as the function names them.
        name: for people.
        mixes: whether the result of one row depends on the others.
        found: the model's own names of the layers, once the objective is resolved.

    Example:
        >>> def edge(ops, taps):
        ...     return ops.mean(ops.abs(taps["conv"][:, 0]), (1, 2))
        >>> ag.objectives.function(edge, "conv").labels()
        ('edge',)
    """

    function: Callable[[Ops, Mapping[str, Array]], Array] = dataclasses.field(repr=False)
    reads: tuple[str, ...]
    name: str
    mixes: bool = False
    found: tuple[str, ...] = dataclasses.field(default=(), repr=False, compare=False)

    def __repr__(self) -> str:
        return display.changed(self)

    @property
    def couples(self) -> bool:  # type: ignore[override]
        """Whether the value of one image depends on the others."""
        return self.mixes

    def labels(self) -> tuple[str, ...]:
        return (self.name,)

    def uses(self) -> tuple[str, ...]:
        return self.found or self.reads

    def resolve(self, model: ModelLookup) -> Objective:
        layers = [model.layer(name) for name in self.reads]
        for layer in layers:
            check_ran(layer)
        self._try(layers)
        return dataclasses.replace(self, found=tuple(layer.name for layer in layers))

    def score(self, ops: Ops, view: View) -> Array:
        next(view.arrays)
        taps = {
            name: _with_channels_first(ops, view.taps[own]) for name, own in zip(self.reads, self.uses(), strict=True)
        }
        return self.function(ops, taps)

    def _try(self, layers: list[Layer]) -> None:
        """Run the function on arrays of the layers' shapes that show whether every backend can differentiate it."""
        rng = np.random.default_rng(0)
        values = {name: rng.standard_normal(_shape(x)) for name, x in zip(self.reads, layers, strict=True)}
        whole = self._tried(values, _ROWS)
        if np.array_equal(whole, self._tried({name: -2 * x for name, x in values.items()}, _ROWS)):
            raise InvalidInput(f"the function {self.name!r} does not depend on {' and '.join(map(repr, self.reads))}")
        alone = [self._tried({name: x[i : i + 1] for name, x in values.items()}, 1)[0] for i in range(_ROWS)]
        # Sums of other orders differ by rounding; a mean over the batch by far more.
        if not self.mixes and not np.allclose(whole, alone, rtol=1e-6, atol=1e-9):
            raise InvalidInput(
                f"the function {self.name!r} mixes the rows of a batch: keep the first axis apart, or say mixes=True"
            )

    def _tried(self, values: Mapping[str, npt.NDArray[np.float64]], rows: int) -> npt.NDArray[np.float64]:
        result: Any = self.function(TracingOps(), {name: Traced(x) for name, x in values.items()})
        if not isinstance(result, Traced) or result.shape != (rows,):
            what = f"shape {result.shape}" if isinstance(result, Traced) else type(result).__name__
            raise InvalidInput(
                f"the function {self.name!r} returns one number per row, of shape ({rows},) here, not {what}"
            )
        return np.asarray(unwrapped(result), np.float64)


def _shape(layer: Layer) -> tuple[int, ...]:
    """(rows, channels, positions ...) of a layer's output."""
    lengths = list(zip(layer.axes or "", layer.shape or (), strict=True))
    return (_ROWS, layer.channels or 1, *(n or 1 for axis, n in lengths if axis not in "NC"))


def _with_channels_first(ops: Ops, tap: Tap) -> Array:
    order = [tap.axes.index("N"), tap.axes.index("C")]
    return ops.transpose(tap.value, [*order, *(i for i in range(len(tap.axes)) if i not in order)])
