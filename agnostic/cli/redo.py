"""``agnostic redo``: draw a picture or an animation again from what its file says, and compare the two."""

from __future__ import annotations

import json as json_format
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agnostic.cli import animate, classes, common, drawing, explain, filters, taps
from agnostic.errors import InvalidInput
from agnostic.text import counted

if TYPE_CHECKING:
    from agnostic.visualization.pictures import Drawing

_COMMANDS = ("filters", "filters --negative", "classes")


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "redo",
        epilog=common.example(
            "agnostic redo pictures/efficientnet_lite0-blocks.1-0-7-fourier.png",
            "agnostic redo net-make-conv-0-7-fourier.png --model net.py:make --out again.png",
            "agnostic redo pictures/net-cat-explain-tabby-grad_cam.png --photo cat.jpg",
        ),
    )(redo)


def redo(
    picture: Annotated[
        Path, typer.Argument(metavar="PICTURE", help="A file of agnostic filters, classes, taps, explain or animate.")
    ],
    model: Annotated[
        str | None, typer.Option("--model", help="The model, in place of the one that the file names.")
    ] = None,
    photo: Annotated[
        Path | None,
        typer.Option("--photo", help="The photo of taps or an explanation, in place of the one that the file names."),
    ] = None,
    weights: common.WeightsOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the new picture to this file.")] = None,
    trust: common.Trust = False,
    device: common.Device = None,
    json: common.Json = False,
) -> None:
    """Draw a picture of filters, classes, taps, an explanation or an animation again from its file; compare the bits.

    The exit code is 1 where the two differ. A model that is a file of yours is run only if --model names it.
    """
    from agnostic.files import read_image, write_png
    from agnostic.visualization.pictures import said_by

    said, asked = _said(picture)
    if asked.command == _ANIMATE:
        _animated(picture, said, asked, _spec(said, model), weights=weights, out=out, trust=trust, device=device,
                  json=json)  # fmt: skip
        return
    spec = _spec(said, model)
    with tempfile.TemporaryDirectory(prefix="agnostic-redo-") as folder:
        if asked.command in _OF_PHOTOS:
            new = _from_photo(Path(folder), asked, said, spec, photo=photo, weights=weights, trust=trust, device=device)
        else:
            job = _job(asked, said, spec, weights=weights, trust=trust, device=device)
            drawn = _drawn(job, asked, Path(folder))
            new = drawn.image_path(drawn.items[0]) if "label" in said else drawn.path
        before, after = read_image(picture), read_image(new)  # what is transparent is white
        changed = _changed_settings(said, said_by(new) or {})
        if out is not None:
            write_png(out, after, _texts(new))
    _tell(picture, before, after, changed, out, json)


def _tell(picture: Path, before: Any, after: Any, changed: Sequence[str], out: Path | None, json: bool) -> None:
    """Whether two pictures are the same, and if not, why; the exit code is 1 then."""
    same = before.shape == after.shape and bool((before == after).all())
    report = {"picture": picture, "same": same, "changed": changed, "out": out}
    if json:
        common.print_json(report)
    elif same:
        common.say(f"{picture}: drawn again, bit for bit the same")
    else:
        common.say(f"{picture}: {_difference(before, after)}{_why(changed)}")
    if not same:
        raise typer.Exit(1)


def _animated(
    picture: Path, said: Mapping[str, Any], asked: Any, spec: str, *, weights: str | None, out: Path | None,
    trust: bool, device: str | None, json: bool,
) -> None:  # fmt: skip
    """The same of an animation: all of its frames, as they are in the two files."""
    import msgspec

    from agnostic.files import atomic_path
    from agnostic.models.load import load
    from agnostic.visualization.animation import read_animation

    suffix = picture.suffix.lower()
    if out is not None and out.suffix.lower() != suffix:
        raise InvalidInput(f"--out ends in {suffix}, as the animation does, not in {out.suffix!r}")
    weights = weights or asked.weights
    network = load(
        spec, backend=asked.backend, engine=asked.engine, weights=weights, trust=trust, card=_path(asked.card)
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="agnostic-redo-") as folder:
        new, again = Path(folder) / f"again{suffix}", {**msgspec.to_builtins(asked), "weights": weights}
        animate.written(network, again, {"model": spec}, new, device=device)
        before, (after, text) = read_animation(picture)[0], read_animation(new)
        if out is not None:
            with atomic_path(out) as temporary:
                Path(temporary).write_bytes(new.read_bytes())
    _tell(picture, before, after, _changed_settings(said, json_format.loads(text or "{}")), out, json)


def _said(picture: Path) -> tuple[Mapping[str, Any], Any]:
    """What a file says of how it was made, and of what draws it again; checked."""
    import msgspec

    from agnostic.visualization.pictures import said_by

    said = said_by(picture) or _said_by_animation(picture)
    if said is None or not isinstance(said.get("redo"), dict):
        raise InvalidInput(
            f"{str(picture)!r} does not say how to draw it again: redo takes pictures of 'agnostic filters', "
            "'agnostic classes', 'agnostic taps', 'agnostic explain' and 'agnostic animate'"
        )
    fields = {_EXPLAIN: _EXPLAINED, _TAPS: _TAPPED, _ANIMATE: _MOVING}.get(str(said["redo"].get("command")), _DRAWN)
    shape = msgspec.defstruct(
        "Redo", [*fields, *((name, str | None, None) for name in _TEXTS), ("channels_in", int | None, None),
                 ("inputs", list[str] | None, None)],
        forbid_unknown_fields=True, rename={"class_": "class"},
    )  # fmt: skip
    try:
        asked = msgspec.convert(said["redo"], shape)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"what {str(picture)!r} says of how it was made is not valid: {error}") from None
    command = asked.command  # type: ignore[attr-defined]
    what = {_EXPLAIN: "methods", _TAPS: "channels", _ANIMATE: "frames"}.get(command, "items")
    if command not in (*_COMMANDS, *_OF_PHOTOS, _ANIMATE) or not getattr(asked, what):
        raise InvalidInput(f"{str(picture)!r} was made by no command that can be repeated: {command!r}")
    return said, asked


def _said_by_animation(path: Path) -> dict[str, Any] | None:
    from agnostic.visualization.animation import FORMATS, read_animation

    if path.suffix.lower() not in FORMATS or path.suffix.lower() == ".png":
        return None
    try:
        found = json_format.loads(read_animation(path)[1] or "")
    except (json_format.JSONDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


_EXPLAIN, _TAPS = _OF_PHOTOS = ("explain", "taps")
_ANIMATE = "animate"

_DRAWN: list[Any] = [("command", str), ("layer", str), ("items", list[str]), ("recipe", str), ("seed", int),
                     ("steps", int | None, None), ("start", str | None, None), ("dtype", str | None, None),
                     ("transparent", bool, False)]  # fmt: skip
"""What the file of filters or classes says."""

_EXPLAINED: list[Any] = [("command", str), ("photo", str), ("methods", list[str]), ("steps", int), ("seed", int),
                         ("samples", int | None, None), ("class_", str | None, None),
                         ("layer", str | None, None), ("epsilon", float | None, None),
                         ("gamma", float | None, None)]  # fmt: skip
"""What the file of an explanation says."""

_TAPPED: list[Any] = [("command", str), ("photo", str), ("layer", str), ("channels", str), ("call", int)]
"""What the file of a layer's outputs says."""

_MOVING: list[Any] = [("command", str), ("classes", list[str]), ("layer", str | None), ("channels", str),
                        ("walk", bool), ("align", str | None), ("frames", int), ("seconds", float),
                        ("most", str | None), ("recipe", str), ("steps", int | None), ("seed", int),
                        ("dtype", str | None)]  # fmt: skip
"""What the file of an animation says."""

_TEXTS = ("weights", "size", "card", "image", "backend", "engine")
"""Options of both that are texts, or none."""

# A name in a library or of an embedded network; anything else may be a file, whose code would run.
_NAMED = re.compile(r"[a-z_]+:[\w.-]+|\w+")


def _spec(said: Mapping[str, Any], model: str | None) -> str:
    """The model to load: the user's choice, or the one of the file where no code of a stranger runs with it."""
    spec = said.get("model") if model is None else model
    if not isinstance(spec, str):
        raise InvalidInput("the picture does not say of which model it is: give it as --model")
    if model is None and (_NAMED.fullmatch(spec) is None or Path(spec.partition(":")[0]).suffix):
        raise InvalidInput(f"the picture is of the model {spec!r}, a file whose code would run: give it as --model")
    return spec


def _from_photo(
    folder: Path, asked: Any, said: Mapping[str, Any], spec: str, *, photo: Path | None, weights: str | None,
    trust: bool, device: str | None,
) -> Path:  # fmt: skip
    """Write the picture of an explanation, or of a layer's outputs, again."""
    import msgspec

    from agnostic.attribution.methods import check_method
    from agnostic.files import read_image
    from agnostic.models.load import loaded

    for name in asked.methods if asked.command == _EXPLAIN else ():
        check_method(name)
    pixels = read_image(Path(asked.photo) if photo is None else photo)
    # Of what the file says, what a new one says too; a photo of another name is said to be so.
    redo = {**msgspec.to_builtins(asked), **({} if photo is None else {"photo": str(photo)})}
    with loaded(
        spec, device=device, backend=asked.backend, engine=asked.engine, weights=weights or asked.weights, trust=trust,
        card=_path(asked.card),
    ) as network:  # fmt: skip
        about = {**drawing.stated(network), "redo": redo, "labels": said.get("labels") is not False, "model": spec,
                 "weights": weights or asked.weights, "columns": _columns(said)}  # fmt: skip
        if asked.command == _EXPLAIN:
            path = folder / "again.png"
            explain.written(path, explain.explained(network, pixels, redo), pixels, about, force=True)
            return path
        made, _ = taps.mosaics(network, pixels, [asked.layer], asked.channels, about, folder, ("again",), force=True)
    found = next((Path(one["path"]) for one in made if one["call"] == asked.call), None)
    if found is None:
        raise InvalidInput(
            f"the picture is of call {asked.call} of {asked.layer!r}, which the model runs {counted(len(made), 'time')}"
        )
    return found


def _job(
    asked: Any, said: Mapping[str, Any], spec: str, *, weights: str | None, trust: bool, device: str | None
) -> drawing.DrawingJob:
    return drawing.job(
        spec, weights=weights or asked.weights, recipe=asked.recipe, size=asked.size, channels_in=asked.channels_in,
        card=_path(asked.card), steps=asked.steps, columns=_columns(said),
        labels=said.get("labels") is not False, show=False, seed=asked.seed, start=_path(asked.start),
        inputs=asked.inputs, image=asked.image, force=True, out=Path(), backend=asked.backend, engine=asked.engine,
        trust=trust, dtype=asked.dtype, micro_batch=None, device=device, json=False,
        transparent=asked.transparent,
    )  # fmt: skip


def _columns(said: Mapping[str, Any]) -> int:
    """Images in a row of a mosaic."""
    columns = said.get("columns", 8)
    return columns if isinstance(columns, int) and columns > 0 else 8


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _drawn(job: drawing.DrawingJob, asked: Any, folder: Path) -> Drawing:
    """Draw what was asked for into a folder."""
    import dataclasses

    from agnostic.visualization.pictures import draw

    job = dataclasses.replace(job, out=folder)
    items: Sequence[str] = asked.items
    if not all(re.match(r"\d{1,7}(?:-|$)", item) for item in items):
        raise InvalidInput(f"the picture shows no channels or classes by number: {items[0]!r}")
    network = job.load()
    if asked.command == "classes":
        chosen = classes.drawing_of(job, None if asked.layer == classes.OUTPUT else asked.layer, items)
    else:
        negative = asked.command.endswith("--negative")
        chosen = filters.drawing_of(job, asked.layer, asked.layer, items, negative=negative)
    draw(network, chosen, job.from_start(), settings=job.settings, force=True, progress=common.progress)
    return chosen


def _changed_settings(said: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What the new file says otherwise, of what its pixels may depend on."""
    keys = (
        "fingerprint",
        "photo_digest",
        "layer",
        "channels",
        "call",
        "recipe",
        "size",
        "seed",
        "preprocessing",
        "dtype",
        "start",
        "inputs",
        "versions",
    )
    return [key for key in keys if said.get(key) != now.get(key)]


def _texts(path: Path) -> dict[str, str]:
    from agnostic.visualization.pictures import KEYWORD, said_by

    return {KEYWORD: json_format.dumps(said_by(path))}


def _difference(before: Any, after: Any) -> str:
    import numpy as np

    if before.shape[:-3] != after.shape[:-3]:
        return f"drawn again it has {counted(len(after), 'frame')}, not {len(before)}"
    if before.shape != after.shape:
        now, then = (" x ".join(map(str, x.shape[-2:-4:-1])) for x in (after, before))
        return f"drawn again it has {now} pixels, not {then}"
    apart = np.abs(before.astype(int) - after.astype(int))
    return (
        f"drawn again, {counted(int((apart.max(-1) > 0).sum()), 'pixel')} of {apart[..., 0].size} differ, "
        f"by at most {apart.max()} of 255"
    )


def _why(changed: Sequence[str]) -> str:
    if not changed:
        return "; the settings are the same, so the machine is another, or one that does not repeat its own sums"
    names = {"fingerprint": "the model's weights", "photo_digest": "the photo", "versions": "versions of libraries"}
    return f"; other now: {', '.join(names.get(key, key) for key in changed)}"
