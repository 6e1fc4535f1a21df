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
    """Show what PyTorch and Keras compute differently under one name, by how much, and what is exact instead.

    The difference is the greatest of any parameter after 5 steps of a small problem at a changing learning rate.
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
    from rich.console import Console
    from rich.table import Table

    table = Table("optimizer", "defaults: torch / keras", "convention: torch / keras", "difference", "exact instead")
    for pair in chosen:
        setting = "".join(f"\n{k}={v}" for k, v in pair.options.items())
        if pair.torch is None or pair.keras is None:
            there = "Keras" if pair.torch is None else "PyTorch"
            other = "PyTorch" if pair.torch is None else "Keras"
            table.add_row(pair.kind + setting, "", f"only {there} has it", "", f"ours in {other}")
            continue
        table.add_row(
            pair.kind + setting,
            "\n".join(f"{k}: {a} / {b}" for k, (a, b) in pair.defaults.items()),
            "\n".join(f"{t.name}: {t.torch} / {t.keras}" for t in pair.terms) or "the same",
            "\n".join("(bfloat16)" if t.size is None else f"{t.size:.0e}" for t in pair.terms),
            f"in Keras: {pair.exact_in_keras}\nin PyTorch: {pair.exact_in_torch}",
            end_section=True,
        )
    console = Console()
    console.print(table)
    if kind is not None:
        for name, meaning in {t.name: t.meaning for pair in chosen for t in pair.terms}.items():
            console.print(f"{name}: {meaning}", markup=False)
