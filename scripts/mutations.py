"""Break networks by a rule, compare, and print how many faults were seen, located, named and proven.

scripts/mutations.py                  # the fixed part, to look at
scripts/mutations.py --seed 7         # others, drawn from a seed
scripts/mutations.py --edited         # edits of sources, by hand, with the fixes applied that are printed
scripts/mutations.py --keras jax      # in ports of these networks to Keras on an engine, against the networks
scripts/mutations.py --keras jax --itself    # against the right port on the same engine
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "backends")]

KEYS = ("seen", "located", "named", "proven", "fixed")
"""What is asked of each fault; a fix is not run everywhere."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--edited", action="store_true")
    parser.add_argument("--keras", choices=("torch", "jax", "tensorflow"), metavar="ENGINE")
    parser.add_argument("--itself", action="store_true", help="compare with the right port, in place of the network")
    parser.add_argument("--written", action="store_true", help="networks that are written in Keras, not ported")
    parser.add_argument("--ports", type=Path, help="a folder that the ports are kept in")
    options = parser.parse_args()
    if options.keras:
        return _of_keras(options)
    import torch

    from tests.compare import architectures, mutations, test_programs

    torch.set_num_threads(1)
    if options.edited:
        return _edited()
    start = time.perf_counter()
    results = [_shown(mutations.judged(fault)) for fault in mutations.faults(options.seed, options.count)]
    pairs = {**test_programs.CORRECT, **{x: functools.partial(_twins, x) for x in architectures.ARCHITECTURES}}
    _summary(results, [name for name, make in pairs.items() if not _same(*make())], len(pairs), start)
    return 0


def _edited() -> int:
    from tests.compare import edits

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        results = [_shown(edits.judged(x)) for name in edits.NAMES for x in edits.edited(name, folder, faults=True)]
        pairs = [x for name in edits.NAMES for x in edits.edited(name, folder, faults=False)]
        alarms = [x.name for x in pairs if not _same(x.a, x.b, x.inputs)]
    _summary(results, alarms, len(pairs), start)
    return 0


def _of_keras(options: argparse.Namespace) -> int:
    os.environ["KERAS_BACKEND"] = options.keras
    if options.keras == "tensorflow":
        sys.modules["triton"] = None  # type: ignore[assignment]
    import torch

    from tests.compare import architectures, keras_mutations

    torch.set_num_threads(1)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.ports or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.written:
            from tests.compare import keras_architectures

            keras_mutations.written(folder)
            faults, right = keras_mutations.faults_of_written, keras_mutations.right_written
            names = list(keras_architectures.NETWORKS)
        else:
            _ported(folder)
            faults, right = keras_mutations.faults, keras_mutations.right
            names = [x for x in architectures.ARCHITECTURES if x not in keras_mutations.FED_OTHERWISE]
        drawn = faults(folder, options.seed, options.count, itself=options.itself)
        results = [_shown(keras_mutations.judged(fault)) for fault in drawn]
        pairs = [(name, right(folder, name, itself=options.itself)) for name in names]
        _summary(results, [name for name, pair in pairs if not _same(*pair)], len(pairs), start)
    return 0


def _ported(folder: Path) -> None:
    """Write the ports in a process of its own, since torch.export does not run beside tensorflow."""
    write = "import sys; from pathlib import Path; from tests.compare.keras_mutations import ported"
    path = os.pathsep.join((str(ROOT), str(ROOT / "backends")))
    subprocess.run(
        [sys.executable, "-c", f"{write}; ported(Path(sys.argv[1]))", str(folder)], check=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": "torch"},
    )  # fmt: skip


def _shown(found: dict[str, Any]) -> dict[str, Any]:
    marks = "".join(key[0] if found[key] else "-" for key in KEYS if key in found)
    if "-" in marks:
        print(f"{marks} {found['name']}: {found['mistake']}. {found['said']}", flush=True)
    return found


def _summary(results: list[dict[str, Any]], alarms: list[str], pairs: int, start: float) -> None:
    for key in KEYS:
        told = [x[key] for x in results if key in x]
        if told:
            print(f"{key:8} {sum(told) / len(told):7.1%} of {len(told)}")
    print(f"alarms   {len(alarms)} of {pairs} {alarms}")
    print(f"{time.perf_counter() - start:.0f} s")


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
