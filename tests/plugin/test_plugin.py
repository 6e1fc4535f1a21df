"""A third party's backend, installed from its own pyproject, is found by its entry point and passes the kit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

SCRIPT = """
import dataclasses
import agnostic as ag
from agnostic import registry
from agnostic.testing import Subject, run
assert "tiny" in registry.registrations(), list(registry.registrations())
import agnostic_tiny
from agnostic_tiny import backend
from agnostic_tiny.backend import Tiny
assert "site" in agnostic_tiny.__file__, agnostic_tiny.__file__
assert ag.backend_of(Tiny()).name == "tiny"
subject = Subject(lambda: registry.get_backend("tiny"), Tiny, layer="conv", recipes=("classic",))
failures = run(subject)
assert not failures, failures
try:
    ag.visualize(Tiny(), ag.objectives.logit(1), size=8, steps=1)
except ag.InvalidInput as error:
    assert "no other" in str(error)

right = backend.set_weights
backend.set_weights = lambda model, values: None
wrong = run(subject)
assert len(wrong) == 1 and "set_weights" in wrong[0], wrong
backend.set_weights = right
del backend.capture
(missing,) = run(subject)
assert "'capture'" in missing and "Activations" in missing, missing
print("conforms")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(HERE, folder / "source", ignore=shutil.ignore_patterns("__pycache__", "test_*"))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet",
         "--target", str(folder / "site"), str(folder / "source")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_it_is_found_and_conforms(site: Path) -> None:
    path = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'backends')!r}, {str(site)!r}]\n"
    done = subprocess.run([sys.executable, "-c", path + SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("conforms")


def test_it_is_short() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in (HERE / "agnostic_tiny").glob("*.py"))
    assert lines < 400
