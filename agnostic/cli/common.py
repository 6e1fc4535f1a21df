"""What commands share: options, examples, progress, JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from agnostic.errors import InvalidInput, nearest

Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of every random number; the same gives the same.")]
BackendName = Annotated[str | None, typer.Option("--backend", help="torch or keras; by default what is installed.")]
EngineName = Annotated[str | None, typer.Option("--engine", help="What Keras computes with: torch, jax or tensorflow.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write to; made if it is not there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of text.")]

ENGINES = ("torch", "jax", "tensorflow")


def example(*lines: str) -> str:
    """The epilog of a command: ``@app.command(epilog=example("agnostic layers efficientnet_lite0"))``."""
    # A paragraph that starts with a backspace is not wrapped.
    return "\b\n" + "\n".join(["Example:", *("  " + line for line in lines)])


def choose_backend(backend: str | None, engine: str | None) -> str | None:
    """The name of the backend for ``--backend`` and ``--engine``; with an engine it is Keras, told which to use.

    Must be called before Keras is imported: it reads its engine once.

    Args:
        backend: a backend's name, or None for the default one.
        engine: one of :data:`ENGINES`, or None for Keras' own choice.

    Returns:
        The name to hand to ``agnostic.load``, or None.

    Raises:
        InvalidInput: there is no such engine, the backend has none to choose, or Keras is loaded with another.
    """
    if engine is None:
        return backend
    if engine not in ENGINES:
        raise InvalidInput(f"no engine {engine!r}: Keras computes with {', '.join(ENGINES)}{nearest(engine, ENGINES)}")
    if backend not in (None, "keras"):
        raise InvalidInput(f"--engine {engine} goes with --backend keras, not with --backend {backend}")
    keras = sys.modules.get("keras")
    if keras is not None and keras.backend.backend() != engine:
        raise InvalidInput(
            f"Keras is loaded with the engine {keras.backend.backend()!r} and cannot change to {engine!r}; "
            "start a new process"
        )
    os.environ["KERAS_BACKEND"] = engine
    return "keras"


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


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output; a path becomes its text, and NaN is an error, as JSON has none."""
    print(json.dumps(value, indent=2, allow_nan=False, default=_plain))


def _plain(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
