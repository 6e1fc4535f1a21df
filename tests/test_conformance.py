"""The torch backend passes the kit that everybody's backend passes."""

from __future__ import annotations

import importlib
import re
import types
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


def _halved(right: Any) -> Any:
    return lambda arrays, folder, name: right({key: x / 2 for key, x in arrays.items()}, folder, name)


def _elsewhere(right: Any) -> Any:
    return lambda arrays, folder, name: right(arrays, folder, "other")


def _all_layers(right: Any) -> Any:
    def run(model: Any, inputs: Any, layers: Any, keep: Any) -> Any:
        return right(model, inputs, [name for name, _ in model.named_modules() if name], keep)

    return run


def _without_attribute(right: Any) -> Any:
    def dialect(channels_first: bool = False) -> Any:
        found = right(channels_first)
        names = [name for name in dir(found) if not name.startswith("_") and name != "helpers"]
        return types.SimpleNamespace(**{name: getattr(found, name) for name in names})

    return dialect


def _doubled(right: Any) -> Any:
    def run(model: Any, inputs: Any, layers: Any, keep: Any) -> Any:
        return right(model, inputs, layers, lambda name, x: keep(name, 2 * x))

    return run


WRONG_PORTS = {
    "weights are other numbers": (
        "writer",
        "write_weights",
        _halved,
        "with the file of 'write_weights', does not compute",
    ),
    "weights have another name": ("writer", "write_weights", _elsewhere, "there is no file 'examined' in the folder"),
    "a dialect lacks a member": ("writer", "dialect", _without_attribute, "the dialect has no helpers"),
    "layers nobody asked for": ("ported", "run", _all_layers, "asked for no layer it told of layers"),
    "layers are other numbers": ("ported", "run", _doubled, "what it says of the layer 'conv' is not what"),
}


@pytest.mark.parametrize("wrong", WRONG_PORTS)
def test_a_backend_whose_ports_are_wrong_is_told(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    capability, member, change, said = WRONG_PORTS[wrong]
    module = importlib.import_module(f"agnostic_torch.{capability}")
    monkeypatch.setattr(module, member, change(getattr(module, member)))
    failures = run(Subject("torch", lambda: Named().eval(), layer="conv"), [capability])
    assert any(said in failure and f"{member!r}" in failure and "must return" in failure for failure in failures), (
        failures
    )


@pytest.mark.parametrize(
    ("capability", "member"), [("writer", "dialect"), ("writer", "write_weights"), ("ported", "run")]
)
def test_a_port_without_a_method_is_told_what_it_must_return(
    capability: str, member: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"agnostic_torch.{capability}")
    monkeypatch.delattr(module, member)
    (failure,) = run(Subject("torch", lambda: Named().eval(), layer="conv"), [capability])
    assert failure.startswith(f"{capability}: {member!r} is missing; it must return ")
