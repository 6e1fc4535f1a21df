"""What an attribution found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.attribution.maps import overlay
from agnostic.text import counted


@dataclass(frozen=True, repr=False)
class Explanation:
    """Maps of what the scores of images depend on; see :func:`agnostic.explain`.

    Attributes:
        maps: (N, H, W) float32, in the size in which the model saw the images; in the score's own unit, not scaled.
        images: (N, H, W, C), the images in that size, uint8 or floating point in [0, 1].
        method: its name.
        layer: that the method looked at; None where it looks at none.
        classes: (N,) the class of each image; None where the target was a function.
        labels: what each target is called.
        probabilities: of the targets, by the model's own softmax or sigmoid, or a softmax of its output; None where
            the target was a function.
        scores: the numbers that are explained.

    Example:
        >>> ag.explain(model, images, method="gradient").overlays().shape
        (2, 16, 16, 3)
    """

    maps: npt.NDArray[np.float32]
    images: npt.NDArray[Any] = field(compare=False)
    method: str
    layer: str | None
    classes: tuple[int, ...] | None
    labels: tuple[str, ...]
    probabilities: tuple[float | None, ...]
    scores: tuple[float, ...]

    def overlays(self, opacity: float = 0.5) -> npt.NDArray[np.uint8]:
        """Each map over its image in grey, from dark to bright; what speaks against the target is dark.

        Args:
            opacity: of the map, 0 to 1.

        Returns:
            (N, H, W, 3) uint8.

        Example:
            >>> ag.explain(model, images).overlays(opacity=0.7).dtype
            dtype('uint8')
        """
        pairs = zip(self.images, self.maps, strict=True)
        return np.stack([overlay(image, map_, opacity) for image, map_ in pairs])

    def captions(self) -> tuple[str, ...]:
        """What each map shows.

        Returns:
            N texts: the target and, for a class, its probability.

        Example:
            >>> len(ag.explain(model, images, target=1).captions())
            2
        """
        return tuple(
            label if probability is None else f"{label} {100 * probability:.0f} %"
            for label, probability in zip(self.labels, self.probabilities, strict=True)
        )

    def __repr__(self) -> str:
        where = "" if self.layer is None else f" at {self.layer!r}"
        of = counted(len(self.maps), "image")
        return f"<Explanation of {of} by {self.method}{where}: {display.listed(self.labels)}>"

    def _repr_html_(self) -> str:
        where = "" if self.layer is None else f" at {self.layer!r}"
        return display.figures(f"{self.method}{where}", self.overlays(), self.captions())
