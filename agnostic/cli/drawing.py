"""Shared by the commands that draw: options, and drawing one mosaic after the other."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agnostic.cli.common import example_inputs, parse_image, parse_size, print_json, progress, say
from agnostic.errors import InvalidInput
from agnostic.text import counted

if TYPE_CHECKING:
    from agnostic.layers import Layer
    from agnostic.visualization.ascent import Settings
    from agnostic.visualization.objectives import Objective
    from agnostic.visualization.pictures import Climb, Drawing
    from agnostic.visualization.verb import Options

PICTURES = Path("pictures")

RecipeName = Annotated[str, typer.Option(help="fourier, classic, jitter or maco.")]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Number of updates; by default the recipe's.")]
Labels = Annotated[
    bool, typer.Option("--labels/--no-labels", help="Captions below the images: what each shows, and its score.")
]
Show = Annotated[bool, typer.Option("--show", help="Show the mosaic on a terminal that can: kitty, iTerm, sixel.")]
Columns = Annotated[int, typer.Option(min=1, help="Images per row of the mosaic.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float64; by default chosen for the processor.")]
MicroBatch = Annotated[
    int | None, typer.Option(min=1, help="Images computed together; by default chosen for the cache.")
]
Start = Annotated[
    Path | None, typer.Option(help="A photo to start from, resized and cropped; or a folder: a mosaic for each.")
]
Transparent = Annotated[
    bool, typer.Option("--transparent", help="Pixels that never mattered are transparent; white in the mosaic.")
]
Force = Annotated[bool, typer.Option("--force", help="Also overwrite pictures that were made with other settings.")]


def model_name(spec: str, *, weights: str | None = None, backend: str | None = None, engine: str | None = None) -> str:
    """The name of a model in file names, unique for each specification.

    ``torchvision-vgg16`` for ``torchvision:vgg16``, ``net-make`` for ``folder/net.py:make``, ``a.keras`` for
    ``folder/a.keras``; other given options follow.
    """
    place, colon, name = spec.rpartition(":")
    parts = [place, name] if colon else [spec]
    parts = [Path(part).name.removesuffix(".py") for part in parts]
    given = [None if weights is None else Path(weights).stem, backend, engine]
    return file_name(*parts, *given)


def file_name(*parts: str | int | None) -> str:
    """A file name, without its suffix, of parts joined by hyphens; None is left out, and a long one is cut."""
    from agnostic.visualization.pictures import shortened, slug

    return shortened("-".join(slug(str(part)) for part in parts if part is not None))


def distinct(names: Sequence[str]) -> dict[str, str]:
    """A slug for each name; a checksum makes equal slugs unique."""
    from agnostic.visualization.pictures import checksum, slug

    # In lower case, since some file systems ignore case.
    slugs = [slug(name).lower() for name in names]
    return {
        name: slug(name) if slugs.count(own) == 1 else f"{slug(name)}-{checksum(name)}"
        for name, own in zip(names, slugs, strict=True)
    }


def items_name(items: Sequence[str], what: str) -> str:
    """The name of a choice of items in a file name: ``0-7_12`` for channels, else the names, or how many if long."""
    from agnostic.visualization.pictures import checksum

    numbers = [int(item) for item in items if item.isdecimal()]
    text = "_".join(items) if len(numbers) < len(items) else "_".join(_runs(numbers))
    return text if len(text) <= 48 else f"{len(items)}-{what}-{checksum(text)}"


def _runs(numbers: Sequence[int]) -> list[str]:
    """``["0-7", "12"]`` for the numbers 0 to 7 and 12, in this order."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [str(low) if low == high else f"{low}-{high}" for low, high in runs]


def stated(network: Any) -> dict[str, Any]:
    """What a file says of its model: the fingerprint, and the versions of what computes it."""
    from agnostic.registry import backend_of
    from agnostic.visualization.pictures import fingerprint, versions_of

    backend = backend_of(network)
    return {"fingerprint": fingerprint(backend, network), "versions": versions_of(backend)}


def options_name(
    recipe: str,
    size: object,
    steps: int | None,
    seed: int,
    dtype: str | None,
    start: str | None,
    *others: str | None,
) -> tuple[str | None, ...]:
    """The given options as part of a file name; others as :func:`inputs_name` gives them."""
    return (
        recipe,
        None if size is None else str(size),
        None if steps is None else f"{steps}steps",
        f"seed{seed}" if seed else None,
        dtype,
        None if start is None else f"from-{start}",
        *others,
    )


def inputs_name(
    inputs: Sequence[str] | None, image: str | None, channels_in: int | None, card: Path | None
) -> tuple[str | None, ...]:
    """The options --channels-in, --card, --inputs and --image as part of a file name."""
    return (
        None if channels_in is None else f"{channels_in}in",
        None if card is None else f"card-{card.stem}",
        f"with-{'_'.join(Path(text).stem for text in inputs)}" if inputs else None,
        None if image is None else f"for-{image}",
    )


@dataclass(frozen=True)
class PhotoFiles:
    """The photos that a command draws, one after the other.

    Attributes:
        names: what each is called in the names of files.
        single: the pixels of a photo that was given by itself; None for those of a folder.
        unreadable: why photos could not be read, so far.
    """

    names: Mapping[Path, str]
    single: Any
    unreadable: list[str] = field(default_factory=list)

    @classmethod
    def at(cls, given: Path) -> PhotoFiles:
        """A photo, or those of a folder at any depth.

        Raises:
            InvalidInput: the photo cannot be read, or the folder has none.
        """
        from agnostic.files import photos_below, read_image
        from agnostic.visualization.pictures import slug

        if not given.is_dir():
            return cls({given: slug(given.stem)}, read_image(given))
        return cls({given / name: own for name, own in distinct(photos_below(given)).items()}, None)

    def readable(self) -> Iterator[tuple[Path, Any]]:
        """Each photo that can be read, and its pixels.

        Raises:
            InvalidInput: in the end, if there was none.
        """
        from agnostic.files import read_image

        for path in self.names:
            try:
                picture = read_image(path) if self.single is None else self.single
            except InvalidInput as error:
                self.unreadable.append(str(error))
            else:
                yield path, picture
        if len(self.unreadable) == len(self.names):
            raise InvalidInput(f"none of {counted(len(self.names), 'photo')} can be read: {self.unreadable[0]}")

    def tell_skipped(self) -> None:
        """Print why photos were skipped."""
        for reason in self.unreadable:
            say(f"skipped: {reason}")


def class_number(text: str) -> int:
    """The number of a class of a model that has no class names."""
    if not text.isdecimal():
        raise InvalidInput(f"the model has no class names to find {text!r} among: give the class's number")
    return int(text)


def parse_channels(text: str | None, layer: Layer, first: int = 64) -> list[int]:
    """``"0-63"``, ``"0,5,9"``, ``"all"``: channels of a layer, in order, each once; None: the first so many at most.

    Raises:
        InvalidInput: not of this form, or out of the layer's range.
    """
    total = layer.channels or 0
    if text is None or text == "all":
        return list(range(total if text else min(total, first)))
    channels: dict[int, None] = {}
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise InvalidInput(f"channels are given as 0-63, 0,5,9 or all, not {text!r}")
        low = int(match[1])
        last = low if match[2] is None else int(match[2])
        if last < low:
            raise InvalidInput(f"a range of channels is ascending: {last}-{low}, not {part}")
        if last >= total:
            raise InvalidInput(f"no channel {last} in layer {layer.name!r}: it has {total}, 0 to {total - 1}")
        channels.update(dict.fromkeys(range(low, last + 1)))
    return list(channels)


def spatial_layers(model: Any, selectors: Sequence[str], options: Options) -> list[Layer]:
    """The chosen layers that have positions, such as pixels or tokens; one chosen by its name must have them.

    If none is chosen: the last layer at each resolution.
    """
    from agnostic.models.inputs import refused
    from agnostic.registry import backend_of
    from agnostic.visualization.taps import has_positions, no_spatial_output
    from agnostic.visualization.verb import shown

    form, call, trial = shown(backend_of(model), model, options)
    listing = trial.layers
    if not selectors:
        return _last_at_each_resolution(listing, form.size or (1, 1))

    def refuse(found: Sequence[Layer]) -> Exception:
        if trial.error is not None and not any(layer.calls for layer in found):
            return refused(model, trial, form.size, others=bool(call.others))
        flat = next(layer for layer in found if not has_positions(layer.axes))
        return no_spatial_output(flat.name, flat.axes, flat.shape)

    return split_drawable(listing, selectors, lambda x: has_positions(x.axes), refuse)[0]


def split_drawable(
    listing: Sequence[Layer],
    selectors: Sequence[str],
    drawable: Callable[[Layer], bool],
    refuse: Callable[[Sequence[Layer]], Exception],
    *,
    model: str = "the model",
) -> tuple[list[Layer], list[Layer]]:
    """The chosen layers that can be drawn, and those that cannot.

    Args:
        listing: the layers of the model.
        selectors: of layers.
        drawable: whether a layer can be drawn.
        refuse: the error for what a selector chose: one layer that cannot, or several of which none can.
        model: what to call the model in an error.
    """
    from agnostic.layers import chooses_many, select

    spatial: dict[str, Layer] = {}
    others: dict[str, Layer] = {}
    for selector in selectors:
        found = select(listing, selector, model=model)
        flat = [x for x in found if not drawable(x)]
        if len(flat) == len(found) or (flat and not chooses_many(selector)):
            raise refuse(found)
        spatial.update((x.name, x) for x in found if drawable(x))
        others.update((x.name, x) for x in flat)
    return list(spatial.values()), list(others.values())


def _last_at_each_resolution(listing: Sequence[Layer], size: tuple[int, int]) -> list[Layer]:
    """The last of the outermost layers at each height and width, of pixels or tokens, in the order they run in."""
    from agnostic.visualization.grids import grid

    last: dict[tuple[int, int], Layer] = {}
    for layer in listing:
        found = grid(layer, size)
        if found is None:
            continue
        resolution = found[:2]
        # Inside a block the resolution may still be that of the block before it.
        if resolution not in last or layer.name.count(".") <= last[resolution].name.count("."):
            last[resolution] = layer
    if not last:
        raise InvalidInput("no layer of the model has height and width: draw its outputs with 'agnostic classes'")
    return sorted(last.values(), key=listing.index)


@dataclass(frozen=True)
class DrawingJob:
    """What the commands that draw are given besides what to draw: read and checked before a model is loaded.

    Attributes:
        spec: of the model.
        loading: the arguments of :func:`agnostic.load`.
        options: what to draw with.
        settings: how to compute it.
        start: the photo to start from; it is read when it is drawn, so that a folder takes the memory of one.
        name: parts of file names that tell what was given.
        out: the folder to write to.
        columns: images in a row of a mosaic.
        labels: whether mosaics have captions.
        show: show them on the terminal.
        force: write also over files that hold something else.
        as_json: print JSON.
        redo: what draws the same again, for metadata; see :mod:`agnostic.cli.redo`.
    """

    spec: str
    loading: Mapping[str, Any]
    options: Options
    settings: Settings
    start: Path | None
    name: tuple[str | None, ...]
    out: Path
    columns: int
    labels: bool
    show: bool
    force: bool
    as_json: bool
    redo: Mapping[str, Any]

    def from_start(self) -> Options:
        """The options, with the photo to start from."""
        from agnostic.files import read_image

        return self.options if self.start is None else replace(self.options, start=read_image(self.start))

    def load(self) -> Any:
        """The model."""
        from agnostic.models.load import load

        return load(self.spec, **self.loading)

    def drawing(
        self,
        items: Sequence[str],
        objective: Callable[[Sequence[str]], Objective],
        *,
        layer: str,
        parts: Sequence[str | None],
        kind: str,
        command: str,
    ) -> Drawing:
        """One mosaic.

        Args:
            items: one name an image.
            objective: of some of the items.
            layer: that is drawn.
            parts: of the files' names.
            kind: what the items are, in the plural.
            command: that draws it.
        """
        from agnostic.visualization.pictures import Drawing

        own = {key: self.loading[key] for key in ("weights", "backend", "engine")}
        parts = (model_name(self.spec, **own), *parts)
        return Drawing(
            path=self.out / f"{file_name(*parts, items_name(items, kind), *self.name)}.png",
            folder=self.out / file_name(*parts, *self.name),
            items=tuple(items),
            objective=objective,
            layer=layer,
            spec=self.spec,
            weights=own["weights"],
            columns=self.columns,
            labels=self.labels,
            transparent=bool(self.redo.get("transparent")),
            redo={**self.redo, "command": command, "layer": layer},
        )


def job(
    spec: str, *, weights: str | None, recipe: str, size: str | None, channels_in: int | None, card: Path | None,
    steps: int | None, columns: int, labels: bool, show: bool, seed: int, start: Path | None,
    inputs: Sequence[str] | None, image: str | None, force: bool, out: Path, backend: str | None, engine: str | None,
    trust: bool, dtype: str | None, micro_batch: int | None, device: str | None, json: bool, transparent: bool = False,
    called: str | None = None,
) -> DrawingJob:  # fmt: skip
    """A job of the options of these names; ``called`` is the start in file names, by default its own name.

    Raises:
        InvalidInput, UnknownName: there is no such recipe, or an input cannot be read.
    """
    from agnostic.visualization.ascent import Settings
    from agnostic.visualization.verb import Options

    settings = Settings(micro_batch, dtype, device=device)
    given, sides, place = example_inputs(inputs or []), parse_size(size), parse_image(image)
    options = Options(recipe, sides, steps, seed, None, given, place, channels_in)
    checked = options.checked_recipe()
    if transparent:
        options = replace(options, recipe=replace(checked, importance=True))
    return DrawingJob(
        spec,
        {"backend": backend, "engine": engine, "weights": weights, "trust": trust, "card": card},
        options,
        settings,
        start,
        options_name(
            recipe,
            size,
            steps,
            seed,
            dtype,
            called if start is None or called else start.stem,
            "transparent" if transparent else None,
            *inputs_name(inputs, image, channels_in, card),
        ),
        out,
        columns,
        labels,
        show,
        force,
        json,
        {
            "weights": weights,
            "recipe": recipe,
            "size": size,
            "channels_in": channels_in,
            "steps": steps,
            "seed": seed,
            "card": None if card is None else str(card),
            "start": None if start is None else str(start),
            "inputs": None if inputs is None else list(inputs),
            "image": image,
            "backend": backend,
            "engine": engine,
            "dtype": dtype,
            **({"transparent": True} if transparent else {}),
        },
    )


def jobs(spec: str, *, start: Path | None, **given: Any) -> list[DrawingJob]:
    """A job for each photo to start from, in order; one job where there is none. Unreadable photos are told.

    Raises:
        InvalidInput, UnknownName: as :func:`job`; no photo of the folder can be read.
    """
    from agnostic.files import read_image

    if start is None or not start.is_dir():
        if start is not None:
            read_image(start)
        return [job(spec, start=start, **given)]
    photos = PhotoFiles.at(start)
    found = [job(spec, start=path, called=photos.names[path], **given) for path, _ in photos.readable()]
    if not given["json"]:
        photos.tell_skipped()
    return found


def draw_all(model: Any, drawings: Sequence[tuple[DrawingJob, Drawing]], *, climb: Climb | None = None) -> None:
    """Draw the images, and report each file when it is written.

    Args:
        model: the model.
        drawings: the mosaics, each with what was asked for.
        climb: see :func:`agnostic.visualization.pictures.draw`.

    Raises:
        InvalidInput: no gradient reached any of the images; they are written anyway.
    """
    from agnostic.cli.terminal import show
    from agnostic.registry import backend_of
    from agnostic.visualization.ascent import check_reached
    from agnostic.visualization.pictures import draw, fingerprint

    report = []
    labels: list[str] = []
    remarks: list[str] = []
    images, start = 0, time.perf_counter()
    as_json, known = drawings[0][0].as_json, fingerprint(backend_of(model), model)
    for job, drawing in drawings:
        began = time.perf_counter()
        drawn = draw(
            model, drawing, job.from_start(), settings=job.settings, force=job.force, progress=progress, climb=climb,
            known=known,
        )  # fmt: skip
        images += len(drawing.items) - drawn.found
        seconds = time.perf_counter() - began
        labels += [f"{drawing.layer}:{item}" for item in drawing.items]
        remarks += [drawn.remarks.get(item, "") for item in drawing.items]
        if as_json:
            paths = [drawing.image_path(item) for item in drawing.items]
            own = {"mosaic": drawing.path, "images": paths, "remarks": drawn.remarks, "seconds": round(seconds, 3)}
            report.append(own)
        else:
            earlier = f", {drawn.found} of them finished earlier" if drawn.found else ""
            say(f"{drawing.path} ({counted(len(drawing.items), 'image')}{earlier})")
            _say_remarks(drawn.remarks)
            if job.show and not show(drawing.path):
                say("  not shown: this is no terminal that is known to show pictures")
    check_reached(labels, remarks)
    if as_json:
        print_json(report)
    else:
        say(time_taken(images, time.perf_counter() - start))


def time_taken(images: int, seconds: float, what: str = "image") -> str:
    """How long so many images took, and each of them."""
    each = f", {seconds / images:.2g} s per {what}" if images else ""
    return f"{counted(images, what)} drawn in {seconds:.3g} s{each}"


def _say_remarks(remarks: Mapping[str, str]) -> None:
    """The first remark in full; for the others, which have the same reason, only their names."""
    if remarks:
        first, *others = remarks
        say(f"  {first}: {remarks[first]}")
        if others:
            say(f"  the same for {', '.join(others)}")
