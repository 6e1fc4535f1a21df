"""What is taken as images, and what is refused in one sentence before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.checks import whole_number
from agnostic.errors import InvalidInput
from agnostic.registry import Backend, array_owner, get_backend, registrations
from agnostic.text import counted, with_article

LAYOUTS = ("NHWC", "NCHW")

# A batch of pictures in the other layout: two sides of pictures where one side and the channels should be. Lines of
# text and spectrograms are long.
_PICTURE_CHANNELS = (1, 3, 4)
_SHORTEST_SIDE = 8
_LARGEST_ASPECT = 32


def backend_of_array(images: Any) -> Backend | None:
    """The backend that an array belongs to; None for NumPy's. Nothing is imported.

    Raises:
        InvalidInput: it is no array of NumPy or of a registered backend.
    """
    if isinstance(images, np.ndarray | np.generic):
        return None
    # Of the values of frameworks, only arrays have all three.
    if all(hasattr(type(images), name) for name in ("shape", "dtype", "__getitem__")):
        found = array_owner(images)
        if found is not None:
            return get_backend(found.name)
    titles = ", ".join(registration.title for registration in registrations().values())
    name = f"{type(images).__module__}.{type(images).__qualname__}"
    raise InvalidInput(
        f"images are an array of NumPy or a framework ({titles}) with four axes, not {name}; "
        "numpy.stack makes one of a list of images"
    )


def layout_of(kind: str, usual: str, shape: Sequence[int], layout: str | None) -> str:
    """The layout of a batch: the one given, else the one that the framework uses, unless the shape speaks against it.

    Args:
        kind: whose batch it is, in a sentence.
        usual: the layout of that framework.
        shape: of the batch.
        layout: ``"NHWC"``, ``"NCHW"`` or None.

    Raises:
        InvalidInput: the layout is unknown; the shape has not four axes or no pixel; or no layout is given, and by that
            of the framework the images have as many channels as a picture has rows, and as many columns as it has
            channels.
    """
    if layout is not None and layout not in LAYOUTS:
        raise InvalidInput(f"layout {layout!r} is neither 'NHWC' nor 'NCHW'")
    if len(shape) != 4:
        raise InvalidInput(f"a batch of images has four axes, not shape {tuple(shape)}; give one image as image[None]")
    if 0 in shape[1:]:
        raise InvalidInput(f"images of shape {tuple(shape)} have no pixels: each of the last three axes is 1 or more")
    if layout is not None:
        return layout
    (other,) = (x for x in LAYOUTS if x != usual)
    if _looks_like(shape, other):
        raise InvalidInput(
            f"{with_article(kind)} batch is taken as {usual}, and shape {tuple(shape)} looks like {other}: "
            f"give layout='{other}', or layout='{usual}' if that is what it is"
        )
    return usual


def _looks_like(shape: Sequence[int], layout: str) -> bool:
    """Whether a shape is that of pictures in a layout, and not of pictures in the other one."""
    height, width = (shape[1], shape[2]) if layout == "NHWC" else (shape[2], shape[3])
    channels, others = (shape[3], shape[1]) if layout == "NHWC" else (shape[1], shape[3])
    short, long = sorted((int(height), int(width)))
    sides = short >= _SHORTEST_SIDE and long <= _LARGEST_ASPECT * short
    return sides and channels in _PICTURE_CHANNELS and others not in _PICTURE_CHANNELS


def check_numbers(array: npt.NDArray[Any], what: str = "images") -> None:
    """Raise InvalidInput unless a NumPy array has real numbers or booleans, and no masked entries."""
    if np.ma.is_masked(array):
        raise InvalidInput(
            f"{what} are a masked array, whose masked entries have no value to move: give {what}.filled(value), "
            "and its mask as masks of with_targets"
        )
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise InvalidInput(f"{what} have dtype {array.dtype}, and integers, floating point or booleans are expected")


def as_array(values: Any, what: str, dtype: npt.DTypeLike | None = None) -> npt.NDArray[Any]:
    """Anything array-like as NumPy, in the dtype given or its own.

    Raises:
        InvalidInput: it has no real numbers, or its rows differ in length.
    """
    try:
        array = np.asanyarray(values)
        if array.dtype == object:
            # Numbers that came as Python objects are numbers all the same.
            array = array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"{what} cannot be made a NumPy array of numbers ({error}), as is needed here") from None
    check_numbers(array, what)
    return np.asarray(array, dtype)


def check_fill(name: str, value: float, dtype: np.dtype[Any]) -> None:
    """Raise InvalidInput where a dtype does not have the value that is to fill what lies outside."""
    if dtype.kind == "b":
        low, high = 0, 1
    elif dtype.kind in "iu":
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    else:
        largest = float(np.finfo(dtype).max)
        if math.isfinite(value) and abs(value) > largest:
            raise InvalidInput(f"{name} {value!r} is beyond the largest value of dtype {dtype}, {largest:g}")
        return
    if not (low <= value <= high and value == int(value)):
        raise InvalidInput(
            f"{name} {value!r} is no value of dtype {dtype}: give a whole number from {low} to {high}, "
            "or convert to a dtype that has it"
        )


def indices_of(index: Any, count: int) -> Sequence[int]:
    """The index of each of ``count`` images: those from ``index`` on, or the ones given."""
    if hasattr(index, "__index__") and not getattr(index, "shape", ()):
        first = whole_number("index", index, most=2**64 - max(count, 1))
        return [first + k for k in range(count)]
    try:
        found = [whole_number("index", k, most=2**64 - 1) for k in index]
    except TypeError:
        raise InvalidInput(f"index is a whole number, or one for each image, not {index!r}") from None
    if len(found) != count:
        raise InvalidInput(f"indices are one for each of {counted(count, 'image')}, not {len(found)}")
    return found
