"""``agnostic taps``: what the layers of a model make of one photo, as a mosaic a layer."""

from __future__ import annotations

import json as json_format
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agnostic.cli import drawing
from agnostic.cli.common import Backend, Engine, Json, Out, Spec, Weights, example, print_json, say
from agnostic.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from agnostic.layers import Layer


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "taps",
        epilog=example(
            "agnostic taps efficientnet_lite0 photo.jpg --layer 'blocks.*'",
            "agnostic taps torchvision:vgg16 photo.jpg --layer block1_conv1 --channels 0-15",
        ),
    )(taps)


def taps(
    model: Spec,
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="An image file.")],
    layer: Annotated[list[str], typer.Option("--layer", help="Name or glob of a layer; may be given several times.")],
    channels: Annotated[
        str | None, typer.Option(help="Such as 0-63 or 0,5,9, or all; by default the first 64 at most.")
    ] = None,
    weights: Weights = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Height and width of the model's input; by default its own.")
    ] = None,
    columns: drawing.Columns = 8,
    out: Out = drawing.PICTURES,
    backend: Backend = None,
    engine: Engine = None,
    json: Json = False,
) -> None:
    """Draw what each channel of a layer answers to a photo: one mosaic a layer, bright where the channel is high.

    The model is shown the middle of the photo, in the size and shape that it takes. Each channel has its own scale,
    from its 1st to its 99th percentile.
    """
    from agnostic.files import read_image, write_png
    from agnostic.models.load import load
    from agnostic.taps.pictures import tiles
    from agnostic.taps.verbs import capture, prepare
    from agnostic.visualization.mosaic import mosaic
    from agnostic.visualization.pictures import slug

    picture = read_image(photo)
    network = load(model, backend=backend, engine=engine, weights=weights)
    inputs = prepare(network, _fitted(picture, network, size))
    spatial, left_out = _spatial(network, inputs, layer, model)
    wanted = {x.name: drawing.parse_channels(channels, x) for x in spatial}
    record = capture(network, inputs, list(wanted)).numpy()
    report: list[dict[str, Any]] = []
    for x in spatial:
        calls = record.calls(x.name)
        for number, activation in enumerate(calls, 1):
            call = f"-call{number}" if len(calls) > 1 else ""
            name = x.aliases[0] if x.aliases else x.name
            path = out / f"{drawing.model_name(model)}-{slug(name)}{call}-{slug(photo.stem)}.png"
            images = tiles(activation, x.axes or "", wanted[x.name], layer=x.name)
            about = {"model": model, "layer": x.name, "photo": photo.name, "channels": wanted[x.name]}
            write_png(path, mosaic(images, columns), {"agnostic": json_format.dumps(about)})
            report.append({"path": path, **about})
            if not json:
                say(f"{path} ({_summary(x, wanted[x.name])})")
    if json:
        print_json({"mosaics": report, "left_out": [x.name for x in left_out]})
    elif left_out:
        say(f"left out, without height and width: {', '.join(x.name for x in left_out)}")


def _summary(layer: Layer, wanted: Sequence[int]) -> str:
    sizes = dict(zip(layer.axes or "", layer.shape or (), strict=True))
    return f"{len(wanted)} of {layer.channels} channels, {sizes['H']} x {sizes['W']}"


def _fitted(picture: npt.NDArray[np.uint8], network: Any, size: int | None) -> npt.NDArray[np.uint8]:
    """The middle of a picture (H, W, 3), in the size and with the number of channels that the model takes."""
    import numpy as np
    from PIL import Image, ImageOps

    from agnostic.backend import backend_of
    from agnostic.models.cards import card_of

    card = card_of(network)
    height, width = (size, size) if size is not None else (224, 224) if card is None else card.size
    image = Image.fromarray(picture)
    if backend_of(network).input_channels(network) == 1:
        image = image.convert("L")
    fitted = np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC))
    return fitted if fitted.ndim == 3 else fitted[:, :, None]


def _spatial(network: Any, inputs: Any, selectors: Sequence[str], model: str) -> tuple[list[Layer], list[Layer]]:
    """The chosen layers with and without height and width; one chosen by its name must have them."""
    from agnostic.backend import backend_of
    from agnostic.layers import chooses_many, select

    listing = backend_of(network).layers(network, inputs)
    spatial: dict[str, Layer] = {}
    others: dict[str, Layer] = {}
    for selector in selectors:
        found = select(listing, selector, model=model)
        flat = [x for x in found if not x.spatial]
        if len(flat) == len(found) or (flat and not chooses_many(selector)):
            what = (
                f"its output is {flat[0].axes}" if flat[0].axes else "its output is no single array, or it does not run"
            )
            raise InvalidInput(
                f"layer {flat[0].name!r} has no height and width to draw ({what}); choose a convolution or a block"
            )
        spatial.update((x.name, x) for x in found if x.spatial)
        others.update((x.name, x) for x in flat if x.calls)
    return list(spatial.values()), list(others.values())
