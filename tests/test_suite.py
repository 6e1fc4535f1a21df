"""The suite itself: what runs test files elsewhere notices that nothing ran, and no test measures time."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import run_apart
from tests.schedule import scope

TESTS = Path(__file__).parent


def test_files_without_a_test_are_a_failure(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("def test_one():\n    assert True\n")
    (tmp_path / "test_nothing.py").write_text("value = 1\n")
    (tmp_path / "test_skipped.py").write_text("import pytest\n\n\n@pytest.mark.skip\ndef test_it():\n    pass\n")
    with pytest.raises(AssertionError, match=r"no test passed in \S+test_nothing\.py, \S+test_skipped\.py"):
        run_apart(*sorted(tmp_path.glob("test_*.py")))
    run_apart(tmp_path / "test_one.py")


def test_a_failure_elsewhere_is_shown(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("def test_one():\n    assert 'mangold' == 'leek'\n")
    with pytest.raises(AssertionError, match="mangold"):
        run_apart(tmp_path / "test_one.py")


def test_a_worker_is_given_whole_files_and_all_tests_of_an_engine() -> None:
    assert len({scope(f"tests/{x}") for x in ("test_files.py::test_a", "test_files.py::test_b[jax]")}) == 1
    engines = ("keras/test_engines.py::test_engine[jax]", "gradients/test_gradients.py::test_on_engine[keras-jax]")
    assert len({scope(f"tests/{x}") for x in engines}) == 1
    assert scope(f"tests/{engines[0]}") != scope("tests/keras/test_engines.py::test_engine[torch]")


def limits(code: str) -> Iterator[str]:
    """Limits of time that a slow machine reaches: numbers of seconds that are written where HANG should stand."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        pairs: list[tuple[object, ast.expr]] = []
        if isinstance(node, ast.Call):
            pairs = [(keyword.arg, keyword.value) for keyword in node.keywords]
            waits = isinstance(node.func, ast.Attribute) and node.func.attr in ("wait", "join")
            pairs += [("timeout", x) for x in node.args[:1] if waits and isinstance(x, ast.Constant)]
        elif isinstance(node, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
            pairs = list(zip(keys, node.values, strict=True))
        for name, value in pairs:
            numbers = [
                x.value for x in ast.walk(value) if isinstance(x, ast.Constant) and type(x.value) in (int, float)
            ]
            if name == "timeout" and any(numbers):
                yield f"line {node.lineno}: timeout {ast.unparse(value)}"
    # What is ended by a test must not end by itself before.
    for seconds in re.findall(r"\bsleep\((\d+)\)", code):
        if 3 < int(seconds) < 3000:
            yield f"sleep({seconds})"


@pytest.mark.parametrize(
    "path", sorted({*TESTS.rglob("*.py")} - {Path(__file__)}), ids=lambda path: str(path.relative_to(TESTS))
)
def test_limits_of_time_are_for_hangs(path: Path) -> None:
    assert list(limits(path.read_text())) == [], "use HANG of tests/waiting.py"


def test_a_limit_that_a_slow_machine_reaches_is_found() -> None:
    code = "p.wait(60)\nrun(x, timeout=290)\nload({'timeout': 60 if x else 0})\ntime.sleep(60)\n", "', '.join(x)"
    assert [len(list(limits(x))) for x in code] == [4, 0]
    assert list(limits("run(x, timeout=HANG if x else 0)")) == []
