"""``agnostic transfer``: copy the weights of one model into another, each in its own process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agnostic.cli import common
from agnostic.errors import InvalidInput, UnknownName, nearest


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "transfer",
        epilog=common.example(
            "agnostic transfer torchvision:resnet50 resnet50 --to keras --out resnet50.keras",
            "agnostic transfer torchvision:vgg16 keras_model.py:make --engine jax --out vgg16.weights.h5",
            "agnostic transfer model.keras torch_model.py:make --to torch --out model.safetensors",
        ),
    )(transfer)


def transfer(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The model that has the weights.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The model that gets the weights.")],
    out: Annotated[
        Path, typer.Option("--out", help="File to write: .keras, .weights.h5 (Keras), .pth (PyTorch) or .safetensors.")
    ],
    source_weights: Annotated[
        str | None, typer.Option("--weights", help="Of the source: a weight file, 'random', or 'default': its own.")
    ] = None,
    source_backend: Annotated[
        str | None, typer.Option("--from", help="The source's backend, if the specification does not say.")
    ] = None,
    target_backend: Annotated[
        str | None, typer.Option("--to", help="The target's backend, if the specification does not say.")
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="The engine of Keras: torch, jax or tensorflow.")] = "",
    device: common.Device = None,
    card: common.Card = None,
    size: common.SizeOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the inputs of both models.")] = 0,
    trust: common.Trust = False,
    json: common.Json = False,
) -> None:
    """Copy the weights of one model into another of the same architecture, and check by running both.

    Each model runs in a process of its own, so that PyTorch and TensorFlow do not meet. The file is written if every
    weight was matched. Exit code 1 means that the two models do not compute the same; the table shows where they differ
    and what to fix.
    """
    from agnostic.transfer.processes import between, formats

    suffix = next((s for s in formats() if out.name.endswith(s)), None)
    if suffix is None:
        raise UnknownName(
            f"cannot write {out.name!r}: a file of weights ends in {', '.join(formats())}"
            f"{nearest(out.suffix, formats())}"
        )
    if out.is_dir():
        raise InvalidInput(f"cannot write {str(out)!r}: it is a folder, and a file name was expected")
    with common.progress(f"{source} to {target}", total=4) as advance:
        report = between(
            source, target, out, weights=source_weights, source_backend=source_backend, target_backend=target_backend,
            engine=engine or None, device=device, card=None if card is None else str(card),
            size=common.parse_size(size), seed=seed, trust=trust, advance=advance,
        )  # fmt: skip
    if json:
        common.print_json({"out": out, **report["json"]})
    else:
        common.say_lines(report["text"])
        common.say(f"written: {out}")
    if not report["json"]["verified"]:
        raise typer.Exit(1)
