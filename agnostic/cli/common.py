"""What commands share: options, examples, progress, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of every random number; the same gives the same.")]
# What agnostic.load takes, under the same names.
Spec = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="efficientnet_lite0, torchvision:vgg16, timm:resnet18 or file.py:make_model."),
]
Weights = Annotated[
    str | None, typer.Option("--weights", help="A weight file, 'random', or 'default': the model's own.")
]
Backend = Annotated[str | None, typer.Option("--backend", help="torch or keras; by default what is installed.")]
Engine = Annotated[str | None, typer.Option("--engine", help="What Keras computes with: torch, jax or tensorflow.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write to; made if it is not there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of text.")]


def example(*lines: str) -> str:
    """The epilog of a command: ``@app.command(epilog=example("agnostic layers efficientnet_lite0"))``."""
    # A paragraph that starts with a backspace is not wrapped.
    return "\b\n" + "\n".join(["Example:", *("  " + line for line in lines)])


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, where that is a terminal; elsewhere nothing.

    Args:
        what: what is being done, such as ``"drawing blocks.3.1"``.
        total: number of steps.

    Yields:
        A function to call with the number of steps done since the last call.
    """
    if not sys.stderr.isatty():
        yield lambda steps: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda steps: bar.update(task, advance=steps)


@contextmanager
def layers_shown() -> Iterator[None]:
    """A progress bar of the layers that models run through, where standard error is a terminal."""
    from agnostic.compare.watching import watched

    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading", total=None)
        with watched(lambda what, done, total: bar.update(task, description=what, completed=done, total=total)):
            yield


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output; a path becomes its text, and NaN is an error, as JSON has none."""
    print(json.dumps(value, indent=2, allow_nan=False, default=_plain))


def _plain(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
