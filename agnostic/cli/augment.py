"""``agnostic augment``: draw augmented photos of a folder as a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from json import dumps as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agnostic.cli.common import Json, Out, Seed, example, parse_size, print_json, progress, say
from agnostic.cli.drawing import Force
from agnostic.errors import InvalidInput
from agnostic.text import counted

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from agnostic.augmentation import Augmentation
    from agnostic.data import ImageFolder

Interval = tuple[float, float]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "augment",
        epilog=example(
            "agnostic augment photos/",
            "agnostic augment photos/ --rotation -10 10 --zoom 1 1 --brightness 0.6 1.4 --fill-mode reflect",
        ),
    )(augment)


def augment(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder of photos, at any depth.")],
    photos: Annotated[int, typer.Option(min=1, help="How many photos: rows, evenly over the sorted files.")] = 6,
    draws: Annotated[int, typer.Option(min=1, help="How many draws of each: columns after the photo itself.")] = 8,
    size: Annotated[
        str,
        typer.Option(metavar="H [W]", help="Height and width of each picture: 150, or 100 200; photos are cut to it."),
    ] = "150",
    rotation: Annotated[Interval, typer.Option(metavar="LOW HIGH", help="Degrees counter-clockwise.")] = (-40, 40),
    height_shift: Annotated[Interval, typer.Option(metavar="LOW HIGH", help="Fraction of the height.")] = (-0.2, 0.2),
    width_shift: Annotated[Interval, typer.Option(metavar="LOW HIGH", help="Fraction of the width.")] = (-0.2, 0.2),
    shear: Annotated[Interval, typer.Option(metavar="LOW HIGH", help="Degrees that upright lines lean.")] = (-10, 10),
    zoom: Annotated[Interval, typer.Option(metavar="LOW HIGH", help="Factor; above 1 magnifies.")] = (0.8, 1.25),
    horizontal_flip: Annotated[float, typer.Option(min=0, max=1, help="Probability.")] = 0.5,
    vertical_flip: Annotated[float, typer.Option(min=0, max=1, help="Probability.")] = 0.0,
    brightness: Annotated[Interval, typer.Option(metavar="LOW HIGH", help="Factor.")] = (1, 1),
    contrast: Annotated[Interval, typer.Option(metavar="LOW HIGH", help="Factor.")] = (1, 1),
    channel_shift: Annotated[Interval, typer.Option(metavar="LOW HIGH", help="Fraction of the range.")] = (0, 0),
    fill_mode: Annotated[str, typer.Option(help="nearest, constant, reflect or wrap.")] = "nearest",
    seed: Seed = 0,
    force: Force = False,
    out: Out = Path("pictures"),
    json: Json = False,
) -> None:
    """Draw augmented photos: one row per photo, one column per draw, the photo itself first.

    Photos are read as ImageFolder reads them; those that cannot be read are skipped and listed.
    """
    from agnostic.augmentation import Augmentation
    from agnostic.data import ImageFolder
    from agnostic.files import write_png
    from agnostic.visualization.mosaic import mosaic
    from agnostic.visualization.pictures import KEYWORD, check_replaceable

    height, width = parse_size(size) or (150, 150)
    augmentation = Augmentation(
        rotation=rotation, height_shift=height_shift, width_shift=width_shift, shear=shear, zoom=zoom,
        horizontal_flip=horizontal_flip, vertical_flip=vertical_flip, brightness=brightness, contrast=contrast,
        channel_shift=channel_shift, fill_mode=fill_mode,
    )  # fmt: skip
    images = ImageFolder(folder, size=None, class_mode=None, dtype="uint8", first_frame=True)
    count = min(photos, len(images))
    chosen = [k * len(images) // count for k in range(count)]
    path = out / f"augment-{folder.resolve().name or 'root'}.png"
    made_by = {
        "folder": str(folder.resolve()),
        "photos": [images.files[k] for k in chosen],
        "draws": draws,
        "size": [height, width],
        "seed": seed,
        "augmentation": repr(augmentation),
    }
    if not force:
        check_replaceable(path, made_by)
    pictures, drawn, left_out = _drawn(augmentation, images, chosen, draws, seed, (height, width))
    write_png(path, mosaic(pictures, columns=draws + 1), {KEYWORD: json_text(made_by)})
    if json:
        about = {"draws": draws, "seed": seed, "augmentation": repr(augmentation)}
        print_json({"path": path, "photos": drawn, "left_out": left_out, **about})
        return
    say(f"{path}: {len(drawn)} of {counted(len(images), 'photo')}, {counted(draws, 'draw')} each")
    for reason in left_out:
        say(f"skipped: {reason}")


def _drawn(
    augmentation: Augmentation, images: ImageFolder, chosen: Sequence[int], draws: int, seed: int, size: tuple[int, int]
) -> tuple[npt.NDArray[np.float32], list[Path], list[str]]:
    """The pictures row by row, the photos that they are of, and why others are skipped."""
    import numpy as np

    from agnostic.data import UnreadableFile

    rows = []
    drawn: list[Path] = []
    left_out: list[str] = []
    with progress("augmenting", len(chosen)) as advance:
        for row, k in enumerate(chosen):
            try:
                photo = _cropped(images[k], *size)
            except UnreadableFile as error:
                left_out.append(str(error))
            else:
                same = np.repeat(photo[None], draws, axis=0)
                rows += [photo[None], augmentation(same, seed=seed, index=range(row * draws, (row + 1) * draws))]
                drawn.append(images.path(k))
            advance(1)
    if not drawn:
        raise InvalidInput(f"none of {counted(len(chosen), 'photo')} can be read: {left_out[0]}")
    return np.concatenate(rows), drawn, left_out


def _cropped(pixels: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.float32]:
    """(height, width, 3) in [0, 1]: the middle of a picture."""
    import numpy as np
    from PIL import Image, ImageOps

    cropped = ImageOps.fit(Image.fromarray(pixels), (width, height), Image.Resampling.BILINEAR)
    return np.asarray(cropped, np.float32) / np.float32(255)
