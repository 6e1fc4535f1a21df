"""Why a layer of one model computes something else than its counterpart, and the mend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from agnostic.description import Array, LayerDescription


@dataclass(frozen=True)
class Culprit:
    """All that is known about the place where two models part. Arrays are channels-last NumPy.

    Attributes:
        a: descriptions of A's layers at that place, in order.
        b: descriptions of B's layers at that place, in order. Where the place is "glue", this is the layer that B's own
            code handed something else to; empty at the end of the model.
        place: ``"layer"``: the layers themselves differ, fed the same. ``"glue"``: the code of B that runs before them.
        inputs: what A's first layer received, by position.
        truth: A's output in float64. For "glue": what A's layer received at the position that differs, ``inputs[i]``.
        output: B's output for ``inputs``. For "glue": what B's code handed on instead, from the same sources.
        floor: the root mean square of what arithmetic alone does to ``truth``; positive.
        sources: what ran before, by A's layer name, oldest first: the arrays that B's code had at hand, which were A's.
            Needed for glue alone.
        again: B's output for ``inputs`` a second time, if it was run twice: tells randomness.
        facts: of the models as wholes. ``a_framework``, ``b_framework``, ``a_dtype``, ``b_dtype``, ``a_preprocessing``,
            ``b_preprocessing`` (mappings with mean, std, scale, channel_order), ``first``: whether nothing ran before.
    """

    a: Sequence[LayerDescription]
    b: Sequence[LayerDescription]
    place: Literal["layer", "glue"]
    inputs: Sequence[Array]
    truth: Array
    output: Array
    floor: float
    sources: Mapping[str, Array] = field(default_factory=dict)
    again: Array | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def error(self, output: Array, truth: Array | None = None) -> float:
        """How far an output is from the truth, in units of the floor; infinite where the shapes differ."""
        truth = self.truth if truth is None else truth
        if output.shape != truth.shape:
            return float("inf")
        difference = np.asarray(output, np.float64) - np.asarray(truth, np.float64)
        error = float(np.sqrt(np.mean(np.square(difference)))) if difference.size else 0.0
        return error / self.floor if error == error else float("inf")


@dataclass(frozen=True)
class Finding:
    """A mistake that was tried at the culprit.

    Attributes:
        mistake: a stable key, such as ``"batch_norm_epsilon"``; ``"unexplained"`` where nothing removes the error.
        sentence: what is wrong, with the numbers of both sides.
        mend: what to write, in B's framework.
        before: the error as it is, in units of the noise floor.
        after: the error that is left when the mistake is taken out, in the same units.
        tried: for "unexplained": the mistakes that were tried and do not remove the error.
    """

    mistake: str
    sentence: str
    mend: str
    before: float
    after: float
    tried: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.sentence} {self.mend}".strip()
