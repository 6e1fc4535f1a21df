"""Small image files for the tests, each with a content that can be told."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(index: int, width: int = 40, height: int = 30) -> Image.Image:
    """A smooth picture whose mean tells its index (0 to 49)."""
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([x * 100 / width, y * 100 / height, 50 + 0 * x], axis=-1)
    return Image.fromarray((base + 3 * index).astype(np.uint8))


def folder(root: Path, counts: dict[str, int], **size: int) -> Path:
    """A folder of JPEG files, a class a subfolder; the file's name and mean tell a running index."""
    index = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for _ in range(count):
            picture(index % 50, **size).save(root / name / f"{index:04}.jpg", quality=95)
            index += 1
    return root
