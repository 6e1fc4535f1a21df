"""Speed of the ascent on VGG16 in every framework, each against the loop that people write there, in one table.

    .venv/bin/python scripts/bench/ascent.py [--rounds 5] [--only keras-jax]

Each framework runs in a process of its own, and there its loop and ours take turns: ``ascent_torch.py`` (the classic
loop of tutorials: the whole network, its weights differentiated) and ``ascent_keras.py`` (the loop of keras.io: the
truncated model, compiled where the engine compiles, the image alone differentiated). All loops do one filter at a time;
the work of a step is the same as ours. Medians, in milliseconds a filter and step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from report import add_option, headline, keep, spread

HERE = Path(__file__).parent
PARTS = {
    "torch": ["ascent_torch.py", "--filters", "8"],
    "keras-torch": ["ascent_keras.py", "--dtypes", "float32"],
    "keras-jax": ["ascent_keras.py", "--dtypes", "float32"],
    "keras-tensorflow": ["ascent_keras.py", "--dtypes", "float32"],
}


def measured(part: str, rounds: int) -> dict[str, Any]:
    """What a part found, run in a process of its own; its report goes to the terminal as it comes."""
    script, *options = PARTS[part]
    environment = {**os.environ, "KERAS_BACKEND": part.partition("-")[2] or "torch"}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, str(HERE / script), *options, "--rounds", str(rounds), "--json", str(out)]
        subprocess.run(command, env=environment, check=True)
        found: dict[str, Any] = json.loads(out.read_text())
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """Medians of all parts; ours with how many times as fast as the loop of the same part it is."""
    layers = list(next(iter(found.values()))["layers"])
    lines = ["".join([f"{'ms a filter and step':28s}", *(f"{x:>21s}" for x in (*layers, "together"))])]
    for part, result in found.items():
        medians = {
            name: [statistics.median(result["layers"][layer]["ms"][name]) for layer in layers]
            for name in result["layers"][layers[0]]["ms"]
        }
        loop = [*medians["loop"], sum(medians["loop"])]
        for name, values in medians.items():
            cells = [*values, sum(values)]
            texts = [
                f"{ms:7.1f}" + (" " * 9 if name == "loop" else f" ({peer / ms:4.1f} x)")
                for ms, peer in zip(cells, loop, strict=True)
            ]
            lines.append("".join([f"{part:17s}{name:11s}", *(f"{x:>21s}" for x in texts)]))
    return "\n".join(lines)


def cases(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each part, layer and contestant as a case of the record; the loop is the peer."""
    return {
        f"{part}, {layer}, {name}": spread(values, "ms", over=statistics.median(row["ms"]["loop"]))
        for part, result in found.items()
        for layer, row in result["layers"].items()
        for name, values in row["ms"].items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be given several times")
    add_option(parser)
    arguments = parser.parse_args()
    print(headline(), flush=True)
    found = {part: measured(part, arguments.rounds) for part in arguments.only or PARTS}
    print(table(found))
    keep("ascent", cases(found), arguments.json)


if __name__ == "__main__":
    main()
