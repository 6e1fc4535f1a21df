"""Shared parts of the commands: options, examples, progress and printing.

A command prints through :func:`say`, :func:`say_lines`, :func:`print_table` and :func:`print_json` only (a test
checks this), so that no name in a file can act on the terminal.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from agnostic.errors import InvalidInput
from agnostic.text import printable, printable_lines

Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of all random numbers.")]
# What agnostic.load takes, under the same names.
ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="efficientnet_lite0, torchvision:vgg16, timm:resnet18 or file.py:make_model."),
]
WeightsOption = Annotated[
    str | None, typer.Option("--weights", help="A weight file, 'random', or 'default': the model's own.")
]
BackendOption = Annotated[
    str | None,
    typer.Option("--backend", help="A backend, as agnostic doctor lists them; by default the first installed one."),
]
Engine = Annotated[
    str | None, typer.Option("--engine", help="The engine, for a backend that has several, such as Keras.")
]
Engines = Annotated[
    list[str] | None,
    typer.Option("--engine", help="local or ray: who computes; or an engine of the backend, such as jax for Keras."),
]
Address = Annotated[str | None, typer.Option(help="Of the Ray cluster; by default a local one.")]
Card = Annotated[
    Path | None,
    typer.Option("--card", help="A JSON file: the model's range, mean, std, size, class_names; see docs/cards.md."),
]
SizeOption = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="H [W]",
        help="Height and width of the images: 224, or 48 96, or 48x96; by default the model's own.",
    ),
]
ChannelsIn = Annotated[
    int | None, typer.Option("--channels-in", min=1, help="Channels of the images, if the model does not declare it.")
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Let a .keras file use any function and contain code, which is executed.")
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="cpu, cuda (or gpu) or cuda:1, on every engine; by default the framework's default device.",
    ),
]
InputsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--inputs",
        help="An input of the model: a .npy or .npz file, or a shape such as 1x3x48x96 or 1x16:int; once per input.",
    ),
]
Image = Annotated[
    str | None,
    typer.Option("--image", help="Position or name of the input that takes the images, if --inputs does not show it."),
]
Out = Annotated[Path, typer.Option("--out", help="Folder to write to; created if it does not exist.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of text.")]


TAKES_NUMBERS = frozenset({"classes", "animate"})
"""The commands whose arguments may be numbers, which could be meant for ``--size``."""


def joined_sizes(arguments: Sequence[str]) -> list[str]:
    """The arguments with ``--size 48 96`` as ``--size 48x96``: an option has a fixed number of values.

    Raises:
        InvalidInput: the second number may be an argument of the command.
    """
    found: list[str] = []
    for text in arguments:
        if found[-2:-1] == ["--size"] and found[-1].isdecimal() and text.isdecimal():
            if found[0] in TAKES_NUMBERS:
                raise InvalidInput(
                    f"--size {found[-1]} {text} may be a height and a width, or a size and the class {text}: write "
                    f"--size {found[-1]}x{text}, or --size={found[-1]} {text}"
                )
            found[-1] += f"x{text}"
        else:
            found.append(text)
    return found


def parse_size(text: str | None) -> tuple[int, int] | None:
    """(height, width) of ``"224"`` or ``"48x96"``.

    Raises:
        InvalidInput: not of this form.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})(?:[x,](\d{1,5}))?", text.strip())
    if match is None or not all(int(n) for n in match.groups(match[1])):
        raise InvalidInput(f"--size takes a height, or a height and a width, such as 224, 48 96 or 48x96, not {text!r}")
    return int(match[1]), int(match[2] or match[1])


def example_inputs(given: Sequence[str]) -> Any:
    """The inputs of a model: arrays from files, or zeros of given shapes; None if nothing is given.

    Raises:
        InvalidInput: a file cannot be read, or a shape is not valid.
    """
    import numpy as np

    from agnostic.compare.processes import read_inputs

    found: list[Any] = []
    for text in given:
        match = re.fullmatch(r"(\d{1,6}(?:x\d{1,6})*)(:int)?", text)
        if match is None:
            found.append(read_inputs(text))
        else:
            found.append(np.zeros([int(n) for n in match[1].split("x")], np.int64 if match[2] else np.float32))
    return None if not found else found[0] if len(found) == 1 else tuple(found)


def parse_image(text: str | None) -> int | str | None:
    """The position, or the name, of an input."""
    return int(text) if text is not None and text.isdecimal() else text


def example(*lines: str) -> str:
    """The epilog of a command: ``@app.command(epilog=example("agnostic layers efficientnet_lite0"))``."""
    # A paragraph that starts with a backspace is not wrapped.
    return "\b\n" + "\n".join(["Example:", *("  " + line for line in lines)])


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, if that is a terminal; otherwise none.

    Args:
        what: the current task, such as ``"drawing blocks.3.1"``.
        total: number of steps; None where it is not known.

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
        task = bar.add_task(printable(what), total=total)
        yield lambda steps: bar.update(task, advance=steps)


@contextmanager
def growing_progress(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar as :func:`progress`, of a number of steps that is known later.

    Yields:
        A function to call with the number of steps done since the last call, and of all steps if it is known.
    """
    if not sys.stderr.isatty():
        yield lambda steps, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(printable(what), total=None)
        yield lambda steps, total: bar.update(task, advance=steps, total=total)


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
        with watched(
            lambda what, done, total: bar.update(task, description=printable(what), completed=done, total=total)
        ):
            yield


def say(line: object, *, error: bool = False) -> None:
    """Print one line on standard output, or on standard error."""
    print(printable(line), file=sys.stderr if error else sys.stdout, flush=True)


def say_lines(text: object, *, error: bool = False) -> None:
    """Print text of several lines that contains no untrusted name with a line break."""
    print(printable_lines(text), file=sys.stderr if error else sys.stdout, flush=True)


def print_table(titles: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> None:
    """Print a table on standard output.

    Args:
        titles: of the columns.
        rows: a cell for each column.
        right: titles of the columns of numbers.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(printable(title), justify="right" if title in right else "left")
    for row in rows:
        table.add_row(*map(printable, row))
    # What reads a pipe has no width; nothing may be cut there.
    width = None if sys.stdout.isatty() else 1000
    Console(width=width, markup=False, highlight=False, emoji=False).print(table)


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output; a path becomes text, and NaN is an error, since JSON has no NaN."""
    # ASCII only, so that nothing in it acts on a terminal; DEL is the one control character that JSON leaves as it is.
    print(json.dumps(value, indent=2, allow_nan=False, default=_plain).replace("\x7f", "\\u007f"))


def _plain(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def engines(given: Sequence[str], address: str | None) -> tuple[str, str | None]:
    """Who computes, local or ray, and the engine of the backend."""
    from agnostic.cluster import ENGINES, check_address

    where = [x for x in given if x in ENGINES]
    others = [x for x in given if x not in ENGINES]
    if len(where) > 1 or len(others) > 1:
        raise InvalidInput(
            f"--engine is {' or '.join(ENGINES)}, and once an engine of the backend, not {', '.join(given)}"
        )
    engine = where[0] if where else "local"
    check_address(engine, address)
    return engine, others[0] if others else None
