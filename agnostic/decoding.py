"""The bytes of image files to pictures: formats from one list, chosen by content, and errors of one kind.

Pillow looks at the content, whatever a file's name says, and asks every decoder that it has. One of them starts another
program (EPS: Ghostscript), and what a stranger put into a folder of photos must not choose it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from agnostic.errors import MissingDependency

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are read, by Pillow's names; AVIF and WEBP where Pillow was built with them."""

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""How the names of files end that are taken for photos where a folder or an archive is listed."""

_PLUGINS = ("Avif", "Bmp", "Gif", "Jpeg", "Jpeg2K", "Mpo", "Png", "Ppm", "Tiff", "WebP")
_importing = threading.Lock()

# Pillow's transposition for the EXIF orientations 2 to 8.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_ORIENTATION = 0x0112


class Flaw(Exception):
    """What is wrong with an image file; its text follows "it" in a sentence that names the file."""


@functools.cache
def pillow() -> Any:
    """The module ``PIL.Image``, with the decoders of :data:`FORMATS` loaded.

    Raises:
        MissingDependency: Pillow is not installed.
    """
    if importlib.util.find_spec("PIL") is None:
        raise MissingDependency("image files need the package 'pillow': pip install pillow")
    # Here, and not while a file is being opened: threads that read would import at the same time.
    with _importing:
        for name in _PLUGINS:
            if importlib.util.find_spec(f"PIL.{name}ImagePlugin") is not None:
                importlib.import_module(f"PIL.{name}ImagePlugin")
    return importlib.import_module("PIL.Image")


def opened(data: bytes) -> Image:
    """The image that the bytes of a file hold, its pixels not decoded yet; use it inside :func:`decoder_errors`.

    Args:
        data: the whole file.

    Raises:
        Flaw: the file is empty.
    """
    if not data:
        raise Flaw("is empty (0 bytes)")
    image = pillow()
    formats = [name for name in FORMATS if name in image.OPEN]
    try:
        return image.open(BytesIO(data), formats=formats)  # type: ignore[no-any-return]
    except image.UnidentifiedImageError:
        raise Flaw(
            f"is no image of a format that is read here ({', '.join(FORMATS)}); it begins with {data[:12]!r}"
        ) from None


@contextmanager
def decoder_errors() -> Iterator[None]:
    """Turn whatever decoders raise on damaged files into :class:`Flaw`.

    Raises:
        Flaw: a decoder failed inside the block.
    """
    image = pillow()
    try:
        yield
    except Flaw:
        raise
    # The second is a warning that the user may have made an error.
    except (image.DecompressionBombError, image.DecompressionBombWarning) as error:
        raise Flaw(
            f"may be a decompression bomb ({str(error).partition(', could')[0]}); "
            "set PIL.Image.MAX_IMAGE_PIXELS higher if you trust it"
        ) from None
    except MemoryError:
        raise Flaw("needs more memory than there is, or is damaged") from None
    except Exception as error:  # noqa: BLE001 - a decoder that is given damaged bytes raises anything at all
        said = " ".join(str(error).split()) or type(error).__name__
        raise Flaw(f"is damaged or truncated: {said}") from None


def turn_of(image: Image) -> str | None:
    """How to turn a picture upright, by the orientation that a camera noted: the name of one of Pillow's
    transpositions, or None.
    """
    return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))


def in_color(image: Image, mode: str, background: tuple[int, int, int]) -> Image:
    """A decoded picture in 8 bits per channel.

    16 bits become 8 by their range. What lies under transparent pixels is not the picture: over ``background`` it is
    seen as it was meant.

    Args:
        image: in any of Pillow's modes.
        mode: ``"RGB"``, ``"L"`` or ``"RGBA"``; the last keeps transparency.
        background: (r, g, b), what is seen through transparent pixels where ``mode`` has no alpha.

    Raises:
        Flaw: its pixels have no known range, or no conversion to ``mode``.
    """
    if image.mode.startswith("I"):
        image = _from_16_bit(image)
    elif image.mode == "F":
        raise Flaw("has floating-point pixels, whose range is not known; convert it to 8 or 16 bits first")
    if image.mode == mode:
        return image
    source = image.mode
    try:
        if image.has_transparency_data and mode != "RGBA":
            image = image.convert("RGBA")
            image = pillow().alpha_composite(pillow().new("RGBA", image.size, (*background, 255)), image)
        elif image.mode == "P":
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        return image.convert(mode)
    except ValueError:
        raise Flaw(f"has pixels of Pillow's mode {source!r}, which has no conversion to {mode}") from None


def _from_16_bit(image: Image) -> Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise Flaw(f"has pixels from {values.min()} to {values.max()}, beyond 16 bits; convert it first")
    # Pillow's own conversion cuts off at 255.
    return pillow().fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))  # type: ignore[no-any-return]
