"""Augmentation against its peers, in one run, on real photographs.

Every peer does the same geometry with the settings of the classic script: rotation 40 degrees, shifts 0.2, shear 0.2,
zoom 0.2, horizontal flip, nearest edge, bilinear, on 150 x 150 x 3. Peers take turns, round by round, so that whatever
else the machine does falls on all of them; times are medians over the rounds, with the quartiles beside them. A peer
that is not installed is said to be missing. torchvision cannot fill with the nearest edge: it fills with a constant,
which is less work.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import math
import os
import time
import warnings
from collections.abc import Callable

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
warnings.simplefilter("ignore")

# What is set above must be set before these are imported.
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from report import add_option, headline, keep  # noqa: E402

from agnostic.augmentation import Augmentation, ImageDataGenerator  # noqa: E402
from agnostic.augmentation import warp as warping  # noqa: E402

SETTINGS = {
    "rotation_range": 40,
    "width_shift_range": 0.2,
    "height_shift_range": 0.2,
    "shear_range": 0.2,
    "zoom_range": 0.2,
    "horizontal_flip": True,
}
MODERN = Augmentation(
    rotation=(-40, 40),
    width_shift=(-0.2, 0.2),
    height_shift=(-0.2, 0.2),
    shear=(-0.2, 0.2),
    zoom=(1 / 1.2, 1.25),
    horizontal_flip=0.5,
)
BATCH = 32
TURN = 0.06
Timed = dict[str, Callable[[], object]]


def photographs() -> np.ndarray:
    """(32, 150, 150, 3) uint8: square parts of the photographs that scikit-image and scikit-learn carry."""
    data = importlib.import_module("skimage.data")
    sources = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    learn = optional("sklearn.datasets")
    if learn:
        sources += list(learn.load_sample_images().images)
    parts = []
    for k in range(BATCH):
        image = sources[k % len(sources)]
        side = min(image.shape[:2])
        left = (image.shape[1] - side) * (k // len(sources)) // max(1, BATCH // len(sources))
        part = Image.fromarray(image[:side, left : left + side])
        parts.append(np.asarray(part.resize((150, 150), Image.Resampling.BILINEAR)))
    return np.stack(parts)


def measure(timed: Timed, rounds: int, clock: Callable[[], float]) -> dict[str, dict[str, float]]:
    """Milliseconds of each, in turns: median and quartiles.

    A turn repeats its work until it takes 60 ms, as training would: a core that has slept meanwhile takes its time.
    """
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    times: dict[str, int] = {}
    for name, function in timed.items():
        function()
        start = time.perf_counter()
        function()
        times[name] = max(1, math.ceil(TURN / (time.perf_counter() - start)))
    for _ in range(rounds):
        for name, function in timed.items():
            start = clock()
            for _ in range(times[name]):
                function()
            seconds[name].append((clock() - start) / times[name])
    return {
        name: dict(zip(("low", "median", "high"), (np.percentile(s, [25, 50, 75]) * 1e3).tolist(), strict=True))
        for name, s in seconds.items()
    }


def warps(images: np.ndarray) -> Timed:
    """One image, one set of parameters: matrix and resampling, without drawing."""
    ours, timed = ImageDataGenerator(**SETTINGS), {}
    drawn = [ours.get_random_transform((150, 150, 3), seed=k) for k in range(BATCH)]
    floats = images.astype(np.float32)

    def over(apply: Callable[[np.ndarray, dict], object]) -> Callable[[], object]:
        return lambda: [apply(x, p) for x, p in zip(floats, drawn, strict=True)]

    timed["agnostic"] = over(ours.apply_transform)
    if warping.opencv_agrees():
        exact = ImageDataGenerator(**SETTINGS)
        exact.warp_path = "exact"
        timed["agnostic, float64 reference"] = over(exact.apply_transform)
    legacy = optional("keras.src.legacy.preprocessing.image")
    if legacy:
        timed["keras legacy"] = over(legacy.ImageDataGenerator(**SETTINGS).apply_transform)
    return timed


def flows(images: np.ndarray) -> Timed:
    """A batch of 32 through ``flow``, drawing and rescaling included."""
    floats = images.astype(np.float32)
    timed: Timed = {}
    ours = ImageDataGenerator(rescale=1 / 255, **SETTINGS).flow(floats, seed=0)
    timed["agnostic"] = lambda: next(ours)
    legacy = optional("keras.src.legacy.preprocessing.image")
    if legacy:
        theirs = legacy.ImageDataGenerator(rescale=1 / 255, **SETTINGS).flow(floats, seed=0)
        timed["keras legacy"] = lambda: next(theirs)
    return timed


def modern(images: np.ndarray, dtype: str) -> Timed:
    """A batch of 32, drawing included, images one by one where a peer draws one for all of a batch."""
    batch = images if dtype == "uint8" else images.astype(np.float32) / np.float32(255)
    timed: Timed = {"agnostic numpy": lambda: MODERN(batch, seed=0)}
    torch = optional("torch")
    if torch:
        tensor = torch.from_numpy(batch).movedim(3, 1).contiguous()
        timed["agnostic torch"] = lambda: MODERN(tensor, seed=0)
        v2 = optional("torchvision.transforms.v2")
        if v2:
            chain = v2.Compose(
                [
                    v2.RandomAffine(40, (0.2, 0.2), (1 / 1.2, 1.25), (-0.2, 0.2), v2.InterpolationMode.BILINEAR),
                    v2.RandomHorizontalFlip(),
                ]
            )
            timed["torchvision v2 (constant edge)"] = lambda: [chain(x) for x in tensor]
        kornia = optional("kornia.augmentation")
        if kornia and dtype == "float32":
            affine = kornia.AugmentationSequential(
                kornia.RandomAffine(40, (0.2, 0.2), (1 / 1.2, 1.25), (-0.2, 0.2), padding_mode="border", p=1),
                kornia.RandomHorizontalFlip(p=0.5),
            )
            timed["kornia"] = lambda: affine(tensor)
    albumentations = optional("albumentations")
    if albumentations:
        cv2 = importlib.import_module("cv2")
        compose = albumentations.Compose(
            [
                albumentations.Affine(
                    rotate=(-40, 40),
                    translate_percent=(-0.2, 0.2),
                    shear=(-0.2, 0.2),
                    scale=(1 / 1.2, 1.25),
                    border_mode=cv2.BORDER_REPLICATE,
                    p=1,
                ),
                albumentations.HorizontalFlip(p=0.5),
            ]
        )
        timed["albumentations"] = lambda: [compose(image=x)["image"] for x in batch]
    return timed


def optional(name: str):
    """A module if it is installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"  ({name} is missing: {error})")
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    add_option(parser)
    parser.add_argument("--cpu", action="store_true", help="one thread each, and processor time: for a busy machine")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu else time.perf_counter
    if arguments.cpu:
        for name, call in (("cv2", "setNumThreads"), ("torch", "set_num_threads")):
            module = optional(name)
            if module:
                getattr(module, call)(1)
    images = photographs()
    clock_name = "processor time, one thread" if arguments.cpu else "wall"
    print(f"{headline()}; clock: {clock_name}")
    cases: dict[str, dict[str, object]] = {}
    for title, timed in (
        ("warp of an image, as the Keras class does it", warps(images)),
        ("flow, batches of 32", flows(images)),
        ("the same geometry, float32", modern(images, "float32")),
        ("the same geometry, uint8", modern(images, "uint8")),
    ):
        result = measure(timed, arguments.rounds, clock)
        print(f"\n{title}: ms an image (quartiles), and how many times faster we are")
        for name, spread in result.items():
            low, median, high = (spread[key] / BATCH for key in ("low", "median", "high"))
            ratios = [
                spread["median"] / r["median"] for n, r in result.items() if n.startswith("agnostic") and "64" not in n
            ]
            against = "" if name.startswith("agnostic") and "64" not in name else " / ".join(f"{r:.2f}" for r in ratios)
            print(f"  {name:32s} {median:8.4f} ({low:.4f} to {high:.4f})  {against}")
            cases[f"{title}: {name}"] = {
                "median": median,
                "quartiles": [low, high],
                "unit": "ms an image",
                "ratio": spread["median"] / result[next(iter(result))]["median"],
            }
    keep("augmentation", cases, arguments.json, clock=clock_name)


if __name__ == "__main__":
    main()
