"""What a comparison finds, in parts: rows of the table, places that differ, their reasons, and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from agnostic import display

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Finding:
    """Why a place differs.

    Attributes:
        mistake: a stable key, such as ``"batch_norm_epsilon"``; ``"unexplained"`` where the two pieces of program are
            all that is known.
        sentence: what is wrong, with the numbers of both sides.
        fix: what to write, in B's framework; ``""`` where that is not known.
        before: the error of B's output as it is, in units of the noise floor.
        after: the error that is left when the mistake is taken out, in the same units.
        proven: whether B was run without it, operator by operator, and gave A's outputs.
        place_a, place_b: file and line of both sides; "" where Python does not know them.
    """

    mistake: str
    sentence: str
    fix: str
    before: float
    after: float
    proven: bool = False
    place_a: str = ""
    place_b: str = ""

    def __str__(self) -> str:
        return f"{self.sentence} {self.fix}".strip()


@dataclass(frozen=True)
class Row:
    """One place of both models.

    Attributes:
        a, b: the layers there, each with the number of its call from the second on.
        kind: of the layer; ``"output"`` for what the models return; ``"gradient: kernel"``, ``"update: kernel"``.
        shape: of A's output.
        distance: how far B's output is from A's, in units of the noise floor; None where it was not measured.
        error: the same as a root mean square, in the output's own unit.
        floor: the noise floor, in the same unit.
        scale: the root mean square of A's output.
        verdict: ``"layer"`` or ``"code"``: the layer, or the code before it, is what differs; ``"shows"``: it only
            shows an earlier difference; ``"inside"``: it differs, and the models' outputs do not; ``"same"``.
        alone: of the update of weights: how far B's are from what A's rule makes of B's own gradients.
    """

    a: str
    b: str
    kind: str
    shape: tuple[int, ...]
    distance: float | None
    error: float | None
    floor: float
    scale: float
    verdict: str = "same"
    alone: float | None = None


@dataclass(frozen=True, repr=False)
class Divergence:
    """A place where B does something else than A.

    Attributes:
        a, b: the layers' names. For ``"code"``, the layers that the differing array goes into. At the end, ``a`` is
            ``"output"``, and ``b`` the last layer, behind which the code differs.
        kind: ``"layer"``: the layer, fed the same, returns something else; ``"code"``: the code before it differs;
            ``"gradient"``, ``"update"``: what is learned from one batch differs.
        after: for ``"code"``: B's layer before it; ``"input"`` at the start.
        error: in units of the noise floor.
        findings: the reasons, the best first.
    """

    a: str
    b: str
    kind: str
    after: str
    error: float
    findings: tuple[Finding, ...] = ()

    def __repr__(self) -> str:
        why = f": {display.shortened(self.findings[0], 200)}" if self.findings else ""
        return f"<Divergence at {display.shortened(self.where, 90)}{why}>"

    def __str__(self) -> str:
        return self.b

    @property
    def where(self) -> str:
        """The place, as text."""
        if self.kind == "code" and self.after == self.b:
            return f"between {self.after!r} and the output"
        if self.kind == "code":
            return f"between {self.after!r} and {self.b!r}"
        what = {"gradient": "the gradients of ", "update": "the update of "}.get(self.kind, "")
        return f"{what}layer {self.b!r}"


class Diagnosis(tuple[Finding, ...]):
    """The findings at the first divergence, the best first."""

    __slots__ = ()

    @property
    def mistake(self) -> str | None:
        """The key of the best explanation; None where there is no difference."""
        return self[0].mistake if self else None

    def __repr__(self) -> str:
        return f"<Diagnosis: {display.shortened(self, 300)}>"

    def __str__(self) -> str:
        return str(self[0]) if self else "no difference"


@dataclass(frozen=True)
class Pictures:
    """The activations of one layer for the first sample, side by side.

    Attributes:
        layer: B's name.
        channels: which.
        a, b: (channels, H, W), float32.
    """

    layer: str
    channels: tuple[int, ...]
    a: Array
    b: Array


# As text -------------------------------------------------------------------------------------------------------------
def floors(x: float | None) -> str:
    """A number of noise floors, short."""
    if x is None:
        return ""
    return f"{x:.1f}" if x < 100 else f"{x:.1e}".replace("e+0", "e").replace("e+", "e")


def name_of(about: Mapping[str, Any]) -> str:
    """A model as text: ``torchvision:resnet50 (torch 2.15)``."""
    versions = ", ".join(f"{k} {v}" for k, v in about.get("versions", {}).items())
    return f"{about.get('spec') or about.get('class')} ({versions or about.get('backend')})"
