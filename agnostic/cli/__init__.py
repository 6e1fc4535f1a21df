"""The command line: one file per command.

A command's file has a function ``register(app)`` that adds it to the program; its name is in :data:`COMMANDS`.
``agnostic --help`` imports the file too, so frameworks and NumPy are imported inside the command. Each
command shows an example in its help, and raises the errors of :mod:`agnostic.errors`: :func:`main` turns them into one
sentence and an exit code.

Exit codes: 0 done; 1 a comparison found a difference, or ``doctor`` something broken; 2 wrong use; 70 a defect of this
program; 130 interrupted; 141 the reader of the output has left; 143 terminated.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Annotated

import typer
from typer.main import get_command

from agnostic.cli.common import joined_sizes, say, say_lines
from agnostic.cli.quiet import everything_said, libraries_silent
from agnostic.errors import AgnosticError
from agnostic.signals import unwinding

COMMANDS: tuple[str, ...] = (
    "layers", "program", "port", "taps", "extract", "top", "similar", "filters", "classes", "redo", "animate",
    "explain", "augment", "optimizers", "transfer", "trace", "compare", "doctor",
)  # fmt: skip
"""The modules of this package that are commands, in the order of ``agnostic --help``."""

WRONG_USE, DEFECT, INTERRUPTED, BROKEN_PIPE, TERMINATED = 2, 70, 130, 141, 143


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: the arguments without the program's name; None: those of the process. ``--debug``, anywhere among them,
            shows tracebacks and the messages of libraries.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        with unwinding(), _every_character_printable():
            code = _run(arguments, debug, process=argv is None)
        sys.stdout.flush()  # here, where a reader that has left is dealt with
    except KeyboardInterrupt as interrupt:
        # A command may raise KeyboardInterrupt("3 of 8 pictures are finished and kept in 'pictures'").
        return _say(f"interrupted: {interrupt}" if str(interrupt) else "interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Python flushes once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except AgnosticError as error:
        if debug:
            raise
        return _say(str(error), WRONG_USE)
    except MemoryError as error:
        if debug:
            raise
        what = f" ({' '.join(str(error).split())})" if str(error) else ""
        return _say(f"there is not enough memory{what}: give a smaller batch, size or file", WRONG_USE)
    except OSError as error:
        if debug:
            raise
        where = "" if error.filename is None else f": {str(error.filename)!r}"
        return _say(f"{(error.strerror or str(error)).lower()}{where}", WRONG_USE)
    except Exception as error:
        # Whatever else arrives here is no wrong use.
        if debug:
            raise
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return _say(f"a defect in agnostic, not in its use ({what}); --debug shows where", DEFECT)
    return code


def build() -> typer.Typer:
    """The program with all its commands."""
    app = typer.Typer(
        name="agnostic",
        help="Look inside vision models, and move them between PyTorch and Keras.",
        add_completion=False,
        no_args_is_help=True,
        # Square brackets are literal: 'agnostic-ml[torch]' must not be taken for markup.
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_program)
    for name in COMMANDS:
        importlib.import_module(f"agnostic.cli.{name}").register(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from agnostic.version import __version__

        say(f"agnostic {__version__}")
        raise typer.Exit


def _program(
    # main() takes --debug out of the arguments wherever it stands; here it is for --help.
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and the messages of libraries; may stand anywhere.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options of all commands."""


def _run(arguments: list[str], debug: bool, process: bool) -> int:
    try:
        command = get_command(build())
        helps = not arguments or {"-h", "--help", "--version"} & set(arguments)
        with (
            nullcontext() if helps else everything_said() if debug else libraries_silent(process),
            command.make_context("agnostic", joined_sizes(arguments)) as context,
        ):
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except typer.TyperException as error:
        if not arguments:  # the message is the help
            say_lines(error.format_message(), error=True)
            return WRONG_USE
        context_of_error = getattr(error, "ctx", None)
        path = context_of_error.command_path if context_of_error is not None else "agnostic"
        return _say(f"{' '.join(error.format_message().split()).rstrip('.')} (see '{path} --help')", WRONG_USE)
    return 0


@contextmanager
def _every_character_printable() -> Iterator[None]:
    """Let standard output escape what its encoding lacks, as standard error does, instead of raising an error."""
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper):
        yield
        return
    before = stream.errors
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        stream.reconfigure(errors=before)


def _say(sentence: str, code: int) -> int:
    say(f"agnostic: {sentence}", error=True)
    return code
