"""What an extraction costs: agnostic.extract against a bare loop and against peers, and its memory.

    .venv/bin/python scripts/bench/extract.py                  # PyTorch
    .venv/bin/python scripts/bench/extract.py --engine jax     # Keras on an engine, against predict()
    .venv/bin/python scripts/bench/extract.py --device cuda --images 20000 --size 224
    .venv/bin/python scripts/bench/extract.py --memory 1000 10000 100000
    .venv/bin/python scripts/bench/extract.py --photos 64      # what a photo costs from its file to the store
    .venv/bin/python scripts/bench/extract.py --compression    # bytes and speed of ways to compress a store

The means over positions of the stages of ResNet-18 on PyTorch, or of the blocks of EfficientNet-Lite0 on Keras, of
images in memory, random weights. Rounds of all contenders are interleaved in one process, with one thread for the
numbers; medians of the processor's time, of all threads, and of the clock's are printed in ms per image, with the
ratio of the former to the bare loop. Writing is part of ours, and so is what a run costs once: the digest of the
weights, and, on the engines of Keras, compiling for the run; it weighs less the more images there are, so a run of half
as many is measured as well, and what each further image costs is told. The bare loop runs the model on the same
batches, prepared before, and keeps nothing. Peers: torchvision's feature extractor over a DataLoader; thingsvision
where it is installed, which returns whole outputs and is asked for their means; Keras' predict() on a model of several
outputs, as often compiled as ours ("new") and once.

On a GPU (--device cuda with PyTorch; the engines of Keras use the one that they see) ratios are those of the clock, and
the part of the time in which the GPU was busy is printed, as the driver counts it: take runs of several seconds. The
bare loop copies from page-locked memory without waiting.

With --photos, so many JPEG files of 500 x 375 go through EfficientNet-Lite0 in its own size, and the means of its
blocks into a store, on one core: what docs/scale.md plans a large run from.

With --compression, outputs of four blocks and their means, over windows of the photos that scikit-image ships, are
compressed in several ways.

With --memory, the resident set is printed after so many images, in one process: it should not grow.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from busy import Busy
from report import add_option, headline, keep, spread

import agnostic as ag

STAGES = [f"layer{i}" for i in range(1, 5)]
BLOCKS = [f"blocks.{i}" for i in range(7)]
BATCH = 32
HALF = "ours, half as many"


def ours(model: Any, images: Any, layers: list[str], **options: Any) -> Callable[[], Any]:
    """An extraction into a new store."""

    def run() -> Any:
        return ag.extract(model, images, layers, Path(tempfile.mkdtemp(), "acts.zarr"), batch_size=BATCH, **options)

    return run


def on_torch(size: int, count: int, device: str) -> dict[str, Callable[[], Any]]:
    """The contenders on PyTorch."""
    import torch
    from torchvision.models.feature_extraction import create_feature_extractor

    torch.set_num_threads(1)
    on_gpu = device != "cpu"
    model = ag.load("torchvision:resnet18", weights="random").to(device)
    images = pixels(size, count)
    inputs = torch.cat([ag.prepare(model, images[i : i + BATCH], size=size).cpu() for i in range(0, count, BATCH)])
    inputs = inputs.pin_memory() if on_gpu else inputs

    @torch.inference_mode()
    def bare() -> None:
        for batch in inputs.split(BATCH):
            model(batch.to(device, non_blocking=True))
        if on_gpu:
            torch.cuda.synchronize()

    extractor = create_feature_extractor(model, STAGES).eval()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs), batch_size=BATCH, pin_memory=on_gpu)

    @torch.inference_mode()
    def torchvision_loop() -> Any:
        found: dict[str, list[Any]] = {name: [] for name in STAGES}
        for (batch,) in loader:
            for name, x in extractor(batch.to(device, non_blocking=True)).items():
                found[name].append(x.mean((2, 3)).cpu().numpy())
        return {name: np.concatenate(x) for name, x in found.items()}

    return {
        "bare": bare,
        "ours, prepared arrays": ours(model, inputs, STAGES, reduce="mean", top=0),
        "ours, with the top samples": ours(model, inputs, STAGES, reduce="mean"),
        "ours, images": ours(model, images, STAGES, reduce="mean", top=0, size=size),
        HALF: ours(model, inputs[: count // 2], STAGES, reduce="mean", top=0),
        "ours, bfloat16": ours(model, inputs, STAGES, reduce="mean", top=0, compute="bfloat16"),
        "torchvision's extractor, DataLoader": torchvision_loop,
        **thingsvision(model, inputs, device),
    }


def thingsvision(model: Any, inputs: Any, device: str) -> dict[str, Callable[[], Any]]:
    """The extractor of thingsvision, where it is installed: all layers in one pass, whole outputs, then their means."""
    if importlib.util.find_spec("thingsvision") is None:
        return {}
    # It imports tensorflow, beside which triton aborts the process, and asks NumPy 2 for a name of NumPy 1.
    sys.modules["triton"] = None  # type: ignore[assignment]
    vars(np)["AxisError"] = np.exceptions.AxisError
    with contextlib.redirect_stdout(io.StringIO()):
        from thingsvision import get_extractor_from_model

        extractor = get_extractor_from_model(model=model, device=device, backend="pt")

    def run() -> Any:
        # It counts and clears its progress on the way, also where nobody looks.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found = extractor.extract_features(batches=inputs.split(BATCH), module_names=STAGES, output_type="ndarray")
        return {name: x.mean((2, 3)) for name, x in found.items()}

    return {"thingsvision": run}


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

    def predicted(network: Any) -> Any:
        found = network.predict(inputs, batch_size=BATCH, verbose=0)
        return [x.mean((1, 2)) for x in found]

    return {
        "bare": bare,
        "ours, prepared arrays": ours(model, inputs, BLOCKS, reduce="mean", top=0, prepared=True),
        "ours, with the top samples": ours(model, inputs, BLOCKS, reduce="mean", prepared=True),
        HALF: ours(model, inputs[: count // 2], BLOCKS, reduce="mean", top=0, prepared=True),
        "Keras' predict, several outputs": lambda: predicted(several),
        "Keras' predict, several outputs, new": lambda: predicted(ag.submodel(model, BLOCKS)),
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


def photos(count: int) -> dict[str, dict[str, Any]]:
    """The cases of a record: what a photo costs from its file to the store, on one core."""
    import torch
    from PIL import Image

    torch.set_num_threads(1)
    model = ag.load("efficientnet_lite0", weights="random")
    rng, cases = np.random.default_rng(0), dict[str, dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "photos")
        place.mkdir()
        for i in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8))
            coarse.resize((500, 375), Image.Resampling.BICUBIC).save(place / f"{i:06}.jpg", quality=90)
        cases["read, a photo"] = spread([sum(x.stat().st_size for x in place.iterdir()) / count / 1e3], "kB")
        for compute in (None, "bfloat16"):
            times = []
            for run in range(4):
                store, start = Path(folder, f"{compute}{run}.zarr"), time.process_time()
                ag.extract(model, place, "blocks.*", store, reduce="mean", top=0, compute=compute, workers=1)
                times.append((time.process_time() - start) * 1e3 / count)
            cases[f"{compute or 'float32'}, a photo"] = spread(times[1:], "ms")
        cases["written, a photo"] = spread(
            [sum(x.stat().st_size for x in store.rglob("*") if x.is_file()) / count / 1e3], "kB"
        )
    for name, case in cases.items():
        print(f"  {name:24s} {case['median']:8.2f} {case['unit']}")
    return cases


def compression() -> dict[str, dict[str, Any]]:
    """The cases of a record: bytes that a number takes, and how fast one core writes."""
    import skimage.data
    from numcodecs import Blosc, blosc

    from agnostic.extract.parts import stored_as

    blosc.set_nthreads(1)
    given = [skimage.data.astronaut(), skimage.data.chelsea(), skimage.data.coffee(), skimage.data.rocket()]
    windows = np.stack([x[:224, i : i + 224] for x in given for i in range(0, 200, 25)])
    model, layers = ag.load("efficientnet_lite0"), ["blocks.1", "blocks.3", "blocks.5", "blocks.6"]
    record = ag.capture(model, ag.prepare(model, windows), layers).numpy()
    arrays = {"outputs": list(record.values()), "means": [x.mean((2, 3)) for x in record.values()]}
    ways = [("zstd", 1, 1), ("zstd", 3, 1), ("zstd", 9, 1), ("lz4", 1, 1), ("zstd", 3, 2)]
    cases: dict[str, dict[str, Any]] = {}
    for dtype in ("float32", "float16", "bfloat16"):
        for name, level, shuffle in ways:
            for what, own in arrays.items():
                stored = [np.ascontiguousarray(stored_as(x, dtype, what)) for x in own]
                codec = Blosc(cname=name, clevel=level, shuffle=shuffle)
                start = time.process_time()
                size = sum(len(codec.encode(x)) for x in stored)
                seconds = time.process_time() - start
                called = f"{dtype}, {what}, {name} {level}, {'bytes' if shuffle == 1 else 'bits'} sorted"
                cases[called] = spread([size / sum(x.size for x in stored)], "bytes a number")
                if what == "outputs":
                    cases[f"{called}, speed"] = spread([sum(x.nbytes for x in stored) / seconds / 1e6], "MB/s")
    for name, case in cases.items():
        print(f"  {name:60s} {case['median']:8.2f} {case['unit']}")
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("torch", "jax", "tensorflow"), help="of Keras; by default PyTorch alone")
    parser.add_argument("--device", default="cpu", help="of PyTorch: cpu or cuda")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--photos", type=int, help="number of JPEG files")
    parser.add_argument("--compression", action="store_true", help="ways to compress")
    parser.add_argument("--memory", type=int, nargs="+", help="numbers of images")
    add_option(parser)
    arguments = parser.parse_args()
    print(headline())
    if arguments.memory:
        memory(arguments.memory)
        return
    if arguments.compression:
        keep("extract", compression(), arguments.json, compression=True)
        return
    if arguments.photos:
        keep("extract", photos(arguments.photos), arguments.json, photos=arguments.photos)
        return
    if arguments.engine:
        os.environ["KERAS_BACKEND"] = arguments.engine
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
        functions = on_keras(arguments.size, arguments.images, arguments.engine)
    else:
        functions = on_torch(arguments.size, arguments.images, arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        cases = measured(functions, arguments.rounds, arguments.images)
    keep("extract", cases, arguments.json, engine=arguments.engine, size=arguments.size, images=arguments.images)


def measured(functions: dict[str, Callable[[], Any]], rounds: int, images: int) -> dict[str, dict[str, Any]]:
    """The cases of a record: rounds of all contenders, one after the other, after one that is not counted."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    busy: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            with Busy() as gpu:
                start, clock = time.process_time(), time.perf_counter()
                function()
                spent = time.process_time() - start, time.perf_counter() - clock
            count = images // 2 if name == HALF else images
            times[name].append((spent[0] * 1e3 / count, spent[1] * 1e3 / count))
            busy[name] += [] if gpu.fraction is None else [gpu.fraction]
    # What counts: the processor's time, or the clock's where a GPU computes.
    which = 1 if busy["bare"] else 0
    medians = {name: [statistics.median(x) for x in zip(*values, strict=True)] for name, values in times.items()}
    bare = medians["bare"][which]
    for name, both in medians.items():
        used = f"  GPU busy {statistics.median(busy[name]):.0%}" if busy[name] else ""
        print(f"  {name:38s} {both[0]:8.3f} ms per image, {both[1]:8.3f} by the clock  x{both[which] / bare:.2f}{used}")
    whole, half = (medians[name][which] for name in ("ours, prepared arrays", HALF))
    each, once = 2 * whole - half, (half - whole) * images
    print(f"  ours, each further image {each:8.3f} ms  x{each / bare:.2f}; once {once:.0f} ms")
    found = {name: spread([x for x, _ in values], "ms", over=medians["bare"][0]) for name, values in times.items()}
    clocks = {
        f"{name}, by the clock": spread([x for _, x in values], "ms", over=medians["bare"][1])
        for name, values in times.items()
    }
    shares = {f"{name}, GPU busy": spread(values, "of the time") for name, values in busy.items() if values}
    each_case = {"ours, each further image": spread([each], "ms", over=bare), "ours, once": spread([once], "ms a run")}
    return {**found, **clocks, **shares, **each_case}


if __name__ == "__main__":
    main()
