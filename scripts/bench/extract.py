"""What an extraction costs: agnostic.extract against a bare loop and against peers, and its memory.

    .venv/bin/python scripts/bench/extract.py                  # PyTorch
    .venv/bin/python scripts/bench/extract.py --engine jax     # Keras on an engine, against predict()
    .venv/bin/python scripts/bench/extract.py --memory 1000 10000 100000

The means over positions of the stages of ResNet-18 on PyTorch, or of the blocks of EfficientNet-Lite0 on Keras, of
images in memory, random weights. Rounds of all contenders are interleaved in one process, with one thread for the
numbers; medians of the processor's time, of all threads, are printed in ms per image, with the ratio to the bare loop.
Writing is part of ours, and so is what a run costs once: the digest of the weights, a look at the layers, and, on the
engines of Keras, compiling for the run; it weighs less the more images there are. The bare loop runs the model on the
same batches, prepared before, and keeps nothing. Peers: torchvision's feature extractor over a DataLoader; Keras'
predict() on a model of several outputs.

With --memory, the resident set is printed after so many images, in one process: it should not grow.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from report import add_option, headline, keep, spread

import agnostic as ag

STAGES = [f"layer{i}" for i in range(1, 5)]
BLOCKS = [f"blocks.{i}" for i in range(7)]
BATCH = 32


def ours(model: Any, images: Any, layers: list[str], **options: Any) -> Callable[[], Any]:
    """An extraction into a new store."""

    def run() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            return ag.extract(model, images, layers, Path(folder, "acts.zarr"), batch_size=BATCH, **options)

    return run


def on_torch(size: int, count: int) -> dict[str, Callable[[], Any]]:
    """The contenders on PyTorch."""
    import torch
    from torchvision.models.feature_extraction import create_feature_extractor

    torch.set_num_threads(1)

    model = ag.load("torchvision:resnet18", weights="random")
    images = pixels(size, count)
    inputs = torch.cat([ag.prepare(model, images[i : i + BATCH], size=size) for i in range(0, count, BATCH)])

    @torch.inference_mode()
    def bare() -> None:
        for batch in inputs.split(BATCH):
            model(batch)

    extractor = create_feature_extractor(model, STAGES).eval()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs), batch_size=BATCH)

    @torch.inference_mode()
    def torchvision_loop() -> Any:
        found: dict[str, list[Any]] = {name: [] for name in STAGES}
        for (batch,) in loader:
            for name, x in extractor(batch).items():
                found[name].append(x.mean((2, 3)).numpy())
        return {name: np.concatenate(x) for name, x in found.items()}

    return {
        "bare": bare,
        "ours, prepared arrays": ours(model, inputs, STAGES, reduce="mean", top=0),
        "ours, with the top samples": ours(model, inputs, STAGES, reduce="mean"),
        "ours, images": ours(model, images, STAGES, reduce="mean", top=0, size=size),
        "torchvision's extractor, DataLoader": torchvision_loop,
    }


def on_keras(size: int, count: int, engine: str) -> dict[str, Callable[[], Any]]:
    """The contenders on an engine of Keras."""
    import keras

    if engine == "torch":
        import torch

        torch.set_num_threads(1)
    model = ag.load("efficientnet_lite0", backend="keras", weights="random")
    images = pixels(size, count)
    inputs = np.concatenate(
        [
            keras.ops.convert_to_numpy(ag.prepare(model, images[i : i + BATCH], size=size))
            for i in range(0, count, BATCH)
        ]
    )
    several = ag.submodel(model, BLOCKS)

    def bare() -> None:
        model.predict(inputs, batch_size=BATCH, verbose=0)

    return {
        "bare": bare,
        "ours, prepared arrays": ours(model, inputs, BLOCKS, reduce="mean", top=0, prepared=True),
        "ours, with the top samples": ours(model, inputs, BLOCKS, reduce="mean", prepared=True),
        "Keras' predict, several outputs": lambda: several.predict(inputs, batch_size=BATCH, verbose=0),
    }


def pixels(size: int, count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


class Repeated:
    """Many images in little memory."""

    def __init__(self, images: np.ndarray[Any, Any], count: int) -> None:
        self.images, self.count = images, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.images[index % len(self.images)]


def resident() -> float:
    """The memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(counts: list[int]) -> None:
    """The resident set after extractions of growing data sets, with a small model."""
    import torch

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU()).eval()
    images = pixels(16, 64)
    for count in counts:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder, "acts.zarr")
            ag.extract(model, Repeated(images, count), ["0", "1"], store, reduce=["mean", "max"], batch_size=BATCH)
            size = sum(x.stat().st_size for x in store.rglob("*") if x.is_file())
        seconds = time.perf_counter() - start
        print(
            f"  {count:8,d} images: {resident():7.0f} MB resident, {seconds / count * 1e3:.2f} ms and "
            f"{size / count:.0f} bytes per image",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("torch", "jax", "tensorflow"), help="of Keras; by default PyTorch alone")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, nargs="+", help="numbers of images")
    add_option(parser)
    arguments = parser.parse_args()
    print(headline())
    if arguments.memory:
        memory(arguments.memory)
        return
    if arguments.engine:
        os.environ["KERAS_BACKEND"] = arguments.engine
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
        functions = on_keras(arguments.size, arguments.images, arguments.engine)
    else:
        functions = on_torch(arguments.size, arguments.images)
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(arguments.rounds):
        for name, function in functions.items():
            start = time.process_time()
            function()
            times[name].append((time.process_time() - start) * 1e3 / arguments.images)
    bare = statistics.median(times["bare"])
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"  {name:38s} {middle:8.3f} ms per image ({min(values):.3f}-{max(values):.3f})  x{middle / bare:.2f}")
    cases = {name: spread(values, "ms", over=bare) for name, values in times.items()}
    keep("extract", cases, arguments.json, engine=arguments.engine, size=arguments.size, images=arguments.images)


if __name__ == "__main__":
    main()
