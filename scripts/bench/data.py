"""Sequences and image folders against Keras and torchvision, side by side in one run.

    python scripts/bench/data.py                   both parts
    python scripts/bench/data.py sequences
    python scripts/bench/data.py images --photos FOLDER    with photographs of your own

Each peer runs in a process of its own kind, interleaved with ours there; what is printed are medians, the ratio to ours
(above 1: ours is faster), versions and the processor. Photographs: those of scikit-image, enlarged to a camera's size.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "backends")]

from report import add_option, headline, keep, quartiles, spread  # noqa: E402

MAXLEN = 500
SIZE = (150, 150)
BATCH = 32


def interleaved(cases: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every case, one of each in turn, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


# Sequences --------------------------------------------------------------------------------------------------------
def sequences(rounds: int) -> dict[str, list[float]]:
    """25,000 sequences like IMDB's: mean length 230, vocabulary 10,000, maxlen 500."""
    import keras
    import numpy as np
    import torch

    from agnostic.data import Ragged, pad_sequences

    rng = np.random.default_rng(0)
    lengths = rng.lognormal(5.16, 0.75, 25_000)
    lengths = np.clip(lengths * 230 / lengths.mean(), 10, 2500).astype(np.int64)
    values = rng.integers(1, 10_000, lengths.sum())
    arrays = np.split(values, np.cumsum(lengths)[:-1])
    lists = [array.tolist() for array in arrays]
    tensors = [torch.from_numpy(array) for array in arrays]
    ragged = Ragged(values, lengths)
    theirs = keras.utils.pad_sequences
    expected = theirs(lists, MAXLEN)
    for given in (lists, arrays, ragged, tensors):
        assert np.array_equal(np.asarray(pad_sequences(given, MAXLEN)), expected)
    print(f"mean length {lengths.mean():.0f}, {np.mean(lengths > MAXLEN):.0%} longer than {MAXLEN}", file=sys.stderr)
    return interleaved(
        {
            "keras, lists": lambda: theirs(lists, MAXLEN),
            "ours, lists": lambda: pad_sequences(lists, MAXLEN),
            "keras, arrays": lambda: theirs(arrays, MAXLEN),
            "ours, arrays": lambda: pad_sequences(arrays, MAXLEN),
            "ours, ragged": lambda: pad_sequences(ragged, MAXLEN),
            "keras, tensors": lambda: theirs(tensors, MAXLEN),
            "ours, tensors": lambda: pad_sequences(tensors, MAXLEN),
        },
        rounds,
    )


# Images -----------------------------------------------------------------------------------------------------------
def photographs(root: Path, width: int, count: int) -> Path:
    """``count`` JPEG files in two classes: scikit-image's photographs at that width, quality 90."""
    import skimage.data
    from PIL import Image

    names = ("astronaut", "chelsea", "coffee", "rocket", "retina", "immunohistochemistry")
    encoded = []
    for name in names:
        try:
            photo = Image.fromarray(getattr(skimage.data, name)())
        except (OSError, ModuleNotFoundError):
            # Some are fetched by scikit-image where they are not packaged.
            continue
        path = root / f"{name}.jpg"
        photo.resize((width, width * photo.height // photo.width), Image.Resampling.LANCZOS).save(path, quality=90)
        encoded.append(path.read_bytes())
        path.unlink()
    for index in range(count):
        folder = root / "photos" / ("even", "odd")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index:05}.jpg").write_bytes(encoded[index % len(encoded)])
    return root / "photos"


def images(photos: Path, rounds: int) -> dict[str, list[float]]:
    """One epoch with 2 workers, from files to float32 batches; torchvision's workers persist, started before."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder as TheirFolder
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import InterpolationMode, v2

    from agnostic.augmentation import Augmentation
    from agnostic.data import ImageFolder

    # The ranges of the seed's script.
    affine = Augmentation(
        rotation=(-40, 40),
        height_shift=(-0.2, 0.2),
        width_shift=(-0.2, 0.2),
        shear=(-0.2, 0.2),
        zoom=(0.8, 1.2),
        horizontal_flip=0.5,
    )
    geometry = {"degrees": 40, "translate": (0.2, 0.2), "scale": (0.8, 1.2), "shear": 0.2}
    bilinear = InterpolationMode.BILINEAR

    def peer(folder: TheirFolder) -> Callable[[], object]:
        loader = DataLoader(folder, BATCH, shuffle=True, num_workers=2, persistent_workers=True)
        return lambda: [None for _ in loader]

    def pil(*extra: Any) -> Callable[[], object]:
        steps = [transforms.Resize(SIZE), *extra, transforms.ToTensor()]
        return peer(TheirFolder(str(photos), transforms.Compose(steps)))

    def tensors(*extra: Any) -> Callable[[], object]:
        steps = [v2.Resize(SIZE, antialias=True), *extra, v2.ToDtype(torch.float32, scale=True)]

        def loader(path):
            return decode_image(path, ImageReadMode.RGB)

        return peer(TheirFolder(str(photos), v2.Compose(steps), loader=loader))

    def ours(**options: Any) -> Callable[[], object]:
        batches = ImageFolder(photos, SIZE, **options).batches(BATCH, workers=2)
        return lambda: [None for _ in batches]

    loader = ImageFolder(photos, SIZE, augmentation=affine).batches(BATCH).dataloader(num_workers=2)
    return interleaved(
        {
            "torchvision, resize": pil(),
            "torchvision on tensors, resize": tensors(),
            "ours, resize": ours(),
            "ours with torch, resize": ours(resizer="torch"),
            "ours, resize, decoded in full": ours(scaled=False),
            "ours, resize, Pillow decodes": ours(decoder="pillow"),
            "torchvision, resize and warp": pil(
                transforms.RandomAffine(**geometry, interpolation=bilinear), transforms.RandomHorizontalFlip()
            ),
            "torchvision on tensors, resize and warp": tensors(
                v2.RandomAffine(**geometry, interpolation=bilinear), v2.RandomHorizontalFlip()
            ),
            "ours, resize and warp": ours(augmentation=affine),
            "ours with torch, resize and warp": ours(augmentation=affine, resizer="torch"),
            "ours as a DataLoader with 2 processes, resize and warp": lambda: [None for _ in loader],
        },
        rounds,
    )


# Reports ----------------------------------------------------------------------------------------------------------
def table(title: str, seconds: dict[str, list[float]], pairs: list[tuple[str, str]], unit: float, label: str) -> None:
    """Medians, quartiles, and the ratio of peer to ours."""
    print(f"\n{title}")
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        low, _, high = quartiles(values)
        print(f"  {name:56} {middle[name] * unit:8.2f} {label}   (quartiles {low * unit:.2f} to {high * unit:.2f})")
    for peer, own in pairs:
        ratio = middle[peer] / middle[own]
        print(f"  {peer} / {own}: {ratio:.2f}{'' if ratio >= 1 else '   (ours is slower)'}")


def child(part: str, *arguments: str) -> dict[str, list[float]]:
    """Run one part in a process of its own, so that one framework's set-up cannot slow another's."""
    command = [sys.executable, __file__, "--child", part, *arguments]
    done = subprocess.run(command, env={"KERAS_BACKEND": "torch", **os.environ}, stdout=subprocess.PIPE, check=True)
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["all", "sequences", "images"], default="all")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--photos", type=Path, help="a folder of photographs, a class a subfolder")
    add_option(parser)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        found = sequences(options.rounds) if options.part == "sequences" else images(options.photos, options.rounds)
        print(json.dumps(found))
        return

    print(headline())
    results: dict[str, dict[str, list[float]]] = {}
    rounds = ["--rounds", str(options.rounds)]
    if options.part != "images":
        found = results["sequences"] = child("sequences", *rounds)
        pairs = [(f"keras, {kind}", f"ours, {kind}") for kind in ("lists", "arrays", "tensors")]
        pairs += [("ours, lists", "ours, ragged"), ("keras, lists", "ours, ragged")]
        table("pad_sequences, 25,000 sequences", found, pairs, 1e3, "ms")
    if options.part != "sequences":
        pairs = [
            (f"{peer}, {what}", f"{own}, {what}")
            for what in ("resize", "resize and warp")
            for own in ("ours", "ours with torch")
            for peer in ("torchvision", "torchvision on tensors")
        ]
        with tempfile.TemporaryDirectory() as place:
            if options.photos:
                folders = {"your photographs": options.photos}
            else:
                folders = {
                    f"{count} photographs {width} wide": photographs(Path(place, str(width)), width, count)
                    for width, count in ((500, 480), (2000, 96))
                    if Path(place, str(width)).mkdir() is None
                }
            for title, folder in folders.items():
                found = results[title] = child("images", *rounds, "--photos", str(folder))
                count = sum(1 for path in folder.rglob("*") if path.is_file())
                table(f"{title}, files to batches of {BATCH}, 2 workers", found, pairs, 1e3 / count, "ms/image")
    cases = {
        f"{title}: {name}": spread(seconds, "s") for title, found in results.items() for name, seconds in found.items()
    }
    keep("data", cases, options.json)


if __name__ == "__main__":
    main()
