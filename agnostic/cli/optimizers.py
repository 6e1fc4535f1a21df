"""``agnostic optimizers``: where the two frameworks' optimizers differ, as a table."""

from __future__ import annotations

from typing import Annotated

import typer

from agnostic.cli.common import Json, example, print_json


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("optimizers", epilog=example("agnostic optimizers", "agnostic optimizers Adam --json"))(optimizers)


def optimizers(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="Adam, SGD, ...; by default all.")] = None,
    json: Json = False,
) -> None:
    """Show where optimizers of one name differ between PyTorch and Keras, by how much, and what is exact.

    A difference is the largest of any parameter after 5 steps on a small problem with a changing learning rate.
    """
    import dataclasses

    from agnostic.errors import UnknownName, nearest
    from agnostic.optimizers.differences import pairs
    from agnostic.optimizers.specs import KINDS

    if kind is not None and kind not in KINDS:
        raise UnknownName(f"no optimizer {kind!r} ({', '.join(KINDS)}){nearest(kind, KINDS)}")
    chosen = [pair for pair in pairs() if kind in (None, pair.kind)]
    if json:
        print_json(
            [
                {**dataclasses.asdict(p), "exact_in_keras": p.exact_in_keras, "exact_in_torch": p.exact_in_torch}
                for p in chosen
            ]
        )
        return
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table

    # One row per difference, so that its size is beside it also in a narrow terminal.
    names = [Column(header, no_wrap=True) for header in ("", "differs in")]
    table = Table(*names, "PyTorch", "Keras", "by", box=box.SIMPLE_HEAD, pad_edge=False)
    for pair in chosen:
        rows = [(name, f"{value}", f"{value}", "as set") for name, value in pair.options.items()]
        rows += [(name, f"{a}", f"{b}", "default") for name, (a, b) in pair.defaults.items()]
        rows += [
            (t.name, f"{t.torch}", f"{t.keras}", "bfloat16" if t.size is None else f"{t.size:.0e}") for t in pair.terms
        ]
        if pair.torch is not None and pair.keras is not None:
            exact = (pair.exact_in_torch, pair.exact_in_keras)
        else:
            exact = ("ours", "its own") if pair.torch is None else ("its own", "ours")
        rows.append(("exact there", *exact, ""))
        for index, row in enumerate(rows):
            table.add_row(pair.kind if index == 0 else "", *row, end_section=row is rows[-1])
    console = Console()
    console.print(table)
    console.print(
        "by: the greatest difference of a parameter after 5 steps if only this differs. exact there: what computes the "
        "other framework's optimizer exactly: the framework's own class (native) or ours on the shared rule.",
        markup=False,
    )
    if kind is not None:
        for name, meaning in {t.name: t.meaning for pair in chosen for t in pair.terms}.items():
            console.print(f"{name}: {meaning}", markup=False)
