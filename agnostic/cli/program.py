"""``agnostic program``: print the operators of a model."""

from __future__ import annotations

import typer

from agnostic.cli.common import (
    BackendOption,
    Card,
    ChannelsIn,
    Device,
    Engine,
    InputsOption,
    Json,
    ModelArgument,
    SizeOption,
    Trust,
    example,
    example_inputs,
    parse_size,
    print_json,
    say_lines,
)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "program",
        epilog=example(
            "agnostic program torchvision:resnet50",
            "agnostic program my_file.py:make_model --inputs 2x3x48x96 --json",
        ),
    )(program)


def program(
    model: ModelArgument,
    size: SizeOption = None,
    channels_in: ChannelsIn = None,
    inputs: InputsOption = None,
    backend: BackendOption = None,
    engine: Engine = None,
    card: Card = None,
    trust: Trust = False,
    device: Device = None,
    json: Json = False,
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
        found = read(network, example_inputs(inputs or []), size=parse_size(size), channels_in=channels_in)
    if json:
        print_json(data(found))
    else:
        say_lines(found)
