"""The inputs of a comparison: the same for both models, each in the model's own layout and preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from agnostic.contracts.calls import CALLS
from agnostic.errors import InvalidInput
from agnostic.models.inputs import image_input
from agnostic.registry import Backend, Model

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Inputs:
    """What a model is to be called with, framework-free.

    Attributes:
        kind: ``"images"``: one array (N, H, W, C) in [0, 1] or uint8, which each model's card prepares;
            ``"native"``: as a model takes them.
        arrays: the one input, or several by position (keys ``0, 1, ...``) or by name.
        form: ``"array"``, ``"tuple"`` or ``"dict"``.
        channels_first: of native images (N, C, H, W).
    """

    kind: Literal["images", "native"]
    arrays: Mapping[str, Array]
    form: Literal["array", "tuple", "dict"]
    channels_first: bool = False

    @property
    def batch(self) -> int | None:
        """The length of the first axis, if all arrays have it in common."""
        sizes = {x.shape[0] if x.ndim else 0 for x in self.arrays.values()}
        return sizes.pop() if len(sizes) == 1 else None

    def first(self, rows: int) -> Inputs:
        """The first rows alone."""
        return Inputs(self.kind, {k: x[:rows] for k, x in self.arrays.items()}, self.form, self.channels_first)


def image_channels(backend: Backend, model: Model, x: Array) -> tuple[bool, int | None]:
    """Whether a model takes images (N, C, H, W), and how many channels they have.

    Args:
        x: images in either order, which tell their size.
    """
    near = x.shape[1:3] if x.shape[3] <= x.shape[1] else x.shape[2:4]
    form = image_input(backend, model, size=near)
    return form.axes == "NCHW", form.length("C")


def native(inputs: Inputs) -> Any:
    """Native inputs as a model takes them."""
    arrays = list(inputs.arrays.values())
    return arrays[0] if inputs.form == "array" else tuple(arrays) if inputs.form == "tuple" else dict(inputs.arrays)


def as_given(backend: Backend, given: Any) -> Inputs:
    """Inputs as a user gave them, and as the model takes them.

    Raises:
        InvalidInput: no arrays, or a number that is not finite among them.
    """
    form: Literal["array", "tuple", "dict"]
    items: dict[str, Any]
    if isinstance(given, Mapping):
        form, items = "dict", {str(k): x for k, x in given.items()}
    elif isinstance(given, tuple | list):
        form, items = "tuple", {str(i): x for i, x in enumerate(given)}
    else:
        form, items = "array", {"0": given}
    arrays = {key: _numpy(backend, key if form != "array" else None, x) for key, x in items.items()}
    if not arrays or any(not x.size for x in arrays.values()):
        raise InvalidInput("the inputs hold no numbers: give at least one sample")
    for key, x in arrays.items():
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            count = int((~np.isfinite(x)).sum())
            which = "the input" if form == "array" else f"input {key!r}"
            raise InvalidInput(
                f"{which} has {count} of {x.size} elements that are NaN or infinite, on which nothing can be compared: "
                "give finite numbers"
            )
    return Inputs("native", arrays, form)


def collect(backend: Backend, model: Model, given: Any) -> Inputs:
    """Inputs as a user gave them, for the first of the models: images, or as it takes them.

    Raises:
        InvalidInput: no arrays, or a number that is not finite among them.
    """
    if isinstance(given, Inputs):
        return given
    found = as_given(backend, given)
    arrays, form = found.arrays, found.form
    if form == "array" and arrays["0"].ndim == 4:
        x = arrays["0"]
        try:
            first, channels = image_channels(backend, model, x)
        except InvalidInput:
            return found
        moved = first and x.shape[1] == channels
        ranged = x.dtype == np.uint8 or (x.dtype.kind == "f" and x.min() >= 0 and x.max() <= 1)
        if x.shape[-1] == channels and not moved and ranged:
            return Inputs("images", arrays, form)
        return Inputs("native", arrays, form, channels_first=moved)
    return found


def _numpy(backend: Backend, key: str | None, x: Any) -> Array:
    if isinstance(x, np.ndarray | np.generic | int | float | list):
        found = np.asarray(x)
    elif hasattr(x, "shape") and hasattr(x, "dtype"):
        found = np.array(backend[CALLS].numpy(x))
    else:
        raise InvalidInput(f"an input is an array, not {type(x).__name__}" + (f" (input {key!r})" if key else ""))
    if found.dtype.kind not in "fiub":
        raise InvalidInput(f"an input is an array of numbers, not of {found.dtype}")
    return found


def prepared(backend: Backend, model: Model, inputs: Inputs) -> Any:
    """What ``Backend.run`` takes.

    Raises:
        InvalidInput: the model takes other shapes.
    """
    if inputs.kind == "images":
        from agnostic.taps.verbs import prepare

        images = inputs.arrays["0"]
        return prepare(model, images, size=images.shape[1:3])
    arrays = dict(inputs.arrays)
    if inputs.form == "array":
        x = arrays["0"]
        if x.ndim == 4 and x.dtype.kind == "f":
            try:
                first, count = image_channels(backend, model, x)
            except InvalidInput:
                return x
            if inputs.channels_first and not first and x.shape[1] == count:
                return np.ascontiguousarray(np.moveaxis(x, 1, -1))
            if not inputs.channels_first and first and x.shape[-1] == count and x.shape[1] != count:
                return np.ascontiguousarray(np.moveaxis(x, -1, 1))
        return x
    return native(inputs)
