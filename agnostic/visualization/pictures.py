"""Pictures on disk: every finished image is kept at once, and a mosaic is made of them; interrupted work goes on.

Each file says how it was made. What a file was made from decides whether it is finished work, and whether it may be
written over: only by the same work, or by force.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic import decoding
from agnostic.contracts.ascent import ASCENT
from agnostic.contracts.calls import CALLS
from agnostic.contracts.weights import WEIGHTS
from agnostic.errors import InvalidInput
from agnostic.files import atomic_path, read_image, read_regular, write_png
from agnostic.registry import Backend, Model
from agnostic.text import counted
from agnostic.version import __version__
from agnostic.visualization.ascent import Ascent, Climbed, Settings, remarks_on
from agnostic.visualization.captions import captioned
from agnostic.visualization.images import faded
from agnostic.visualization.mosaic import mosaic
from agnostic.visualization.objectives import Objective
from agnostic.visualization.verb import Options, prepare

KEYWORD = "agnostic"
"""The PNG text that says how an image was made, as JSON."""


@dataclass(frozen=True)
class Drawing:
    """One mosaic to be drawn.

    Attributes:
        path: of the mosaic's PNG file.
        folder: where its single images are kept; several mosaics may share them.
        items: one name per image, used for its file.
        objective: from some of the items to their objective, one image an item.
        layer: what the objective looks at, for the metadata.
        spec: of the model, for the metadata.
        weights: that were asked for, for the metadata.
        columns: images in a row of the mosaic.
        labels: whether the mosaic has captions.
        transparent: whether pixels that never mattered are transparent; the recipe then keeps their importance.
        redo: what draws it again, for the metadata, but for the items; see :mod:`agnostic.cli.redo`.
    """

    path: Path
    folder: Path
    items: tuple[str, ...]
    objective: Callable[[Sequence[str]], Objective]
    layer: str
    spec: str
    weights: str | None = None
    columns: int = 8
    labels: bool = True
    transparent: bool = False
    redo: Mapping[str, Any] = field(default_factory=dict)

    def image_path(self, item: str) -> Path:
        """The file of one item's image."""
        return self.folder / f"{slug(item)}.png"


@dataclass(frozen=True)
class Drawn:
    """What :func:`draw` did.

    Attributes:
        found: how many images were there from an earlier call.
        remarks: by item, on those that do not show what was asked for; see
            :attr:`agnostic.visualization.images.Images.remarks`.
    """

    found: int
    remarks: Mapping[str, str] = field(default_factory=dict)


def slug(name: str) -> str:
    """A file name for any name: letters, digits, dots, underscores and hyphens stay, and a long one is cut."""
    return shortened(re.sub(r"[^\w.-]+", "-", name).strip("-.") or "unnamed")


def shortened(name: str) -> str:
    """A file name of at most 120 bytes; where it is cut, it ends in a checksum of the whole."""
    whole = name.encode()
    if len(whole) <= _LONGEST_NAME:
        return name
    return f"{whole[: _LONGEST_NAME - 9].decode(errors='ignore')}-{checksum(name)}"


# File systems allow 255 bytes, some that encrypt only 143, and a suffix must fit.
_LONGEST_NAME = 120


def checksum(text: str) -> str:
    """Eight digits that tell one text from another in file names."""
    return format(zlib.crc32(text.encode()), "08x")


def fingerprint(backend: Backend, model: Model) -> str:
    """A digest of the model's class and weights: images of another model are not taken for finished ones of this."""
    # Processors compute this one in hardware; it is most of what a short run costs beside the model.
    digest = hashlib.sha256()
    digest.update(f"{type(model).__module__}.{type(model).__qualname__}".encode())
    for name, array in sorted(backend[WEIGHTS].weights(model).items()):
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()[:32]


def versions_of(backend: Backend) -> dict[str, str]:
    """The versions of agnostic and of what computes a model."""
    # Some frameworks have a class of their own for versions.
    return {"agnostic": __version__, **{name: str(x) for name, x in backend[CALLS].versions().items()}}


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what is finished by then."""


Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None] | None]]


Climb = Callable[[Model, Callable[[Sequence[str]], Objective], Sequence[str], Options, Settings], Iterable[Climbed]]
"""Images of a model, of the objective of items, of those items, with options and settings."""


def unseen(what: str, total: int) -> AbstractContextManager[None]:
    """Progress that nobody follows."""
    return nullcontext()


def draw(
    model: Model,
    drawing: Drawing,
    options: Options,
    *,
    settings: Settings | None = None,
    force: bool = False,
    progress: Progress = unseen,
    climb: Climb | None = None,
    known: str | None = None,
) -> Drawn:
    """Draw what is not yet there, then the mosaic.

    Args:
        model: a native model.
        drawing: what to draw, and where.
        options: what to draw with. Of the start (H, W, 3) the middle is taken, in the size of the images; fixed inputs
            are batches of 1.
        settings: how to compute it.
        force: write also over files that hold something else than this work.
        progress: a context manager of a description and a number of steps, that yields a function to be called with
            steps done; see :func:`agnostic.cli.common.progress`.
        climb: how the ascents are computed; None: in this process.
        known: the model's :func:`fingerprint`, where it was computed already.

    Raises:
        Interrupted: by Ctrl-C; finished images are kept, and the same call goes on from there.
        InvalidInput: a file that would be written over holds something else.
        InvalidInput, UnknownName, NonFinite: see :func:`agnostic.visualization.verb.visualize`.
    """
    settings = settings or Settings()
    backend, ascent = prepare(model, drawing.objective(drawing.items), replace(options, start=None))
    if ascent.shape[2] not in (1, 3):
        raise InvalidInput(f"images of {ascent.shape[2]} channels cannot be shown: 1 (grey) or 3 (colour) can")
    if drawing.folder.exists() and not drawing.folder.is_dir():
        raise InvalidInput(f"cannot write to {str(drawing.folder)!r}: a file stands where the images' folder should be")
    if options.start is not None:
        options = replace(options, start=resampled_crop(np.asarray(options.start), ascent.shape), size=ascent.shape[:2])
    work = _work(known or fingerprint(backend, model), drawing, ascent, settings, options.start)
    made_by = [{**work, "label": label} for label in ascent.objective.labels()]
    mosaic_by = {**work, "items": list(drawing.items)}
    if not force:
        check_replaceable(drawing.path, mosaic_by)
        for item, own in zip(drawing.items, made_by, strict=True):
            check_replaceable(drawing.image_path(item), own)
    about: dict[str, Any] = {"model": drawing.spec, "weights": drawing.weights, "versions": versions_of(backend)}
    # Opened first, so that a folder that cannot be written to is not found out at the end.
    with atomic_path(drawing.path) as temporary:
        missing = [i for i, item in enumerate(drawing.items) if not _finished(drawing.image_path(item), made_by[i])]
        found = len(drawing.items) - len(missing)
        if len(missing) == 1 and found:
            # A lone image has other bits than the same one among several; see the backends' ascent.
            missing.append(0 if missing[0] else 1)
        if missing:
            _, ascent = prepare(model, drawing.objective([drawing.items[i] for i in missing]), options)
            texts = [{**made_by[i], **about, "redo": _redo(drawing, i)} for i in missing]
            with progress(f"drawing {drawing.path.stem}", ascent.steps * ascent.count) as on_step:
                told = replace(settings, on_step=on_step)
                items = [drawing.items[i] for i in missing]
                climbs = (
                    backend[ASCENT].ascend(model, ascent, told)
                    if climb is None
                    else climb(model, drawing.objective, items, options, told)
                )
                _keep(climbs, ascent, drawing, missing, texts)
        about |= {"columns": drawing.columns, "labels": drawing.labels, "redo": _redo(drawing, None)}
        return _write_mosaic(temporary, drawing, found, {**mosaic_by, **about}, ascent.recipe.name)


def _redo(drawing: Drawing, item: int | None) -> dict[str, Any]:
    """What draws a mosaic again, or one of its images: with another one, since a lone image has other bits."""
    if item is None or len(drawing.items) == 1:
        return {**drawing.redo, "items": list(drawing.items)}
    return {**drawing.redo, "items": [drawing.items[item], drawing.items[1 if item == 0 else 0]]}


def _write_mosaic(path: Path, drawing: Drawing, found: int, text: Mapping[str, Any], recipe: str) -> Drawn:
    """Write the mosaic of images that are all there, and what their files remark."""
    paths = {item: drawing.image_path(item) for item in drawing.items}
    said = {item: said_by(own) or {} for item, own in paths.items()}
    remarks = {item: str(own["remark"]) for item, own in said.items() if own.get("remark")}
    drawn = Drawn(found, remarks)
    images = np.stack([read_image(own) for own in paths.values()])
    if drawing.labels:
        captions = [_caption(drawing.layer, item, own) for item, own in said.items()]
        title = f"{drawing.spec}  {drawing.layer}  {recipe}  seed {text['seed']}"
        made = captioned(images, captions, columns=drawing.columns, title=title)
    else:
        made = mosaic(images, drawing.columns)
    computed = ", ".join(sorted({own["computed"] for own in said.values() if "computed" in own}))
    write_png(path, made, {KEYWORD: json.dumps({**text, "computed": computed, "remarks": drawn.remarks})})
    return drawn


def _caption(layer: str, item: str, said: Mapping[str, Any]) -> str:
    """What an image shows, and how far it got; that it is silent, where its objective has no gradient."""
    label = str(said.get("label", item)).removeprefix(f"{layer}:")
    score = said.get("objective")
    return f"{label}  silent" if said.get("remark") else label if score is None else f"{label}  {score:.3g}"


def _keep(
    climbs: Iterable[Climbed],
    ascent: Ascent,
    drawing: Drawing,
    missing: Sequence[int],
    texts: Sequence[Mapping[str, Any]],
) -> None:
    """Write images as they are finished."""
    done = 0
    try:
        for climbed in climbs:
            for place, (i, remark) in enumerate(zip(climbed.images, remarks_on(ascent, climbed), strict=True)):
                shown = climbed.pixels[place : place + 1]
                if drawing.transparent:
                    assert climbed.importance is not None
                    shown = faded(shown, climbed.importance[place : place + 1])
                own = {"objective": float(climbed.scores[-1, place]), "remark": remark, "computed": climbed.computed}
                text = {**texts[i], **own}
                path = drawing.image_path(drawing.items[missing[i]])
                write_png(path, shown[0], {KEYWORD: json.dumps(text)})
                done += 1
    except KeyboardInterrupt:
        raise Interrupted(
            f"{done} of {counted(len(missing), 'image')} are finished and kept in {str(drawing.folder)!r}; "
            "the same command goes on from there"
        ) from None


def _work(weights: str, drawing: Drawing, ascent: Ascent, settings: Settings, start: Any) -> dict[str, Any]:
    """All that the pixels of each image depend on, besides what it shows."""
    return {
        **({"transparent": True} if drawing.transparent else {}),
        "fingerprint": weights,
        "layer": drawing.layer,
        "recipe": repr(ascent.recipe),
        "size": list(ascent.shape),
        "seed": ascent.seed,
        "preprocessing": repr(ascent.preprocessing),
        "dtype": settings.dtype or "auto",
        "start": None if start is None else digest(start),
        "inputs": [repr(ascent.call.structure), *map(digest, ascent.call.others)] if ascent.call.place else None,
    }


def digest(array: npt.NDArray[Any]) -> str:
    """Of the numbers in an array, and its shape."""
    found = hashlib.blake2b(f"{array.dtype}{array.shape}".encode(), digest_size=16)
    found.update(np.ascontiguousarray(array).view(np.uint8).data)
    return found.hexdigest()


def resampled_crop(picture: npt.NDArray[np.uint8], shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """The middle of a picture (H, W, 3), resampled to the shape (height, width, channels) with 1 or 3 channels."""
    from PIL import Image, ImageOps

    height, width, channels = shape
    image = Image.fromarray(picture)
    if channels == 1:
        image = image.convert("L")
    found = np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC))
    return found.reshape(shape)


def said_by(path: Path) -> dict[str, Any] | None:
    """What a PNG file says of how it was made, also where its pixels are cut off; None for any other file.

    Raises:
        InvalidInput: it is no regular file, or cannot be read.
    """
    data = read_regular(path)
    try:
        with decoding.decoder_errors():
            image = decoding.opened(data)
        text = json.loads(str(image.info.get(KEYWORD, "")))
    except (decoding.Flaw, json.JSONDecodeError, RecursionError):
        return None
    return text if isinstance(text, dict) else None


def check_replaceable(path: Path, made_by: Mapping[str, Any]) -> None:
    """Raise InvalidInput where a file is there that was not made by the same work.

    Args:
        path: of a picture that is to be written.
        made_by: what makes it what it is, as its metadata will say.
    """
    if not path.exists():
        return
    said = said_by(path)
    way_out = "choose another folder with --out, or write over it with --force"
    if said is None:
        raise InvalidInput(f"{str(path)!r} is there already, and is no picture that agnostic made: {way_out}")
    # As JSON brings it back: lists for tuples.
    others = [key for key, value in made_by.items() if said.get(key) != json.loads(json.dumps(value))]
    if others:
        raise InvalidInput(f"{str(path)!r} is there already, made otherwise ({', '.join(others)}): {way_out}")


def _finished(path: Path, made_by: Mapping[str, Any]) -> bool:
    try:
        if not path.exists():
            return False
        check_replaceable(path, made_by)
        shape = read_image(path).shape
    except InvalidInput:
        return False  # made otherwise, or damaged: it is drawn again
    return bool(list(shape[:2]) == made_by["size"][:2])
