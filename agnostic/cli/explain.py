"""``agnostic explain``: which pixels of a photo a class depends on, as overlays, one row per method."""

from __future__ import annotations

import json as json_format
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from agnostic.cli import common, drawing

Epsilon = Annotated[float | None, typer.Option(help="Of relevance: added to what is divided by; 1e-6 by default.")]
Gamma = Annotated[
    float | None, typer.Option(help="Of lrp and lrp_gamma: positive contributions count so much more; 0.25.")
]
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
    epsilon: Epsilon = None,
    gamma: Gamma = None,
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
    from agnostic.models.load import loaded

    methods, photos = _checked(method or _DEFAULT), drawing.PhotoFiles.at(photo)  # before the model, which takes longer
    asked = {"methods": methods, "class": class_, "layer": layer, "steps": steps, "samples": samples, "seed": seed,
             "size": size, "channels_in": channels_in, "inputs": inputs, "image": image,
             "epsilon": epsilon, "gamma": gamma}  # fmt: skip
    whose = drawing.model_name(model, weights=weights, backend=backend, engine=engine)
    options = (*_given(asked), size, *drawing.inputs_name(inputs, image, channels_in, card))
    start, kinds, reports = time.perf_counter(), drawing.items_name(methods, "methods"), []
    with loaded(
        model, device=device, backend=backend, engine=engine, weights=weights, trust=trust, card=card
    ) as network:
        about = {"model": model, "weights": weights, "called_with": inputs, "image": image, **drawing.stated(network)}
        source = {"weights": weights, "card": None if card is None else str(card), "backend": backend, "engine": engine}
        for file, pixels in photos.readable():
            found = explained(network, pixels, asked)
            label = found[0].labels[0]
            path = out / f"{drawing.file_name(whose, photos.names[file], 'explain', label, kinds, layer, *options)}.png"
            redo = {"command": "explain", "photo": str(file), **asked, **source}
            reports.append(written(path, found, pixels, {**about, "redo": redo, "labels": labels}, force=force))
            if not json:
                _say(found, path)
    _tell(reports, photos, json)
    if not json:
        common.say(drawing.time_taken(len(reports), time.perf_counter() - start, "photo"))


def _given(asked: Mapping[str, Any]) -> list[str]:
    """The numbers that were given, as parts of a file name."""
    usual = {"steps": 32, "samples": None, "epsilon": None, "gamma": None, "seed": 0}
    return [f"{key}-{asked[key]:g}" for key, default in usual.items() if asked[key] != default]


def _tell(reports: Sequence[Any], photos: drawing.PhotoFiles, as_json: bool) -> None:
    """Print what was written as JSON, or the photos that were skipped."""
    if not as_json:
        photos.tell_skipped()
        return
    several = {"pictures": reports, "unreadable": photos.unreadable}
    common.print_json(reports[0] if photos.single is not None else several)


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


def explained(network: Any, pixels: Any, asked: Mapping[str, Any]) -> list[Any]:
    """An explanation of a photo by each method.

    Args:
        network: the model.
        pixels: of the photo.
        asked: the command's options by name.
    """
    from agnostic.attribution.verb import explain as explain_photo

    given = {"inputs": common.example_inputs(asked["inputs"] or []), "image": common.parse_image(asked["image"]),
             "size": common.parse_size(asked["size"]), "target": asked["class"],
             **{key: asked[key] for key in ("layer", "steps", "samples", "seed", "channels_in")},
             **{key: asked[key] for key in ("epsilon", "gamma") if asked[key] is not None}}  # fmt: skip
    found = []
    for name in asked["methods"]:
        with common.progress(f"explaining by {name}", None) as advance:
            found.append(explain_photo(network, pixels, method=name, progress=advance, **given))
    return found


def written(path: Path, found: list[Any], pixels: Any, about: Mapping[str, Any], *, force: bool) -> Any:
    """Write the picture, and tell what it is.

    Args:
        path: of the picture.
        found: explanations of one photo.
        pixels: of the photo.
        about: what the file says beside what its pixels follow from.
        force: overwrite a picture of something else.
    """
    import numpy as np

    from agnostic.files import to_uint8, write_png
    from agnostic.visualization.captions import captioned
    from agnostic.visualization.pictures import check_replaceable, digest

    redo = about["redo"]
    name = Path(redo["photo"]).name
    asked = {key: redo[key] for key in ("methods", "size", "layer", "steps", "samples", "seed")}
    asked |= {key: redo[key] for key in ("epsilon", "gamma") if redo[key] is not None}
    # Another photo of the same name is something else.
    made_by = {"fingerprint": about["fingerprint"], "photo": name, "photo_digest": digest(pixels),
               "class": found[0].labels[0], **asked}  # fmt: skip
    if not force:
        check_replaceable(path, made_by)
    photo = to_uint8(found[0].images[0])
    # Grey, or more channels than a screen has.
    shown = np.repeat(photo[..., :1], 3, -1) if photo.shape[-1] < 3 else photo[..., :3]
    tiles = [tile for one in found for tile in (shown, one.overlays()[0])]
    captions = [text for one in found for text in (name, f"{one.captions()[0]}  {one.method}")]
    made = captioned(np.stack(tiles), captions if about["labels"] else [""] * len(tiles), columns=2)
    write_png(path, made, {"agnostic": json_format.dumps({**about, **made_by})})
    methods = [
        {"method": one.method, "layer": one.layer, "class": one.labels[0], "probability": one.probabilities[0],
         "score": one.scores[0]}
        for one in found
    ]  # fmt: skip
    return {"path": str(path), "explained": methods}
