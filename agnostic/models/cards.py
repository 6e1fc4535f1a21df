"""Cards of models: how the input is prepared, its usual size, and the names of the classes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import numpy as np

from agnostic import display
from agnostic.errors import InvalidInput
from agnostic.ops import Array, Ops
from agnostic.text import counted

ATTRIBUTE = "agnostic_card"
"""The attribute of the native model under which its card is kept; copy.deepcopy copies it."""


_LARGEST = 1 << 16
"""Of the lengths in a card that came with a file."""


@dataclass(frozen=True)
class Preprocessing:
    """From an RGB image in [0, 1] to the input that a model was trained on: ``(image * scale - mean) / std``, per
    channel.

    Attributes:
        mean, std: one number per channel, in the model's channel order and on the scaled range; or a single number
            for any number of channels. ``std`` is positive.
        scale: 255.0 for a model whose mean and std are meant for 0..255, else 1.0.
        channel_order: the order that the model was trained on; for ``"BGR"`` the channels are reversed first.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1.0
    channel_order: Literal["RGB", "BGR"] = "RGB"

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise InvalidInput(f"mean and std have one number per channel, not {len(self.mean)} and {len(self.std)}")
        if not (np.isfinite((*self.mean, *self.std, self.scale)).all() and min(self.std) > 0):
            raise InvalidInput(f"mean, std and scale are finite and std is positive, not {self}")
        if self.channel_order not in ("RGB", "BGR"):
            raise InvalidInput(f"channel_order is 'RGB' or 'BGR', not {self.channel_order!r}")

    def apply(self, ops: Ops, images: Array) -> Array:
        """Prepare native images.

        Args:
            ops: of the framework of ``images``.
            images: (..., C), channels last, floating point in [0, 1].

        Returns:
            The same shape and dtype, with the model's channel order, range, mean and standard deviation.

        Raises:
            InvalidInput: ``images`` have another number of channels.
        """
        channels = ops.shape(images)[-1]
        if len(self.mean) not in (1, channels):
            raise InvalidInput(
                f"the model's preprocessing is for {counted(len(self.mean), 'channel')} and the images have "
                f"{channels}: "
                f"attach a card whose mean and std have {channels} numbers"
            )
        if self.channel_order == "BGR":
            images = ops.flip(images, -1)
        # One product and one sum, with constants rounded once: the whole formula costs two passes over the images.
        mean, std = np.asarray(self.mean, np.float64), np.asarray(self.std, np.float64)
        dtype = ops.dtype(images)
        return images * ops.asarray(self.scale / std, dtype) - ops.asarray(mean / std, dtype)


@dataclass(frozen=True, repr=False)
class ModelCard:
    """Facts of a model other than its layers.

    Attributes:
        spec: the specification that :func:`agnostic.load` was given, such as ``"torchvision:vgg16"``.
        preprocessing: from images in [0, 1] to the input of the model.
        size: (height, width) of its usual images; None if not known.
        class_names: the name of each output, in order; None if not known.
        aliases: other names of layers, by layer name.
    """

    spec: str
    preprocessing: Preprocessing
    size: tuple[int, int] | None = None
    class_names: tuple[str, ...] | None = None
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        names = "no class names" if self.class_names is None else counted(len(self.class_names), "class name")
        size = "any size" if self.size is None else f"{self.size[0]} x {self.size[1]}"
        return f"<ModelCard of {display.shortened(self.spec)}: {size}, {names}, {self.preprocessing}>"

    @property
    def channels(self) -> int | None:
        """Number of channels of the model's images; None if one mean is for all channels."""
        return len(self.preprocessing.mean) if len(self.preprocessing.mean) > 1 else None


def card_to_json(card: ModelCard) -> dict[str, Any]:
    """A card as JSON values, without its ``spec``."""
    found = asdict(card)
    del found["spec"]
    return found


def card_from_json(found: Any, spec: str) -> ModelCard:
    """The inverse of :func:`card_to_json`.

    Raises:
        InvalidInput: it is not a card.
    """
    import msgspec

    try:
        card = msgspec.convert(found, _schema())
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidInput(f"the card in {spec} is not valid ({error})") from None
    prepared = card.preprocessing
    try:
        preprocessing = Preprocessing(
            tuple(prepared.mean), tuple(prepared.std), prepared.scale, prepared.channel_order
        )  # fmt: skip
    except InvalidInput as error:
        raise InvalidInput(f"the card in {spec} is not valid ({error})") from None
    names = None if card.class_names is None else tuple(card.class_names)
    aliases = {name: tuple(others) for name, others in card.aliases.items()}
    return ModelCard(spec, preprocessing, card.size, names, aliases)


def card_from_text(text: bytes, spec: str) -> ModelCard:
    """The same of JSON text.

    Raises:
        InvalidInput: it is not a card.
    """
    import msgspec

    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the card in {spec} is not valid ({error})") from None
    return card_from_json(found, spec)


@functools.cache
def _schema() -> Any:
    """The schema of a card as JSON."""
    from msgspec import Meta, defstruct

    length = Annotated[int, Meta(ge=1, le=_LARGEST)]
    channels = Annotated[list[float], Meta(min_length=1, max_length=_LARGEST)]
    order = Literal["RGB", "BGR"]
    preprocessing = defstruct(
        "Preprocessing", [("mean", channels), ("std", channels), ("scale", float), ("channel_order", order)]
    )
    fields: list[tuple[str, Any]] = [
        ("preprocessing", preprocessing), ("size", tuple[length, length] | None), ("class_names", list[str] | None),
        ("aliases", dict[str, list[str]]),
    ]  # fmt: skip
    return defstruct("Card", fields)


def card_as_given(given: Any, spec: str = "") -> ModelCard:
    """A card from a mapping, or from a JSON file with one; every entry is optional.

    Args:
        given: a card; a mapping; or the path of a JSON file. Entries: ``range``, the values of black and white
            before mean and standard deviation ([0, 1], [0, 255], [-1, 1]; default [0, 1]); ``mean`` and ``std`` on that
            range, one number per channel or one for all; ``channel_order``, ``"RGB"`` or ``"BGR"``; ``size``, height
            and width; ``class_names``, in the order of the outputs.
        spec: the specification of the model.

    Raises:
        InvalidInput: an entry is unknown, or of the wrong type.
    """
    import os

    import msgspec

    if isinstance(given, ModelCard):
        return given
    where = "card="
    if isinstance(given, str | os.PathLike):
        from agnostic.files import read_regular

        where = str(given)
        try:
            given = msgspec.json.decode(read_regular(given))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f"cannot read a card from {where!r}: it is not JSON ({error})") from None
    try:
        card = msgspec.convert(given, _given_schema())
    except (msgspec.ValidationError, RecursionError) as error:
        entries = ", ".join(_given_schema().__struct_fields__)
        raise InvalidInput(f"{where} is not a card ({error}): give a mapping with some of {entries}") from None
    low, high = card.range
    if not low < high:
        raise InvalidInput(f"the range of a card is [black, white], such as [0, 1] or [0, 255], not [{low}, {high}]")
    mean = [card.mean] if isinstance(card.mean, float) else card.mean
    std = [card.std] if isinstance(card.std, float) else card.std
    channels = max(len(mean), len(std))
    # image * (high - low) + low is in the range: its offset goes into the mean.
    mean, std = (x * channels if len(x) == 1 else x for x in (mean, std))
    preprocessing = Preprocessing(tuple(m - low for m in mean), tuple(std), high - low, card.channel_order)
    names = None if card.class_names is None else tuple(card.class_names)
    return ModelCard(spec, preprocessing, card.size, names)


@functools.cache
def _given_schema() -> Any:
    from msgspec import Meta, defstruct

    length = Annotated[int, Meta(ge=1, le=_LARGEST)]
    numbers = Annotated[list[float], Meta(min_length=1, max_length=_LARGEST)] | float
    fields: list[tuple[str, Any, Any]] = [
        ("range", tuple[float, float], (0.0, 1.0)), ("mean", numbers, 0.0), ("std", numbers, 1.0),
        ("channel_order", Literal["RGB", "BGR"], "RGB"), ("size", tuple[length, length] | None, None),
        ("class_names", list[str] | None, None),
    ]  # fmt: skip
    return defstruct("GivenCard", fields, forbid_unknown_fields=True)
