"""Between picture files and arrays, by Pillow, pixel for pixel as Keras' ``load_img`` and ``array_to_img`` do it."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from agnostic.checks import one_of, whole_number
from agnostic.decoding import Flaw, decoder_errors, opened, pillow
from agnostic.errors import InvalidInput, InvalidType
from agnostic.files import read_regular

if TYPE_CHECKING:
    from PIL.Image import Image

COLOR_CHANNELS = {"rgb": 3, "rgba": 4, "grayscale": 1}
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "hamming", "box", "lanczos")


def load(
    path: str | os.PathLike[str],
    color_mode: str = "rgb",
    target_size: tuple[int, int] | None = None,
    interpolation: str = "nearest",
    keep_aspect_ratio: bool = False,
) -> npt.NDArray[np.float32]:
    """Read a picture file. An EXIF orientation is not applied, as Keras does not apply it.

    Args:
        path: the file.
        color_mode: ``"rgb"``, ``"rgba"`` or ``"grayscale"``.
        target_size: (height, width) to resize to; None: as it is.
        interpolation: ``"nearest"``, ``"bilinear"``, ``"bicubic"``, ``"hamming"``, ``"box"`` or ``"lanczos"``.
        keep_aspect_ratio: cut the largest centred part of the target's aspect ratio before resizing.

    Returns:
        (H, W, C) float32 in [0, 255]; a grayscale file of 16 bits, 32 bits or floating point, read as
        ``"grayscale"``, keeps its values.

    Raises:
        InvalidInput: the file is missing or no whole picture, or an option is unknown.
    """
    check_interpolation(interpolation)
    check_color_mode(color_mode)
    data = read_regular(path)
    try:
        with decoder_errors():
            picture = opened(data)
            picture.load()
            picture = _in_color(picture, color_mode, path)
    except Flaw as flaw:
        raise InvalidInput(f"cannot read {os.fspath(path)!r}: it {flaw}; fix or remove the file") from None
    if target_size is not None and picture.size != (target_size[1], target_size[0]):
        box = _centre_box(picture.size, target_size) if keep_aspect_ratio else None
        method = pillow().Resampling[interpolation.upper()]
        picture = picture.resize((target_size[1], target_size[0]), method, box=box)
    pixels = np.asarray(picture, np.float32)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _in_color(picture: Image, color_mode: str, path: str | os.PathLike[str]) -> Image:
    """A picture in a colour mode, by the conversions that Keras makes; deep grey ones keep their values."""
    deep = picture.mode in ("I", "F") or picture.mode.startswith("I;")
    if color_mode == "grayscale":
        if picture.mode in ("L", "I;16", "I", "F"):
            return picture
        # Other byte orders have the range of I;16, and Pillow would cut them off at 255.
        return picture.convert("I" if deep else "L")
    if deep:
        warnings.warn(
            f"{os.fspath(path)!r} has more than 8 bits per channel, which are cut off at 255 in color_mode "
            f"{color_mode!r}; read it as 'grayscale' or convert it first",
            stacklevel=3,
        )
    mode = color_mode.upper()
    return picture if picture.mode == mode else picture.convert(mode)


def check_size(target_size: Any) -> tuple[int, int]:
    """``target_size`` as (height, width) of Python integers.

    Raises:
        InvalidType: it is no pair of integers of 1 or more.
    """
    try:
        height, width = target_size
        return whole_number("height", height, 1), whole_number("width", width, 1)
    except (TypeError, ValueError):
        raise InvalidType(
            f"target_size must be (height, width), two integers of 1 or more, not {target_size!r}"
        ) from None


def check_interpolation(interpolation: str) -> None:
    """Raise InvalidInput unless the interpolation is known."""
    one_of("interpolation", interpolation, INTERPOLATIONS)


def check_color_mode(color_mode: str) -> None:
    """Raise InvalidInput unless the colour mode is known."""
    one_of("color_mode", color_mode, COLOR_CHANNELS)


def _centre_box(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the largest centred part with the target's aspect ratio, in whole pixels."""
    width, height = size
    cut_height = min(height, width * target[0] // target[1])
    cut_width = min(width, height * target[1] // target[0])
    left, top = (width - cut_width) // 2, (height - cut_height) // 2
    return left, top, left + cut_width, top + cut_height


def to_picture(pixels: npt.NDArray[Any], stretch: bool = True) -> Image:
    """A Pillow image of an array.

    Args:
        pixels: (H, W, C) with 1, 3 or 4 channels.
        stretch: spread the values over 0..255; otherwise they are truncated to integers as they are.

    Raises:
        InvalidInput: the shape is another.
    """
    image = pillow()
    pixels = np.asarray(pixels, np.float32)
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise InvalidInput(f"a picture has shape (H, W, 1), (H, W, 3) or (H, W, 4), not {pixels.shape}")
    if stretch:
        pixels = stretched(pixels)
    if pixels.shape[2] == 1:
        deep = pixels.max(initial=0) > 255
        return image.fromarray(pixels[..., 0].astype(np.int32 if deep else np.uint8))  # type: ignore[no-any-return]
    return image.fromarray(pixels.astype(np.uint8))  # type: ignore[no-any-return]


def stretched(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Values spread over 0..255; a constant image becomes 0."""
    pixels = pixels - pixels.min()
    top = pixels.max()
    if top != 0:
        pixels /= top
    pixels *= 255
    return pixels
