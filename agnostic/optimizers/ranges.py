"""What numbers a hyperparameter may be, as text and as a check."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """Finite numbers between two bounds.

    Attributes:
        low, high: the bounds; None: none on that side.
        without_low, without_high: whether the bound itself is left out.
        whole: only whole numbers.
    """

    low: float | None = None
    high: float | None = None
    without_low: bool = False
    without_high: bool = False
    whole: bool = False

    def __contains__(self, value: Any) -> bool:
        wanted = numbers.Integral if self.whole else numbers.Real
        if isinstance(value, bool) or not isinstance(value, wanted) or not math.isfinite(float(value)):
            return False
        value = float(value)
        above = self.low is None or value > self.low or (value == self.low and not self.without_low)
        below = self.high is None or value < self.high or (value == self.high and not self.without_high)
        return above and below

    def __str__(self) -> str:
        kind = "whole number" if self.whole else "number"
        if self.low is not None and self.high is not None:
            left, right = "(" if self.without_low else "[", ")" if self.without_high else "]"
            return f"a {kind} in {left}{self.low:g}, {self.high:g}{right}"
        if self.low is not None:
            return f"a finite {kind} {'greater than' if self.without_low else 'of at least'} {self.low:g}"
        if self.high is None:
            return f"a finite {kind}"
        return f"a finite {kind} {'less than' if self.without_high else 'of at most'} {self.high:g}"


SHARE = Range(0, 1)
DECAY = Range(0, 1, without_high=True)
"""Of a mean that forgets: with 1 it never takes anything in, and the correction of its start divides by 0."""
AT_LEAST_0 = Range(0)
POSITIVE = Range(0, without_low=True)
COUNT = Range(1, whole=True)
