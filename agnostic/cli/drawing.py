"""What the commands that draw have in common: their options, and drawing one mosaic after the other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agnostic.cli.common import print_json, progress, say
from agnostic.errors import InvalidInput

if TYPE_CHECKING:
    from agnostic.layers import Layer
    from agnostic.visualization.ascent import Settings
    from agnostic.visualization.pictures import Drawing

PICTURES = Path("pictures")

RecipeName = Annotated[str, typer.Option(help="fourier, classic, jitter or maco.")]
Size = Annotated[int | None, typer.Option(min=1, help="Height and width in pixels; by default the recipe's.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Number of updates; by default the recipe's.")]
Columns = Annotated[int, typer.Option(min=1, help="Images in a row of the mosaic.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float64; by default what suits the processor.")]
MicroBatch = Annotated[
    int | None, typer.Option(min=1, help="Images computed together; by default what suits the cache.")
]
Device = Annotated[str | None, typer.Option(help="Such as cuda; by default the processor.")]


def model_name(spec: str) -> str:
    """What a specification is called in a file name: ``vgg16`` for ``torchvision:vgg16``."""
    from agnostic.visualization.pictures import slug

    return slug(Path(spec.rpartition(":")[2] if ":" in spec else spec).stem)


def class_number(text: str) -> int:
    """The number of a class of a model that has no class names."""
    if not text.isdecimal():
        raise InvalidInput(f"the model has no class names to find {text!r} among: give the class's number")
    return int(text)


def parse_channels(text: str | None, layer: Layer, first: int = 64) -> list[int]:
    """``"0-63"``, ``"0,5,9"``, ``"all"``: channels of a layer, in order, each once; None: the first so many at most.

    Raises:
        InvalidInput: not of this form, or out of the layer's range.
    """
    total = layer.channels or 0
    if text is None or text == "all":
        return list(range(total if text else min(total, first)))
    channels: dict[int, None] = {}
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise InvalidInput(f"channels are given as 0-63, as 0,5,9 or as all, not as {text!r}")
        low = int(match[1])
        last = low if match[2] is None else int(match[2])
        if last < low:
            raise InvalidInput(f"channels go upwards: {last}-{low}, not {part}")
        if last >= total:
            raise InvalidInput(f"no channel {last} in layer {layer.name!r}: it has {total}, 0 to {total - 1}")
        channels.update(dict.fromkeys(range(low, last + 1)))
    return list(channels)


def spatial_layers(model: Any, selectors: Sequence[str], size: int | None, recipe: str) -> list[Layer]:
    """The chosen layers that have a height and a width; one chosen by its name must have them.

    Where none is chosen, the last layer at each resolution: a tour of the model in a few pictures.
    """
    from agnostic.backend import backend_of
    from agnostic.layers import is_glob, select
    from agnostic.visualization import recipes
    from agnostic.visualization.ascent import layers_at
    from agnostic.visualization.taps import no_spatial_output

    side = size or recipes.get(recipe).size
    listing = layers_at(backend_of(model), model, side, side)
    if not selectors:
        return _last_at_each_resolution(listing)
    chosen: list[Layer] = []
    for selector in selectors:
        found = select(listing, selector)
        spatial = [layer for layer in found if layer.spatial]
        if not spatial or (len(spatial) < len(found) and not (is_glob(selector) or selector.startswith("kind:"))):
            flat = next(layer for layer in found if not layer.spatial)
            raise no_spatial_output(flat.name, flat.axes)
        chosen.extend(layer for layer in spatial if layer not in chosen)
    return chosen


def _last_at_each_resolution(listing: Sequence[Layer]) -> list[Layer]:
    """The last of the outermost layers at each height and width, in the order in which they run."""
    last: dict[tuple[int | None, ...], Layer] = {}
    for layer in listing:
        shape, axes = layer.shape or (), layer.axes or ""
        resolution = tuple(shape[axes.index(axis)] for axis in "HW" if axis in axes)
        if not layer.spatial or resolution == (1, 1):
            continue
        # Inside a block the resolution may still be that of the block before it.
        if resolution not in last or layer.name.count(".") <= last[resolution].name.count("."):
            last[resolution] = layer
    if not last:
        raise InvalidInput("no layer of the model has height and width: draw its outputs with 'agnostic classes'")
    return sorted(last.values(), key=listing.index)


def draw_all(
    model: Any,
    drawings: Sequence[Drawing],
    settings: Settings,
    *,
    recipe: str,
    size: int | None,
    steps: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Draw, and say what was written as soon as it is."""
    from agnostic.visualization.pictures import draw

    report = []
    for drawing in drawings:
        found = draw(
            model, drawing, recipe=recipe, size=size, steps=steps, seed=seed, settings=settings, progress=progress
        )
        if as_json:
            report.append({"mosaic": drawing.path, "images": [drawing.image_path(item) for item in drawing.items]})
        else:
            earlier = f", {found} of them finished earlier" if found else ""
            say(f"{drawing.path} ({len(drawing.items)} images{earlier})")
    if as_json:
        print_json(report)
