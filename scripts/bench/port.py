"""Speed of ported models against the same networks written by hand, and what porting ResNet-50 costs.

    .venv/bin/python scripts/bench/port.py [--engines torch jax tensorflow] [--rounds 5] [--batch 8]

The ports of torchvision's ResNet-50 and MobileNetV2 run on each engine of Keras beside those of keras.applications, and
the ports of keras.applications' in torch beside torchvision's: random weights, inference, images of 224 x 224, compiled
as the engine compiles (jax.jit, tf.function; torch is eager). Rounds of both are interleaved in one process per engine.
keras.applications' ResNet50 strides in the first convolution of a block, with biases; torchvision's in the second.

Porting is the command, from nothing to the report, with its process' largest memory.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from report import add_option, headline, keep, spread

from agnostic.models.load import executed

NETWORKS = {"resnet50": "ResNet50", "mobilenet_v2": "MobileNetV2"}
"""torchvision's names, and those of keras.applications."""

Functions = Mapping[str, Callable[[], Any]]


def compiled(model: Any, x: np.ndarray) -> Callable[[], Any]:
    """A Keras model as a function without arguments, as its engine runs it fast, that waits for the result."""
    import keras

    engine = keras.config.backend()
    if engine == "jax":
        import jax

        weights = [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]
        run = jax.jit(lambda given, x: model.stateless_call(*given, x, training=False)[0])
        return lambda: run(weights, x).block_until_ready()
    if engine == "tensorflow":
        import tensorflow as tf

        given, traced = tf.constant(x), tf.function(lambda x: model(x, training=False))
        return lambda: traced(given).numpy()
    import torch

    tensor = torch.from_numpy(x)

    def eager() -> Any:
        with torch.no_grad():
            return model(tensor, training=False)

    return eager


def of_keras(folder: Path, x: np.ndarray) -> dict[str, Functions]:
    """Each network as it was ported and as keras.applications has it."""
    import keras

    return {
        name: {
            "port": compiled(executed(folder / f"{name}.py").make_model(None), x),
            "by hand": compiled(getattr(keras.applications, hand)(weights=None), x),
        }
        for name, hand in NETWORKS.items()
    }


def of_torch(folder: Path, x: np.ndarray) -> dict[str, Functions]:
    """Each network as it was ported from Keras and as torchvision has it."""
    import torch
    import torchvision

    images = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))

    def running(model: Any) -> Callable[[], Any]:
        def run() -> Any:
            with torch.no_grad():
                return model(images)

        return run

    return {
        hand: {
            "port": running(executed(folder / f"{hand}.py").make_model(None)),
            "by hand": running(getattr(torchvision.models, name)(weights=None).eval()),
        }
        for name, hand in NETWORKS.items()
    }


def measure(functions: Functions, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each call, interleaved."""
    for function in functions.values():
        function()
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def write(folder: Path, to: str) -> None:
    """Port each network, without running it."""
    import agnostic as ag

    for name, hand in NETWORKS.items():
        if to == "keras":
            import torchvision

            model, shape = getattr(torchvision.models, name)(weights=None).eval(), (1, 3, 224, 224)
        else:
            keras = importlib.import_module("keras")
            model, shape = getattr(keras.applications, hand)(weights=None), (1, 224, 224, 3)
        ported = ag.port(model, to, np.zeros(shape, np.float32), check=False)
        (folder / f"{name if to == 'keras' else hand}.py").write_text(ported.source)


def porting(engine: str) -> dict[str, dict[str, Any]]:
    """Seconds and memory of the command on ResNet-50."""
    with tempfile.TemporaryDirectory() as folder:
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "agnostic", "port", "torchvision:resnet50", "--to", "keras", "--out", folder,
             "--engine", engine],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        f"port resnet50, checked on {engine}: seconds": {"median": seconds, "unit": "s"},
        f"port resnet50, checked on {engine}: seconds of processors": {"median": busy, "unit": "s"},
        f"port resnet50, checked on {engine}: memory": {"median": after.ru_maxrss / 1024, "unit": "MiB"},
    }


def child(arguments: argparse.Namespace) -> None:
    """What a process of one engine does: write ports, or time them."""
    if arguments.write:
        write(arguments.folder, arguments.write)
        return
    x = np.random.default_rng(0).standard_normal((arguments.batch, 224, 224, 3)).astype(np.float32)
    kind = of_torch if arguments.child == "plain torch" else of_keras
    cases = {}
    for name, functions in kind(arguments.folder, x).items():
        times = measure(functions, arguments.rounds)
        peer = statistics.median(times["by hand"])
        for what, values in times.items():
            cases[f"{arguments.child}: {name}: {what}"] = spread(values, "ms", over=peer)
    (arguments.folder / "cases.json").write_text(json.dumps(cases))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="*", default=["torch", "jax", "tensorflow"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    add_option(parser)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return

    print(headline())
    options = ["--rounds", str(arguments.rounds), "--batch", str(arguments.batch)]
    cases: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def run(engine: str, *words: str) -> None:
            kind = {"KERAS_BACKEND": "torch" if engine == "plain torch" else engine}
            line = [sys.executable, __file__, "--child", engine, "--folder", name, *words, *options]
            subprocess.run(line, check=True, env={**os.environ, **kind})

        run("torch", "--write", "keras")
        run("torch", "--write", "torch")
        for engine in [*arguments.engines, *(["plain torch"] if "torch" in arguments.engines else [])]:
            run(engine)
            found = json.loads((folder / "cases.json").read_text())
            for case, numbers in found.items():
                print(f"  {case:44s} {numbers['median']:9.1f} ms  x{numbers['ratio']:.2f}", flush=True)
            cases |= found
    for case, numbers in porting("torch").items():
        print(f"  {case:64s} {numbers['median']:9.1f} {numbers['unit']}", flush=True)
        cases[case] = numbers
    keep("port", cases, arguments.json, batch=arguments.batch, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
