"""``agnostic extract``: the outputs of layers for a whole data set, in a zarr store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agnostic.cli import common
from agnostic.errors import InvalidInput
from agnostic.text import counted

if TYPE_CHECKING:
    from agnostic.taps.stores import ActivationStore


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "extract",
        epilog=common.example(
            "agnostic extract efficientnet_lite0 photos/ --layer 'blocks.*' --reduce mean --out acts.zarr",
            "agnostic extract torchvision:vgg16 'shard-{000..099}.tar' --layer features.28 --reduce max --out vgg.zarr",
            "agnostic extract efficientnet_lite0 images.npy --layer blocks.6 --reduce histogram --out histograms.zarr",
        ),
    )(extract)


def extract(
    model: common.ModelArgument,
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="A folder of photos at any depth, .tar files, or a .npy file.")
    ],
    layer: Annotated[list[str], typer.Option("--layer", help="Name or glob of a layer; may be given several times.")],
    out: Annotated[str, typer.Option("--out", help="The store to write: a folder, or a URL such as s3://b/acts.zarr.")],
    reduce: Annotated[
        list[str] | None,
        typer.Option(
            "--reduce", help="values (the default: everything), mean, max, histogram or covariance; may be repeated."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="Photos to keep for each channel: those that excite it most.")] = 20,
    dtype: Annotated[str, typer.Option(help="Of the numbers in the store: float32, float16 or bfloat16.")] = "float32",
    compute: Annotated[
        str | None, typer.Option(help="bfloat16: what layers compute in, faster and less exact; by default their own.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Photos that the model takes at once.")] = 32,
    shard: Annotated[
        int | None, typer.Option(min=1, help="Photos in a part of the store; a multiple of the batch size.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that read; by default one for each core.")] = None,
    prepared: Annotated[
        bool, typer.Option("--prepared", help="The arrays are what the model takes, not images to be prepared.")
    ] = False,
    weights: common.WeightsOption = None,
    size: common.SizeOption = None,
    channels_in: common.ChannelsIn = None,
    card: common.Card = None,
    inputs: common.InputsOption = None,
    image: common.Image = None,
    backend: common.BackendOption = None,
    engine: common.Engines = None,
    address: common.Address = None,
    trust: common.Trust = False,
    device: common.Device = None,
    json: common.Json = False,
) -> None:
    """Write what layers return for every photo of a data set into a zarr store.

    A run that was stopped goes on when the same command is given again. Photos that cannot be read are skipped, and
    listed in the store.
    """
    from agnostic.extract.samples import samples_of
    from agnostic.extract.verb import extract as run
    from agnostic.models.load import loaded

    where, computed_by = common.engines(engine or [], address)
    samples = samples_of(dataset)  # before the model, which may take long to load
    called_with = common.example_inputs(inputs or [])
    with (
        loaded(
            model, device=device, backend=backend, engine=computed_by, weights=weights, trust=trust, card=card
        ) as network,
        common.growing_progress("extracting") as progress,
        _told_when_interrupted(out),
    ):
        store = run(
            network, samples, layer, out, reduce=reduce or None, top=top, dtype=dtype, compute=compute,
            batch_size=batch_size, shard=shard, engine=where, address=address, workers=workers,
            prepared=True if prepared else None, inputs=called_with, image=common.parse_image(image),
            size=common.parse_size(size), channels_in=channels_in, progress=progress,
        )  # fmt: skip
    _tell(store, json)


@contextmanager
def _told_when_interrupted(out: str) -> Iterator[None]:
    """Inside, Ctrl-C says what is kept."""
    from agnostic.taps.stores import open_store

    try:
        yield
    except KeyboardInterrupt:
        try:
            kept = counted(open_store(out).done, "sample")
        except InvalidInput:  # nothing is there yet
            raise KeyboardInterrupt from None
        raise KeyboardInterrupt(f"{kept} are kept in {out!r}, and the same command goes on") from None


def _tell(store: ActivationStore, as_json: bool) -> None:
    unreadable = store.unreadable
    if as_json:
        common.print_json(
            {
                "path": Path(store.path) if "://" not in store.path else store.path,
                "samples": store.done,
                "layers": {key: {"shape": x.shape, "axes": x.axes} for key, x in store.header.layers.items()},
                "left_out": store.header.left_out,
                "unreadable": unreadable,
            }
        )
        return
    rows = [(key, x.kind, " x ".join(map(str, x.shape)), x.axes or "-") for key, x in store.header.layers.items()]
    common.print_table(("layer", "kind", "shape", "axes"), rows)
    common.say(f"{store.path}: {counted(store.done, 'sample')}, {counted(len(store), 'layer')}")
    for name, reason in store.header.left_out.items():
        common.say(f"left out: {name!r}: {reason}")
    for reason in unreadable.values():
        common.say(f"skipped: {reason}")
