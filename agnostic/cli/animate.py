"""``agnostic animate``: an ascent, or a walk between classes or channels, as a picture that moves."""

from __future__ import annotations

import json as json_format
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agnostic.cli import common, drawing
from agnostic.errors import InvalidInput
from agnostic.text import counted

if TYPE_CHECKING:
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
    from agnostic.visualization import animation

    if bool(wanted) == (layer is not None):
        raise InvalidInput("give classes, or --layer and --channels: one of the two")
    _check_out(out, force)
    bound, start = _bytes(most), time.perf_counter()
    network = load(model, backend=backend, engine=engine, weights=weights, trust=trust, card=card)
    options: dict[str, Any] = {"recipe": recipe, "size": common.parse_size(size), "steps": steps, "seed": seed}
    options |= {"dtype": dtype, "device": device}
    objectives = _objectives(wanted or [], layer, channels)
    with common.progress(f"drawing {out.stem}", None) as advance:
        if walk:
            found = animation.animate_walk(
                network, objectives, frames=frames, align=align, closed=len(objectives) > 2, on_step=advance, **options
            )
        else:
            found = animation.animate_ascent(network, _together(objectives), frames=frames, on_step=advance, **options)
    loaded = {"model": model, "weights": weights, "backend": backend, "engine": engine, "card": card and str(card)}
    about = {**loaded, **options, "walk": walk, "align": align, "frames": len(found), "seconds": seconds}
    said = _said(about, network, objectives)
    animation.write_animation(out, found, seconds=seconds, most_bytes=bound, about=said)
    report = {"path": str(out), "frames": len(found), "size": list(found.shape[1:3]), "bytes": out.stat().st_size}
    if json:
        common.print_json(report)
        return
    height, width = found.shape[1:3]
    common.say(f"{out} ({counted(len(found), 'frame')} of {width} x {height}, {report['bytes']:,} bytes)")
    common.say(drawing.time_taken(len(found), time.perf_counter() - start, "frame"))


def _said(about: dict[str, Any], network: Any, objectives: list[Objective]) -> str:
    """What the file says of how it was made."""
    shown = [label for x in objectives for label in x.labels()]
    return json_format.dumps({**about, **drawing.stated(network), "shown": shown})


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
