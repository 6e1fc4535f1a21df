"""``agnostic similar``: how alike the layers of two stores represent the same photos, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agnostic.cli import common, drawing


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "similar",
        epilog=common.example(
            "agnostic similar acts.zarr other.zarr",
            "agnostic similar acts.zarr",
            "agnostic similar before.zarr after.zarr --measure procrustes",
        ),
    )(similar)


def similar(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A store that agnostic extract wrote.")],
    other: Annotated[
        str | None, typer.Argument(metavar="[OTHER]", help="Another over the same photos; by default the same.")
    ] = None,
    measure: Annotated[str, typer.Option(help="cka, kernel_cka, procrustes or svcca.")] = "cka",
    samples: Annotated[int, typer.Option(min=4, help="Photos to draw of all.")] = 4096,
    batch: Annotated[int, typer.Option(min=4, help="Photos in a minibatch of CKA.")] = 256,
    seed: common.Seed = 0,
    out: common.Out = drawing.PICTURES,
    json: common.Json = False,
) -> None:
    """Compare how layers represent the same photos, for each pair: 1 is the same up to rotation and scale."""
    from agnostic.extract.similarity import layer_pairs
    from agnostic.extract.similarity import similar as compare

    found = compare(store, other, measure=measure, samples=samples, batch=batch, seed=seed)
    path = out / f"{drawing.file_name(Path(store).stem, None if other is None else Path(other).stem, measure)}.png"
    found.save(path)
    if json:
        common.print_json(
            {"path": path, "measure": measure, "samples": found.samples, "rows": found.rows, "columns": found.columns,
             "values": found.values.tolist(), "chance": found.chance, "remark": found.remark}
        )  # fmt: skip
        return
    pairs = [(name, best, f"{value:.3f}") for name, best, value in layer_pairs(found, among=other is None)]
    common.print_table(("layer", "most alike", measure), pairs, right=(measure,))
    if found.remark:
        common.say(found.remark)
    common.say(path)
