"""``agnostic explain``: which pixels of a photo a class depends on, as overlays, one row per method."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated, Any

import typer

from agnostic.cli import drawing
from agnostic.cli.common import (
    BackendOption,
    Card,
    ChannelsIn,
    Device,
    Engine,
    Image,
    InputsOption,
    Json,
    ModelArgument,
    Out,
    Seed,
    SizeOption,
    Trust,
    WeightsOption,
    example,
    example_inputs,
    parse_image,
    parse_size,
    print_json,
    progress,
    say,
)
from agnostic.errors import InvalidInput, UnknownName, nearest

_DEFAULT = ("grad_cam", "integrated_gradients")


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "explain",
        epilog=example(
            "agnostic explain efficientnet_lite0 photo.jpg --class espresso",
            "agnostic explain efficientnet_lite0 photo.jpg --method layer_cam --method rise",
        ),
    )(explain)


def explain(
    model: ModelArgument,
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="An image file.")],
    class_: Annotated[
        str | None,
        typer.Option("--class", help="Name or number of a class; by default the likeliest."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="May be given several times; by default grad_cam and integrated_gradients."),
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Of class activation maps; by default chosen.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Points on the path of integrated_gradients.")] = 32,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Copies of smoothgrad (16 by default), masks of rise (1000).")
    ] = None,
    seed: Seed = 0,
    weights: WeightsOption = None,
    size: SizeOption = None,
    channels_in: ChannelsIn = None,
    card: Card = None,
    inputs: InputsOption = None,
    image: Image = None,
    force: drawing.Force = False,
    out: Out = drawing.PICTURES,
    backend: BackendOption = None,
    engine: Engine = None,
    trust: Trust = False,
    device: Device = None,
    json: Json = False,
) -> None:
    """Show which pixels of a photo the score of a class depends on: a row for each method, the photo and its overlay.

    Bright is what speaks for the class. The model is shown the middle of the photo, in the size that it takes.
    """
    from agnostic.attribution.methods import METHODS
    from agnostic.attribution.verb import explain as explained
    from agnostic.files import read_image
    from agnostic.models.load import loaded
    from agnostic.registry import backend_of
    from agnostic.visualization.pictures import fingerprint, slug

    methods = list(dict.fromkeys(method or _DEFAULT))
    for name in methods:
        if name not in METHODS:
            raise UnknownName(f"no method {name!r}: they are {', '.join(METHODS)}{nearest(name, METHODS)}")
    if photo.is_dir():
        raise InvalidInput(f"{str(photo)!r} is a folder: give one image file")
    picture, given = read_image(photo), example_inputs(inputs or [])
    whose = drawing.model_name(model, weights=weights, backend=backend, engine=engine)
    options = (f"steps-{steps}" if steps != 32 else None, None if samples is None else f"samples-{samples}",
               f"seed-{seed}" if seed else None, size, *drawing.inputs_name(inputs, image))  # fmt: skip
    with loaded(
        model, device=device, backend=backend, engine=engine, weights=weights, trust=trust, card=card
    ) as network:
        whole, found = fingerprint(backend_of(network), network), []
        for name in methods:
            with progress(name, 0) as advance:
                found.append(
                    explained(
                        network, picture, target=class_, method=name, layer=layer, steps=steps, samples=samples,
                        seed=seed, inputs=given, image=parse_image(image), size=parse_size(size),
                        channels_in=channels_in, progress=advance,
                    )
                )  # fmt: skip
    target = slug(found[0].labels[0])
    kinds = drawing.items_name(methods, "methods")
    path = out / f"{drawing.file_name(whose, slug(photo.stem), 'explain', target, kinds, layer, *options)}.png"
    made_by = {"fingerprint": whole, "photo": photo.name, "methods": methods, "class": found[0].labels[0],
               "layer": layer, "steps": steps, "samples": samples, "seed": seed, "size": size}  # fmt: skip
    report = _written(
        path, found, {**made_by, "model": model, "weights": weights, "called_with": inputs}, made_by, force
    )
    if json:
        print_json(report)
        return
    for one in found:
        where = "" if one.layer is None else f" at {one.layer}"
        say(f"{one.method}{where}: {one.captions()[0]}")
    say(path)


def _written(path: Path, found: list[Any], about: dict[str, Any], made_by: dict[str, Any], force: bool) -> Any:
    """Write the picture, and tell what it is."""
    import numpy as np

    from agnostic import __version__
    from agnostic.files import to_uint8, write_png
    from agnostic.visualization.mosaic import mosaic
    from agnostic.visualization.pictures import check_replaceable

    if not force:
        check_replaceable(path, made_by)
    shown = [np.repeat(x, 3, -1) if x.shape[-1] == 1 else x[..., :3] for x in (to_uint8(found[0].images[0]),)]
    tiles = [tile for one in found for tile in (shown[0], one.overlays()[0])]
    text = json_format.dumps({**made_by, **about, "agnostic": __version__})
    write_png(path, mosaic(np.stack(tiles), 2), {"agnostic": text})
    methods = [
        {"method": one.method, "layer": one.layer, "class": one.labels[0], "probability": one.probabilities[0],
         "score": one.scores[0]}
        for one in found
    ]  # fmt: skip
    return {"path": str(path), "explained": methods}
