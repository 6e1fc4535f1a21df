"""The file of a trace, and the arithmetic that its noise floors are measured with."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agnostic.compare import noise
from agnostic.compare.traces import Trace, writing
from agnostic.errors import InvalidInput

MODEL = {
    "model": {
        "class": "Net", "spec": None, "backend": "torch", "engine": None, "versions": {}, "training": False,
        "dtype": "float32", "preprocessing": None,
    },
    "inputs": {"kind": "native", "form": "array", "channels_first": False, "given": {"0": "0"}},
    "layers": {"a": {"kind": "other", "config": {}, "weights": {}}},
    "fed": [], "program": None, "reason": "it runs elsewhere", "returned": [],
    "outputs": [{"name": "", "number": 0, "tensor": "0", "dtype": "float32"}],
    "layouts": {}, "learning": {}, "notes": [],
}  # fmt: skip
"""What a trace says of itself, at the least."""


def test_an_array_may_change_once_it_was_added(tmp_path: Path) -> None:
    # A layer behind may work in place, while a thread still writes what the layer before returned.
    rng, path = np.random.default_rng(0), tmp_path / "a.trace"
    arrays = {str(i): rng.normal(size=(3, 1 + 997 * i)).astype(("f4", "f8", ">f4")[i % 3]) for i in range(20)}
    expected = {k: x.copy() for k, x in arrays.items()}
    with writing(path, 1) as (writer, about):
        for k, x in arrays.items():
            writer.add(k, x.T if int(k) % 2 else x)
            x[:] = 0
        early = writer.read("19")
        about.update(MODEL)
    trace = Trace(path)
    for k, x in expected.items():
        np.testing.assert_array_equal(trace.read(k), x.T if int(k) % 2 else x)
    np.testing.assert_array_equal(early, expected["19"].T)


def test_a_full_disk_is_told_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill() -> None:
        with writing(tmp_path / "a.trace", 1) as (writer, about):
            for i in range(10):
                writer.add(str(i), np.ones(1000))
            about.update(MODEL)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(InvalidInput, match="no space left"):
        fill()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("moved", [False, True])
def test_difference_in_blocks(moved: bool) -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(2, 5, 37, 41))
    b = (a + rng.normal(size=a.shape) * 1e-3).astype(np.float32)
    expected = float(np.sqrt(np.mean((a - b) ** 2)))  # in float64, as the difference is
    second = np.ascontiguousarray(np.moveaxis(b, 1, -1)) if moved else b
    assert noise.difference(a, np.moveaxis(second, -1, 1) if moved else b) == pytest.approx(expected, rel=1e-12)


def test_difference_of_the_smallest_and_the_largest() -> None:
    x = np.zeros(20000, np.float32)
    assert noise.difference(x, x) == 0.0
    y = x.copy()
    y[-1] = 1e-30  # its square is none in float32
    assert noise.difference(x, y) == pytest.approx(1e-30 / np.sqrt(x.size), rel=1e-6)
    y[-1] = 1e30
    assert noise.difference(x, y) == pytest.approx(1e30 / np.sqrt(x.size), rel=1e-6)
    y[-1] = np.nan
    assert noise.difference(x, y) == np.inf
    assert noise.difference(y, y) == 0.0
