"""``agnostic explain``: which pixels of a photo a class depends on, as overlays, one row per method."""

from __future__ import annotations

import json as json_format
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from agnostic.cli import common, drawing
from agnostic.errors import InvalidInput
from agnostic.text import counted

_DEFAULT = ("grad_cam", "integrated_gradients")


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "explain",
        epilog=common.example(
            "agnostic explain efficientnet_lite0 photo.jpg --class espresso",
            "agnostic explain efficientnet_lite0 photo.jpg --method layer_cam --method rise",
            "agnostic explain efficientnet_lite0 photos/ --method grad_cam",
        ),
    )(explain)


def explain(
    model: common.ModelArgument,
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="An image file, or a folder of photos at any depth.")],
    class_: Annotated[
        str | None, typer.Option("--class", help="Name or number of a class; by default the likeliest.")
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
    seed: common.Seed = 0,
    weights: common.WeightsOption = None,
    size: common.SizeOption = None,
    channels_in: common.ChannelsIn = None,
    card: common.Card = None,
    inputs: common.InputsOption = None,
    image: common.Image = None,
    labels: drawing.Labels = True,
    force: drawing.Force = False,
    out: common.Out = drawing.PICTURES,
    backend: common.BackendOption = None,
    engine: common.Engine = None,
    trust: common.Trust = False,
    device: common.Device = None,
    json: common.Json = False,
) -> None:
    """Show which pixels of a photo the score of a class depends on: a row for each method, the photo and its overlay.

    Bright is what speaks for the class. The model is shown the middle of the photo, in the size that it takes. Of a
    folder each photo is a picture of its own; those that cannot be read are skipped and listed.
    """
    from agnostic.files import read_image
    from agnostic.models.load import loaded

    methods, photos = _checked(method or _DEFAULT), drawing.photos_at(photo)
    single = None if photo.is_dir() else read_image(photo)  # before the model, which may take long to load
    given = {"inputs": common.example_inputs(inputs or []), "image": common.parse_image(image),
             "size": common.parse_size(size)}  # fmt: skip
    asked = {"layer": layer, "steps": steps, "samples": samples, "seed": seed}
    whose = drawing.model_name(model, weights=weights, backend=backend, engine=engine)
    options = (None if steps == 32 else f"steps-{steps}", None if samples is None else f"samples-{samples}",
               f"seed-{seed}" if seed else None, size, *drawing.inputs_name(inputs, image))  # fmt: skip
    kinds, reports, unreadable = drawing.items_name(methods, "methods"), [], list[str]()
    start = time.perf_counter()
    with loaded(
        model, device=device, backend=backend, engine=engine, weights=weights, trust=trust, card=card
    ) as network:
        about = {"model": model, "weights": weights, "called_with": inputs, "image": image, **_stated(network)}
        for file, pixels in drawing.readable(photos, single, unreadable):
            found = _explained(network, pixels, methods, target=class_, channels_in=channels_in, **given, **asked)
            label = found[0].labels[0]
            path = out / f"{drawing.file_name(whose, photos[file], 'explain', label, kinds, layer, *options)}.png"
            made_by = {"fingerprint": about["fingerprint"], "photo": file.name, "methods": methods, "class": label,
                       "size": size, **asked}  # fmt: skip
            reports.append(_written(path, found, made_by, about, force, labels))
            if not json:
                _say(found, path)
    _tell(reports, unreadable, is_single=single is not None, as_json=json)
    if not json:
        common.say(drawing.time_taken(len(reports), time.perf_counter() - start, "photo"))


def _tell(reports: Sequence[Any], unreadable: Sequence[str], *, is_single: bool, as_json: bool) -> None:
    """Print what was written as JSON, or the photos that were skipped."""
    if not reports:
        raise InvalidInput(f"none of {counted(len(unreadable), 'photo')} can be read: {unreadable[0]}")
    if as_json:
        common.print_json(reports[0] if is_single else {"pictures": reports, "unreadable": unreadable})
        return
    for reason in unreadable:
        common.say(f"skipped: {reason}")


def _say(found: Sequence[Any], path: Path) -> None:
    for one in found:
        where = "" if one.layer is None else f" at {one.layer!r}"
        common.say(f"{one.method}{where}: {one.captions()[0]}")
    common.say(path)


def _checked(methods: Sequence[str]) -> list[str]:
    """The names of methods, each once; an unknown one is told before a model is loaded."""
    from agnostic.attribution.methods import check_method

    for name in methods:
        check_method(name)
    return list(dict.fromkeys(methods))


def _stated(network: Any) -> dict[str, Any]:
    """The fingerprint of a model, and the versions of what computes it."""
    from agnostic import __version__
    from agnostic.contracts.calls import CALLS
    from agnostic.registry import backend_of
    from agnostic.visualization.pictures import fingerprint

    backend = backend_of(network)
    versions = {"agnostic": __version__, **backend[CALLS].versions()}
    return {"fingerprint": fingerprint(backend, network), "versions": versions}


def _explained(network: Any, picture: Any, methods: Sequence[str], **options: Any) -> list[Any]:
    """An explanation of a photo by each method."""
    from agnostic.attribution.verb import explain as explained

    found = []
    for name in methods:
        with common.progress(f"explaining by {name}", None) as advance:
            found.append(explained(network, picture, method=name, progress=advance, **options))
    return found


def _written(
    path: Path, found: list[Any], made_by: dict[str, Any], about: dict[str, Any], force: bool, labels: bool
) -> Any:
    """Write the picture, and tell what it is."""
    import numpy as np

    from agnostic.files import to_uint8, write_png
    from agnostic.visualization.captions import captioned
    from agnostic.visualization.pictures import check_replaceable

    if not force:
        check_replaceable(path, made_by)
    photo = to_uint8(found[0].images[0])
    # Grey, or more channels than a screen has.
    shown = np.repeat(photo[..., :1], 3, -1) if photo.shape[-1] < 3 else photo[..., :3]
    tiles = [tile for one in found for tile in (shown, one.overlays()[0])]
    captions = [text for one in found for text in (made_by["photo"], f"{one.captions()[0]}  {one.method}")]
    made = captioned(np.stack(tiles), captions if labels else [""] * len(tiles), columns=2)
    write_png(path, made, {"agnostic": json_format.dumps({**about, **made_by})})
    methods = [
        {"method": one.method, "layer": one.layer, "class": one.labels[0], "probability": one.probabilities[0],
         "score": one.scores[0]}
        for one in found
    ]  # fmt: skip
    return {"path": str(path), "explained": methods}
