"""``agnostic trace``: record a run of a model on photos in a file, to compare in another environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from agnostic.cli import common
from agnostic.text import counted

ImagesOption = Annotated[Path | None, typer.Option("--images", help="A folder of photos, or one photo.")]
ArraysOption = Annotated[
    Path | None, typer.Option("--inputs", help="A .npy or .npz file with inputs as the model takes them.")
]
CountOption = Annotated[int, typer.Option("--count", min=1, help="Number of photos to use.")]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "trace",
        epilog=common.example(
            "agnostic trace torchvision:resnet50 --images photos/ --out a.trace",
            "agnostic trace model.keras --engine jax --inputs x.npy --out b.trace",
            "agnostic trace model.keras --images photos/ --optimizer Adam --steps 3 --out b.trace",
        ),
    )(trace)


def trace(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="torchvision:resnet50, model.keras, file.py:make_model and others.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The file to write; its name ends in .trace.")],
    images: ImagesOption = None,
    inputs: ArraysOption = None,
    count: CountOption = 8,
    size: common.SizeOption = None,
    gradients: Annotated[
        bool, typer.Option("--gradients", help="Record the gradients of a loss: half the mean square of the output.")
    ] = False,
    optimizer: Annotated[
        str | None,
        typer.Option(
            "--optimizer",
            help="Record the weights after some steps of it on that loss: Adam, as the model's framework has it, or "
            "'Adam(0.001, epsilon=1e-7)', 'SGD.torch(momentum=0.9)' as in Python.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="How many steps of the optimizer; by default 1.")
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option("--rates", help="In place of --steps: the learning rate of each step, such as 0.1,0.1,0.01."),
    ] = None,
    weights: common.WeightsOption = None,
    backend: common.BackendOption = None,
    engine: common.Engine = None,
    card: common.Card = None,
    trust: common.Trust = False,
    device: common.Device = None,
    json: common.Json = False,
) -> None:
    """Record every operator that a model runs for some photos, with its weights and what it returns.

    'agnostic compare a.trace b.trace' compares two such files on any machine, without the frameworks.
    """
    from agnostic.compare.processes import SideSource, trace_in_process
    from agnostic.compare.traces import SUFFIX, Trace
    from agnostic.errors import InvalidInput

    if out.suffix != SUFFIX:
        raise InvalidInput(f"the name of a trace ends in {SUFFIX}, not {str(out)!r}: give {out.stem}{SUFFIX}")
    given = chosen_inputs(images, inputs, count, size)
    if given is None:
        raise InvalidInput("no inputs are given: give --images or --inputs")
    options = {"gradients": gradients, "update": chosen_update(optimizer, steps, rates)}
    with common.layers_shown():
        path = trace_in_process(
            SideSource(model, backend, engine, weights, trust, device, None if card is None else str(card)),
            given,
            out,
            options,
        )
    _say(path, Trace(path).about, json=json)


def _say(path: Path, about: Mapping[str, Any], *, json: bool) -> None:
    """Tell what was recorded."""
    count = len(about["program"]["nodes"]) if about["program"] else 0
    notes = [*about["notes"], *([f"no operators are recorded: {about['reason']}"] if about["reason"] else [])]
    if json:
        common.print_json({"trace": path, "bytes": path.stat().st_size, "operators": count, "model": about["model"],
                           "notes": notes})  # fmt: skip
        return
    common.say(f"{path} ({counted(count, 'operator')}, {path.stat().st_size / 1e6:.1f} MB)")
    for note in notes:
        common.say(f"note: {note}")


def chosen_inputs(images: Path | None, inputs: Path | None, count: int, size: str | None) -> object:
    """The value of --images or --inputs; None for neither."""
    from agnostic.compare.processes import photos, read_inputs
    from agnostic.errors import InvalidInput

    if images is not None and inputs is not None:
        raise InvalidInput("--images and --inputs exclude each other: give one")
    if images is not None:
        return photos(images, count, common.parse_size(size))
    return None if inputs is None else read_inputs(inputs)


def chosen_update(optimizer: str | None, steps: int | None, rates: str | None) -> tuple[str, int | list[float]] | None:
    """The value of --optimizer, --steps and --rates; None for none."""
    from agnostic.errors import InvalidInput
    from agnostic.optimizers.text import check

    if optimizer is None:
        if steps is not None or rates is not None:
            raise InvalidInput("--steps and --rates need an optimizer: give --optimizer as well, such as Adam")
        return None
    check(optimizer)  # before a model is loaded for it
    if rates is None:
        return optimizer, steps or 1
    if steps is not None:
        raise InvalidInput("--rates already gives the number of steps: leave out --steps")
    try:
        return optimizer, [float(x) for x in rates.split(",")]
    except ValueError:
        raise InvalidInput(f"--rates takes numbers with commas between, such as 0.1,0.1,0.01, not {rates!r}") from None
