"""Images with what they show: labels, scores, the recipe and remarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.errors import InvalidInput
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
        importance: (N, H, W) float32: how much each pixel mattered: the sum over steps and channels of the absolute
            gradient of the objective; None where the recipe does not keep it (``maco`` does).

    Example:
        >>> found = ag.visualize(model, ag.objectives.channel("conv", range(3)), size=16, steps=2)
        >>> found[1:].labels, found.scores.shape
        (('conv:1', 'conv:2'), (2, 3))
    """

    labels: tuple[str, ...]
    scores: Float64
    recipe: Recipe
    remarks: tuple[str, ...]
    importance: npt.NDArray[np.float32] | None = None

    @classmethod
    def of(
        cls,
        pixels: npt.NDArray[np.float32],
        labels: Sequence[str],
        scores: Float64,
        recipe: Recipe,
        remarks: Sequence[str],
        importance: npt.NDArray[np.float32] | None = None,
    ) -> Images:
        """The same memory, seen as Images.

        Args:
            pixels: (N, H, W, C) float32 in [0, 1].
            labels, scores, recipe, remarks, importance: see the attributes.

        Returns:
            A view of ``pixels``.
        """
        images = pixels.view(cls)
        images.labels, images.scores, images.recipe = tuple(labels), scores, recipe
        images.remarks, images.importance = tuple(remarks), importance
        return images

    def faded(self, percentile: float = 80.0) -> npt.NDArray[np.float32]:
        """The images with an alpha channel: what never mattered is transparent.

        Args:
            percentile: of an image's importance from which on it is opaque, above 0, at most 100.

        Returns:
            (N, H, W, C + 1) float32 in [0, 1], of images without an alpha of their own.

        Raises:
            InvalidInput: the recipe keeps no importance of pixels, or the images have alpha already.

        Source: Fel et al., 2023 (see :class:`agnostic.visualization.parameterization.Phase`), section 3.3.

        Example:
            >>> recipe = ag.recipes.maco(size=16, steps=2)
            >>> ag.visualize(model, ag.objectives.channel("conv", 0), recipe=recipe).faded().shape
            (1, 16, 16, 4)
        """
        if self.importance is None:
            raise InvalidInput(
                "it is not known how much the pixels of these images mattered: use a recipe that keeps it, such as "
                "maco() or fourier(importance=True)"
            )
        return faded(np.asarray(self), self.importance, percentile)

    def __getitem__(self, index: Any) -> Any:
        """The pixels; some of the images, chosen by a number, a slice or a list, keep what belongs to them."""
        found = super().__getitem__(index)
        first = index[0] if isinstance(index, tuple) and index else index
        labelled = isinstance(found, Images) and hasattr(self, "labels") and self.ndim == 4
        if labelled and isinstance(first, int | np.integer | slice | list):
            chosen = np.atleast_1d(np.arange(len(self.labels))[first])
            found.labels, found.remarks = (tuple(x[i] for i in chosen) for x in (self.labels, self.remarks))
            found.scores, found.recipe = self.scores[:, chosen], self.recipe
            found.importance = None if self.importance is None else self.importance[chosen]
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
        if pixels.ndim not in (3, 4) or 0 in pixels.shape or pixels.shape[-1] not in (1, 3, 4):
            return None
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            return None
        return display.png(pixels if pixels.ndim == 3 else mosaic(pixels[: display.PICTURES]))


def faded(
    pixels: npt.NDArray[np.float32], importance: npt.NDArray[np.float32], percentile: float = 80.0
) -> npt.NDArray[np.float32]:
    """See :meth:`Images.faded`.

    Args:
        pixels: (N, H, W, 1 or 3).
        importance: (N, H, W), or smaller by a whole factor.
        percentile: see there.
    """
    if pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or not 0 < percentile <= 100:
        raise InvalidInput(
            f"opaque images (N, H, W, 1 or 3) fade, from a percentile above 0 to 100, not {pixels.shape} from "
            f"{percentile!r}"
        )
    times = pixels.shape[1] // importance.shape[1]
    weights = importance.repeat(times, 1).repeat(times, 2)
    most = np.percentile(weights, percentile, axis=(1, 2), keepdims=True)
    # Where most pixels never mattered, those that did are opaque.
    most = np.where(most > 0, most, np.maximum(weights.max((1, 2), keepdims=True), np.finfo(np.float32).tiny))
    alpha = np.minimum(weights / most, 1.0)[..., None]
    return np.concatenate([pixels, alpha], 3).astype(np.float32)
