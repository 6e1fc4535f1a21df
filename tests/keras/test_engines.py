"""The tests of the folder ``engine``, on each engine of Keras, each in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines import ENGINES, run_on_engine

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_engine(engine: str) -> None:
    run_on_engine(engine, *sorted((HERE / "engine").glob("test_*.py")), variables={"AGNOSTIC_TEST_ENGINE": engine})
