"""Guards against training with a loss that is NaN or infinite.

The logarithm of a negative number is NaN, but its gradient is 1/x, finite, in every framework: the weights are
still updated, and look normal. ``agnostic.watch(model, nonfinite="raise")`` stops at the first array that is not
finite; what it says is made here, and what it hooks into are the backends' own ``guards``.
"""

from __future__ import annotations

import functools
import linecache
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.errors import NonFinite
from agnostic.ops import Array, Ops
from agnostic.registry import registrations


def check_finite(
    ops: Ops, named: Mapping[str, Array] | Iterable[tuple[str, Array]], *, kind: str, when: str = ""
) -> None:
    """Raise for the first of several arrays that is not finite.

    Args:
        named: arrays by name, in the order in which they were computed: the first bad one is the cause.
        kind: what they are, in an error: ``"layer"``, ``"loss term"``, ``"gradient"``.
        when: a clause for the error, such as ``"at step 12"``.

    Raises:
        NonFinite: names the first that is not finite, and says how many of its elements are not, and of what kind.
    """
    for name, x in named.items() if isinstance(named, Mapping) else named:
        if not is_finite(ops, x):
            raise error(kind, name, ops.numpy(x), when=when)


def is_finite(ops: Ops, x: Array) -> bool:
    """Whether all elements of an array are finite; integers are."""
    if not ops.dtype(x).startswith(("float", "bfloat")):
        return True
    # A sum is finite if all its terms are (and may overflow if they are): one pass, without a temporary.
    return bool(ops.numpy(ops.isfinite(ops.sum(x)))) or not any(count(ops.numpy(x)))


def count(values: npt.ArrayLike) -> tuple[int, int]:
    """How many elements are NaN, and how many infinite."""
    array = np.asarray(values)
    if array.dtype.kind not in "fc":
        return 0, 0
    return int(np.isnan(array).sum()), int(np.isinf(array).sum())


def error(kind: str, name: str, values: npt.ArrayLike, *, when: str = "", look: str = "check its inputs") -> NonFinite:
    """The error for an array that is not finite.

    Args:
        kind, name: of the array, as in :func:`check_finite`.
        values: the array.
        when: a clause such as ``"at step 12"``.
        look: advice, or what is known of the cause.
    """
    return _error(kind, name, (*count(values), np.size(values)), when, look)


def _error(kind: str, name: str, counts: tuple[int, int, int], when: str, look: str) -> NonFinite:
    nans, infinities, size = counts
    return NonFinite(
        f"{kind} {name!r} is not finite{' ' + when if when else ''}: {nans} NaN and {infinities} infinite of "
        f"{size} elements, and it is the first; {look}"
    )


def cause(inputs: Iterable[tuple[str, bool]], weights: Iterable[tuple[str, bool]]) -> str:
    """The cause of a bad number in a layer, for an error.

    Args:
        inputs, weights: (name, whether it is finite) of what went into the layer.
    """
    given, own = list(inputs), list(weights)
    for name, finite in own:
        if not finite:
            return f"its {name} is not finite: the step before made it so"
    if not all(finite for _, finite in given):
        return "its input is not finite already: check the data, or what the model does before this layer"
    return ("its input and its weights are" if own else "its input is") + " finite: it happens in the layer itself"


def caller(*inside: str) -> tuple[str, str]:
    """The line of the user's own program that is running: (its text, "file.py:12").

    Args:
        inside: top-level packages whose frames are passed over.
    """
    own = [name for registration in registrations().values() for name in registration.packages]
    passed_over = {"agnostic", "contextlib", "functools", *own, *inside}
    frame: Any = sys._getframe(1)
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in passed_over:
            name, number = frame.f_code.co_filename, frame.f_lineno
            return linecache.getline(name, number).strip(), f"{Path(name).name}:{number}"
        frame = frame.f_back
    return "", "an unknown line"


# Where a number comes from --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Origin:
    """An operation, or an array from outside, that gave numbers that are not finite.

    Attributes:
        what: for an error, such as ``"log at train.py:12"``.
        layer: the innermost layer that it happened in, or the first that was given it; None outside of layers.
        written: whether the program itself writes the infinity down, as a mask does.
        counts: (NaN, infinite, all) elements of that layer's output, once it returned.
        look: what is known of the cause.
    """

    what: str
    layer: str | None = None
    written: bool = False
    counts: tuple[int, int, int] | None = None
    look: str = ""


class Flow:
    """Follows arrays that are not finite from operation to operation, to tell which of them reach a loss.

    An array has the origins of what it was computed from; where all of that was finite, the operation is its origin. So
    an infinity that is masked or overwritten later is forgotten with the arrays that hold it. Arrays are followed, not
    their elements: an array joined of two bad parts, of which one is cut off later, has the origins of both.

    A backend calls :meth:`operation` for each operation of this thread, and :meth:`enter` and :meth:`leave` for layers.
    """

    def __init__(
        self, numpy: Callable[[Any], Any], is_finite: Callable[[Any], bool], base: Callable[[Any], Any], *inside: str
    ) -> None:
        """Prepare.

        Args:
            numpy: the values of an array.
            is_finite: whether all of them are.
            base: the array that another one is a view of, or None.
            inside: top-level packages that are not the user's, see :func:`caller`.
        """
        self._numpy, self._is_finite, self._base, self._packages = numpy, is_finite, base, inside
        self._origins: dict[int, tuple[Any, tuple[Origin, ...]]] = {}
        self._running: list[str] = []
        self._looking = False

    @property
    def inside(self) -> bool:
        """Whether a layer runs."""
        return bool(self._running)

    def operation(self, name: str, inputs: Sequence[Any], outputs: Sequence[Any], *, written: bool = False) -> None:
        """An operation ran.

        Args:
            name: of the operation.
            inputs: the floating point arrays that it was given.
            outputs: those that it returned, and those that it changed in place.
            written: whether it was given an infinite number that is no array.
        """
        bad = []
        for y in () if self._looking else outputs:
            if self._is_finite(y):
                self._origins.pop(id(y), None)
            else:
                bad.append(y)
        if bad:
            origins = self._sources(name, inputs, bad, written)
            for y in bad:
                self._set(y, origins)

    def _sources(self, name: str, inputs: Sequence[Any], bad: Sequence[Any], written: bool) -> tuple[Origin, ...]:
        found: dict[Origin, None] = {}
        culprits = []
        changed = {id(y) for y in bad}
        for x in inputs:
            known = self.origins(x)
            # What was changed in place holds what it was given no more.
            if known or (id(x) not in changed and not self._is_finite(x)):
                culprits.append(x)
                found |= dict.fromkeys(known or (Origin("", written=np.size(self._numpy(x)) == 1),))
        origins = tuple(found)
        if not origins:
            given = not inputs and not written
            layer = self._running[-1] if self._running and not given else None
            return (Origin("" if given else self._here(name), layer, written),)
        unchanged = [x for x in culprits if id(x) not in changed]
        if all(x.written for x in origins) and self._any_nan(bad) and not self._any_nan(unchanged):
            # A mask's infinity is no mistake, but what makes NaN of it is.
            of = f" of the infinity that {origins[0].what} writes" if origins[0].what else " of an infinity"
            return (Origin(f"{self._here(name)}, which makes NaN{of}", self._running[-1] if self._running else None),)
        return origins

    def _any_nan(self, arrays: Sequence[Any]) -> bool:
        return any(count(self._numpy(x))[0] for x in arrays)

    def _here(self, name: str) -> str:
        return f"{name} at {caller(*self._packages)[1]}"

    def origins(self, x: Any) -> tuple[Origin, ...]:
        """Where an array's numbers come from; nothing for one that was made unseen, or is finite."""
        for one in (x, self._base(x)):
            reference, origins = self._origins.get(id(one), (None, ()))
            if one is not None and reference is not None and reference() is one:
                return origins
        return ()

    def _set(self, x: Any, origins: tuple[Origin, ...]) -> None:
        for one in (x, self._base(x)):
            if one is not None:
                forget = functools.partial(self._origins.pop, id(one))
                self._origins[id(one)] = weakref.ref(one, forget), origins

    def enter(self, layer: str) -> None:
        """A layer is being called."""
        self._running.append(layer)

    def leave(self, layer: str, outputs: Sequence[Any], look: Callable[[], str]) -> None:
        """A layer returned, or ended by an error, without outputs.

        Args:
            outputs: its floating point arrays.
            look: what is known of the cause if one of them is not finite.

        Raises:
            NonFinite: the outermost layer returned a number that is not finite: names the layer that it comes from.
        """
        if layer in self._running:
            del self._running[len(self._running) - 1 - self._running[::-1].index(layer) :]
        self._looking = True  # looking takes operations, which are not the model's
        try:
            reached = [origin for y in outputs if not self._is_finite(y) for origin in self._left(layer, y, look())]
        finally:
            self._looking = False
        if reached and not self._running:
            first = _first(reached)
            look_at = first.look + (f" ({first.what})" if first.what else "")
            raise _error("layer", str(first.layer), first.counts or (0, 0, 0), "", look_at)

    def _left(self, layer: str, y: Any, look: str) -> tuple[Origin, ...]:
        """The origins of a layer's output, now that they are known; none where they are a mask."""
        values = self._numpy(y)
        counts = (*count(values), int(np.size(values)))
        origins = tuple(
            replace(x, layer=layer, counts=counts, look=look)
            if x.layer is None or (x.layer == layer and x.counts is None)
            else x
            for x in self.origins(y) or (Origin("", layer),)
        )
        self._set(y, origins)
        return origins if counts[0] or not all(x.written for x in origins) else ()

    def look(self, x: Any, otherwise: str) -> str:
        """What to say of the cause of a loss term that is not finite."""
        origins = self.origins(x)
        if not origins or not _first(origins).what:
            return otherwise
        first = _first(origins)
        layer = f", in layer {first.layer!r}" if first.layer is not None else ""
        return f"the operation that gives the first such number that reaches it is {first.what}{layer}"


def _first(origins: Sequence[Origin]) -> Origin:
    """The first, of those that are no mask if there are such."""
    return next((x for x in origins if not x.written), origins[0])
