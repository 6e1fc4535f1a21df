"""Images with what they show: labels, scores, the recipe and remarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.text import counted
from agnostic.visualization.mosaic import mosaic
from agnostic.visualization.recipes import Recipe

Float64 = npt.NDArray[np.float64]


class Images(np.ndarray[tuple[int, ...], np.dtype[np.float32]]):
    """(N, H, W, C) float32 in [0, 1], with what they show.

    Attributes:
        labels: a short name for each image, such as ``"blocks.3.0:5"`` or ``"espresso"``.
        scores: (steps, N) float64: the objective before each update.
        recipe: how they were found.
        remarks: one sentence for each image that does not show what was asked for, such as one that no gradient
            reached, or that a part of its objective did not; an empty string for every other image.

    Example:
        >>> found = ag.visualize(model, ag.objectives.channel("conv", range(3)), size=16, steps=2)
        >>> found[1:].labels, found.scores.shape
        (('conv:1', 'conv:2'), (2, 3))
    """

    labels: tuple[str, ...]
    scores: Float64
    recipe: Recipe
    remarks: tuple[str, ...]

    @classmethod
    def of(
        cls,
        pixels: npt.NDArray[np.float32],
        labels: Sequence[str],
        scores: Float64,
        recipe: Recipe,
        remarks: Sequence[str],
    ) -> Images:
        """The same memory, seen as Images.

        Args:
            pixels: (N, H, W, C) float32 in [0, 1].
            labels, scores, recipe, remarks: see the attributes.

        Returns:
            A view of ``pixels``.
        """
        images = pixels.view(cls)
        images.labels, images.scores, images.recipe = tuple(labels), scores, recipe
        images.remarks = tuple(remarks)
        return images

    def __getitem__(self, index: Any) -> Any:
        """The pixels; some of the images, chosen by a number, a slice or a list, keep what belongs to them."""
        found = super().__getitem__(index)
        first = index[0] if isinstance(index, tuple) and index else index
        labelled = isinstance(found, Images) and hasattr(self, "labels") and self.ndim == 4
        if labelled and isinstance(first, int | np.integer | slice | list):
            chosen = np.atleast_1d(np.arange(len(self.labels))[first])
            found.labels, found.remarks = (tuple(x[i] for i in chosen) for x in (self.labels, self.remarks))
            found.scores, found.recipe = self.scores[:, chosen], self.recipe
        return found

    def __repr__(self) -> str:
        labels = f": {display.listed(self.labels)}" if hasattr(self, "labels") else ""
        return f"<Images {' x '.join(map(str, self.shape))} {self.dtype}{labels}>"

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str | None:
        if self.ndim != 4 or not hasattr(self, "labels") or self._repr_png_() is None:
            return None
        captions = [label for label, _ in zip(self.labels, self, strict=False)]
        notes = [f"{label}: {remark}" for label, remark in zip(self.labels, self.remarks, strict=True) if remark]
        title = f"{counted(len(self), 'image')}, recipe {self.recipe.name}"
        return display.figures(title, np.asarray(self), captions, notes)

    def _repr_png_(self) -> bytes | None:
        pixels = np.asarray(self)
        if pixels.ndim not in (3, 4) or 0 in pixels.shape or pixels.shape[-1] not in (1, 3):
            return None
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            return None
        return display.png(pixels if pixels.ndim == 3 else mosaic(pixels[: display.PICTURES]))
