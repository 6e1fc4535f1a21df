"""A third party's backend, installed from its own pyproject, is found by its entry point and can do everything."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines import run_apart

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGE = HERE / "agnostic_tiny"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(
        HERE, folder / "source", ignore=shutil.ignore_patterns("__pycache__", "*.py[co]", "test_*", "checks*")
    )
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet",
         "--target", str(folder / "site"), str(folder / "source")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_it_is_found_and_can_do_all(site: Path) -> None:
    run_apart(HERE / "checks.py", variables={"PYTHONPATH": str(site)})


def test_it_is_short() -> None:
    # Lines of code: a statement that is wrapped is one; blank lines, docstrings and imports are none.
    assert sum(_lines(path) for path in PACKAGE.glob("*.py")) < 400


def _lines(path: Path) -> int:
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.stmt)]
    texts = sum(isinstance(x, ast.Expr) and isinstance(x.value, ast.Constant) for x in nodes)
    return len({x.lineno for x in nodes}) - texts - sum(isinstance(x, ast.Import | ast.ImportFrom) for x in nodes)


def test_the_page_shows_its_code() -> None:
    shown = re.findall(r"^```python( test)?\n(.*?)^```$", (ROOT / "docs" / "backends.md").read_text(), re.M | re.S)
    assert len(shown) > 10
    package = "\n".join(path.read_text() for path in sorted(PACKAGE.glob("*.py")))
    for test, code in shown:
        assert _bare(code) in _bare((HERE / "checks.py").read_text() if test else package), code


def _bare(code: str) -> str:
    """Code without its indentation and wrapping, which a formatter changes where a method is shown alone."""
    return "".join(code.split()).replace(",)", ")")
