"""Ascents on the processes of a cluster: the same images as in one process."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from agnostic.cluster import Task, workers
from agnostic.contracts.ascent import ASCENT
from agnostic.registry import Model
from agnostic.text import counted
from agnostic.visualization.ascent import Climbed, Settings
from agnostic.visualization.objectives import Objective
from agnostic.visualization.verb import Options, prepare

_TASKS_EACH = 4
"""Tasks for each worker, so that none waits long for the slowest."""


def spread(
    model: Model,
    objective: Callable[[Sequence[str]], Objective],
    items: Sequence[str],
    options: Options,
    settings: Settings,
    *,
    count: int | None = None,
    address: str | None = None,
) -> Iterator[Climbed]:
    """Draw images on the workers of a Ray cluster; see :data:`agnostic.visualization.pictures.Climb`.

    Args:
        model: a native model, which is sent to every worker once.
        objective: of some of the items.
        items: one for each image.
        options, settings: of the ascent. A worker says nothing of its steps: progress goes on by whole images.
        count, address: see :func:`agnostic.cluster.workers`.

    Yields:
        Some of the images as soon as they, and all before them, are finished.
    """
    own = replace(settings, on_step=None, on_images=None)
    with workers(partial(_Climber, objective=objective), (model, options, own), count, address) as pool:
        groups = _groups(list(items), pool.count * _TASKS_EACH)
        first = 0
        for found in pool.results(Task(f"the ascents of {counted(len(x), 'image')}", x) for x in groups):
            last = first
            for climbed in found:
                last = first + climbed.images.stop
                if settings.on_step is not None:
                    settings.on_step(len(climbed.scores) * len(climbed.images))
                yield replace(climbed, images=range(first + climbed.images.start, last))
            first = last


def _groups(items: list[str], most: int) -> Iterator[list[str]]:
    """The items in groups of nearly one length, of two at least: a lone image has other bits than among others."""
    count = max(1, min(most, len(items) // 2))
    borders = [len(items) * i // count for i in range(count + 1)]
    return (items[a:b] for a, b in itertools.pairwise(borders))


class _Climber:
    """Holds the model in a worker."""

    def __init__(
        self, model: Model, options: Options, settings: Settings, *, objective: Callable[[Sequence[str]], Objective]
    ) -> None:
        self._model, self._options, self._settings, self._objective = model, options, settings, objective

    def __call__(self, items: Sequence[str]) -> list[Climbed]:
        backend, ascent = prepare(self._model, self._objective(items), self._options)
        found: Any = backend[ASCENT].ascend(self._model, ascent, self._settings)
        return list(found)
