"""What a whole comparison costs: ResNet-50 on 8 photos, in forward passes, and the peak of memory.

    python scripts/bench/compare.py                      # torch against a copy
    python scripts/bench/compare.py --twin tensorflow    # torch against its twin in Keras, on torch, jax or tensorflow
    python scripts/bench/compare.py --b keras:ResNet50   # or file.py:make, on --engine

Each side runs in a process of its own, as from the command line. The unit is one float32 forward pass of A and of B,
the median of five after a first one, in the same processes; imports and loading are apart.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "backends")]

from report import add_option, keep  # noqa: E402

from agnostic.contracts.calls import CALLS  # noqa: E402
from agnostic.contracts.weights import WEIGHTS  # noqa: E402


def photos(count: int, size: int) -> np.ndarray[Any, Any]:
    """Crops of the photographs in scikit-learn, or smooth noise where it is missing."""
    try:
        from sklearn.datasets import load_sample_images

        whole = load_sample_images().images
    except ImportError:
        whole = [np.random.default_rng(0).integers(0, 256, (427, 640, 3), np.uint8)]
    found = []
    for i in range(count):
        x = whole[i % len(whole)]
        top, left = (i * 37) % (x.shape[0] - size), (i * 53) % (x.shape[1] - size)
        found.append(x[top : top + size, left : left + size])
    return np.stack(found)


def megabytes() -> float:
    """The peak of this process' resident memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def side(job: dict[str, Any]) -> None:
    """One side, in a process of its own."""
    import agnostic as ag
    from agnostic.compare.direct import against, trace_model
    from agnostic.compare.stored import opened
    from agnostic.compare.traces import Trace
    from agnostic.registry import backend_of

    model = ag.load(job["spec"], backend=job["backend"], engine=job["engine"], weights=job["weights"])
    backend = backend_of(model)
    if job["save"]:
        backend[WEIGHTS].save(model, Path(job["save"]))
    images = photos(job["count"], job["size"])
    given = ag.prepare(model, images)

    def forward() -> float:
        start = time.perf_counter()
        for x in backend[CALLS].run(model, given):
            backend[CALLS].numpy(x)  # waits for it
        return time.perf_counter() - start

    first = forward()
    passes = [forward() for _ in range(5)]
    before = megabytes()
    start = time.perf_counter()
    if job["what"] == "trace":
        trace_model(model, images, job["trace"])
        same = None
    else:
        found = against(opened(Trace(job["trace"])), model)
        same = found.same
        Path(job["out"] + ".txt").write_text(str(found))
    taken = time.perf_counter() - start
    passes += [forward() for _ in range(2)]
    Path(job["out"]).write_text(
        json.dumps(
            {
                "first": first,
                "forward": statistics.median(passes),
                "taken": taken,
                "same": same,
                "before": before,
                "peak": megabytes(),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--a", default="torchvision:resnet50")
    parser.add_argument("--b", default="torchvision:resnet50")
    parser.add_argument("--weights-b", default=None)
    parser.add_argument("--backend-b", default=None)
    parser.add_argument("--engine", default=None)
    parser.add_argument("--twin", choices=("torch", "jax", "tensorflow"), help="B is A's twin in Keras on this engine")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    add_option(parser)
    options = parser.parse_args()
    if options.side:
        side(json.loads(options.side))
        return
    with tempfile.TemporaryDirectory() as folder:
        saved = f"{folder}/weights.pth" if options.twin else None
        if options.twin:
            options.b, options.backend_b, options.engine = options.a.rpartition(":")[2], "keras", options.twin
            options.weights_b = saved
        shared = {"trace": f"{folder}/a.trace", "count": options.count, "size": options.size}
        results = []
        random = {True: "random", False: None}
        for what, spec, engine, backend, weights in (
            ("trace", options.a, None, None, random[":" in options.a and ".py" not in options.a]),
            ("against", options.b, options.engine, options.backend_b,
             options.weights_b or random[":" in options.b and ".py" not in options.b]),
        ):  # fmt: skip
            job = {**shared, "what": what, "spec": spec, "engine": engine, "backend": backend, "weights": weights}
            job["save"] = saved if what == "trace" else None
            job["out"] = f"{folder}/{what}.json"
            subprocess.run([sys.executable, __file__, "--side", json.dumps(job)], check=True, env=os.environ)
            results.append(json.loads(Path(job["out"]).read_text()))
        a, b = results
        size = Path(shared["trace"]).stat().st_size / 1e6
        unit = a["forward"] + b["forward"]
        print(f"A {options.a}: forward {a['forward']:.2f} s, trace {a['taken']:.2f} s, {size:.0f} MB in the file")
        print(f"B {options.b}: forward {b['forward']:.2f} s, comparison {b['taken']:.2f} s, same: {b['same']}")
        print(f"together {(a['taken'] + b['taken']) / unit:.1f} times one forward pass of each ({unit:.2f} s)")
        for name, x in (("A", a), ("B", b)):
            print(
                f"{name}: peak {x['peak']:.0f} MB, {x['peak'] - x['before']:.0f} MB more than its forward passes took"
            )
        passes = (a["taken"] + b["taken"]) / unit
        cases = {"both sides": {"median": passes, "unit": "forward passes"}}
        cases |= {f"{n}, memory": {"median": x["peak"] - x["before"], "unit": "MB"} for n, x in (("A", a), ("B", b))}
        chosen = {"a": options.a, "b": options.b, "twin": options.twin, "count": options.count, "size": options.size}
        keep("compare", cases, options.json, **chosen)


if __name__ == "__main__":
    main()
