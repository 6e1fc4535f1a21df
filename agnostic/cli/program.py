"""``agnostic program``: print the operators of a model."""

from __future__ import annotations

import typer

from agnostic.cli import common


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "program",
        epilog=common.example(
            "agnostic program torchvision:resnet50",
            "agnostic program my_file.py:make_model --inputs 2x3x48x96 --json",
        ),
    )(program)


def program(
    model: common.ModelArgument,
    size: common.SizeOption = None,
    channels_in: common.ChannelsIn = None,
    inputs: common.InputsOption = None,
    backend: common.BackendOption = None,
    engine: common.Engine = None,
    card: common.Card = None,
    trust: common.Trust = False,
    device: common.Device = None,
    json: common.Json = False,
) -> None:
    """Print the operators of a model, each with its attributes, operands, layer and source line.

    No weights are needed or downloaded.
    """
    from agnostic.models.load import loaded
    from agnostic.models.specs import parse
    from agnostic.program.text import data
    from agnostic.program.verb import program as read

    weights = None if parse(model).path is not None else "random"
    with loaded(
        model, device=device, backend=backend, engine=engine, weights=weights, trust=trust, card=card
    ) as network:
        found = read(
            network, common.example_inputs(inputs or []), size=common.parse_size(size), channels_in=channels_in
        )
    if json:
        common.print_json(data(found))
    else:
        common.say_lines(found)
