"""Rows of the table of pictures' quality: what was drawn is what the row says."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
BENCH = Path(__file__).parents[1] / "scripts" / "bench"


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    import quality

    return quality


def test_a_row_has_its_steps_once(quality: Any) -> None:
    assert [quality.row(x) for x in ("fourier:128", "torch-lucent:256", "torch-lucent own")] == [
        ("fourier", 128), ("torch-lucent", 256), ("torch-lucent own", 512),
    ]  # fmt: skip
    for text, words in (
        ("fourier", "needs its steps, as in 'fourier:128'"),
        ("torch-dreams:0", "needs its steps"),
        ("torch-lucent own:256", "keeps its own 512 steps"),
        ("x:3", "no recipe or library 'x'"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=words):
            quality.row(text)


@pytest.mark.parametrize("given", [[], ["--venvs", "v", "--network", "lite1"]])
def test_libraries_draw_with_one_network_in_their_environments(
    quality: Any, given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["quality.py", "--row", "torch-dreams:3", *given])
    with pytest.raises(SystemExit):
        quality.main()
    assert "the row 'torch-dreams' needs --venvs, and is drawn with lite0" in capsys.readouterr().err
