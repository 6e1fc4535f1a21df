"""The notebooks run, and their outputs can be shown. No Jupyter is needed: a cell is code whose last value is shown.

The one with Keras runs with the pages that have code for Keras: tests/pages_keras_checks.py.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"


def run(notebook: Path) -> list[Any]:
    """Run the cells of a notebook in one namespace.

    Returns:
        What a notebook would show: the value of each cell that ends in an expression.
    """
    names: dict[str, Any] = {}
    shown = []
    for cell in json.loads(notebook.read_text("utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, notebook.name, "exec"), names)  # noqa: S102 - the notebook's own code
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), notebook.name, "eval"), names))  # noqa: S307 - the same
    return shown


def checked(shown: list[Any]) -> None:
    for value in shown:
        assert 0 < len(repr(value)) < 500, type(value)
        page = value._repr_html_() if hasattr(type(value), "_repr_html_") else None
        assert page is None or page.strip().startswith("<div")


def test_every_notebook_is_tested_here() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == {"see-inside", "swap-frameworks", "cross-check"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["see-inside", "cross-check"])
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        shown = run(NOTEBOOKS / f"{name}.ipynb")
    checked(shown)
    if name == "see-inside":
        kinds = [type(value).__name__ for value in shown]
        assert kinds == ["Layers", "Activations", "Images", "Images", "ndarray", "Images"]
        assert shown[3]._repr_png_().startswith(b"\x89PNG")
    else:
        found, diagnosis, again, same = shown
        assert (found.same, diagnosis.mistake, again.same, same) == (False, "batch_norm_epsilon", True, True)


@pytest.mark.parametrize("notebook", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(notebook: Path) -> None:
    for cell in json.loads(notebook.read_text("utf-8"))["cells"]:
        assert not cell.get("outputs"), "outputs grow the history: clear them"
        assert cell.get("execution_count") is None
