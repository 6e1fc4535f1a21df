"""``agnostic redo``: draw a picture again from what its file says, and compare the two."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agnostic.cli import classes, common, drawing, filters
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
        ),
    )(redo)


def redo(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="A PNG file of agnostic filters or classes.")],
    model: Annotated[
        str | None, typer.Option("--model", help="The model, in place of the one that the file names.")
    ] = None,
    weights: common.WeightsOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the new picture to this file.")] = None,
    trust: common.Trust = False,
    device: common.Device = None,
    json: common.Json = False,
) -> None:
    """Draw a picture of filters or classes again from what its file says, and compare it bit by bit.

    The exit code is 1 where the two differ. A model that is a file of yours is run only if --model names it.
    """
    from agnostic.files import read_image, write_png

    said, asked = _said(picture)
    job = _job(asked, said, model=model, weights=weights, trust=trust, device=device)
    with tempfile.TemporaryDirectory(prefix="agnostic-redo-") as folder:
        drawn = _drawn(job, asked, Path(folder))
        single = "label" in said
        new = drawn.image_path(drawn.items[0]) if single else drawn.path
        before, after = read_image(picture), read_image(new)
        changed = _changed_settings(said, new)
        if out is not None:
            write_png(out, after, _texts(new))
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


def _said(picture: Path) -> tuple[Mapping[str, Any], Any]:
    """What a file says of how it was made, and of what draws it again; checked."""
    import msgspec

    from agnostic.visualization.pictures import said_by

    asked_for = msgspec.defstruct(
        "Redo",
        [
            ("command", str), ("layer", str), ("items", list[str]), ("recipe", str), ("seed", int),
            *((name, str | None, None) for name in _TEXTS),
            *((name, int | None, None) for name in ("steps", "channels_in")),
            ("inputs", list[str] | None, None),
        ],
        forbid_unknown_fields=True,
    )  # fmt: skip
    said = said_by(picture)
    if said is None or "redo" not in said:
        raise InvalidInput(
            f"{str(picture)!r} does not say how to draw it again: redo takes pictures of 'agnostic filters' "
            "and 'agnostic classes'"
        )
    try:
        asked = msgspec.convert(said["redo"], asked_for)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"what {str(picture)!r} says of how it was made is not valid: {error}") from None
    if asked.command not in _COMMANDS or not asked.items:  # type: ignore[attr-defined]
        raise InvalidInput(f"{str(picture)!r} was made by no command that can be repeated: {asked.command!r}")  # type: ignore[attr-defined]
    return said, asked


_TEXTS = ("weights", "size", "card", "start", "image", "backend", "engine", "dtype")
"""Options that are texts, or none."""

# A name in a library or of an embedded network; anything else may be a file, whose code would run.
_NAMED = re.compile(r"[a-z_]+:[\w.-]+|\w+")


def _job(
    asked: Any, said: Mapping[str, Any], *, model: str | None, weights: str | None, trust: bool, device: str | None
) -> drawing.DrawingJob:
    spec = said.get("model") if model is None else model
    if not isinstance(spec, str):
        raise InvalidInput("the picture does not say of which model it is: give it as --model")
    if model is None and (_NAMED.fullmatch(spec) is None or Path(spec.partition(":")[0]).suffix):
        raise InvalidInput(f"the picture is of the model {spec!r}, a file whose code would run: give it as --model")
    columns = said.get("columns", 8)
    return drawing.job(
        spec, weights=weights or asked.weights, recipe=asked.recipe, size=asked.size, channels_in=asked.channels_in,
        card=_path(asked.card), steps=asked.steps, columns=columns if isinstance(columns, int) and columns > 0 else 8,
        labels=said.get("labels") is not False, show=False, seed=asked.seed, start=_path(asked.start),
        inputs=asked.inputs, image=asked.image, force=True, out=Path(), backend=asked.backend, engine=asked.engine,
        trust=trust, dtype=asked.dtype, micro_batch=None, device=device, json=False,
    )  # fmt: skip


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
    draw(network, chosen, job.options, settings=job.settings, force=True, progress=common.progress)
    return chosen


def _changed_settings(said: Mapping[str, Any], new: Path) -> list[str]:
    """What the new file says otherwise, of what its pixels may depend on."""
    from agnostic.visualization.pictures import said_by

    now = said_by(new) or {}
    keys = ("fingerprint", "layer", "recipe", "size", "seed", "preprocessing", "dtype", "start", "inputs", "versions")
    return [key for key in keys if said.get(key) != now.get(key)]


def _texts(path: Path) -> dict[str, str]:
    import json as json_format

    from agnostic.visualization.pictures import KEYWORD, said_by

    return {KEYWORD: json_format.dumps(said_by(path))}


def _difference(before: Any, after: Any) -> str:
    import numpy as np

    if before.shape != after.shape:
        now, then = (f"{x.shape[1]} x {x.shape[0]}" for x in (after, before))
        return f"drawn again it has {now} pixels, not {then}"
    apart = np.abs(before.astype(int) - after.astype(int))
    return (
        f"drawn again, {counted(int((apart.max(-1) > 0).sum()), 'pixel')} of {apart.shape[0] * apart.shape[1]} differ, "
        f"by at most {apart.max()} of 255"
    )


def _why(changed: Sequence[str]) -> str:
    if not changed:
        return "; the settings are the same, so the machine is another, or one that does not repeat its own sums"
    names = {"fingerprint": "the model's weights", "versions": "versions of libraries"}
    return f"; other now: {', '.join(names.get(key, key) for key in changed)}"
