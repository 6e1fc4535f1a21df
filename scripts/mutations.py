"""Break networks by a rule, compare, and print how many faults were seen, located, named and proven.

scripts/mutations.py                  # the fixed part, to look at
scripts/mutations.py --seed 7         # others, drawn from a seed
scripts/mutations.py --edited         # edits of sources, by hand, with the fixes applied that are printed
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "backends")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--edited", action="store_true")
    options = parser.parse_args()
    import torch

    from tests.compare import architectures, mutations, test_programs

    torch.set_num_threads(1)
    if options.edited:
        return _edited()
    start, results = time.perf_counter(), []
    for fault in mutations.faults(options.seed, options.count):
        found = mutations.judged(fault)
        results.append(found)
        if not (found["located"] and found["named"] and found["proven"]):
            marks = "".join(key[0] if found[key] else "-" for key in ("seen", "located", "named", "proven"))
            print(f"{marks} {found['name']}: {found['mistake']}. {found['said']}", flush=True)
    alarms = [name for name, make in test_programs.CORRECT.items() if not _same(*make())]
    alarms += [name for name in architectures.ARCHITECTURES if not _same(*_twins(name))]
    count = len(results)
    for key in ("seen", "located", "named", "proven"):
        print(f"{key:8} {sum(x[key] for x in results) / max(count, 1):7.1%} of {count}")
    print(f"alarms   {len(alarms)} of {len(test_programs.CORRECT) + len(architectures.ARCHITECTURES)} {alarms}")
    print(f"{time.perf_counter() - start:.0f} s")
    return 0


def _edited() -> int:
    import tempfile

    import agnostic as ag
    from tests.compare import edits

    results, alarms = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in edits.NAMES:
            for case in edits.edited(name, Path(folder), faults=True):
                found = edits.judged(case)
                results.append(found)
                marks = "".join(key[0] if found[key] else "-" for key in KEYS)
                if "-" in marks:
                    print(f"{marks} {found['name']}: {found['mistake']}. {found['said']}"[:400], flush=True)
            alarms += [case.name for case in edits.edited(name, Path(folder), faults=False)
                       if not ag.compare(case.a, case.b, case.inputs).same]  # fmt: skip
    for key in KEYS:
        print(f"{key:8} {sum(x[key] for x in results) / max(len(results), 1):7.1%} of {len(results)}")
    print(f"alarms   {len(alarms)} {alarms}")
    return 0


KEYS = ("seen", "located", "named", "proven", "fixed")


def _twins(name: str) -> tuple[object, object, object]:
    import copy

    from tests.compare import architectures

    model, inputs = architectures.made(name)
    return model, copy.deepcopy(model), inputs


def _same(a: object, b: object, inputs: object) -> bool:
    import agnostic as ag

    try:
        return ag.compare(a, b, inputs).same
    except ag.InvalidInput:
        return False


if __name__ == "__main__":
    sys.exit(main())
