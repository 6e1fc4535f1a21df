"""The torch backend passes the kit that everybody's backend passes."""

from __future__ import annotations

import pytest

from agnostic.testing import Subject, run

torch = pytest.importorskip("torch")


def test_conforms() -> None:

    def make() -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = torch.nn.Sequential()
            model.add_module("conv", torch.nn.Conv2d(3, 5, 3, padding=1))
            model.add_module("tanh", torch.nn.Tanh())
            model.add_module("last", torch.nn.Conv2d(5, 4, 3, padding=1))
            return model.eval()

    failures = run(Subject("torch", make, layer="conv", recipes=("classic", "fourier", "jitter", "maco")))
    assert not failures, "\n".join(failures)
