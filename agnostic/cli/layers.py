"""``agnostic layers``: list the layers of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agnostic.cli import common
from agnostic.text import counted

if TYPE_CHECKING:
    from agnostic.layers import Layer


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "layers",
        epilog=common.example(
            "agnostic layers efficientnet_lite0",
            "agnostic layers torchvision:vgg16 --layer 'block*_conv*'",
            "agnostic layers my_file.py:make_model --inputs 1x3x48x96 --inputs 1x16:int",
        ),
    )(layers)


def layers(
    model: common.ModelArgument,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", help="Name, glob or kind:Conv2d; may be given several times.")
    ] = None,
    size: common.SizeOption = None,
    channels_in: common.ChannelsIn = None,
    card: common.Card = None,
    inputs: common.InputsOption = None,
    backend: common.BackendOption = None,
    engine: common.Engine = None,
    trust: common.Trust = False,
    device: common.Device = None,
    json: common.Json = False,
) -> None:
    """List the layers of a model in execution order.

    N in a shape is the batch; the axes name the dimensions. FLOPs are floating-point operations for one image,
    or for the inputs given: two per multiply-add of convolutions, matrix products, attention and recurrent layers;
    activations, normalizations, pools and sums count as 0. No weights are needed or downloaded.
    """
    from agnostic.layers import select
    from agnostic.models.load import loaded
    from agnostic.models.specs import parse
    from agnostic.taps.verbs import layers as listed

    # Names and shapes do not depend on the weights; a file or a function brings its own.
    weights = None if parse(model).path is not None else "random"
    with loaded(
        model, device=device, backend=backend, engine=engine, weights=weights, trust=trust, card=card
    ) as network:
        listing = listed(
            network, common.example_inputs(inputs or []), size=common.parse_size(size), channels_in=channels_in
        )
    chosen = select(listing, layer, model=model) if layer else listing
    if json:
        common.print_json([dataclasses.asdict(x) for x in chosen])
    else:
        _print_table(chosen)


def _print_table(chosen: Sequence[Layer]) -> None:
    columns: dict[str, Any] = {
        "name": lambda x: x.name,
        "kind": lambda x: x.kind,
        "shape": lambda x: "-" if x.shape is None else " x ".join("N" if n is None else str(n) for n in x.shape),
        "axes": lambda x: x.axes or "-",
        "channels": lambda x: "-" if x.channels is None else str(x.channels),
        "parameters": lambda x: f"{x.parameters:,}",
        "FLOPs": lambda x: "-" if x.flops is None else f"{x.flops:,}",
        "calls": lambda x: str(x.calls),
        "aliases": lambda x: ", ".join(x.aliases),
    }
    if all(x.calls == 1 for x in chosen):
        del columns["calls"]
    if not any(x.aliases for x in chosen):
        del columns["aliases"]
    common.print_table(
        list(columns),
        ([show(x) for show in columns.values()] for x in chosen),
        ("channels", "parameters", "FLOPs", "calls"),
    )
    common.say(_totals(chosen))


def _totals(chosen: Sequence[Layer]) -> str:
    """Totals of the layers; a layer inside another one counts once."""
    names = {x.name for x in chosen}
    outermost = [x for x in chosen if not any(x.name.startswith(f"{name}.") for name in names)]
    costs = [x.flops for x in outermost if x.calls]
    known = None if None in costs else sum(cost for cost in costs if cost is not None)
    flops = "FLOPs not known" if known is None else f"{counted(known, 'FLOP')} (two per multiply-add)"
    parameters = sum(x.parameters for x in outermost)
    return f"{counted(len(chosen), 'layer')}, {counted(parameters, 'parameter')}, {flops}"
