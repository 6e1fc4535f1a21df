"""Pictures on disk: every finished image is kept at once, and a mosaic is made of them; interrupted work goes on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agnostic.backend import Backend, Model, backend_of
from agnostic.errors import InvalidInput
from agnostic.files import atomic_path, read_image, read_png_metadata, write_png
from agnostic.visualization.ascent import Ascent, Settings, prepare
from agnostic.visualization.mosaic import mosaic
from agnostic.visualization.objectives import Objective
from agnostic.visualization.recipes import Recipe

KEYWORD = "agnostic"
"""The PNG text that says how an image was made, as JSON."""


@dataclass(frozen=True)
class Drawing:
    """One mosaic to be drawn.

    Attributes:
        path: of the mosaic's PNG file; its images go to the folder of that name without the suffix.
        items: one name an image, used for its file.
        objective: from some of the items to their objective, one image an item.
        columns: images in a row of the mosaic.
    """

    path: Path
    items: tuple[str, ...]
    objective: Callable[[Sequence[str]], Objective]
    columns: int = 8

    @property
    def folder(self) -> Path:
        """Where the single images are kept."""
        return self.path.with_suffix("") if self.path.suffix == ".png" else self.path

    def image_path(self, item: str) -> Path:
        """The file of one item's image."""
        return self.folder / f"{slug(item)}.png"


def slug(name: str) -> str:
    """A file name for any name: letters, digits, dots, underscores and hyphens stay."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "unnamed"


def fingerprint(backend: Backend, model: Model) -> str:
    """A digest of the model's class and weights: images of another model are not taken for finished ones of this."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{type(model).__module__}.{type(model).__qualname__}".encode())
    for name, array in sorted(backend.weights(model).items()):
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what is finished by then."""


def draw(
    model: Model,
    drawing: Drawing,
    *,
    recipe: str | Recipe = "fourier",
    size: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    settings: Settings | None = None,
    progress: Callable[[str, int], Any] | None = None,
) -> int:
    """Draw what is not yet there, then the mosaic.

    Args:
        progress: a context manager of a description and a number of steps, that yields a function to be called with
            steps done; see :func:`agnostic.cli.common.progress`.

    Returns:
        How many images were found finished from an earlier call.

    Raises:
        Interrupted: by Ctrl-C; finished images are kept, and the same call goes on from there.
        InvalidInput, UnknownName, NonFinite: see :func:`agnostic.visualization.ascent.visualize`.
    """
    settings = settings or Settings()
    _, ascent = prepare(model, drawing.objective(drawing.items), recipe=recipe, size=size, steps=steps, seed=seed)
    if ascent.shape[2] not in (1, 3):
        raise InvalidInput(f"images of {ascent.shape[2]} channels cannot be shown: 1 (grey) or 3 (colour) can")
    if drawing.folder.exists() and not drawing.folder.is_dir():
        raise InvalidInput(f"cannot write to {str(drawing.folder)!r}: a file stands where the images' folder should be")
    backend = backend_of(model)
    model_digest = fingerprint(backend, model)
    labels = ascent.objective.labels()
    made_by = [_made_by(ascent, label, model_digest, settings) for label in labels]
    # Opened first, so that a folder that cannot be written to is not found out at the end.
    with atomic_path(drawing.path) as temporary:
        missing = [i for i, item in enumerate(drawing.items) if not _finished(drawing.image_path(item), made_by[i])]
        found = len(drawing.items) - len(missing)
        if len(missing) == 1 and found:
            # A lone image has other bits than the same one among several; see the backends' ascent.
            missing.append(0 if missing[0] else 1)
        if missing:
            objective = drawing.objective([drawing.items[i] for i in missing])
            backend, ascent = prepare(model, objective, recipe=recipe, size=size, steps=steps, seed=seed)
            what = f"drawing {drawing.path.stem}"
            if progress is None:
                _ascend(backend, model, ascent, settings, drawing, missing, made_by)
            else:
                with progress(what, ascent.steps * ascent.count) as on_step:
                    chosen = Settings(
                        settings.micro_batch, settings.dtype, settings.memory_format, settings.device, on_step
                    )
                    _ascend(backend, model, ascent, chosen, drawing, missing, made_by)
        images = np.stack([read_image(drawing.image_path(item)) for item in drawing.items])
        write_png(temporary, mosaic(images, drawing.columns), {KEYWORD: json.dumps({"items": list(drawing.items)})})
    return found


def _ascend(
    backend: Backend,
    model: Model,
    ascent: Ascent,
    settings: Settings,
    drawing: Drawing,
    missing: Sequence[int],
    made_by: Sequence[Mapping[str, Any]],
) -> None:
    done = 0
    try:
        for climbed in backend.ascend(model, ascent, settings):
            for place, (i, remark) in enumerate(zip(climbed.images, ascent.remarks(climbed), strict=True)):
                item = missing[i]
                text = {**made_by[item], "objective": float(climbed.scores[-1, place]), "remark": remark}
                write_png(drawing.image_path(drawing.items[item]), climbed.pixels[place], {KEYWORD: json.dumps(text)})
                done += 1
    except KeyboardInterrupt:
        raise Interrupted(
            f"{done} of {len(missing)} images are finished and kept in {str(drawing.folder)!r}; "
            "the same command goes on from there"
        ) from None


def _made_by(ascent: Ascent, label: str, model: str, settings: Settings) -> dict[str, Any]:
    """All that the pixels depend on."""
    return {
        "label": label,
        "model": model,
        "recipe": repr(ascent.recipe),
        "size": list(ascent.shape),
        "seed": ascent.seed,
        "preprocessing": repr(ascent.preprocessing),
        "dtype": settings.dtype or "auto",
    }


def _finished(path: Path, made_by: Mapping[str, Any]) -> bool:
    if not path.exists():
        return False
    try:
        text = json.loads(read_png_metadata(path).get(KEYWORD, "{}"))
        shape = read_image(path).shape
    except (InvalidInput, json.JSONDecodeError):
        return False  # not ours, or damaged: it is drawn again
    if not isinstance(text, dict) or list(shape[:2]) != made_by["size"][:2]:
        return False
    return all(text.get(key) == value for key, value in made_by.items())
