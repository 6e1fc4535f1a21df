"""The code for Keras in the documentation; tests/test_docs_pages.py runs this on one engine, in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import test_notebooks
from tests.test_docs_pages import PAGES, blocks, make_photos, run


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "Keras")], ids=lambda page: page.stem)
def test_the_code_for_keras_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    run(page, blocks(page, "Keras"))


def test_the_notebook_with_keras_runs() -> None:
    shown = test_notebooks.run(test_notebooks.NOTEBOOKS / "swap-frameworks.ipynb")
    test_notebooks.checked(shown)
    report, verified, snapshot, same = shown
    assert report.verified
    assert verified
    assert "momentum" in repr(snapshot)
    assert same
