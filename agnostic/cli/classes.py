"""``agnostic classes``: images that excite classes of a network, as one mosaic."""

from __future__ import annotations

from typing import Annotated

import typer

from agnostic.cli import drawing
from agnostic.cli.common import (
    BackendOption,
    Card,
    ChannelsIn,
    Device,
    Engine,
    Image,
    InputsOption,
    Json,
    ModelArgument,
    Out,
    Seed,
    SizeOption,
    Trust,
    WeightsOption,
    example,
    example_inputs,
    parse_image,
    parse_size,
)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("classes", epilog=example("agnostic classes efficientnet_lite0 espresso zebra 130"))(classes)


def classes(
    model: ModelArgument,
    wanted: Annotated[list[str], typer.Argument(metavar="CLASS...", help="Names or numbers of classes.")],
    layer: Annotated[str | None, typer.Option(help="Layer of the logits; by default the model's output.")] = None,
    weights: WeightsOption = None,
    recipe: drawing.RecipeName = "fourier",
    size: SizeOption = None,
    channels_in: ChannelsIn = None,
    card: Card = None,
    steps: drawing.StepsOption = None,
    columns: drawing.Columns = 4,
    seed: Seed = 0,
    start: drawing.Start = None,
    inputs: InputsOption = None,
    image: Image = None,
    force: drawing.Force = False,
    out: Out = drawing.PICTURES,
    backend: BackendOption = None,
    engine: Engine = None,
    trust: Trust = False,
    dtype: drawing.Dtype = None,
    micro_batch: drawing.MicroBatch = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Draw images that excite classes of a network, chosen by name or number: one mosaic.

    Finished images are kept: run an interrupted command again to continue.
    """
    # Imported here, since it may import a framework, which 'agnostic --help' must not wait for.
    from agnostic.models.attached import card_of
    from agnostic.models.classes import class_index
    from agnostic.models.load import load
    from agnostic.visualization import objectives
    from agnostic.visualization.ascent import Settings
    from agnostic.visualization.pictures import Drawing

    options = Settings(micro_batch, dtype, device=device)
    called_with, sides, place = example_inputs(inputs or []), parse_size(size), parse_image(image)
    picture = drawing.checked(recipe, start)
    network = load(model, backend=backend, engine=engine, weights=weights, trust=trust, card=card)
    known = card_of(network)
    names = None if known is None else known.class_names
    numbers: dict[str, int] = {}
    for text in wanted:
        number = drawing.class_number(text) if names is None else class_index(text, names)
        numbers.setdefault(f"{number:04d}" if names is None else f"{number:04d}-{names[number]}", number)
    items = tuple(numbers)
    whose = drawing.model_name(model, weights=weights, backend=backend, engine=engine)
    given = drawing.options_name(recipe, size, steps, seed, dtype, start, inputs, image)
    chosen = Drawing(
        path=out / f"{drawing.file_name(whose, layer, 'classes', drawing.items_name(items, 'classes'), *given)}.png",
        folder=out / drawing.file_name(whose, layer, "classes", *given),
        items=items,
        objective=lambda items: objectives.logit(
            [numbers[i] for i in items], objectives.OUTPUT if layer is None else layer
        ),
        layer=layer or "output",
        spec=model,
        weights=weights,
        columns=columns,
    )
    drawing.draw_all(
        network, [chosen], options, recipe=recipe, size=sides, steps=steps, seed=seed, start=picture,
        channels_in=channels_in, inputs=called_with, image=place, force=force, as_json=json,
    )  # fmt: skip
