"""``agnostic.extract``: the outputs of layers for a whole data set, in a store."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from agnostic.checks import one_of, whole_number
from agnostic.cluster import ENGINES, check_address
from agnostic.errors import InvalidInput, UnknownName
from agnostic.extract.inputs import Preparation, preparation
from agnostic.extract.local import run_local
from agnostic.extract.looking import FirstBatch, looked
from agnostic.extract.reading import first_batch, first_sample, sized_batch
from agnostic.extract.samples import SampleSource, samples_of
from agnostic.extract.store import StoreWriter, check_same, existing, only_writer
from agnostic.layers import Layer, Selector
from agnostic.models.attached import card_of
from agnostic.models.inputs import Size
from agnostic.registry import Backend, Model, model_backend
from agnostic.taps.choosing import as_selectors
from agnostic.taps.reductions import NAMES, OVER_SAMPLES
from agnostic.taps.stores import (
    FORMAT,
    VERSION,
    ActivationStore,
    StoredTap,
    StoreHeader,
    location,
    open_store,
)
from agnostic.visualization.pictures import fingerprint, versions_of

DTYPES = ("float32", "float16", "bfloat16")
COMPUTED_IN = ("bfloat16",)
_PART_BYTES = 128 << 20
_MOST_IN_PART = 1024


def extract(
    model: Model,
    dataset: Any,
    layers: Selector | Iterable[Selector],
    store: str | os.PathLike[str],
    *,
    reduce: str | Iterable[str] | None = None,
    top: int = 20,
    dtype: str = "float32",
    compute: str | None = None,
    batch_size: int = 32,
    shard: int | None = None,
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    prepared: bool | None = None,
    field: str | None = None,
    inputs: Any = None,
    image: int | str | None = None,
    size: Size | None = None,
    channels_in: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> ActivationStore:
    """Write what layers return for every sample of a data set into a zarr store.

    A run that was stopped, by whatever it was, goes on where it was when it is started again with the same arguments,
    and the store has the same bytes as if it had not been stopped.

    Args:
        model: a native model.
        dataset: photos or arrays: a folder of photos, at any depth; a list of image files; ``.tar`` files of webdataset
            (``"shard-{000..012}.tar"``); an array or memory map of images (N, H, W, C), or its ``.npy`` file; a tuple
            of such an array and integer labels; an :class:`agnostic.data.ImageFolder`; a PyTorch Dataset or DataLoader;
            a ``tf.data.Dataset``; a Keras PyDataset; a Hugging Face data set; a
            ``ray.data.Dataset``; or any object with ``__len__`` and
            ``__getitem__``, or with ``__iter__``. A sample may be an image, (image, label), or a dict with an image.
        layers: names, globs, kinds, or the model's own layer objects, as in :func:`agnostic.capture`. Here a glob also
            chooses the numbered layers inside of what it matches: ``"blocks.*"`` is ``blocks.5`` and its blocks, such
            as ``blocks.5.2``, which a later look at the store may ask for.
        store: the folder to write, such as ``"acts.zarr"``, or a URL that zarr opens, such as ``s3://bucket/acts.zarr``.
        reduce: None keeps the whole outputs (``"values"``). Else one or several of: ``"mean"`` over positions;
            ``"max"`` over positions, with its place; ``"histogram"`` of each channel over all samples and positions;
            ``"covariance"`` of the channels over all samples and positions; ``"values"``.
        top: number of samples that are kept for each channel because they excite it most, with the place; 0: none.
        dtype: of what is stored: ``"float32"``, ``"float16"`` or ``"bfloat16"``, which is written as float32 numbers
            that are rounded to it and compress to its size.
        compute: ``"bfloat16"``: what layers compute in, about twice as fast where the processor multiplies it (AMX,
            AVX512_BF16) or on a GPU; each layer's numbers then have 8 bits of precision (docs/scale.md). None: the
            model's own type.
        batch_size: samples that the model takes at once.
        shard: samples in a part: what a run that is stopped may have to compute again; a multiple of ``batch_size``.
            None: at most 1024, and about 128 MB.
        engine: ``"local"``, or ``"ray"``: the processes of a Ray cluster.
        address: of the Ray cluster; None: a local one.
        workers: threads that read and decode, or processes of Ray; None: one for each core.
        prepared: whether samples are what the model takes already; None: those that a data set gives as floating-point
            arrays of a framework are. All others are images, channels last, uint8 or floats in [0, 1], and are prepared
            as :func:`agnostic.prepare` does.
        field: the entry of the image in samples that are dicts.
        inputs, image, size, channels_in: as in :func:`agnostic.prepare`.
        progress: called after each batch with the number of its samples, and the number of all samples if it is known.

    Returns:
        The store, opened for reading.

    Raises:
        InvalidInput: the data set is empty, a layer returns no array or another shape from batch to batch, the store
            holds something else or is being written by another process, or there is no room.
        UnknownName: a selector chooses no layer, or there is no such reduction or engine.
        MissingDependency: the package zarr, or ray for its engine, is not installed.

    Example:
        >>> store = ag.extract(model, "photos", ["conv", "head"], "photos.zarr", reduce="mean", size=16)
        >>> store["conv"]["mean"].shape, str(store.samples[0])
        ((6, 8), 'cat/0.png')
        >>> ag.taps.open("photos.zarr").complete
        True
    """
    backend, where = model_backend(model), location(store)
    asked = as_selectors(backend, model, layers)
    reduced = _reductions(reduce)
    whole_number("top", top)
    whole_number("batch_size", batch_size, 1)
    one_of("dtype", dtype, DTYPES, UnknownName)
    if compute is not None:
        one_of("compute", compute, COMPUTED_IN, UnknownName)
    one_of("engine", engine, ENGINES, UnknownName)
    if workers is not None:
        whole_number("workers", workers, 1)
    check_address(engine, address)
    samples = samples_of(dataset, field)
    first = first_sample(samples)
    how = preparation(
        backend, model, first, prepared=prepared, inputs=inputs, image=image, size=size, channels_in=channels_in
    )
    prints = _fingerprints(backend, model, asked, samples, how)
    batch = sized_batch(samples, batch_size)
    chosen = {"reduce": reduced, "top": top, "dtype": dtype, "batch": batch, "compute": compute}
    with only_writer(where):
        writer, began = _existing(where, prints, chosen, shard), None
        if writer is None:
            taps, left_out, began = looked(
                backend, model, asked, first_batch(samples, how, batch), how, reduced, compute
            )
            header = _header(backend, model, samples, how, prints, chosen, shard, taps, left_out)
            writer = StoreWriter.created(where, header)
        if not writer.header.complete:
            done = _progress(progress, samples.count, writer.checkpoint.samples)
            _run(engine, address, model, samples, how, writer, workers, done, began)
            writer.finish()
    return open_store(where)


def _progress(
    progress: Callable[[int, int | None], None] | None, count: int | None, done: int
) -> Callable[[int], None]:
    if progress is None:
        return lambda steps: None
    progress(done, count)
    return lambda steps: progress(steps, count)


def _run(
    engine: str,
    address: str | None,
    model: Model,
    samples: SampleSource,
    how: Preparation,
    writer: StoreWriter,
    workers: int | None,
    done: Callable[[int], None],
    first: FirstBatch | None,
) -> None:
    if engine == "ray":
        from agnostic.extract.cluster import run_on_cluster

        run_on_cluster(model, samples, how, writer, workers, done, address)
        return
    run_local(model, samples, how, writer, workers, done, first)


def _existing(
    where: str, prints: Mapping[str, str], chosen: Mapping[str, Any], shard: int | None
) -> StoreWriter | None:
    """The store that is there, if it may be continued."""
    found = existing(where)
    if found is None:
        return None
    check_same(where, found, prints, {**chosen, **({} if shard is None else {"shard": shard})})
    return StoreWriter.continued(where, found)


# The header ----------------------------------------------------------------------------------------------------------
def _reductions(reduce: str | Iterable[str] | None) -> tuple[str, ...]:
    several = isinstance(reduce, Iterable) and not isinstance(reduce, str)
    given: tuple[Any, ...] = ("values",) if reduce is None else tuple(reduce) if several else (reduce,)
    for name in given:
        one_of("reduce", name, NAMES, UnknownName)
    if not given:
        raise InvalidInput(f"reduce is one or several of {', '.join(NAMES)}, or None, not an empty list")
    return tuple(name for name in NAMES if name in given)


def _fingerprints(
    backend: Backend, model: Model, asked: Sequence[Any], samples: SampleSource, how: Preparation
) -> dict[str, str]:
    """Digests of what a store is made of: another one is refused."""
    digest = hashlib.blake2b(digest_size=16)
    for x in how.call.others:
        digest.update(np.ascontiguousarray(x).tobytes())
    digest.update(json.dumps(how.said(), sort_keys=True).encode())
    names = json.dumps([x.name if isinstance(x, Layer) else x for x in asked], default=str)
    versions = json.dumps({**versions_of(backend), "numpy": np.__version__}, sort_keys=True)
    return {
        "model": fingerprint(backend, model),
        "dataset": samples.digest,
        "preprocessing": digest.hexdigest(),
        "layers": hashlib.blake2b(names.encode(), digest_size=16).hexdigest(),
        "versions": hashlib.blake2b(versions.encode(), digest_size=16).hexdigest(),
    }


def _header(
    backend: Backend,
    model: Model,
    samples: SampleSource,
    how: Preparation,
    prints: Mapping[str, str],
    chosen: Mapping[str, Any],
    shard: int | None,
    taps: dict[str, StoredTap],
    left_out: dict[str, str],
) -> StoreHeader:
    """What a new store says of itself."""
    card = card_of(model)
    return StoreHeader(
        format=FORMAT,
        version=VERSION,
        complete=False,
        samples=samples.count,
        labels=samples.labels,
        shard=_shard(taps, chosen, shard),
        layers=taps,
        left_out=left_out,
        fingerprint=dict(prints),
        model={
            "class": type(model).__name__,
            "spec": None if card is None else card.spec,
            "backend": backend.name,
            "engine": backend.engine,
        },
        preprocessing=how.said(),
        dataset={"kind": samples.kind, **samples.about},
        versions={**versions_of(backend), "numpy": np.__version__},
        seed=None,
        **chosen,
    )


def _shard(taps: Mapping[str, StoredTap], chosen: Mapping[str, Any], shard: int | None) -> int:
    """Samples in a part: a multiple of the batch."""
    batch: int = chosen["batch"]
    if shard is not None:
        whole_number("shard", shard, 1)
        if shard % batch:
            raise InvalidInput(f"shard is a multiple of batch_size={batch}, not {shard}")
        return shard
    row = 0
    for tap in taps.values():
        if "values" in chosen["reduce"]:
            row += int(np.prod(tap.shape, dtype=np.int64)) * 4
        row += 4 * sum(name not in OVER_SAMPLES for name in chosen["reduce"]) * (tap.channels or 0)
    return max(1, min(_MOST_IN_PART, _PART_BYTES // max(row, 1)) // batch) * batch
