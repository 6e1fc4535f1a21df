"""One image file to one array: read, decode, orient, resize. Anything that would silently distort it is an error.

JPEG files are decoded by OpenCV if it is installed, else by Pillow: the pixels are the same to the bit (both carry
libjpeg-turbo; a test compares them), OpenCV is faster. Everything else, including resizing, is done by Pillow.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic import decoding
from agnostic.checks import one_of, whole_number
from agnostic.contracts.data import DATA
from agnostic.decoding import Flaw, decoder_errors, pillow
from agnostic.errors import InvalidInput, MissingDependency
from agnostic.files import read_regular
from agnostic.opencv import opencv
from agnostic.registry import get_backend, registrations

ImageArray = npt.NDArray[np.uint8]

COLORS = {"rgb": ("RGB", 3), "grayscale": ("L", 1), "rgba": ("RGBA", 4)}
"""Pillow's mode and the number of channels by our name."""

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
DECODERS = ("auto", "opencv", "pillow")
OWN_RESIZER = "pillow"

SCALED = 4
"""A JPEG is reduced during decoding (to 1/2, 1/4 or 1/8) while both sides stay at least this often as long as needed.

Measured against decoding in full on 8 photographs at 4 sizes, 3 qualities and 3 target sizes, bilinear: 0.16 of 255 in
the mean at worst, 6 at most, 2 pixels in 10,000 beyond 2; nearer to the full decoding than a JPEG of quality 90 is to
its original (root mean square 0.3 to 0.8). At 3 it was 0.24 and 11, at 2 0.46 and 14.
"""

_SIDEWAYS = ("TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
_END_OF_IMAGE = b"\xff\xd9"
_OPENCV_PIXELS = 1 << 30


class UnreadableFile(InvalidInput):
    """A file is not an image, or cannot be read without distortion; ``on_error="skip"`` skips it.

    Example:
        >>> issubclass(ag.data.UnreadableFile, ag.InvalidInput)
        True
    """


@dataclass(frozen=True)
class Reading:
    """How files become arrays; see :class:`agnostic.data.ImageFolder` for the meaning of each."""

    size: tuple[int, int] | None
    color: str = "rgb"
    interpolation: str = "bilinear"
    background: tuple[int, int, int] = (255, 255, 255)
    first_frame: bool = False
    scaled: bool = True
    decoder: str = "auto"
    resizer: str = "pillow"

    def __post_init__(self) -> None:
        for name, choices in (
            ("color", tuple(COLORS)),
            ("interpolation", INTERPOLATIONS),
            ("decoder", DECODERS),
            ("resizer", (OWN_RESIZER, *resizers())),
        ):
            one_of(name, getattr(self, name), choices)
        if self.size is not None:
            object.__setattr__(self, "size", _sides(self.size))
        if len(self.background) != 3 or not all(type(c) is int and 0 <= c <= 255 for c in self.background):
            raise InvalidInput(f"background must be three integers of 0 to 255, not {self.background!r}")
        if self.decoder == "opencv" and opencv() is None:
            raise MissingDependency("decoder 'opencv' needs OpenCV: pip install opencv-python-headless")
        if self.resizer != OWN_RESIZER:
            if self.interpolation not in ("bilinear", "bicubic") or self.color == "rgba":
                raise InvalidInput(
                    f"resizer {self.resizer!r} is bilinear or bicubic, no alpha, not {self.interpolation!r} of "
                    f"{self.color!r}; use {OWN_RESIZER!r}"
                )
            registration = registrations()[self.resizer]
            if importlib.util.find_spec(registration.requires) is None:
                raise MissingDependency(
                    f"resizer {self.resizer!r} needs {registration.requires}: pip install '{registration.extra}'"
                )
        pillow()
        if self.decoder == "auto":
            # Here, and not in the threads that read.
            opencv()

    @property
    def needed(self) -> tuple[int, int]:
        """(width, height) to resize to, as Pillow says it; (0, 0) for none."""
        return (0, 0) if self.size is None else (self.size[1], self.size[0])


def resizers() -> list[str]:
    """The backends that resize images, by name."""
    return [name for name in registrations() if DATA in get_backend(name)]


def _sides(size: Any) -> tuple[int, int]:
    try:
        height, width = size
        return whole_number("height", height, 1), whole_number("width", width, 1)
    except (TypeError, ValueError):
        raise InvalidInput(f"size must be (height, width), two integers of 1 or more, or None, not {size!r}") from None


def read_image(path: str | os.PathLike[str], reading: Reading) -> ImageArray:
    """Read an image file.

    Args:
        path: the file; its content decides the format, not its name.
        reading: how.

    Returns:
        (H, W, C) uint8, upright.

    Raises:
        UnreadableFile: names the file and the problem.
    """
    data = read_regular(path, UnreadableFile)
    try:
        return _decode(data, reading)
    except Flaw as flaw:
        raise UnreadableFile(f"cannot read {os.fspath(path)!r}: it {flaw}") from None


def _decode(data: bytes, reading: Reading) -> ImageArray:
    Image = pillow()
    with decoder_errors():
        opened = decoding.opened(data)
        frames = getattr(opened, "n_frames", 1)
        if opened.format != "MPO" and not reading.first_frame and frames > 1:
            raise Flaw(f"has {frames} frames instead of one; first_frame=True takes the first one")
        turn = decoding.turn_of(opened)
        image: Any = opened
        box = None
        if opened.format in ("JPEG", "MPO"):
            image, box = _jpeg(data, opened, turn, reading)
        else:
            opened.load()
            if turn is not None:
                image, turn = opened.transpose(Image.Transpose[turn]), None
    image = _in_color(image, reading)
    target = reading.needed[::-1] if turn in _SIDEWAYS else reading.needed
    if reading.size is not None and (_size(image) != target or box is not None):
        if reading.resizer != OWN_RESIZER:
            # What OpenCV decoded is writable, as frameworks want it; what Pillow has must be copied.
            pixels = image if isinstance(image, np.ndarray) else np.array(image)
            image = get_backend(reading.resizer)[DATA].resize(pixels, target[::-1], reading.interpolation)
        else:
            image = _picture(image).resize(target, Image.Resampling[reading.interpolation.upper()], box=box)
    if turn is not None:
        image = _picture(image).transpose(Image.Transpose[turn])
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _picture(image: Any) -> Any:
    """Pillow's image of an array; an image itself."""
    return pillow().fromarray(image) if isinstance(image, np.ndarray) else image


def _size(image: Any) -> tuple[int, int]:
    """(width, height)."""
    width, height = image.shape[1::-1] if isinstance(image, np.ndarray) else image.size
    return int(width), int(height)


def _jpeg(
    data: bytes, image: Any, turn: str | None, reading: Reading
) -> tuple[Any, tuple[float, float, float, float] | None]:
    """The decoded image (Pillow's, or OpenCV's array), and the part of it that is the picture."""
    scale = _scale(image.size, turn, reading)
    width, height = image.size
    # Sides that do not divide are rounded up when decoding; the picture ends within the last pixel.
    box = None if scale == 1 else (0.0, 0.0, width / scale, height / scale)
    # OpenCV has a limit of its own, which the user cannot raise here; Pillow's has been passed.
    cv2 = opencv() if reading.decoder != "pillow" and width * height <= _OPENCV_PIXELS else None
    # OpenCV before 5 shows what there is of a truncated file, Pillow refuses it: so Pillow gets all that lack an end.
    if cv2 is not None and image.mode in ("RGB", "L") and data.rstrip(b"\0").endswith(_END_OF_IMAGE):
        # The flag for RGB stands in place of the one for colour, which means BGR.
        flag = cv2.IMREAD_GRAYSCALE if scale == 1 else getattr(cv2, f"IMREAD_REDUCED_GRAYSCALE_{scale}")
        if image.mode == "RGB":
            flag |= cv2.IMREAD_COLOR_RGB
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
        if pixels is not None:
            return pixels, box
    if scale > 1:
        image.draft(image.mode, (width // scale, height // scale))
    image.load()
    return image, box


def _scale(size: tuple[int, int], turn: str | None, reading: Reading) -> int:
    if reading.size is None or not reading.scaled or reading.interpolation == "nearest":
        return 1
    needed = reading.needed[::-1] if turn in _SIDEWAYS else reading.needed
    ratio = min(side // (SCALED * need) for side, need in zip(size, needed, strict=False))
    # Frameworks resize only whole pixels, so there the sides must divide.
    whole = reading.resizer == OWN_RESIZER
    return next((s for s in (8, 4, 2) if ratio >= s and (whole or not any(side % s for side in size))), 1)


def _in_color(image: Any, reading: Reading) -> Any:
    mode, _ = COLORS[reading.color]
    if isinstance(image, np.ndarray):
        if mode == ("RGB" if image.ndim == 3 else "L"):
            return image
        image = _picture(image)
    return decoding.in_color(image, mode, reading.background)
