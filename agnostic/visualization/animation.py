"""Pictures that move: an ascent, and a walk between objectives, as WebP, GIF, APNG or MP4 of a bounded size."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic import decoding
from agnostic.errors import InvalidInput, MissingDependency
from agnostic.files import atomic_path, read_regular
from agnostic.registry import Model
from agnostic.text import counted
from agnostic.visualization.mosaic import mosaic
from agnostic.visualization.objective import Objective
from agnostic.visualization.objectives import alignment, interpolation
from agnostic.visualization.recipes import Recipe, get
from agnostic.visualization.verb import visualize

__all__ = ["FORMATS", "Film", "animate_ascent", "animate_walk", "read_animation", "write_animation"]


def __dir__() -> list[str]:
    return sorted(__all__)


Frames = npt.NDArray[np.uint8]

FORMATS = (".webp", ".gif", ".png", ".apng", ".mp4")
"""The suffixes of animations."""
_SMALLEST = 48
"""Of a frame's shorter side in pixels, below which an animation is no picture any more."""


@dataclass
class Film:
    """The frames of an ascent: give its ``add`` as ``on_images`` of :func:`agnostic.visualize`.

    Attributes:
        columns: images in a row of a frame.
        frames: by the number of steps, the images by their numbers.

    Example:
        >>> film = ag.animation.Film()
        >>> objective = ag.objectives.channel("conv", [0, 1])
        >>> found = ag.visualize(model, objective, size=16, steps=4, every=2, on_images=film.add)
        >>> film.array().shape
        (2, 26, 47, 3)
    """

    columns: int = 4
    frames: dict[int, dict[int, npt.NDArray[np.float32]]] = field(default_factory=dict)

    def add(self, images: range, steps: int, pixels: npt.NDArray[np.float32]) -> None:
        """Keep images as they are after some steps.

        Args:
            images: their numbers.
            steps: that are done.
            pixels: (n, H, W, C) in [0, 1].

        Example:
            >>> ag.animation.Film().add(range(1), 1, images[:1])
        """
        self.frames.setdefault(steps, {}).update(zip(images, pixels.copy(), strict=True))

    def array(self) -> Frames:
        """The frames, in each the images side by side.

        Returns:
            (frames, height, width, 3) uint8.

        Raises:
            InvalidInput: nothing was added, or a batch is missing in some frames.

        Example:
            >>> film = ag.animation.Film()
            >>> film.add(range(2), 1, images)
            >>> film.array().shape
            (1, 26, 47, 3)
        """
        counts = {len(own) for own in self.frames.values()}
        if len(counts) != 1:
            raise InvalidInput("a film has frames of equally many images: draw all of them with on_images=film.add")
        found = []
        for steps in sorted(self.frames):
            own = self.frames[steps]
            images = np.stack([own[i] for i in sorted(own)])
            found.append(_in_colour(images if len(images) == 1 else mosaic(images, self.columns)[None]))
        return np.concatenate(found)


def animate_ascent(
    model: Model,
    objective: Objective,
    *,
    frames: int = 32,
    columns: int = 4,
    recipe: str | Recipe = "fourier",
    steps: int | None = None,
    **options: Any,
) -> Frames:
    """An ascent from its start to its end.

    Args:
        model: a native model.
        objective: what to draw; several images are side by side.
        frames: number of pictures, at most one per step.
        columns: images in a row.
        recipe, steps: as for :func:`agnostic.visualize`.
        **options: other arguments of :func:`agnostic.visualize`.

    Returns:
        (frames, height, width, 3) uint8.

    Raises:
        InvalidInput: fewer than one frame; see also :func:`agnostic.visualize`.

    Example:
        >>> ag.animation.animate_ascent(model, ag.objectives.channel("conv", 3), frames=2, size=16, steps=4).shape
        (2, 16, 16, 3)
    """
    _count("frames", frames)
    chosen, film = get(recipe, **({} if steps is None else {"steps": steps})), Film(columns)
    every = max(1, -(-chosen.steps // frames))
    visualize(model, objective, recipe=chosen, every=every, on_images=film.add, **options)
    return film.array()


def animate_walk(
    model: Model,
    objectives: Sequence[Objective],
    *,
    frames: int = 8,
    align: str | int | None = None,
    closed: bool = False,
    **options: Any,
) -> Frames:
    """A walk from one objective to the next: each picture is drawn for a mixture of two.

    All pictures start from the same noise and are seen through the same views, so that neighbours are alike; those of a
    stretch that ``align`` names a layer for are made more alike, at the cost of computing them all at once.

    Args:
        model: a native model.
        objectives: two or more, of one image each.
        frames: pictures from one objective to the next, its own included.
        align: a layer in which neighbours are to be alike, such as the last but one block; None for none.
        closed: go back to the first in the end.
        **options: other arguments of :func:`agnostic.visualize`.

    Returns:
        (pictures, height, width, 3) uint8.

    Raises:
        InvalidInput: fewer than two objectives or frames, or an objective of several images.

    Source: Mordvintsev et al., "Differentiable Image Parameterizations", Distill, 2018, section "Aligned Feature
    Visualization Interpolation".

    Example:
        >>> classes = [ag.objectives.logit(0), ag.objectives.logit(3)]
        >>> ag.animation.animate_walk(model, classes, frames=2, closed=True, size=16, steps=2).shape
        (4, 16, 16, 3)
    """
    _count("frames", frames)
    stops = [*objectives, *objectives[:1]] if closed else list(objectives)
    if len(stops) < 2:
        raise InvalidInput(f"a walk is between two objectives or more, not {counted(len(objectives), 'objective')}")
    found = []
    for number, (first, second) in enumerate(itertools.pairwise(stops)):
        walk = interpolation(first, second, frames + 1)
        walk = walk if align is None else walk + alignment(align)
        images = np.asarray(visualize(model, walk, **options))
        # The last picture of a stretch is the first of the next, or the end of all.
        found.append(images if number == len(stops) - 2 and not closed else images[:-1])
    return _in_colour(np.concatenate(found))


def _count(what: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InvalidInput(f"{what} is a number of pictures, at least 1, not {value!r}")


def _in_colour(images: npt.NDArray[Any]) -> Frames:
    pixels = images if images.dtype == np.uint8 else np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:3], 3)))


# Files ---------------------------------------------------------------------------------------------------------------
def write_animation(
    path: str | os.PathLike[str],
    frames: npt.NDArray[Any],
    *,
    seconds: float = 3.0,
    most_bytes: int | None = None,
    loop: bool = True,
    about: str | None = None,
) -> Path:
    """Write frames as an animation, atomically; the file's suffix is its format.

    Where a bound is given, the quality falls first, then the size of the pictures.

    Args:
        path: ends in .webp, .gif, .png or .apng (both APNG), or .mp4, which needs PyAV (the extra ``video``).
        frames: (N, H, W, 3) uint8, or floating point in [0, 1], two or more.
        seconds: how long all frames take.
        most_bytes: of the file; None for no bound.
        loop: begin again after the end; MP4 leaves this to the player.
        about: how it was made, kept in the file: the text ``agnostic`` of PNG, the comment of GIF and MP4, the
            description in the EXIF of WebP.

    Returns:
        The path.

    Raises:
        InvalidInput: another suffix, fewer than two frames, or the bound cannot be kept.
        MissingDependency: MP4, and PyAV is not installed.

    Example:
        >>> ag.animation.write_animation("walk.webp", images, seconds=1).name
        'walk.webp'
    """
    path = Path(path)
    pixels = np.asarray(frames)
    if path.suffix.lower() not in FORMATS:
        raise InvalidInput(f"an animation's name ends in {', '.join(FORMATS)}, not {path.suffix!r} as in {str(path)!r}")
    if pixels.ndim != 4 or len(pixels) < 2 or pixels.shape[3] not in (1, 3) or not seconds > 0:
        raise InvalidInput(
            f"an animation is made of two frames or more (N, H, W, 3) in a time above 0, not of {pixels.shape}"
        )
    pixels, encode = _in_colour(pixels), _ENCODERS[path.suffix.lower()]
    for shown, quality in _attempts(pixels):
        data = encode(shown, seconds / len(shown), quality, loop, about)
        if most_bytes is None or len(data) <= most_bytes:
            with atomic_path(path) as temporary:
                Path(temporary).write_bytes(data)
            return path
    raise InvalidInput(
        f"{counted(len(pixels), 'frame')} do not fit into {most_bytes} bytes as {path.suffix}: "
        "give fewer frames, or choose .webp"
    )


def read_animation(path: str | os.PathLike[str]) -> tuple[Frames, str | None]:
    """The frames of an animation and what the file says of how it was made.

    Args:
        path: a file of :func:`write_animation`.

    Returns:
        (N, H, W, 3) uint8, and the text that was given as ``about``, or None.

    Raises:
        InvalidInput: it cannot be read.
        MissingDependency: MP4, and PyAV is not installed.

    Example:
        >>> path = ag.animation.write_animation("walk.png", images, about="a walk")
        >>> frames, about = ag.animation.read_animation(path)
        >>> frames.shape, about
        ((2, 16, 16, 3), 'a walk')
    """
    path = Path(path)
    data, av = read_regular(path), _video() if path.suffix.lower() == ".mp4" else None
    try:
        with decoding.decoder_errors():
            frames, said = _read_by_pillow(data) if av is None else _read_mp4(av, data)
            return np.stack(frames), said.decode(errors="replace") if isinstance(said, bytes) else said
    except decoding.Flaw as flaw:
        raise InvalidInput(f"cannot read {str(path)!r}: it {flaw}") from None


_MOST_PIXELS = 500_000_000
"""Of all frames of an animation that is read."""


def _read_by_pillow(data: bytes) -> tuple[list[Frames], Any]:
    image = decoding.opened(data)
    count = getattr(image, "n_frames", 1)
    _check_count(count, image.width, image.height)
    exif = image.getexif().get(_DESCRIPTION) if image.format == "WEBP" else None
    frames = []
    for number in range(count):
        image.seek(number)
        frames.append(np.asarray(image.convert("RGB")))
    return frames, image.info.get("agnostic") or image.info.get("comment") or exif


def _read_mp4(av: Any, data: bytes) -> tuple[list[Frames], Any]:
    frames: list[Frames] = []
    with av.open(io.BytesIO(data)) as container:
        for x in container.decode(video=0):
            _check_count(len(frames) + 1, x.width, x.height)
            frames.append(x.to_ndarray(format="rgb24"))
        return frames, container.metadata.get("comment")


def _check_count(count: int, width: int, height: int) -> None:
    """Raise Flaw where frames would take too much memory."""
    if count * width * height > _MOST_PIXELS:
        raise decoding.Flaw(f"has {counted(count, 'frame')} of {width} x {height} pixels: too many")


def _video() -> Any:
    """PyAV."""
    try:
        import av  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise MissingDependency("MP4 needs PyAV: pip install 'agnostic-ml[video]', or choose .webp") from None
    return av


def _attempts(pixels: Frames) -> Iterator[tuple[Frames, int]]:
    """The frames and a quality from 1 to 100, each attempt smaller than the one before."""
    from PIL import Image

    for quality in (90, 75, 50):
        yield pixels, quality
    height, width = pixels.shape[1:3]
    while min(height, width) * 3 // 4 >= _SMALLEST:
        height, width = height * 3 // 4, width * 3 // 4
        resized = [Image.fromarray(x).resize((width, height), Image.Resampling.LANCZOS) for x in pixels]
        yield np.stack([np.asarray(x) for x in resized]), 50


_DESCRIPTION = 0x010E
"""EXIF's number of the description of an image."""


def _by_pillow(each: float, loop: bool, images: Sequence[Any], **options: Any) -> bytes:
    found = io.BytesIO()
    if loop:
        options["loop"] = 0
    first, *others = images
    first.save(found, save_all=True, append_images=others, duration=max(1, round(1000 * each)), **options)
    return found.getvalue()


def _webp(pixels: Frames, each: float, quality: int, loop: bool, about: str | None) -> bytes:
    from PIL import Image

    images = [Image.fromarray(x) for x in pixels]
    exif = Image.Exif()
    if about is not None:
        exif[_DESCRIPTION] = about
    return _by_pillow(each, loop, images, format="WEBP", quality=quality, method=4, exif=exif)


def _gif(pixels: Frames, each: float, quality: int, loop: bool, about: str | None) -> bytes:
    from PIL import Image

    colours = {90: 256, 75: 128}.get(quality, 48)
    # One palette for all, or still places would flicker.
    whole = Image.fromarray(pixels.reshape(-1, *pixels.shape[2:])).quantize(colours, Image.Quantize.MEDIANCUT)
    images = [Image.fromarray(x).quantize(palette=whole) for x in pixels]
    said = {} if about is None else {"comment": about.encode()}
    return _by_pillow(each, loop, images, format="GIF", optimize=False, disposal=1, **said)


def _apng(pixels: Frames, each: float, quality: int, loop: bool, about: str | None) -> bytes:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    images = [Image.fromarray(x) for x in pixels]
    if quality < 90:
        whole = Image.fromarray(pixels.reshape(-1, *pixels.shape[2:])).quantize(256 if quality > 50 else 64)
        images = [x.quantize(palette=whole) for x in images]
    info = PngInfo()
    if about is not None:
        info.add_text("agnostic", about)
    return _by_pillow(each, loop, images, format="PNG", optimize=True, pnginfo=info)


def _mp4(pixels: Frames, each: float, quality: int, loop: bool, about: str | None) -> bytes:
    from fractions import Fraction

    av, found = _video(), io.BytesIO()
    # Codecs halve the resolution of colours, so that sides are even.
    pixels = pixels[:, : pixels.shape[1] // 2 * 2, : pixels.shape[2] // 2 * 2]
    with av.open(found, "w", format="mp4") as container:
        container.metadata.update({} if about is None else {"comment": about})
        stream: Any = container.add_stream("h264", rate=Fraction(round(1000 / each), 1000))
        stream.height, stream.width, stream.pix_fmt = pixels.shape[1], pixels.shape[2], "yuv420p"
        stream.options = {"crf": str(round(18 + (90 - quality) / 4)), "preset": "slow"}
        for image in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode())
    return found.getvalue()


_ENCODERS: dict[str, Callable[[Frames, float, int, bool, str | None], bytes]] = {
    ".webp": _webp, ".gif": _gif, ".png": _apng, ".apng": _apng, ".mp4": _mp4,
}  # fmt: skip
