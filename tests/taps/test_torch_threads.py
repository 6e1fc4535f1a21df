"""Two threads, or two contexts, with one PyTorch model."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import nn

import agnostic as ag
from tests.waiting import HANG


class Meeting(nn.Module):
    """Its calls in two threads wait for each other, so that both are inside at once."""

    def __init__(self) -> None:
        super().__init__()
        self.barrier = threading.Barrier(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.barrier.wait(HANG)
        return x


def in_threads(*functions: Callable[[], object]) -> None:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_captures_in_two_threads_leave_the_model_in_its_mode() -> None:
    model = nn.Sequential(nn.Linear(2, 2), Meeting(), nn.Dropout())
    model[0].eval()
    modes = [module.training for module in model.modules()]
    x = torch.ones(1, 2)
    in_threads(*[lambda: ag.capture(model, x, "0")] * 2)
    assert [module.training for module in model.modules()] == modes


def test_a_model_and_a_part_of_it_captured_at_once() -> None:
    part = nn.Sequential(nn.Dropout(), Meeting(), nn.Dropout())
    model = nn.Sequential(part, nn.Dropout())
    x, found = torch.ones(1, 64), []
    ended = threading.Event()

    def outer() -> None:
        ag.capture(model, x, "1")
        ended.set()

    class Late(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            ended.wait(HANG)
            return x

    inner = nn.Sequential(part, Late(), nn.Dropout(0.9))

    in_threads(outer, lambda: found.append(ag.capture(inner, x, "2")["2"]))
    # The part was in evaluation mode to the end, though the model around it had been given its mode back.
    torch.testing.assert_close(found[0], x, rtol=0, atol=0)
    assert all(module.training for module in (*model.modules(), *inner.modules()))


def test_calls_of_other_threads_are_not_recorded() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with ag.watch(model, "0", nonfinite="raise") as record, ag.watch(model, "0", detach=True) as detached:
        model(torch.ones(1, 2))
        in_threads(lambda: model(torch.full((3, 2), torch.nan)))
    assert [len(record.calls("0")), len(detached.calls("0"))] == [1, 1]


def test_guards_that_overlap_end_in_any_order() -> None:
    scale = torch.amp.GradScaler.scale
    model = nn.Sequential(nn.Linear(2, 2))
    first, second = (ag.watch(model, nonfinite="raise") for _ in range(2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert torch.amp.GradScaler.scale is scale
    assert torch.backends.mha.get_fastpath_enabled()
    model(torch.full((1, 2), torch.nan))


def test_a_guard_that_begins_in_a_recorded_model_and_ends_after_it() -> None:
    guard, begun = ag.watch(nn.Linear(2, 2), nonfinite="raise"), []

    class Beginning(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not begun:
                begun.append(guard.__enter__())
            return x + 1

    assert ag.compare(Beginning(), Beginning(), torch.ones(1, 2)).same
    assert not torch.backends.mha.get_fastpath_enabled()
    guard.__exit__(None, None, None)
    assert torch.backends.mha.get_fastpath_enabled()
