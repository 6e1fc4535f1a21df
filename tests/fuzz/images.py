"""Fuzzer of the image readers: damaged files of every format must give an image or one sentence, whichever reads them.

    python tests/fuzz/images.py --seed 7 --seconds 600

Each trial is made from the seed and its number alone. A failure is printed with both, and its file is kept.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from agnostic.augmentation import pictures
from agnostic.data.images import Reading
from agnostic.data.images import read_image as read_for_folder
from agnostic.errors import InvalidInput
from agnostic.files import read_image

Rng = np.random.Generator
Reader = Callable[[Path], np.ndarray[Any, Any]]

READERS: dict[str, tuple[Reader, type]] = {
    "read_image": (read_image, np.uint8),
    "folder": (lambda path: read_for_folder(path, Reading((8, 12))), np.uint8),
    "folder, as they are": (lambda path: read_for_folder(path, Reading(None, "rgba", decoder="pillow")), np.uint8),
    "folder, grey": (lambda path: read_for_folder(path, Reading((8, 12), "grayscale", first_frame=True)), np.uint8),
    "legacy rgb": (lambda path: pictures.load(path, "rgb", (8, 12), "bilinear", True), np.float32),
    "legacy rgba": (lambda path: pictures.load(path, "rgba", (8, 12), "lanczos"), np.float32),
    "legacy grey": (lambda path: pictures.load(path, "grayscale"), np.float32),
}


@dataclass(frozen=True)
class Failure:
    """A file that a reader did not answer as it must."""

    seed: int
    trial: int
    kind: str
    reader: str
    what: str
    data: bytes


def originals() -> dict[str, bytes]:
    """Whole image files by kind: the formats that are read here, and some that are not."""
    y, x = np.mgrid[0:20, 0:28]
    rgb = Image.fromarray(np.stack([x * 9, y * 12, (x * y) % 251], -1).astype(np.uint8))
    grey16 = Image.fromarray((x * 2000 + y).astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    saved: list[tuple[str, Image.Image, str, dict[str, Any]]] = [
        ("png", rgb, "PNG", {}),
        ("png rgba", rgb.convert("RGBA"), "PNG", {}),
        ("png palette", rgb.quantize(16), "PNG", {"transparency": 3}),
        ("png 16 bits", grey16, "PNG", {}),
        ("png animated", rgb, "PNG", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        ("jpeg", rgb, "JPEG", {"exif": exif}),
        ("jpeg progressive", rgb, "JPEG", {"progressive": True}),
        ("jpeg cmyk", rgb.convert("CMYK"), "JPEG", {}),
        ("mpo", rgb, "MPO", {"save_all": True, "append_images": [rgb]}),
        ("gif", rgb.quantize(16), "GIF", {}),
        ("gif animated", rgb, "GIF", {"save_all": True, "append_images": [rgb.rotate(90), rgb]}),
        ("bmp", rgb, "BMP", {}),
        ("bmp palette", rgb.quantize(16), "BMP", {}),
        ("ppm", rgb, "PPM", {}),
        ("tiff", rgb, "TIFF", {"exif": exif}),
        ("tiff 16 bits", grey16, "TIFF", {}),
        ("tiff float", rgb.convert("F"), "TIFF", {}),
        *((f"tiff {c}", rgb, "TIFF", {"compression": c}) for c in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")),
        ("tiff pages", rgb, "TIFF", {"save_all": True, "append_images": [rgb]}),
        ("dds", rgb, "DDS", {}),
        ("eps", rgb, "EPS", {}),
        ("ico", rgb, "ICO", {}),
        ("tga", rgb, "TGA", {}),
        ("sgi", rgb, "SGI", {}),
    ]
    if features.check("webp"):
        saved += [
            ("webp", rgb, "WEBP", {"exif": exif}),
            ("webp lossless", rgb.convert("RGBA"), "WEBP", {"lossless": True}),
        ]
    if features.check("avif"):
        saved += [("avif", rgb, "AVIF", {}), ("avif rgba", rgb.convert("RGBA"), "AVIF", {})]
    if features.check("jpg_2000"):
        saved += [("jpeg2000", rgb, "JPEG2000", {})]
    files = {}
    for kind, image, form, options in saved:
        stream = io.BytesIO()
        image.save(stream, form, **options)
        files[kind] = stream.getvalue()
    return files


def mutated(data: bytes, rng: Rng) -> bytes:
    """The file with one to six changes: bytes, fields of extreme value, pieces cut out, doubled or moved."""
    content = bytearray(data)
    # Half of the changes strike the first bytes, where headers are.
    reach = len(content) if rng.random() < 0.5 else min(len(content), 96)
    for _ in range(rng.integers(1, 7)):
        if not content:
            break
        place = int(rng.integers(0, min(reach, len(content))))
        length = int(rng.integers(1, 17))
        match int(rng.integers(0, 6)):
            case 0:
                content[place] ^= 1 << int(rng.integers(0, 8))
            case 1:
                content[place : place + length] = rng.bytes(min(length, len(content) - place))
            case 2:
                field = int(rng.choice([1, 2, 4, 8]))
                extreme = (0, 1, (1 << (8 * field - 1)) - 1, (1 << (8 * field)) - 1)[int(rng.integers(0, 4))]
                content[place : place + field] = extreme.to_bytes(field, "little" if rng.random() < 0.5 else "big")
            case 3:
                del content[place : place + length]
            case 4:
                content[place:place] = content[place : place + length]
            case _:
                del content[int(rng.integers(0, len(content) + 1)) :]
    return bytes(content)


def trials(seed: int) -> Iterator[tuple[int, str, bytes]]:
    """Number, kind and content of endless damaged files; the first ones are whole."""
    files = originals()
    kinds = list(files)
    for trial, kind in enumerate(kinds):
        yield trial, kind, files[kind]
    trial = len(kinds)
    while True:
        rng = np.random.default_rng([seed, trial])
        kind = kinds[int(rng.integers(len(kinds)))]
        yield trial, kind, mutated(files[kind], rng)
        trial += 1


def fault(read: Reader, dtype: type, path: Path) -> str | None:
    """What is wrong with a reader's answer; None where it is an image, or one sentence that names the file."""
    try:
        image = read(path)
    except InvalidInput as error:
        said = str(error)
        return None if str(path) in said and "\n" not in said else f"the error is not one sentence: {said!r}"
    except Exception:  # noqa: BLE001 - which is what is looked for
        return traceback.format_exc()
    if image.dtype != dtype or image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
        return f"it read {image.dtype} of shape {image.shape}"
    return None


def run(seed: int, count: int | None = None, seconds: float | None = None) -> Iterator[Failure]:
    """The failures among ``count`` files, or those that ``seconds`` allow."""
    end = None if seconds is None else time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "photo.png")  # content decides, whatever the name says
        for trial, kind, data in trials(seed):
            if trial == count or (end is not None and time.monotonic() > end):
                return
            path.write_bytes(data)
            for name, (read, dtype) in READERS.items():
                if what := fault(read, dtype, path):
                    yield Failure(seed, trial, kind, name, what, data)


def main() -> int:
    """The command: 0 where nothing was found, 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for the files that fail")
    given = parser.parse_args()
    found = 0
    for failure in run(given.seed, seconds=given.seconds):
        found += 1
        given.keep.mkdir(parents=True, exist_ok=True)
        kept = given.keep / f"image-{failure.seed}-{failure.trial}"
        kept.write_bytes(failure.data)
        print(f"{failure.kind}, {failure.reader}: {kept}\n{failure.what}", flush=True)
    print(f"{found} failures with seed {given.seed}")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
