"""What a model asks the numbers of its arrays, such as ``.item()`` for a size: torch.export cannot tell it.

The model is run with the inputs and with other numbers in their place. What it was told each time alike is told again
while it is exported: mostly it depends on the model's own weights and buffers, or on integers among the inputs. Numbers
that nobody tried may still decide it, as for a check that all are finite: the notes say each answer with its line.
"""

from __future__ import annotations

import contextlib
import linecache
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.utils import _pytree as pytree

from agnostic.patching import Replacement, patched

Question = tuple[str, int, str]
"""File, line, and the method that was called there."""

METHODS = ("item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__")
"""How an array is asked for its numbers."""

_OWN = re.compile(r"[\\/](torch|agnostic|agnostic_torch)[\\/](?!.*[\\/]tests[\\/])")


def _large(x: torch.Tensor) -> torch.Tensor:
    """Numbers for which a bias decides nothing; also where the inputs are zeros, as those that only have a shape."""
    size = min(1e6, torch.finfo(x.dtype).max / 100)  # half precision has no number of a million
    return torch.as_tensor(np.random.default_rng(0).standard_normal(tuple(x.shape)) * size).to(x)


_CHANGES: Sequence[Callable[[torch.Tensor], torch.Tensor]] = (
    lambda x: x, torch.neg, lambda x: (x.flip(0) if x.ndim else x) * 1e-3, lambda x: x * x * 1e3 + 1,
    _large, lambda x: -_large(x),
)  # fmt: skip
"""The inputs, and other numbers in the place of real and complex ones: far smaller and larger, as a model may ask
whether pixels reach to 1 or to 255."""


def asked(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[Question, list[Any]]:
    """The answers, in the order of the questions of one place, that are the same for each of these inputs."""
    runs: list[dict[Question, list[Any]]] = []
    for change in _CHANGES:
        found: dict[Question, list[Any]] = defaultdict(list)

        def noted(question: Question, ask: Callable[[], Any], found: dict[Question, list[Any]] = found) -> Any:
            answer = ask()
            found[question].append(answer)
            return answer

        def changed(x: Any, change: Callable[[torch.Tensor], torch.Tensor] = change) -> Any:
            varies = isinstance(x, torch.Tensor) and (x.is_floating_point() or x.is_complex())
            return change(x.detach().clone()) if varies else x

        given, named = pytree.tree_map(changed, (args, dict(kwargs)))
        # A check that other numbers do not pass says nothing of the places before it.
        with torch.no_grad(), patched(_methods(noted)), contextlib.suppress(Exception):
            model(*given, **named)
        runs.append(found)
    first, *others = runs
    return {
        question: answers
        for question, answers in first.items()
        if all(_same(answers, found.get(question, [])) for found in others)
    }


def _same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))


@contextlib.contextmanager
def told(model: nn.Module, answers: Mapping[Question, Sequence[Any]]) -> Iterator[dict[Question, list[Any]]]:
    """Inside, the same questions have these answers; yields those that were asked, with the different answers to each.

    Each run of the model begins with the first answers: one that failed may have asked for some of them.
    """
    counts: dict[Question, int] = defaultdict(int)
    used: dict[Question, list[Any]] = defaultdict(list)

    def run(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        counts.clear()
        return original(*args, **kwargs)

    def tell(question: Question, ask: Callable[[], Any]) -> Any:
        known = answers.get(question, [])
        if counts[question] == len(known):
            return ask()
        answer = known[counts[question]]
        counts[question] += 1
        if not any(np.array_equal(answer, x) for x in used[question]):
            used[question].append(answer)
        return answer.copy() if isinstance(answer, np.ndarray | list) else answer

    with patched([(model, "forward", run), *_methods(tell)]):
        yield used


def _methods(answer: Callable[[Question, Callable[[], Any]], Any]) -> list[tuple[Any, str, Replacement]]:
    def of(name: str) -> Replacement:
        def replacement(original: Any, *args: Any, **kwargs: Any) -> Any:
            place = _user_line()
            if place is None:
                return original(*args, **kwargs)
            return answer((*place, name), lambda: original(*args, **kwargs))

        return replacement

    owners = (torch.Tensor, FakeTensor, FunctionalTensor)
    return [
        (owner, name, of(name)) for owner in owners for name in METHODS if owner is torch.Tensor or name in vars(owner)
    ]


def _user_line() -> tuple[str, int] | None:
    """The line that asks; None where torch itself does."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.endswith(("patching.py", "answers.py")):
        frame = frame.f_back
    file = frame.f_code.co_filename
    return None if _OWN.search(file) or file.startswith("<") else (file, frame.f_lineno)


def notes(used: Mapping[Question, Sequence[Any]]) -> list[str]:
    """What was told, for the user."""
    return [
        f"Read with what this line was told, which other inputs may tell it otherwise: "
        f"{', '.join(map(repr, told))} for {linecache.getline(file, line).strip()[:100]!r} at {file}:{line}."
        for (file, line, _), told in used.items()
        if told
    ]
