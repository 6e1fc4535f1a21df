"""What every benchmark records: the machine, the versions, and the numbers, in one form that can be compared later.

A benchmark calls :func:`add_option` and :func:`keep`. Its record goes to ``scripts/bench/history/NAME/`` unless
``--json`` names another file. ``scripts/bench/history.py`` prints the last records against the first ones.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agnostic.files import atomic_path

HISTORY = Path(__file__).parent / "history"
PACKAGES = (
    "numpy", "torch", "torchvision", "timm", "keras", "jax", "tensorflow-cpu", "opencv-python-headless", "pillow",
    "albumentations", "kornia", "nnsight", "torchlens",
)  # fmt: skip
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def processor() -> str:
    """The processor's name, its count, and the vector instructions that matter here."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors"
    known = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    flags = set(known.get("flags", "").split())
    name = known.get("model name", platform.machine()).strip()
    return ", ".join([name, f"{os.cpu_count()} processors", *(x for x in FLAGS if x in flags)])


def versions() -> dict[str, str]:
    """The version of Python and of each package that is installed and may take part."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """The time, the commit (with ``+`` where files differ from it), the processor, its load and the versions."""
    return {
        "when": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "processor": processor(),
        "load": round(os.getloadavg()[0], 1),
        "versions": versions(),
    }


def _commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(HISTORY.parent), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def headline() -> str:
    """The machine and the versions in one line."""
    found = environment()
    return "; ".join([found["processor"], ", ".join(f"{name} {value}" for name, value in found["versions"].items())])


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The quartiles of what each round measured, the median in the middle; three times the one value of one round."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else [*values] * 3
    return low, middle, high


def spread(values: Sequence[float], unit: str, *, over: float | None = None) -> dict[str, Any]:
    """One case of a record.

    Args:
        values: what each round measured, in ``unit``.
        unit: such as ``"ms"``; smaller is better unless the unit says otherwise.
        over: the median of the peer that this case is compared with; the record keeps the ratio to it.
    """
    low, middle, high = quartiles(values)
    found: dict[str, Any] = {"median": middle, "quartiles": [low, high], "unit": unit}
    if over is not None:
        found["ratio"] = middle / over
    return found


def add_option(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark the option ``--json``."""
    parser.add_argument("--json", type=Path, help="the record's file (default: a new one in scripts/bench/history)")


def keep(name: str, cases: Mapping[str, Mapping[str, Any]], path: Path | None, **options: Any) -> Path:
    """Write the record of one run.

    Args:
        name: the benchmark's name, a folder of the history.
        cases: each case as :func:`spread` returns it, or with ``median`` and ``unit`` at least.
        path: where to; None: a new file in the history.
        options: what the run was asked for; runs with other options are not compared with each other.

    Returns:
        The file that was written.
    """
    record = {"benchmark": name, "options": options, **environment(), "cases": dict(cases)}
    if path is None:
        stamp = record["when"].replace(":", "").replace("+0000", "Z")
        path = HISTORY / name / f"{stamp}-{record['commit'].rstrip('+')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, default=str) + "\n")
    print(f"record: {path}")
    return path
