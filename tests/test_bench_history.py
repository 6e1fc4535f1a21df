"""Records of benchmarks, and the command that prints the last against the first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "scripts" / "bench"


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """A copy of the two scripts, so that the records go to a folder of the test."""
    for name in ("report.py", "history.py"):
        (tmp_path / name).write_text((BENCH / name).read_text())
    return tmp_path


def run(bench: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=bench, capture_output=True, text=True, check=False)


def test_a_record_says_what_the_numbers_depend_on_and_the_last_is_printed_against_the_first(bench: Path) -> None:
    for milliseconds in (8.0, 2.0):
        case = f"spread([{milliseconds}] * 3, 'ms', over=4.0)"
        done = run(bench, "-c", f"from report import *; keep('toy', {{'ours': {case}}}, None, rounds=3)")
        assert done.returncode == 0, done.stderr
        [path] = [p for p in (bench / "history" / "toy").iterdir() if not p.name.startswith("seen")]
        record = json.loads(path.read_text())
        assert record["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
        assert record["processor"]
        assert record["load"] >= 0
        record["when"] = f"2026-01-0{1 if milliseconds == 8 else 2}T00:00:00+00:00"
        path.rename(bench / "history" / "toy" / f"seen-{milliseconds}.json").write_text(json.dumps(record))
    printed = run(bench, "history.py", "toy").stdout
    row = next(line for line in printed.splitlines() if line.startswith("ours"))
    assert row.split() == ["ours", "8", "2", "0.25", "2.00", "->", "0.50", "ms"]


def test_an_unknown_benchmark_is_one_sentence(bench: Path) -> None:
    done = run(bench, "history.py", "toy")
    assert done.returncode == 2
    assert "no record of toy" in done.stderr


@pytest.mark.parametrize("name", sorted(path.name for path in (BENCH / "history").iterdir()))
def test_the_last_record_of_each_benchmark_is_printed_against_the_first(name: str) -> None:
    assert (BENCH / f"{name}.py").is_file(), "a folder of the history has its benchmark's name"
    done = subprocess.run([sys.executable, BENCH / "history.py", name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"\n{name} " in done.stdout
    for path in (BENCH / "history" / name).glob("*.json"):
        record = json.loads(path.read_text())
        assert {"python", "numpy"} <= record["versions"].keys()
        assert record["processor"]
        assert record["cases"]


def test_one_round_is_a_record_as_well(bench: Path) -> None:
    done = run(bench, "-c", "from report import *; print(quartiles([2.0]), spread([2.0], 'ms')['quartiles'])")
    assert done.stdout.split("\n")[0] == "(2.0, 2.0, 2.0) [2.0, 2.0]", done.stderr
