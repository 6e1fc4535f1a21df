"""``agnostic port``: a model as source of another framework."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agnostic.cli import common

if TYPE_CHECKING:
    from agnostic.port.report import PortReport


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "port",
        epilog=common.example(
            "agnostic port torchvision:resnet50 --to keras --out resnet50/",
            "agnostic port my_file.py:make_model --to keras --inputs 1x3x224x224 --out ported/",
            "agnostic port my_file.py:make_model --to keras --operators my_operators.py --stubs --out ported/",
        ),
    )(port)


def port(
    model: common.ModelArgument,
    to: Annotated[str, typer.Option("--to", help="The framework to write source for.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The folder for source, weights and report.", show_default=False)],
    weights: Annotated[
        str | None, typer.Option("--weights", help="A weight file, or 'random'.", show_default=False)
    ] = None,
    size: common.SizeOption = None,
    channels_in: common.ChannelsIn = None,
    inputs: common.InputsOption = None,
    channels_first: Annotated[
        bool, typer.Option("--channels-first", help="Keep the channels of images before height and width.")
    ] = False,
    stubs: Annotated[
        bool,
        typer.Option("--stubs", help="Leave operators that cannot be ported as functions to fill in, with a test."),
    ] = False,
    operators: Annotated[
        list[Path] | None,
        typer.Option(
            "--operators",
            help="A Python file that says how operators are spelled; may be given again.",
            show_default=False,
        ),
    ] = None,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Write the source, and do not run it.")] = False,
    backend: common.BackendOption = None,
    engine: common.Engine = None,
    card: common.Card = None,
    trust: common.Trust = False,
    device: common.Device = None,
    json: common.Json = False,
) -> None:
    """Write a model as source code for another framework, with its weights, and compare both layer by layer.

    The exit code is 1 if the port does not compute the same, or has functions to fill in.
    """
    from agnostic.models.load import loaded
    from agnostic.port.verb import port as write
    from agnostic.port.verb import taught_in

    with loaded(model, device=device, backend=backend, engine=None, weights=weights, trust=trust, card=card) as network:
        found = write(
            network, to, common.example_inputs(inputs or []), size=common.parse_size(size), channels_in=channels_in,
            channels_first=channels_first, check=not unchecked, engine=engine, stubs=stubs,
            operators=[operator for file in operators or [] for operator in taught_in(file)],
        )  # fmt: skip
    command = shlex.join(["agnostic", *sys.argv[1:]])
    found = replace(found, report=replace(found.report, command=command))
    path = found.save(out)
    report = found.report
    if json:
        common.print_json(_as_data(report, path))
    else:
        common.say_lines(f"{report}\nWritten: {path}")
    if report.draft.stubs or (not unchecked and not report.is_same):
        raise typer.Exit(1)


def _as_data(report: PortReport, path: Path) -> dict[str, Any]:
    return {
        "source": str(path),
        "stubs": list(dict.fromkeys(x.function for x in report.draft.stubs)),
        "same": report.is_same,
        "free": report.free,
        "verdict": report.verdict,
        "transposes": len(report.draft.laid.moves),
        "notes": list(report.notes),
        "layers": [
            {"name": x.name, "partner": x.partner, "error": x.error, "floor": x.floor, "same": x.is_same}
            for x in report.found
        ],
    }
