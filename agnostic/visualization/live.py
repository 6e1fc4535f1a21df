"""A picture that is shown while it is drawn: in a notebook, by its display that is updated."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.errors import InvalidInput
from agnostic.visualization.mosaic import mosaic


class NotebookPicture:
    """What :func:`agnostic.visualize` shows with ``live=True``: the images so far, side by side."""

    def __init__(self) -> None:
        """Raise InvalidInput outside of a notebook."""
        shell = sys.modules.get("IPython")
        if shell is None or shell.get_ipython() is None:
            raise InvalidInput("live=True shows the picture in a notebook, and none runs here: leave it out")
        self._images: dict[int, npt.NDArray[np.float32]] = {}
        self._handle: Any = None

    def show(self, images: range, steps: int, pixels: npt.NDArray[np.float32]) -> None:
        """Show images as they are; for ``on_images``.

        Args:
            images: their numbers.
            steps: that are done.
            pixels: (n, H, W, C) in [0, 1].
        """
        self._images.update(zip(images, pixels, strict=True))
        shown = np.stack([self._images[i] for i in sorted(self._images)][: display.PICTURES])
        data = {"image/png": display.png(mosaic(shown)), "text/plain": f"step {steps}"}
        if self._handle is None:
            from IPython.display import display as show  # type: ignore[import-not-found, unused-ignore]

            self._handle = show(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)
