"""``agnostic filters``: what the channels of a layer look for, as one mosaic per layer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from agnostic.cli import common, drawing

if TYPE_CHECKING:
    from agnostic.visualization.objectives import Objective
    from agnostic.visualization.pictures import Climb, Drawing


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "filters",
        epilog=common.example(
            "agnostic filters efficientnet_lite0",
            "agnostic filters efficientnet_lite0 --layer 'blocks.3.*' --channels 0-63",
            "agnostic filters efficientnet_lite0 --layer blocks.6 --channels all --engine ray",
            "agnostic filters my_file.py:make_model --inputs 1x3x64x64 --inputs age.npy",
            "agnostic filters torchvision:vgg16 --weights vgg16.pth --recipe classic --layer block1_conv1 --size 150",
        ),
    )(filters)


def filters(
    model: common.ModelArgument,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            help="Name or glob of a layer; may be given several times; by default the last layer at each resolution.",
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="Such as 0-63 or 0,5,9, or all; by default the first 64, or 8 if no layer is given."),
    ] = None,
    negative: Annotated[bool, typer.Option("--negative", help="Draw what each channel is lowest for.")] = False,
    weights: common.WeightsOption = None,
    recipe: drawing.RecipeName = "fourier",
    size: common.SizeOption = None,
    channels_in: common.ChannelsIn = None,
    card: common.Card = None,
    steps: drawing.StepsOption = None,
    columns: drawing.Columns = 8,
    labels: drawing.Labels = True,
    show: drawing.Show = False,
    seed: common.Seed = 0,
    start: drawing.Start = None,
    inputs: common.InputsOption = None,
    image: common.Image = None,
    transparent: drawing.Transparent = False,
    force: drawing.Force = False,
    out: common.Out = drawing.PICTURES,
    backend: common.BackendOption = None,
    engine: common.Engines = None,
    address: common.Address = None,
    trust: common.Trust = False,
    dtype: drawing.Dtype = None,
    micro_batch: drawing.MicroBatch = None,
    device: common.Device = None,
    json: common.Json = False,
) -> None:
    """Draw images that excite single channels of a layer: one mosaic per layer.

    Finished images are kept: run an interrupted command again to continue.
    """
    where, computed_by = common.engines(engine or [], address)
    jobs = drawing.jobs(
        model, weights=weights, recipe=recipe, size=size, channels_in=channels_in, card=card, steps=steps,
        columns=columns, labels=labels, show=show, seed=seed, start=start, inputs=inputs, image=image, force=force,
        out=out, backend=backend, engine=computed_by, trust=trust, dtype=dtype, micro_batch=micro_batch, device=device,
        json=json, transparent=transparent,
    )  # fmt: skip
    network = jobs[0].load()
    chosen = drawing.spatial_layers(network, layer or [], jobs[0].options)
    names = drawing.distinct([x.aliases[0] if x.aliases else x.name for x in chosen])
    drawings = []
    for found, name in zip(chosen, names.values(), strict=True):
        items = [f"{c:04d}" for c in drawing.parse_channels(channels, found, first=64 if layer else 8)]
        drawings += [(job, drawing_of(job, found.name, name, items, negative=negative)) for job in jobs]
    drawing.draw_all(network, drawings, climb=_spread(address) if where == "ray" else None)


def _spread(address: str | None) -> Climb:
    from agnostic.visualization.spread import spread

    return functools.partial(spread, address=address)


def drawing_of(job: drawing.DrawingJob, layer: str, name: str, items: Sequence[str], *, negative: bool) -> Drawing:
    """The mosaic of some channels of a layer.

    Args:
        job: what was asked for.
        layer: the model's own name of it.
        name: of the layer, in file names.
        items: the channels.
        negative: draw what each channel is lowest for.
    """
    objective = functools.partial(_objective, layer, -1.0 if negative else 1.0)
    parts = [name, "negative" if negative else None]
    command = "filters --negative" if negative else "filters"
    return job.drawing(items, objective, layer=layer, parts=parts, kind="channels", command=command)


def _objective(layer: str, sign: float, items: Sequence[str]) -> Objective:
    from agnostic.visualization.objectives import channel

    objective = channel(layer, [int(item) for item in items])
    return objective if sign > 0 else -objective
