"""``agnostic.top``: the samples that excite a channel of a layer most."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.checks import whole_number
from agnostic.errors import InvalidInput
from agnostic.extract.charts import marked
from agnostic.extract.samples import SampleSource, samples_of, stored_name
from agnostic.models.preparing import resized
from agnostic.taps.stores import ActivationStore, StoredLayer, open_store
from agnostic.text import counted
from agnostic.visualization.captions import captioned

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TopSamples:
    """The samples that excite a channel most, in descending order.

    Attributes:
        layer: the name of the layer in the store.
        channel: of the layer.
        names: of the samples.
        positions: (n,) of the samples in the data set.
        values: (n,) the maximum of the channel over each sample.
        places: (n, axes) indices of the maximum in the layer's output; None if the store does not tell.
        shape: of the axes of ``places``.
        size: (height, width) of photos as the model sees them; None for other samples.
        dataset: what the store says of its data set.

    Example:
        >>> store = ag.extract(model, "photos", "conv", "top.zarr", reduce="mean", size=16)
        >>> found = ag.top(store, "conv", channel=3, count=2)
        >>> len(found.names), bool(found.values[0] >= found.values[1]), found.places.shape
        (2, True, (2, 2))
    """

    layer: str
    channel: int
    names: tuple[str, ...]
    positions: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    places: npt.NDArray[np.int32] | None
    shape: tuple[int, ...]
    size: tuple[int, int] | None
    dataset: dict[str, Any]

    def __repr__(self) -> str:
        best = (f"{name}: {value:.3g}" for name, value in zip(self.names, self.values, strict=True))
        return f"<TopSamples of channel {self.channel} of {display.shortened(self.layer)}: {display.listed(best)}>"

    def photos(self, dataset: Any = None) -> list[npt.NDArray[np.uint8]]:
        """The photos as the model sees them, with a frame around the place.

        Args:
            dataset: the data set that was extracted, as in :func:`agnostic.extract`; None: where it was then.

        Returns:
            (height, width, 3) uint8 each.

        Raises:
            InvalidInput: the samples are no photos, or the data set must be given.
        """
        if self.size is None:
            raise InvalidInput("the samples of this store are no photos: they were given as the model takes them")
        source = _source(self.dataset, dataset)
        return [self._photo(source, number) for number in range(len(self.names))]

    def _photo(self, source: SampleSource, number: int) -> npt.NDArray[np.uint8]:
        from agnostic.files import to_uint8

        assert source.read is not None
        assert self.size is not None
        sample = source.read(int(self.positions[number]))
        if stored_name(sample.name) != self.names[number]:
            raise InvalidInput(
                f"sample {self.positions[number]} of the data set is {sample.name!r}, and in the store "
                f"{self.names[number]!r}: give the data set that was extracted"
            )
        image = sample.value[..., None] if sample.value.ndim == 2 else sample.value
        shown = to_uint8(resized(image, *self.size))
        shown = np.repeat(shown[..., None], 3, -1) if shown.ndim == 2 else shown[..., :3]
        if self.places is None or len(self.shape) != 2:
            return shown
        return marked(shown, self.places[number].tolist(), self.shape)

    def save(self, path: str | os.PathLike[str], dataset: Any = None, columns: int = 4) -> None:
        """Write the photos as one PNG, each with its value and name.

        Args:
            path: the file, whose name ends in ``.png``.
            dataset: see :meth:`photos`.
            columns: photos per row.

        Raises:
            InvalidInput: see :meth:`photos`; or the file cannot be written.
        """
        import json

        from agnostic.files import write_png

        if not self.names:
            raise InvalidInput(f"no sample excites channel {self.channel} of {self.layer!r}: there is nothing to show")
        told = {"layer": self.layer, "channel": self.channel, "samples": self.names, "values": self.values.tolist()}
        captions = [f"{value:.3g} {name}" for name, value in zip(self.names, self.values, strict=True)]
        title = f"{self.layer} channel {self.channel}"
        drawn = captioned(np.stack(self.photos(dataset)), captions, columns=columns, title=title)
        write_png(path, drawn, {"agnostic": json.dumps(told)})


def top(store: ActivationStore | str | os.PathLike[str], layer: str, channel: int, count: int = 16) -> TopSamples:
    """The samples of a store that excite a channel of a layer most, by the maximum over positions.

    Args:
        store: of :func:`agnostic.extract`, or its path.
        layer: a name in the store.
        channel: from 0.
        count: number of samples, as many as the store keeps (``top=`` of :func:`agnostic.extract`), or any number where
            it has the maxima or the outputs of all.

    Returns:
        Their names, values and places.

    Raises:
        UnknownName: no such layer.
        InvalidInput: no such channel, the layer has no channels, or the store keeps no maxima.

    Example:
        >>> store = ag.extract(model, images, ["conv", "head"], "top2.zarr", reduce="mean")
        >>> ag.top(store, "head", channel=1).names[0] in store.samples
        True
    """
    opened = store if isinstance(store, ActivationStore) else open_store(store)
    own = opened[layer]
    channels = own.tap.channels
    if channels is None:
        raise InvalidInput(f"layer {layer!r} has no channels: its axes are {own.tap.axes or 'not known'}")
    if not -1 < whole_number("channel", channel) < channels:
        raise InvalidInput(f"layer {layer!r} has {counted(channels, 'channel')}, counted from 0, and no {channel}")
    values, positions, places = _highest(own, channel, whole_number("count", count, 1), opened)
    prepared = opened.header.preprocessing
    size = None if prepared.get("prepared") or not prepared.get("size") else tuple(prepared["size"])
    return TopSamples(
        layer,
        channel,
        tuple(str(x) for x in opened.samples[positions]),
        positions,
        values,
        places,
        own.tap.positions,
        size,
        opened.header.dataset,
    )


def _highest(own: StoredLayer, channel: int, count: int, store: ActivationStore) -> tuple[Array, Array, Array | None]:
    """Values, positions of samples, and places."""
    if "top_value" in own and (count <= store.header.top or not {"max", "values"} & set(own)):
        found = own["top_sample"][:count, channel]
        kept = found >= 0
        places = own["top_place"][:count, channel][kept] if "top_place" in own else None
        return own["top_value"][:count, channel][kept], found[kept], places
    if "max" in own:
        values = np.asarray(own["max"][:, channel], np.float32)
        order = _order(values, count)
        return values[order], order, own["max_place"][order][:, channel] if "max_place" in own else None
    if "values" in own:
        return _of_outputs(own, channel, count)
    raise InvalidInput(
        f"the store {store.path!r} has no maxima of layer {own.tap.name!r}: extract it with top=20, or reduce='max'"
    )


def _of_outputs(own: StoredLayer, channel: int, count: int) -> tuple[Array, Array, Array | None]:
    """The same from whole outputs, read in pieces."""
    rows, axis = own["values"], own.tap.sample_axes.index("C") + 1
    values: list[Array] = []
    places: list[Array] = []
    for start in range(0, len(rows), 256):
        part: Array = np.take(np.asarray(rows[start : start + 256], np.float32), [channel], axis)
        flat = part.reshape(len(part), -1)
        places.append(flat.argmax(1))
        values.append(np.take_along_axis(flat, places[-1][:, None], 1)[:, 0])
    whole: Array = np.concatenate(values)
    order = _order(whole, count)
    lengths = own.tap.positions
    where = np.stack(np.unravel_index(np.concatenate(places)[order], lengths), -1) if lengths else None
    return whole[order], order, where


def _order(values: Array, count: int) -> npt.NDArray[np.int64]:
    """The positions of the highest, without NaN."""
    order = np.argsort(-values, kind="stable")
    found: npt.NDArray[np.int64] = order[~np.isnan(values[order])][:count]
    return found


def _source(told: dict[str, Any], given: Any) -> SampleSource:
    """The data set of a store."""
    if given is None:
        given = told.get("paths") or told.get("path")
        if given is None:
            raise InvalidInput("the store does not say where its data set is: give it as dataset=")
        given = [Path(x) for x in given] if isinstance(given, list) else Path(given)
    found = samples_of(given)
    if found.read is None:
        raise InvalidInput("the samples of this data set are read one after the other only: give one with __getitem__")
    return found
