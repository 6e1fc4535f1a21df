"""Batches of samples, read and prepared ahead in threads, in their order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.errors import InvalidInput
from agnostic.extract.inputs import Preparation
from agnostic.extract.samples import Sample, SampleSource, label_or_none, stored_name
from agnostic.text import counted

_AHEAD = 2
"""Batches that wait, beside those that are being read."""


@dataclass(frozen=True)
class ReadBatch:
    """A batch.

    Attributes:
        start: position of the first sample.
        names, labels, problems: of the samples; a problem says why a sample could not be read, and is else empty.
        inputs: of the model, in NumPy; blank rows for samples that could not be read.
    """

    start: int
    names: list[str]
    labels: list[int]
    problems: list[str]
    inputs: npt.NDArray[Any]

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """Whether each sample could be read."""
        return np.array([not x for x in self.problems])


def read_batch(samples: SampleSource, preparation: Preparation, start: int, stop: int) -> ReadBatch:
    """The samples from ``start`` to ``stop`` of a data set that is read by position."""
    assert samples.read is not None
    if samples.rows is not None:
        values, labels = samples.rows(start, stop)
        inputs = preparation.rows(values)
        if inputs is not None:
            names = [samples.name(index) for index in range(start, stop)]
            return ReadBatch(start, names, labels, [""] * len(names), inputs)
    found: list[tuple[str, Sample | None, str]] = []
    for index in range(start, stop):
        try:
            sample = samples.read(index)
            found.append((sample.name, sample, ""))
        except InvalidInput as error:
            found.append((samples.name(index), None, str(error)))
    return _prepared(preparation, start, found)


def _prepared(preparation: Preparation, start: int, found: list[tuple[str, Sample | None, str]]) -> ReadBatch:
    rows, problems, labels = [], [], []
    for _, sample, problem in found:
        row = None
        if sample is not None:
            try:
                row = preparation.row(sample)
            except InvalidInput as error:
                if preparation.form is None:
                    raise
                problem = str(error)
        rows.append(preparation.blank() if row is None else row)
        problems.append(problem)
        labels.append(label_or_none(None if sample is None else sample.label))
    names = [stored_name(name) for name, _, _ in found]
    return ReadBatch(start, names, labels, list(map(stored_name, problems)), preparation.batch(rows))


def batches(
    samples: SampleSource,
    preparation: Preparation,
    start: int,
    size: int,
    workers: int,
    staged: Callable[[ReadBatch], ReadBatch] = lambda batch: batch,
    stop: int | None = None,
) -> Generator[ReadBatch]:
    """The batches of a data set from a position on, read ahead in threads that end with the iterator.

    Args:
        start: position of the first sample.
        size: samples in a batch; the last has fewer.
        workers: threads that read; a data set that is read one after the other has one.
        staged: what the threads do last with a batch.
        stop: position after the last sample of a data set that is read by position; None: the end.
    """
    if samples.read is not None:
        assert samples.count is not None
        count = samples.count if stop is None else stop
        tasks: Iterator[Callable[[], ReadBatch | None]] = (
            partial(read_batch, samples, preparation, first, min(first + size, count))
            for first in range(start, count, size)
        )
    else:
        tasks, workers = itertools.repeat(_taking(samples, preparation, start, size)), 1
    pool = ThreadPoolExecutor(workers, thread_name_prefix="agnostic-reading")
    waiting: deque[Future[ReadBatch | None]] = deque()
    try:
        while True:
            while len(waiting) < workers + _AHEAD and (task := next(tasks, None)) is not None:
                waiting.append(pool.submit(_staged, task, staged))
            if not waiting or (batch := waiting.popleft().result()) is None:
                return
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _staged(task: Callable[[], ReadBatch | None], staged: Callable[[ReadBatch], ReadBatch]) -> ReadBatch | None:
    batch = task()
    return None if batch is None else staged(batch)


def _taking(samples: SampleSource, preparation: Preparation, start: int, size: int) -> Callable[[], ReadBatch | None]:
    """A function that takes the next batch of a data set that is read one after the other; None at its end."""
    assert samples.iterate is not None
    coming = itertools.islice(samples.iterate(), start, None)
    position = itertools.count(start, size)

    def take() -> ReadBatch | None:
        found = list(itertools.islice(coming, size))
        if not found:
            return None
        return _prepared(preparation, next(position), [(x.name, x, "") for x in found])

    return take


def first_batch(samples: SampleSource, preparation: Preparation, size: int) -> ReadBatch:
    """The samples from the first on, as :func:`batches` gives them."""
    if samples.read is not None:
        return read_batch(samples, preparation, 0, sized_batch(samples, size))
    found = _taking(samples, preparation, 0, size)()
    assert found is not None, "there is a first sample"
    return found


def first_sample(samples: SampleSource) -> Sample:
    """The first sample that can be read.

    Raises:
        InvalidInput: none can.
    """
    if samples.read is None:
        assert samples.first is not None
        return samples.first
    problem: InvalidInput | None = None
    for index in range(samples.count or 0):
        try:
            return samples.read(index)
        except InvalidInput as error:
            problem = problem or error
    if samples.count == 1 and problem is not None:
        raise problem
    raise InvalidInput(f"none of {counted(samples.count or 0, 'sample')} can be read: {problem}")


def sized_batch(samples: SampleSource, size: int) -> int:
    """A batch is no larger than the data set."""
    return size if samples.count is None else min(size, samples.count)
