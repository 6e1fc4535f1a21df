"""``agnostic animate``: an ascent, or a walk between classes or channels, as a picture that moves."""

from __future__ import annotations

import json as json_format
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agnostic.cli import common, drawing
from agnostic.errors import InvalidInput
from agnostic.text import counted

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from agnostic.visualization.objective import Objective


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "animate",
        epilog=common.example(
            "agnostic animate efficientnet_lite0 espresso --out espresso.webp",
            "agnostic animate efficientnet_lite0 espresso monarch zebra --walk --out walk.webp",
            "agnostic animate efficientnet_lite0 --layer blocks.3.1 --channels 0-3 --out ascent.gif --most 2M",
        ),
    )(animate)


def animate(
    model: common.ModelArgument,
    wanted: Annotated[
        list[str] | None, typer.Argument(metavar="[CLASS...]", help="Names or numbers of classes.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="A file that ends in .webp, .gif, .png, .apng or .mp4.")] = Path(
        "pictures/animation.webp"
    ),
    layer: Annotated[str | None, typer.Option("--layer", help="Of channels, in place of classes.")] = None,
    channels: Annotated[str, typer.Option(help="Such as 0-3 or 0,5,9.")] = "0-3",
    walk: Annotated[bool, typer.Option("--walk", help="From each to the next, and back to the first.")] = False,
    align: Annotated[str | None, typer.Option(help="A layer in which neighbours of a walk are made alike.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="Of an ascent; of a walk from one to the next.")] = 16,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long it takes.")] = 4.0,
    most: Annotated[str | None, typer.Option(help="Of the file, such as 500k or 2M.")] = None,
    weights: common.WeightsOption = None,
    recipe: drawing.RecipeName = "fourier",
    size: common.SizeOption = None,
    card: common.Card = None,
    steps: drawing.StepsOption = None,
    seed: common.Seed = 0,
    force: drawing.Force = False,
    backend: common.BackendOption = None,
    engine: common.Engine = None,
    trust: common.Trust = False,
    dtype: drawing.Dtype = None,
    device: common.Device = None,
    json: common.Json = False,
) -> None:
    """Draw an ascent from its start to its end, or a walk between classes or channels."""
    from agnostic.models.load import load

    _objectives(wanted or [], layer, channels)
    _check_out(out, force)
    _bytes(most)
    start = time.perf_counter()
    network = load(model, backend=backend, engine=engine, weights=weights, trust=trust, card=card)
    asked = {
        "command": "animate", "classes": wanted or [], "layer": layer, "channels": channels, "walk": walk,
        "align": align, "frames": frames, "seconds": seconds, "most": most, "recipe": recipe, "size": size,
        "steps": steps, "seed": seed, "dtype": dtype, "weights": weights, "backend": backend, "engine": engine,
        "card": card and str(card),
    }  # fmt: skip
    found = written(network, asked, {"model": model}, out, device=device)
    report = {"path": str(out), "frames": len(found), "size": list(found.shape[1:3]), "bytes": out.stat().st_size}
    if json:
        common.print_json(report)
        return
    height, width = found.shape[1:3]
    common.say(f"{out} ({counted(len(found), 'frame')} of {width} x {height}, {report['bytes']:,} bytes)")
    common.say(drawing.time_taken(len(found), time.perf_counter() - start, "frame"))


def written(
    network: Any, asked: Mapping[str, Any], about: Mapping[str, Any], out: Path, *, device: str | None = None
) -> npt.NDArray[np.uint8]:
    """Draw an animation and write it.

    Args:
        network: the model.
        asked: the options of :func:`animate`, as the file keeps them for :mod:`agnostic.cli.redo`.
        about: what else the file says.
        out: the file.
        device: to compute on.

    Returns:
        (frames, height, width, 3), before they were encoded.
    """
    from agnostic.visualization import animation

    bound = _bytes(asked["most"])
    options: dict[str, Any] = {key: asked[key] for key in ("recipe", "steps", "seed", "dtype", "frames")}
    options |= {"size": common.parse_size(asked["size"]), "device": device}
    objectives = _objectives(asked["classes"], asked["layer"], asked["channels"])
    with common.progress(f"drawing {out.stem}", None) as advance:
        options["on_step"] = advance
        if asked["walk"]:
            closed = len(objectives) > 2
            found = animation.animate_walk(network, objectives, align=asked["align"], closed=closed, **options)
        else:
            found = animation.animate_ascent(network, _together(objectives), **options)
    shown = [label for x in objectives for label in x.labels()]
    said = {**asked, **about, **drawing.stated(network), "shown": shown, "redo": dict(asked)}
    animation.write_animation(out, found, seconds=asked["seconds"], most_bytes=bound, about=json_format.dumps(said))
    return found


def _check_out(out: Path, force: bool) -> None:
    from agnostic.visualization.animation import FORMATS

    if out.suffix.lower() not in FORMATS:
        raise InvalidInput(f"--out ends in {', '.join(FORMATS)}, not {out.suffix!r}")
    if out.exists() and not force:
        raise InvalidInput(
            f"{str(out)!r} is there already: choose another name with --out, or write over it with --force"
        )


def _objectives(classes: list[str], layer: str | None, channels: str) -> list[Objective]:
    """One of each class, or of each channel."""
    from agnostic.visualization.objectives import channel, logit

    if bool(classes) == (layer is not None):
        raise InvalidInput("give classes, or --layer and --channels: one of the two")
    if layer is None:
        return [logit(int(text) if text.isdecimal() else text) for text in classes]
    numbers: list[int] = []
    for part in channels.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise InvalidInput(f"channels are given as 0-3 or 0,5,9, not {channels!r}")
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return [channel(layer, number) for number in numbers]


def _together(objectives: list[Any]) -> Objective:
    """One objective of an image for each."""
    from agnostic.visualization.objectives import channel, logit

    if hasattr(objectives[0], "classes"):
        return logit([c for x in objectives for c in x.classes])
    return channel(objectives[0].layer, [c for x in objectives for c in x.channels])


def _bytes(text: str | None) -> int | None:
    """The number of ``"500k"`` or ``"2M"``."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,9})([kKmM]?)", text.strip())
    if match is None or int(match[1]) == 0:
        raise InvalidInput(f"--most is a number of bytes such as 500k or 2M, not {text!r}")
    return int(match[1]) * {"": 1, "k": 1000, "m": 1_000_000}[match[2].lower()]
