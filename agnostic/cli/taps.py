"""``agnostic taps``: draw the outputs of layers for photos, one mosaic per layer and photo."""

from __future__ import annotations

import json as json_format
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agnostic.cli import common, drawing
from agnostic.errors import InvalidInput

if TYPE_CHECKING:
    from agnostic.layers import Layer


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "taps",
        epilog=common.example(
            "agnostic taps efficientnet_lite0 photo.jpg --layer 'blocks.*'",
            "agnostic taps torchvision:vgg16 photo.jpg --layer block1_conv1 --channels 0-15",
            "agnostic taps efficientnet_lite0 photos/ --layer blocks.3.1",
        ),
    )(taps)


def taps(
    model: common.ModelArgument,
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="An image file, or a folder of photos at any depth.")],
    layer: Annotated[list[str], typer.Option("--layer", help="Name or glob of a layer; may be given several times.")],
    channels: Annotated[
        str | None, typer.Option(help="Such as 0-63 or 0,5,9, or all; by default the first 64 at most.")
    ] = None,
    weights: common.WeightsOption = None,
    size: common.SizeOption = None,
    channels_in: common.ChannelsIn = None,
    card: common.Card = None,
    inputs: common.InputsOption = None,
    image: common.Image = None,
    columns: drawing.Columns = 8,
    labels: drawing.Labels = True,
    force: drawing.Force = False,
    out: common.Out = drawing.PICTURES,
    backend: common.BackendOption = None,
    engine: common.Engine = None,
    trust: common.Trust = False,
    device: common.Device = None,
    json: common.Json = False,
) -> None:
    """Draw the output of each channel of a layer for a photo: one mosaic per layer, bright where the channel is high.

    The photo is resized and cropped to the size that the model takes. Each channel has its own scale, from its 1st to
    its 99th percentile. Photos that cannot be read are skipped and listed.
    """
    from agnostic.models.load import loaded

    photos = drawing.PhotoFiles.at(photo)  # before the model, which may take long to load
    whose = drawing.model_name(model, weights=weights, backend=backend, engine=engine)
    others = drawing.inputs_name(inputs, image, channels_in, card)
    parts = (None if channels is None else f"channels-{channels}", size, *others)
    asked = {"size": size, "channels_in": channels_in, "inputs": inputs, "image": image, "weights": weights,
             "card": None if card is None else str(card), "backend": backend, "engine": engine}  # fmt: skip
    start = time.perf_counter()
    report, flat = list[dict[str, Any]](), dict[str, None]()
    with loaded(
        model, device=device, backend=backend, engine=engine, weights=weights, trust=trust, card=card
    ) as network:
        about = {"model": model, **drawing.stated(network), "columns": columns, "labels": labels}
        for path, picture in photos.readable():
            own, names = {**about, "redo": {"command": "taps", "photo": str(path), **asked}}, photos.names
            made, left_out = mosaics(network, picture, layer, channels, own, out, (whose, names[path], *parts), force)
            report += made
            for one in made:
                summary = one.pop("summary")
                if not json:
                    common.say(f"{one['path']} ({summary})")
            flat.update(dict.fromkeys(left_out))
    if json:
        common.print_json({"mosaics": report, "left_out": list(flat), "unreadable": photos.unreadable})
        return
    if flat:
        common.say(f"skipped, without height and width: {', '.join(flat)}")
    photos.tell_skipped()
    drawn = len(photos.names) - len(photos.unreadable)
    common.say(drawing.time_taken(drawn, time.perf_counter() - start, "photo"))


def mosaics(
    network: Any, pixels: Any, selectors: Sequence[str], channels: str | None, about: Mapping[str, Any], out: Path,
    names: tuple[str | None, ...], force: bool,
) -> tuple[list[dict[str, Any]], list[str]]:  # fmt: skip
    """Draw the outputs of layers for one photo.

    Args:
        network: the model.
        pixels: of the photo.
        selectors: of layers.
        channels: as the command takes them.
        about: what the files say: the model and its fingerprint, versions, columns, labels, and what redoes them.
        out: the folder.
        names: parts of the files' names: of the model first, the layer's follows.
        force: overwrite pictures of something else.

    Returns:
        What each file is, and the names of the layers that cannot be drawn.
    """
    from agnostic.models.inputs import run_layers
    from agnostic.models.preparing import model_pixels
    from agnostic.registry import backend_of

    asked = about["redo"]
    form, call, shown, given = model_pixels(
        network, pixels, inputs=common.example_inputs(asked["inputs"] or []), image=common.parse_image(asked["image"]),
        size=common.parse_size(asked["size"]), channels_in=asked["channels_in"],
    )  # fmt: skip
    native = call.native(backend_of(network), network, form.arrange(given))
    look = Look(about["columns"], about["labels"], shown.shape[1:3])
    listing = run_layers(backend_of(network), network, native)
    spatial, left_out = drawing.split_drawable(listing, selectors, look.drawable, _refused, model=about["model"])
    wanted = {x: drawing.parse_channels(channels, x) for x in spatial}
    made = list(_mosaics(network, native, wanted, look, out, names, about, force))
    return made, [x.name for x in left_out if x.calls]


@dataclass(frozen=True)
class Look:
    """How mosaics look.

    Attributes:
        columns: images in a row.
        labels: whether there are captions.
        size: (height, width) of the photo that the model is given.
    """

    columns: int
    labels: bool
    size: tuple[int, int]

    def drawable(self, layer: Layer) -> bool:
        """Whether a layer returns images, or tokens that are patches of the photo."""
        from agnostic.visualization.grids import grid

        return layer.spatial or grid(layer, self.size) is not None


def _mosaics(
    network: Any,
    inputs: Any,
    wanted: Mapping[Layer, Sequence[int]],
    look: Look,
    out: Path,
    names: tuple[str | None, ...],
    about: Mapping[str, Any],
    force: bool,
) -> Iterator[dict[str, Any]]:
    """Draw the outputs of each layer for one photo, and describe each file.

    Args:
        inputs: the photo, as the model takes it.
        wanted: the channels of each layer.
        look: how the mosaics look.
        names, about: as for :func:`mosaics`.
    """
    from agnostic.files import write_png
    from agnostic.registry import backend_of
    from agnostic.taps.pictures import tiles
    from agnostic.taps.verbs import capture
    from agnostic.visualization.captions import captioned
    from agnostic.visualization.grids import grid
    from agnostic.visualization.pictures import check_replaceable

    digests, redo = _digest(backend_of(network), inputs), about["redo"]
    said = {"weights": redo["weights"], "photo": Path(redo["photo"]).name, "called_with": redo["inputs"],
            "image": redo["image"]}  # fmt: skip
    record = capture(network, inputs, [x.name for x in wanted]).numpy()
    called = drawing.distinct([x.aliases[0] if x.aliases else x.name for x in wanted])
    whose, *others = names
    for (x, indices), name in zip(wanted.items(), called.values(), strict=True):
        calls = record.calls(x.name)
        for number, activation in enumerate(calls, 1):
            call = f"call{number}" if len(calls) > 1 else None
            path = out / f"{drawing.file_name(whose, name, call, *others)}.png"
            made_by = {
                "fingerprint": about["fingerprint"],
                "inputs": digests,
                "layer": x.name,
                "channels": list(indices),
                "call": number,
            }
            if not force:
                check_replaceable(path, made_by)
            places = grid(x, look.size)
            image, axes = (activation, x.axes or "") if x.spatial else _as_grid(activation, x, places or (1, 1, 0))
            images = tiles(image, axes, indices, layer=x.name)
            again = {**redo, "layer": x.name, "channels": ",".join(map(str, indices)), "call": number}
            text = json_format.dumps({**about, **made_by, **said, "redo": again})
            title = f"{about['model']}  {x.name}  {said['photo']}" if look.labels else ""
            captions = [str(i) if look.labels else "" for i in indices]
            made = captioned(images, captions, columns=look.columns, title=title)
            write_png(path, made, {"agnostic": text})
            summary = _summary(x, indices, places)
            yield {"path": path, "model": about["model"], **said, "layer": x.name, "channels": indices, "call": number,
                   "summary": summary}  # fmt: skip


def _as_grid(activation: Any, layer: Layer, places: tuple[int, int, int]) -> tuple[Any, str]:
    """Tokens (in any order of axes) as an image, without those that stand for no patch; and the axes."""
    axes, (height, width, extra) = layer.axes or "", places
    row = activation.transpose([axes.index(axis) for axis in "NLC"])[:, extra:]
    return row.reshape(len(row), height, width, -1), "NHWC"


def _summary(layer: Layer, wanted: Sequence[int], places: tuple[int, int, int] | None) -> str:
    sizes = dict(zip(layer.axes or "", layer.shape or (), strict=True))
    height, width = (sizes["H"], sizes["W"]) if places is None else places[:2]
    return f"{len(wanted)} of {layer.channels} channels, {height} x {width}"


def _digest(backend: Any, inputs: Any) -> Any:
    """Of one input, or of each of several in their structure."""
    from agnostic.contracts.calls import CALLS
    from agnostic.visualization.pictures import digest

    if isinstance(inputs, dict):
        return {key: _digest(backend, x) for key, x in inputs.items()}
    if isinstance(inputs, tuple | list):
        return [_digest(backend, x) for x in inputs]
    return digest(backend[CALLS].numpy(inputs)) if hasattr(inputs, "shape") else repr(inputs)


def _refused(found: Sequence[Layer]) -> InvalidInput:
    """The error for layers chosen by name of which one has no height and width."""
    from agnostic.visualization.taps import without_axes

    flat = next(x for x in found if not x.spatial)
    what = f"its output is {flat.axes or without_axes(flat.shape)}" if flat.calls else "it does not run"
    return InvalidInput(
        f"layer {flat.name!r} has no height and width to draw ({what}); choose a convolution or a block"
    )
