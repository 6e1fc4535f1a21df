"""Runs gradient_checks.py and guard_checks.py on each backend and engine, each in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines import run_on_engine

CHECKS = [Path(__file__).with_name(name) for name in ("gradient_checks.py", "guard_checks.py")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "engine"), [("torch", "torch"), ("keras", "torch"), ("keras", "jax"), ("keras", "tensorflow")]
)
def test_on_engine(backend: str, engine: str) -> None:
    run_on_engine(engine, *CHECKS, needs=(backend,), variables={"AGNOSTIC_BACKEND": backend})
