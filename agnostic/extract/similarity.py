"""``agnostic.similar``: how alike layers represent the same samples, within a model or between two."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.checks import one_of, whole_number
from agnostic.errors import InvalidInput, UnknownName
from agnostic.reference.similarity import (
    linear_gram,
    median_distance,
    procrustes,
    rbf_gram,
    svcca,
    unbiased_hsic,
)
from agnostic.taps.stores import ActivationStore, open_store
from agnostic.text import counted

Array = npt.NDArray[Any]
Given = ActivationStore | str | os.PathLike[str] | Mapping[str, Any]

MEASURES = ("cka", "kernel_cka", "procrustes", "svcca")
_FEWEST = 4
"""Samples of a batch, for the unbiased estimate."""
_NOISE = 0.1
"""What unrelated samples may give without a remark: a tenth of the way from nothing alike to all."""
_SHUFFLED = 64
"""Samples that are compared with others at least, for that number, with repetitions."""


@dataclass(frozen=True)
class Similarity:
    """How alike layers represent the same samples.

    Attributes:
        values: (rows, columns) about 1 for layers that represent the samples alike; an unbiased estimate may lie
            slightly above 1 or below 0.
        rows: names of the layers of the first store.
        columns: names of the layers of the second.
        measure: one of :data:`MEASURES`.
        samples: how many were compared.
        chance: what the measure gives where each sample of one side is compared with another one of the other side, as
            the root of the mean square over all pairs of layers: values no higher say nothing.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(40, 5))
        >>> ag.similar({"x": x, "twice": 2 * x}, {"noise": rng.normal(size=(40, 5))}).values.round(1).tolist()
        [[-0.0], [-0.0]]
    """

    values: npt.NDArray[np.float64]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    measure: str
    samples: int
    chance: float

    @property
    def remark(self) -> str:
        """That the samples are too few for values to mean what they seem to; empty where they are not."""
        if self.chance <= _NOISE:
            return ""
        return (
            f"{counted(self.samples, 'sample')} are few for {self.measure}: unrelated ones give about "
            f"{self.chance:.2f} as well, so only values far above it say that layers are alike"
        )

    def __repr__(self) -> str:
        size = f"{len(self.rows)} x {counted(len(self.columns), 'layer')}"
        best = [
            f"{a}: {self.columns[int(v.argmax())]} {v.max():.2f}" for a, v in zip(self.rows, self.values, strict=True)
        ]
        return (
            f"<Similarity by {self.measure} of {size}, {counted(self.samples, 'sample')} ({display.listed(best, 160)})"
            f"{self.remark and '; ' + self.remark}>"
        )

    def picture(self) -> npt.NDArray[np.uint8]:
        """A table of colours: a row for each layer of the first store, bright where they are alike.

        Returns:
            (H, W, 3) uint8.
        """
        from agnostic.extract.charts import heat_map

        return heat_map(self.values, self.rows, self.columns, self.remark)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture as PNG, with the numbers in its metadata.

        Args:
            path: the file, whose name ends in ``.png``.

        Raises:
            InvalidInput: it cannot be written.
        """
        import json

        from agnostic.files import write_png

        told = {"measure": self.measure, "samples": self.samples, "chance": self.chance, "remark": self.remark}
        names = {"rows": self.rows, "columns": self.columns}
        write_png(path, self.picture(), {"agnostic": json.dumps({**told, **names, "values": self.values.tolist()})})


def similar(
    a: Given,
    b: Given | None = None,
    *,
    measure: str = "cka",
    samples: int | None = 4096,
    batch: int = 256,
    seed: int = 0,
) -> Similarity:
    """How alike the layers of two stores represent the same samples: of two models, of two frameworks, or of one before
    and after fine-tuning, pruning or porting.

    Args:
        a, b: stores of :func:`agnostic.extract` over the same data set, their paths, or mappings from names to arrays
            (n, ...) whose rows are the same samples. None: the layers of ``a`` among each other. Of a store, the means
            over positions are compared if it has them, else the maxima, else the whole outputs.
        measure: ``"cka"``, centred kernel alignment with the linear kernel; ``"kernel_cka"``, with a Gaussian one as
            wide as the median distance; both estimated without bias, in minibatches. ``"procrustes"``: how much the
            best rotation explains. ``"svcca"``: the mean canonical correlation of the directions of most variance.
        samples: how many are drawn of all; None: all. All that are drawn are in memory, for every layer.
        batch: samples in a minibatch, at least 4.
        seed: of the draw, and of the order in minibatches.

    Returns:
        The measure for each pair of layers.

    Raises:
        InvalidInput: the stores are of other samples, have too few, or a layer has no rows.
        UnknownName: there is no such measure.

    Source: see :mod:`agnostic.reference.similarity`; the minibatch form is that of Nguyen, Raghu and Kornblith, ICLR
        2021, equation 3, over samples in random order.

    Example:
        >>> store = ag.extract(model, images[[0, 1, 0, 1, 1]], ["conv", "relu"], "five.zarr", reduce="values")
        >>> ag.similar(store, batch=5).values.diagonal().round(6).tolist()
        [1.0, 1.0]
    """
    one_of("measure", measure, MEASURES, UnknownName)
    whole_number("batch", batch, _FEWEST)
    first = _opened(a)
    second = first if b is None else _opened(b)
    count, usable = _shared(first, second)
    rng = np.random.default_rng(whole_number("seed", seed))
    chosen = usable
    if samples is not None and len(usable) > whole_number("samples", samples, _FEWEST):
        chosen = np.sort(rng.choice(usable, samples, replace=False))
    if len(chosen) < _FEWEST:
        raise InvalidInput(
            f"{counted(len(chosen), 'sample')} of {count} can be compared, and at least {_FEWEST} are needed"
        )
    rows = {name: _finite(first, name, chosen) for name in first}
    columns = rows if second is first else {name: _finite(second, name, chosen) for name in second}
    if measure in ("cka", "kernel_cka"):
        parts = np.array_split(rng.permutation(len(chosen)), max(1, -(-len(chosen) // batch)))
        parts = [np.sort(part) for part in parts if len(part) >= _FEWEST] or [np.arange(len(chosen))]
        values, by_chance = _minibatch_cka(rows, columns, parts, rng, gaussian=measure == "kernel_cka")
    else:
        of = procrustes if measure == "procrustes" else svcca
        values = np.array([[of(x, y) for y in columns.values()] for x in rows.values()])
        orders = [_another_order(len(chosen), rng) for _ in range(_repetitions(len(chosen)))]
        by_chance = np.array([[[of(x, y[p]) for y in columns.values()] for x in rows.values()] for p in orders])
    chance = float(np.sqrt(np.mean(by_chance**2)))
    return Similarity(values, tuple(rows), tuple(columns), measure, len(chosen), chance)


def _repetitions(count: int) -> int:
    """How often so many samples are put in another order."""
    return -(-_SHUFFLED // count)


def _another_order(count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """An order in which every sample stands in the place of another one: a random cycle."""
    cycle = rng.permutation(count)
    found: npt.NDArray[np.int64] = cycle[(np.argsort(cycle) + 1) % count]
    return found


def _opened(given: Given) -> ActivationStore | dict[str, Array]:
    if isinstance(given, ActivationStore):
        return given
    if isinstance(given, Mapping):
        found = {str(name): np.asarray(x) for name, x in given.items()}
        if not found:
            raise InvalidInput("there is no array to compare: give names with arrays of a row for each sample")
        wrong = [f"{name!r}: {x.dtype}" for name, x in found.items() if x.dtype.kind not in "buif"]
        if wrong:
            raise InvalidInput(f"arrays to compare have real numbers, not {', '.join(wrong)}")
        if len({len(x) for x in found.values() if x.ndim}) != 1 or any(x.ndim < 2 for x in found.values()):
            shapes = ", ".join(f"{name}: {x.shape}" for name, x in found.items())
            raise InvalidInput(f"arrays to compare have a row for each sample, and as many of them, not {shapes}")
        return found
    return open_store(given)


def _shared(first: Any, second: Any) -> tuple[int, npt.NDArray[np.int64]]:
    """The number of samples, and the positions of those that both could read."""
    counts = [x.done if isinstance(x, ActivationStore) else len(next(iter(x.values()))) for x in (first, second)]
    stores = [x for x in (first, second) if isinstance(x, ActivationStore)]
    same = counts[0] == counts[1]
    if same and len(stores) == 2 and stores[0] is not stores[1]:
        same = bool((stores[0].samples == stores[1].samples).all())
    if not same:
        names = " and ".join(repr(x.path) if isinstance(x, ActivationStore) else "the arrays" for x in (first, second))
        raise InvalidInput(
            f"{names} are of other samples ({counts[0]} and {counts[1]}): extract both models "
            "over one data set, in one order"
        )
    readable = np.ones(counts[0], bool)
    for store in stores:
        readable &= store.readable
    return counts[0], np.flatnonzero(readable)


def _finite(source: Any, name: str, chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """(n, d) float32 of the chosen samples, which a measure can compare."""
    found = _read(source, name, chosen)
    bad = np.flatnonzero(~np.isfinite(found).all(1))
    if len(bad):
        raise InvalidInput(
            f"layer {name!r} has numbers that are not finite, first for sample {chosen[bad[0]]}: no measure compares "
            "them"
        )
    return found


def _read(source: Any, name: str, chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """(n, d) float32 of the chosen samples, read shard by shard."""
    if not isinstance(source, ActivationStore):
        return np.asarray(source[name][chosen], np.float32).reshape(len(chosen), -1)
    rows, step = source[name].features, source.header.shard
    found = np.empty((len(chosen), int(np.prod(rows.shape[1:], dtype=np.int64))), np.float32)
    for start in range(0, len(rows), step):
        low, high = np.searchsorted(chosen, (start, start + step))
        if low < high:
            part = np.asarray(rows[start : start + step])[chosen[low:high] - start]
            found[low:high] = part.reshape(high - low, -1)
    return found


def _minibatch_cka(
    rows: Mapping[str, Array],
    columns: Mapping[str, Array],
    parts: list[npt.NDArray[np.int64]],
    rng: np.random.Generator,
    gaussian: bool,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The criterion of each pair, and of each layer with itself, summed over minibatches; and the same by chance."""
    kernels = [_kernels(x, gaussian, parts[0]) for x in ((rows,) if columns is rows else (rows, columns))]
    times = _repetitions(len(parts[0]))
    across = np.zeros((1 + times, len(rows), len(columns)))
    own = [np.zeros(len(x)) for x in (rows, columns)]
    for part in parts:
        grams = [[gram(part) for gram in x] for x in kernels]
        left, right = grams[0], grams[-1]
        across[0] += [[unbiased_hsic(k, other) for other in right] for k in left]
        for total, side in zip(own, (left, right), strict=True):
            total += [unbiased_hsic(k, k) for k in side]
        for i in range(times):
            order = _another_order(len(part), rng)
            across[1 + i] += [[unbiased_hsic(k, other[np.ix_(order, order)]) for other in right] for k in left]
    # A layer that is constant, or nearly so, is like nothing.
    norms = np.sqrt(np.maximum(own[0], 0)[:, None] * np.maximum(own[1], 0))
    found = np.divide(across, norms, out=np.zeros_like(across), where=norms > 0)
    return found[0], found[1:]


def _kernels(
    layers: Mapping[str, Array], gaussian: bool, first: npt.NDArray[np.int64]
) -> list[Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]]]:
    """For each layer a function from the positions of samples to their Gram matrix.

    The width of a Gaussian kernel is the median distance in the first minibatch.
    """
    return [partial(_gram, x, median_distance(x[first]) if gaussian else None) for x in layers.values()]


def _gram(x: Array, width: float | None, part: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    # Centred, since large means would cost digits.
    rows = x[part] - x[part].mean(0, dtype=np.float64)
    return linear_gram(rows) if width is None else rbf_gram(rows, width or 1.0)


def layer_pairs(found: Similarity, *, among: bool = False) -> Iterator[tuple[str, str, float]]:
    """Each layer of the first store, the most alike of the second, and how much.

    Args:
        found: the similarities.
        among: the layers are those of one store: each is compared with the others, not with itself.
    """
    for i, (name, values) in enumerate(zip(found.rows, found.values, strict=True)):
        others = np.where(np.arange(len(values)) == i, -np.inf, values) if among and len(values) > 1 else values
        best = int(others.argmax())
        yield name, found.columns[best], float(values[best])
