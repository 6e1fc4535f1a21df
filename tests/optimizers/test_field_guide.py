"""Every block of code in docs/differences runs, and every number in it is what is measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from agnostic.cli import main
from agnostic.optimizers.differences import markdown, pairs
from tests.engines import call_on_engine

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "differences"
PAGES = sorted(GUIDE.glob("*.md"))
BLOCK = re.compile(r"```python\n# (PyTorch|Keras)\n(.*?)```", re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("title", "engine"), [("PyTorch", "torch"), ("Keras", "torch"), ("Keras", "jax"), ("Keras", "tensorflow")]
)
def test_the_code_of_every_page_runs(title: str, engine: str) -> None:
    pages = {}
    for page in (*PAGES, ROOT / "docs" / "optimizers.md"):
        blocks = [code for owner, code in BLOCK.findall(page.read_text()) if owner == title]
        assert blocks or page in (GUIDE / "README.md", GUIDE / "optimizers.md"), f"{page.name} has no code for {title}"
        pages[page.name] = "".join(blocks)
    if title == "PyTorch":
        run_pages(json.dumps(pages))
    else:
        call_on_engine(engine, "tests.optimizers.test_field_guide:run_pages", json.dumps(pages))


def run_pages(pages: str) -> None:
    """Run the code of pages, given as JSON by the page's name, each with names of its own."""
    for page, code in json.loads(pages).items():
        exec(compile(code, page, "exec"), {})  # noqa: S102 - the page's own code


def test_the_table_is_what_is_measured() -> None:
    assert (GUIDE / "optimizers.md").read_text().endswith("\n" + markdown())


def test_every_picture_is_shown_and_every_one_that_is_shown_is_there() -> None:
    shown = {name for page in PAGES for name in re.findall(r"!\[[^\]]+\]\(([\w-]+\.png)\)", page.read_text())}
    assert shown == {path.name for path in GUIDE.glob("*.png")}


def test_all_pages_are_in_the_index() -> None:
    index = (GUIDE / "README.md").read_text()
    assert {f"({page.name})" for page in PAGES if page.stem != "README"} == set(re.findall(r"\([\w-]+\.md\)", index))


def test_what_differs_alone_differs_together_and_what_does_not_is_native() -> None:
    for pair in pairs():
        if pair.torch and pair.keras and pair.kind != "Muon":
            assert bool(pair.terms) == (pair.size > 0)
            assert pair.terms == () or pair.exact_in_keras != "native"


def test_the_command_prints_whole_names_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["optimizers"]) == 0
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 80
    # The size of a difference stands in the line of what differs.
    assert re.search(r"initial_accumulator +0\.0 +0\.1 +default", printed)
    assert re.search(r"momentum_decay +0\.004 +1\.0 +\de-0\d", printed)


def test_the_command_prints_the_table_and_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimizers", "RMSprop"]) == 0
    assert "inside" in capsys.readouterr().out
    assert main(["optimizers", "Adm"]) == 2
    assert "did you mean 'Adam'" in capsys.readouterr().err
    assert main(["optimizers", "SGD", "--json"]) == 0
    assert '"convention"' in capsys.readouterr().out
