"""Models that are written differently, or look alike inside: the verdict of a transfer is right for each."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engines import call_on_engine

pytest.importorskip("torch")
TEXT = (Path(__file__).parent / "alike.py").read_text()
CASES = {name: not what for what, name in re.findall(r"^@case\((same=False)?\)\ndef (\w+)", TEXT, re.M)}


@pytest.fixture(scope="module")
def results() -> Callable[[], dict[str, Any]]:
    """What was found, by case."""
    return functools.cache(lambda: call_on_engine("torch", "tests.transfer.alike:results"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_verdict_is_right(results: Callable[[], dict[str, Any]], name: str) -> None:
    verified, text = results()[name]
    assert verified is CASES[name], text
