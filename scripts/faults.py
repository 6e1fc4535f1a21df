"""Inject faults, compare, and print how many were located, how many were named, and how often a correct pair alarmed.

scripts/faults.py                      # PyTorch against itself and against Keras on three engines, a process each
scripts/faults.py --only tensorflow    # one of torch, keras-torch, keras-jax, keras-tensorflow
scripts/faults.py --match gelu         # the faults whose name has this in it, with what was said of each
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAIRS = ("torch", "keras-torch", "keras-jax", "keras-tensorflow")


def worker(pair: str, match: str | None) -> None:
    """Run the cases of one pair of frameworks, and print a line of JSON for each."""
    # TensorFlow and triton in one process abort it; nothing here compiles.
    sys.modules["triton"] = None  # type: ignore[assignment]
    sys.path[:0] = [str(ROOT), str(ROOT / "backends")]
    from tests.compare import faults

    for found in faults.rated(pair, match):
        sys.stdout.write(json.dumps(found) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PAIRS)
    parser.add_argument("--match")
    parser.add_argument("--worker", choices=PAIRS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.match)
        return 0
    start, results = time.perf_counter(), []
    for pair in (options.only,) if options.only else PAIRS:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": pair.removeprefix("keras-")}
        command = [sys.executable, __file__, "--worker", pair, *(["--match", options.match] if options.match else [])]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        out, errors = process.communicate()
        if process.returncode:
            print(errors[-3000:], file=sys.stderr)
            return 2
        results += [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    for r in results:
        wrong = not (r["located"] and r["named"]) if r["faulty"] else not r["same"]
        if wrong or options.match:
            print(f"{'MISS' if wrong else 'ok'}  {r['pair']}: {r['name']}: at {r['at']}, {r['mistake']}. {r['said']}")
    print(f"\n{'pair':18} {'faults':>7} {'located':>8} {'named':>7} {'correct pairs':>14} {'false alarms':>13}")
    for pair in (*dict.fromkeys(r["pair"] for r in results), "all"):
        own = [r for r in results if pair in (r["pair"], "all")]
        faulty, correct = [r for r in own if r["faulty"]], [r for r in own if not r["faulty"]]
        located, named = (sum(r[key] for r in faulty) for key in ("located", "named"))
        alarms = sum(not r["same"] for r in correct)
        share = f"{located / max(len(faulty), 1):7.1%} {named / max(len(faulty), 1):7.1%}"
        print(f"{pair:18} {len(faulty):7} {share:>16} {len(correct):14} {alarms:13}")
    print(f"{time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
