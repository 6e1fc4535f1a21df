"""Time of one optimizer step on a model of 25 million parameters: ours, torch.optim's foreach, and groups.

    python scripts/bench/optimizers.py --repeats 10 --json out.json

Runs interleave, so that what else the machine does falls on all alike; medians, with the quartiles beside them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "backends")]

import torch  # noqa: E402

from agnostic import optimizers as ago  # noqa: E402
from agnostic.files import atomic_path  # noqa: E402


def parameters() -> list[torch.Tensor]:
    """The shapes of a ResNet-50: 161 tensors, 25.6 million numbers."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += [(width, inputs, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
            shapes += [(width,)] * 4 + [(4 * width,)] * 2
            if block == 0:
                shapes += [(4 * width, inputs, 1, 1), (4 * width,), (4 * width,)]
            inputs = 4 * width
    shapes += [(1000, 2048), (1000,)]
    generator = torch.Generator().manual_seed(0)
    found = []
    for shape in shapes:
        p = torch.randn(shape, generator=generator).requires_grad_()
        p.grad = torch.randn(shape, generator=generator)
        found.append(p)
    return found


def contestants(spec: Any) -> dict[str, Callable[[], Any]]:
    name = type(spec).__name__
    native, ours, split = parameters(), parameters(), parameters()
    layers = [{"params": split[i::10], "lr": 1e-3 * (1 + i)} for i in range(10)]
    return {
        f"{name} torch foreach": ago.build(spec, [{"params": native}], native=True, foreach=True).step,
        f"{name} ours": ago.build(spec, [{"params": ours}], native=False).step,
        f"{name} ours, 10 groups": ago.build(spec, layers, native=False).step,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    report: dict[str, Any] = {
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in parameters()),
        "milliseconds": {},
    }
    print({k: v for k, v in report.items() if k != "milliseconds"})
    for spec in (ago.SGD(1e-3, 0.9), ago.Adam(1e-3), ago.RMSprop(1e-3)):
        steps = contestants(spec)
        times: dict[str, list[float]] = {name: [] for name in steps}
        for repeat in range(arguments.repeats + 2):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                if repeat >= 2:  # state is made at the first step
                    times[name].append(1e3 * (time.perf_counter() - start))
        reference = statistics.median(next(iter(times.values())))
        for name, own in times.items():
            low, middle, high = statistics.quantiles(own, n=4)
            report["milliseconds"][name] = {"median": middle, "quartiles": [low, high], "ratio": middle / reference}
            print(f"{name:28} {middle:7.1f} ms ({low:.1f} to {high:.1f})  x{middle / reference:.2f}")
    if arguments.json:
        with atomic_path(arguments.json) as temporary:
            temporary.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
