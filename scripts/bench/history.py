"""Print the last record of each benchmark against the first one, case by case.

    .venv/bin/python scripts/bench/history.py [NAME ...]

Records with other options are kept apart. A time says little where the processor or the load differs, so the ratio to
the peer that ran beside it is printed too, wherever the benchmark has one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HISTORY = Path(__file__).parent / "history"


def records(name: str) -> dict[str, list[dict[str, Any]]]:
    """The records of a benchmark by their options, the oldest first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((HISTORY / name).glob("*.json")):
        record = json.loads(path.read_text())
        found.setdefault(json.dumps(record["options"], sort_keys=True), []).append(record)
    return {options: sorted(runs, key=lambda run: run["when"]) for options, runs in found.items()}


def table(first: dict[str, Any], last: dict[str, Any]) -> list[str]:
    """A line per case that stands in both records."""
    lines = [f"{'case':58s}{'first':>11s}{'last':>11s}{'last/first':>12s}   ratio to the peer"]
    for case, now in last["cases"].items():
        then = first["cases"].get(case)
        if then is None:
            lines.append(f"{case:58s}{'':11s}{now['median']:11.3g}{'new':>12s}")
            continue
        ratios = f"   {then['ratio']:.2f} -> {now['ratio']:.2f}" if "ratio" in then and "ratio" in now else ""
        change = now["median"] / then["median"] if then["median"] else float("nan")
        lines.append(f"{case:58s}{then['median']:11.3g}{now['median']:11.3g}{change:12.2f}{ratios}  {now['unit']}")
    lines += [f"{case:58s}{then['median']:11.3g}{'gone':>11s}" for case, then in first["cases"].items()
              if case not in last["cases"]]  # fmt: skip
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(path.name for path in HISTORY.iterdir() if path.is_dir()) if HISTORY.is_dir() else []
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known) or 'none yet'}; default: all")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(known))
    if unknown:
        parser.error(f"no record of {', '.join(unknown)} in {HISTORY}; there are {', '.join(known) or 'none'}")
    for name in arguments.names or known:
        for options, runs in records(name).items():
            first, last = runs[0], runs[-1]
            print(f"\n{name} {options if options != '{}' else ''}")
            print(f"first {first['when']} {first['commit']}, last {last['when']} {last['commit']}, {len(runs)} records")
            print(f"processes that were running: first {first['load']}, last {last['load']}")
            if first["processor"] != last["processor"]:
                print(f"other processor: {first['processor']} | {last['processor']}")
            print("\n".join(table(first, last)))


if __name__ == "__main__":
    main()
