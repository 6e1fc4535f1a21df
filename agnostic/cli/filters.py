"""``agnostic filters``: what the channels of a layer look for, as a mosaic a layer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from agnostic.cli import drawing
from agnostic.cli.common import Backend, Engine, Json, Out, Seed, Spec, Weights, example

if TYPE_CHECKING:
    from agnostic.visualization.objectives import Objective


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "filters",
        epilog=example(
            "agnostic filters efficientnet_lite0",
            "agnostic filters efficientnet_lite0 --layer 'blocks.3.*' --channels 0-63",
            "agnostic filters torchvision:vgg16 --weights vgg16.pth --recipe classic --layer block1_conv1 --size 150",
        ),
    )(filters)


def filters(
    model: Spec,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            help="Name or glob of a layer; may be given several times; by default the last layer at each resolution.",
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="Such as 0-63 or 0,5,9, or all; by default the first 64, or 8 where no layer is named."),
    ] = None,
    weights: Weights = None,
    recipe: drawing.RecipeName = "fourier",
    size: drawing.Size = None,
    steps: drawing.Steps = None,
    columns: drawing.Columns = 8,
    seed: Seed = 0,
    out: Out = drawing.PICTURES,
    backend: Backend = None,
    engine: Engine = None,
    dtype: drawing.Dtype = None,
    micro_batch: drawing.MicroBatch = None,
    device: drawing.Device = None,
    json: Json = False,
) -> None:
    """Draw images that excite single channels of a layer: one mosaic a layer.

    What is finished is kept: an interrupted command goes on where it was when it is given again.
    """
    # Here, because a framework may be imported by it, and 'agnostic --help' must not wait for that.
    from agnostic.models.load import load
    from agnostic.visualization.ascent import Settings
    from agnostic.visualization.pictures import Drawing, slug

    options = Settings(micro_batch, dtype, device=device)
    network = load(model, backend=backend, engine=engine, weights=weights)
    chosen = drawing.spatial_layers(network, layer or [], size, recipe)
    drawings = []
    for found in chosen:
        wanted = drawing.parse_channels(channels, found, first=64 if layer else 8)
        drawings.append(
            Drawing(
                out
                / f"{drawing.model_name(model)}-{slug(found.aliases[0] if found.aliases else found.name)}-{recipe}.png",
                tuple(f"{c:04d}" for c in wanted),
                functools.partial(_objective, found.name),
                columns,
            )
        )
    drawing.draw_all(network, drawings, options, recipe=recipe, size=size, steps=steps, seed=seed, as_json=json)


def _objective(layer: str, items: Sequence[str]) -> Objective:
    from agnostic.visualization.objectives import channel

    return channel(layer, [int(item) for item in items])
