"""The errors that agnostic raises on purpose, so that a caller can distinguish a mistake from a defect.

Each message is one sentence that says what was given, what was expected, and the fix. The command line prints the
sentence and exits with 2; a traceback means a defect in agnostic.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from agnostic.text import printable_lines


class AgnosticError(Exception):
    """Base class of all errors raised on purpose.

    Example:
        >>> try:
        ...     ag.capture(model, ag.prepare(model, images), "cnov")
        ... except ag.AgnosticError as error:
        ...     print(error)
        no layer 'cnov' in Sequential (6 layers); did you mean 'conv' or 'norm'?
    """

    def __str__(self) -> str:
        # LookupError subclasses such as KeyError would print the repr of the message. A message quotes names and other
        # libraries, and Python's traceback and notebooks show it as it is.
        return printable_lines(self.args[0]) if self.args else ""


class InvalidInput(AgnosticError, ValueError):
    """An argument has an invalid value or shape, or arguments do not fit together.

    Example:
        >>> ag.mosaic(np.zeros(3))
        Traceback (most recent call last):
        agnostic.errors.InvalidInput: a mosaic is made of images (N, H, W, C) or (N, H, W) with N > 0, not (3,)
    """


class InvalidType(InvalidInput, TypeError):
    """An argument has an invalid type; also a TypeError, which other libraries raise."""


class UnknownName(AgnosticError, LookupError):
    """There is no layer, class, recipe or backend of that name.

    Example:
        >>> ag.recipes.get("furier")
        Traceback (most recent call last):
        agnostic.errors.UnknownName: no recipe 'furier'; ...
    """


class MissingDependency(AgnosticError, ImportError):
    """An optional package is not installed; the message names the extra that installs it.

    Example:
        >>> issubclass(ag.MissingDependency, ImportError)
        True
    """


class InvalidWeights(AgnosticError, ValueError):
    """A weight file is missing, corrupt, does not fit the model, or cannot be read without executing code.

    Example:
        >>> ag.load("efficientnet_lite0", weights="missing.pth")
        Traceback (most recent call last):
        agnostic.errors.InvalidWeights: ...
    """


class NonFinite(AgnosticError, ArithmeticError):
    """A loss or a gradient is NaN or infinite; the message says where.

    Example:
        >>> with ag.watch(model, nonfinite="raise"):
        ...     model(torch.full((1, 3, 8, 8), torch.inf))
        Traceback (most recent call last):
        agnostic.errors.NonFinite: ...
    """


def nearest(name: str, choices: Iterable[str], count: int = 3) -> str:
    """A clause that names the valid choices closest to ``name``: ``"; did you mean 'a' or 'b'?"``, or ``""``."""
    close = difflib.get_close_matches(name, list(choices), n=count, cutoff=0.5)
    if not close:
        return ""
    quoted = [repr(c) for c in close]
    return "; did you mean " + (", ".join(quoted[:-1]) + " or " if len(quoted) > 1 else "") + quoted[-1] + "?"
