from __future__ import annotations

import os

import numpy as np
import pytest

# The legacy class is NumPy and SciPy alone; any engine that is installed lets Keras be imported.
os.environ.setdefault("KERAS_BACKEND", "jax")


@pytest.fixture(scope="session")
def photos() -> np.ndarray:
    """(7, 30, 30, 3) float32 in 0..255: parts of a photograph, with flat and textured places."""
    data = pytest.importorskip("skimage.data")
    image = data.astronaut()[::4, ::4]
    corners = [(0, 0), (20, 10), (40, 40), (0, 90), (60, 60), (90, 20), (98, 98)]
    return np.stack([image[y : y + 30, x : x + 30] for y, x in corners]).astype(np.float32)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three classes of photographs, of several sizes, formats and depths; one class has a folder inside it."""
    data = pytest.importorskip("skimage.data")
    image = pytest.importorskip("PIL.Image")
    root = tmp_path_factory.mktemp("pictures")
    picture = image.fromarray(data.astronaut())
    for k, name in enumerate(("cats", "dogs", "other animals")):
        (root / name / "more").mkdir(parents=True)
        for j in range(4 + k):
            part = picture.crop((40 * j, 60 * k, 40 * j + 90 + 7 * j, 60 * k + 80 + 5 * k))
            if j == 1:
                part.convert("L").save(root / name / f"gray {j}.PNG")
            elif j == 2:
                part.convert("RGBA").save(root / name / "more" / f"täuschung_{j}.png")
            elif j == 3:
                part.convert("P").save(root / name / f"b{j}.png")
            else:
                part.save(root / name / f"a{j}.jpg", quality=95)
        (root / name / "notes.txt").write_text("not a picture")
    return str(root)
