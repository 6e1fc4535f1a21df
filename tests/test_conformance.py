"""The torch backend passes the kit that everybody's backend passes."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agnostic.testing import Subject, run

torch = pytest.importorskip("torch")


class Aged(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.age, self.conv = torch.nn.Conv2d(3, 5, 3), torch.nn.Linear(2, 5), torch.nn.Conv2d(5, 4, 3)

    def forward(self, image: Any, age: Any) -> Any:
        return self.conv(self.image(image).tanh() * self.age(age)[:, :, None, None])


class Named(torch.nn.Sequential):
    def __init__(self) -> None:
        super().__init__(OrderedDict(conv=torch.nn.Conv2d(3, 5, 3)))


def several() -> tuple[torch.nn.Module, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Aged().eval(), {"age": np.array([[0.5, -1.0]])}


def test_conforms() -> None:

    def make() -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = torch.nn.Sequential()
            model.add_module("conv", torch.nn.Conv2d(3, 5, 3, padding=1))
            model.add_module("tanh", torch.nn.Tanh())
            model.add_module("last", torch.nn.Conv2d(5, 4, 3, padding=1))
            return model.eval()

    failures = run(
        Subject("torch", make, layer="conv", recipes=("classic", "fourier", "jitter", "maco"), several=several)
    )
    assert not failures, "\n".join(failures)


def _same_rows(right: Any) -> Any:
    def ascend(model: Any, ascent: Any, settings: Any) -> Any:
        others = tuple(np.repeat(x[:1], len(x), axis=0) for x in ascent.call.others)
        return right(model, replace(ascent, call=replace(ascent.call, others=others)), settings)

    return ascend


def _zeros(right: Any) -> Any:
    def ascend(model: Any, ascent: Any, settings: Any) -> Any:
        others = tuple(np.zeros_like(x) for x in ascent.call.others)
        return right(model, replace(ascent, call=replace(ascent.call, others=others)), settings)

    return ascend


def _parts(made: Any) -> Any:
    return lambda right: lambda *given: (replace(x, parts=made(x)) for x in right(*given))


WRONG = {
    "other inputs are zeros": (_zeros, "other_inputs_are_given: other values of the other inputs change nothing"),
    "one row for all": (_same_rows, "other_inputs_are_given: inputs with a row for each image do not give"),
    "no parts": (_parts(lambda x: None), "silent_parts_are_told: .*Climbed.parts is None"),
    "parts of the whole": (
        _parts(lambda x: np.repeat(x.reached[:, None], 2, axis=1)), r"silent_parts_are_told: .*not \[True, False\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_backend_that_leaves_inputs_or_parts_out_is_told(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import agnostic_torch.ascent

    change, said = WRONG[wrong]
    monkeypatch.setattr(agnostic_torch.ascent, "ascend", change(agnostic_torch.ascent.ascend))
    subject = Subject("torch", lambda: Named().eval(), layer="conv", recipes=(), several=several)
    (failure,) = run(subject, ["ascent"])
    assert re.search(said, failure)
    assert "'ascend' must return" in failure
