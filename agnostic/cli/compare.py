"""``agnostic compare``: the first place where two versions of a model differ, and why."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from agnostic.cli.common import Card, Json, SizeOption, Trust, example, layers_shown, print_json, say, say_lines
from agnostic.cli.trace import ArraysOption, CountOption, ImagesOption

SPEC = "A model (torchvision:resnet50, model.keras, file.py:make_model) or a .trace file."
DIFFERENT = 1


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "compare",
        epilog=example(
            "agnostic compare torchvision:resnet50 resnet50.keras --images photos/ --html report.html",
            "agnostic compare a.trace b.trace",
        ),
    )(compare)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="The model that is right. " + SPEC)],
    b: Annotated[str, typer.Argument(metavar="B", help="Its other version. " + SPEC)],
    images: ImagesOption = None,
    inputs: ArraysOption = None,
    count: CountOption = 8,
    size: SizeOption = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with plots and pictures.")] = None,
    map: Annotated[
        list[str] | None, typer.Option("--map", help="A's layer = B's layer, if the match is wrong; repeatable.")
    ] = None,
    engine_a: Annotated[str | None, typer.Option("--engine-a", help="The engine of A, for Keras.")] = None,
    engine_b: Annotated[str | None, typer.Option("--engine-b", help="The engine of B, for Keras.")] = None,
    backend_a: Annotated[str | None, typer.Option("--backend-a", help="torch or keras, for A.")] = None,
    backend_b: Annotated[str | None, typer.Option("--backend-b", help="torch or keras, for B.")] = None,
    weights_a: Annotated[str | None, typer.Option("--weights-a", help="A's weight file, or 'random'.")] = None,
    weights_b: Annotated[str | None, typer.Option("--weights-b", help="B's weight file, or 'random'.")] = None,
    device_a: Annotated[str | None, typer.Option("--device-a", help="Where A runs: cpu, cuda or cuda:1.")] = None,
    device_b: Annotated[str | None, typer.Option("--device-b", help="Where B runs.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail as well if only layers inside differ, and the outputs do not.")
    ] = False,
    card: Card = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Find the first layer where B differs from A by more than rounding, the mistake, and the fix.

    Each model runs in a process of its own. The exit code is 1 if the models differ, 0 if they are the same.
    """
    from agnostic.cli.trace import chosen_inputs
    from agnostic.compare.processes import SideSource
    from agnostic.compare.report import text
    from agnostic.compare.traces import is_trace
    from agnostic.compare.verbs import compare as run
    from agnostic.errors import InvalidInput

    given_card = None if card is None else str(card)
    sides = [
        spec if is_trace(spec) else SideSource(spec, backend, engine, weights, trust, device, given_card)
        for spec, backend, engine, weights, device in (
            (a, backend_a, engine_a, weights_a, device_a), (b, backend_b, engine_b, weights_b, device_b),
        )
    ]  # fmt: skip
    given, chosen = chosen_inputs(images, inputs, count, size), _pairs(map or [])
    if given is None and not is_trace(a):
        raise InvalidInput("no inputs are given to compare the models on: give --images or --inputs, or a trace as A")
    with layers_shown():
        found = run(sides[0], sides[1], given, map=chosen, strict=strict)
    if html is not None:
        found.html(html, command=shlex.join(["agnostic", *sys.argv[1:]]))
    if json:
        print_json({**found.to_json(), "html": html})
    else:
        say_lines(text(found, width=shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
        if html is not None:
            say("")
            say(html)
    if not found.same:
        raise typer.Exit(DIFFERENT)


def _pairs(given: list[str]) -> dict[str, str]:
    from agnostic.errors import InvalidInput

    pairs = {}
    for text in given:
        ours, equals, theirs = text.partition("=")
        if not (equals and ours and theirs):
            raise InvalidInput(f"--map takes A's layer = B's layer, such as features.0=block1_conv1, not {text!r}")
        pairs[ours.strip()] = theirs.strip()
    return pairs
