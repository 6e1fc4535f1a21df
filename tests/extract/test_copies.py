"""Copies to and from a device: with a stub in its place, since the tests run where there may be none."""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agnostic as ag
from tests.extract.killing import content

torch = pytest.importorskip("torch")
pytest.importorskip("zarr")
IMAGES = np.random.default_rng(0).integers(0, 256, (22, 8, 8, 3), np.uint8)
ARGUMENTS: dict[str, Any] = {
    "reduce": ["values", "mean", "max", "histogram", "covariance"], "top": 3, "batch_size": 4, "shard": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv, head = torch.nn.Conv2d(3, 4, 3), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4 * 6 * 6, 5))
        return torch.nn.Sequential(conv, torch.nn.ReLU(), head).eval()


def test_numbers_are_waited_for_one_batch_behind(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agnostic_torch import copies

    ag.extract(model, IMAGES, ["0", "2"], tmp_path / "here.zarr", **ARGUMENTS)
    events, numbers, fetching = list[tuple[str, int]](), iter(range(100)), copies.fetching

    def noted(arrays: Sequence[Any]) -> Callable[[], Any]:
        number, fetched = next(numbers), fetching(arrays)
        events.append(("begun", number))
        return lambda: [events.append(("waited", number)), fetched()][1]

    monkeypatch.setattr(copies, "fetching", noted)
    monkeypatch.setattr(sys.modules["agnostic.extract.parts"], "in_main_memory", lambda x: False)
    ag.extract(model, IMAGES, ["0", "2"], tmp_path / "there.zarr", **ARGUMENTS)
    # Six batches, also over the borders of parts; the last one has nothing after it.
    between = [step for n in range(5) for step in (("begun", n + 1), ("waited", n))]
    assert events == [("begun", 0), *between, ("waited", 5)]
    assert content(tmp_path / "there.zarr") == content(tmp_path / "here.zarr")


@pytest.mark.parametrize("here", [True, False])
def test_a_batch_that_fails_loses_no_part_before_it(
    here: bool, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def __len__(self) -> int:
            return len(IMAGES)

        def __getitem__(self, index: int) -> Any:
            if index == 17:
                raise OSError("the disk is gone")
            return IMAGES[index]

    monkeypatch.setattr(sys.modules["agnostic.extract.parts"], "in_main_memory", lambda x: here)
    with pytest.raises(OSError, match="the disk is gone"):
        ag.extract(model, Failing(), ["0"], tmp_path / "a.zarr", **ARGUMENTS)
    assert ag.taps.open(tmp_path / "a.zarr").done == 16


def test_the_inputs_of_a_batch_are_let_go_once_its_numbers_are_there(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agnostic_torch import copies

    inputs, alive = list[Any](), list[int]()

    def noted(model: Any, batch: Any) -> Any:
        found = batch.copy()
        inputs.append(weakref.ref(found))
        alive.append(sum(x() is not None for x in inputs))
        return found

    monkeypatch.setattr(copies, "staged", noted)
    monkeypatch.setattr(sys.modules["agnostic.extract.parts"], "in_main_memory", lambda x: False)
    ag.extract(
        model, np.repeat(IMAGES, 4, 0), ["0"], tmp_path / "a.zarr", reduce="mean", batch_size=2, shard=88, workers=1
    )
    # 44 batches of one part: one is read, two wait, one is given out, one computes, and one is waited for.
    assert len(alive) > 40
    assert max(alive) <= 6


def test_on_a_processor_outputs_are_let_go_before_the_next_batch(model: Any, tmp_path: Path) -> None:
    outputs, alive = list[Any](), list[int]()

    def noted(module: Any, inputs: Any) -> None:
        alive.append(sum(x() is not None for x in outputs))

    with contextlib.ExitStack() as stack:
        for hook in (
            model.register_forward_pre_hook(noted),
            model[0].register_forward_hook(lambda module, inputs, output: outputs.append(weakref.ref(output))),
        ):
            stack.callback(hook.remove)
        ag.extract(model, IMAGES, ["0"], tmp_path / "a.zarr", **ARGUMENTS)
    assert len(outputs) > 5
    assert max(alive) == 0


class Streams:
    """In the place of torch.cuda: a copy that the processor does not wait for is made when its event is waited for."""

    def __init__(self) -> None:
        self.current, self.said, self.late = "computing", list[tuple[str, ...]](), list[Callable[[], Any]]()

    def patch(self, patch: pytest.MonkeyPatch, copies: Any) -> None:
        patch.setattr(copies, "_gpu", lambda model: torch.device("cpu"))
        patch.setattr(copies, "_is_on_gpu", lambda x: True)
        patch.setattr(copies, "_stream", lambda device, direction: Stream(self, direction))
        patch.setattr(torch.cuda, "current_stream", lambda device: Stream(self, self.current))
        patch.setattr(torch.cuda, "stream", self.stream)
        patch.setattr(torch.cuda, "Event", lambda: self)
        for name in ("empty", "empty_like"):
            patch.setattr(torch, name, self.pinned(getattr(torch, name)))
        patch.setattr(torch.Tensor, "record_stream", lambda x, stream: self.said.append(("read in", stream.name)))
        patch.setattr(torch.Tensor, "copy_", self.copied(torch.Tensor.copy_))

    @contextlib.contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream.name
        yield
        self.current = before

    def pinned(self, make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any, pin_memory: bool, **kwargs: Any) -> Any:
            assert pin_memory
            return make(*args, **kwargs)

        return made

    def copied(self, copy: Callable[..., Any]) -> Callable[..., Any]:
        def later(x: Any, other: Any, non_blocking: bool = False) -> None:
            assert non_blocking
            self.said.append(("copied in", self.current))
            self.late.append(lambda: copy(x, other))

        return later

    def record(self, stream: Any) -> None:
        self.said.append(("event after", stream.name))

    def synchronize(self) -> None:
        while self.late:
            self.late.pop(0)()


class Stream:
    def __init__(self, streams: Streams, name: str) -> None:
        self.streams, self.name = streams, name

    def wait_stream(self, other: Any) -> None:
        self.streams.said.append((self.name, "after", other.name))


def test_copies_have_streams_of_their_own(model: Any) -> None:
    from agnostic_torch import copies

    streams, batch = Streams(), np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(0, 2, 1)
    with pytest.MonkeyPatch.context() as patch:
        streams.patch(patch, copies)
        host = copies.staged(model, batch)
        inputs = copies.sent(model, lambda: torch.from_numpy(host) + (0 if streams.current == "in" else np.nan))
        # What comes from the device may be in any order of memory, and in a type that NumPy has not.
        fetched = copies.fetching([inputs.permute(1, 2, 0), inputs.bfloat16()])
        found = fetched()
    np.testing.assert_array_equal(host, batch)
    np.testing.assert_array_equal(found[0], batch.transpose(1, 2, 0))
    np.testing.assert_array_equal(found[1], batch)
    assert streams.said == [
        ("computing", "after", "in"),
        ("read in", "computing"),
        *[("out", "after", "computing"), ("copied in", "out"), ("read in", "out")] * 2,
        ("event after", "out"),
    ]
