"""Every block of code in docs/differences runs, and every number in it is what is measured."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agnostic.cli import main
from agnostic.optimizers.differences import markdown, pairs

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "differences"
PAGES = sorted(GUIDE.glob("*.md"))
BLOCK = re.compile(r"```python\n# (PyTorch|Keras)\n(.*?)```", re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("title", "engine"), [("PyTorch", "torch"), ("Keras", "torch"), ("Keras", "jax"), ("Keras", "tensorflow")]
)
def test_the_code_of_every_page_runs(title: str, engine: str, tmp_path: Path) -> None:
    for module in (engine, *["keras"] * (title == "Keras")):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    # One process for all pages, each with names of its own: importing a framework takes longer than all of them.
    program = ""
    for page in (*PAGES, ROOT / "docs" / "optimizers.md"):
        blocks = [code for owner, code in BLOCK.findall(page.read_text()) if owner == title]
        assert blocks or page in (GUIDE / "README.md", GUIDE / "optimizers.md"), f"{page.name} has no code for {title}"
        code = "".join(blocks)
        program += f"print({page.name!r}, flush=True)\nexec(compile({code!r}, {page.name!r}, 'exec'), {{}})\n"
    (tmp_path / "program.py").write_text(program)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "backends")])
    environment = {**os.environ, "PYTHONPATH": paths, "KERAS_BACKEND": engine, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(tmp_path / "program.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


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
