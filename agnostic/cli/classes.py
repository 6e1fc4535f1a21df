"""``agnostic classes``: images that excite classes of a network, as one mosaic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from agnostic.cli import common, drawing

if TYPE_CHECKING:
    from agnostic.visualization.pictures import Drawing

OUTPUT = "output"
"""What the metadata call the model's output."""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("classes", epilog=common.example("agnostic classes efficientnet_lite0 espresso zebra 130"))(classes)


def classes(
    model: common.ModelArgument,
    wanted: Annotated[list[str], typer.Argument(metavar="CLASS...", help="Names or numbers of classes.")],
    layer: Annotated[str | None, typer.Option(help="Layer of the logits; by default the model's output.")] = None,
    weights: common.WeightsOption = None,
    recipe: drawing.RecipeName = "fourier",
    size: common.SizeOption = None,
    channels_in: common.ChannelsIn = None,
    card: common.Card = None,
    steps: drawing.StepsOption = None,
    columns: drawing.Columns = 4,
    labels: drawing.Labels = True,
    show: drawing.Show = False,
    seed: common.Seed = 0,
    start: drawing.Start = None,
    inputs: common.InputsOption = None,
    image: common.Image = None,
    transparent: drawing.Transparent = False,
    force: drawing.Force = False,
    out: common.Out = drawing.PICTURES,
    backend: common.BackendOption = None,
    engine: common.Engine = None,
    trust: common.Trust = False,
    dtype: drawing.Dtype = None,
    micro_batch: drawing.MicroBatch = None,
    device: common.Device = None,
    json: common.Json = False,
) -> None:
    """Draw images that excite classes of a network, chosen by name or number: one mosaic.

    Finished images are kept: run an interrupted command again to continue.
    """
    # Imported here, since it may import a framework, which 'agnostic --help' must not wait for.
    from agnostic.models.attached import card_of
    from agnostic.models.classes import class_index

    jobs = drawing.jobs(
        model, weights=weights, recipe=recipe, size=size, channels_in=channels_in, card=card, steps=steps,
        columns=columns, labels=labels, show=show, seed=seed, start=start, inputs=inputs, image=image, force=force,
        out=out, backend=backend, engine=engine, trust=trust, dtype=dtype, micro_batch=micro_batch, device=device,
        json=json, transparent=transparent,
    )  # fmt: skip
    network = jobs[0].load()
    known = card_of(network)
    names = None if known is None else known.class_names
    numbers: dict[str, int] = {}
    for text in wanted:
        number = drawing.class_number(text) if names is None else class_index(text, names)
        numbers.setdefault(f"{number:04d}" if names is None else f"{number:04d}-{names[number]}", number)
    drawing.draw_all(network, [(job, drawing_of(job, layer, list(numbers))) for job in jobs])


def drawing_of(job: drawing.DrawingJob, layer: str | None, items: Sequence[str]) -> Drawing:
    """The mosaic of some classes.

    Args:
        job: what was asked for.
        layer: of the logits; None: the model's output.
        items: number and name of each class, such as ``"0967-espresso"``.
    """
    from agnostic.visualization import objectives

    logits = objectives.OUTPUT if layer is None else layer

    def objective(some: Sequence[str]) -> objectives.Objective:
        return objectives.logit([int(item.partition("-")[0]) for item in some], logits)

    return job.drawing(
        items, objective, layer=layer or OUTPUT, parts=[layer, "classes"], kind="classes", command="classes"
    )
