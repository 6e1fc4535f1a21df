"""Run fuzzers: ``python -m tests.fuzz [NAME ...] --seed S --seconds N``; ``scripts/fuzz`` does so in the environment.

A fuzzer is a file ``fuzz_NAME.py`` of this folder with a function ``prepare(folder)`` that returns a function of a
random generator: one case, which returns a word for what came of it. Every exception is a failure. Each fuzzer runs in
a process of its own whose memory is limited. A case depends on the seed and its number alone; ``--case`` repeats one.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent
NAMES = tuple(sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py")))
MEMORY = 1 << 30
"""What a fuzzer may take beyond what it has when it is prepared, in bytes."""


def main(arguments: list[str] | None = None) -> int:
    """Run them one after the other; the number of those that failed."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; by default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each fuzzer")
    parser.add_argument("--case", type=int, help="repeat this one case alone")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    for name in chosen.names:
        if name not in NAMES:
            parser.error(f"no fuzzer {name!r}: there are {', '.join(NAMES)}")
    if chosen.here:
        return _run(chosen.names[0], chosen.seed, chosen.seconds, chosen.case)
    failed = 0
    for name in chosen.names or NAMES:
        options = ["--here", "--seed", str(chosen.seed), "--seconds", str(chosen.seconds)]
        options += [] if chosen.case is None else ["--case", str(chosen.case)]
        failed += subprocess.run([sys.executable, "-m", "tests.fuzz", name, *options]).returncode != 0
    return failed


def _run(name: str, seed: int, seconds: float, case: int | None) -> int:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        one = importlib.import_module(f"tests.fuzz.fuzz_{name}").prepare(Path(folder))
        status = Path("/proc/self/status").read_text().splitlines()
        used = int(next(x for x in status if x.startswith("VmSize")).split()[1]) * 1024
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        outcomes: collections.Counter[str] = collections.Counter()
        number, end = case or 0, time.monotonic() + seconds
        while True:
            try:
                outcomes[one(random.Random(f"{seed}/{number}"))] += 1
            except BaseException:  # noqa: BLE001 - whatever it is, it is a finding
                traceback.print_exc()
                print(f"{name}: case {number} failed; again: scripts/fuzz {name} --seed {seed} --case {number}")
                return 1
            number += 1
            if case is not None or time.monotonic() >= end:
                break
    print(f"{name}: {sum(outcomes.values())} cases of seed {seed}: {dict(outcomes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
