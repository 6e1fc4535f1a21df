"""``agnostic augment``: a contact sheet of what an augmentation does to the photos of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agnostic.cli.common import Json, Out, Seed, example, print_json, progress, say
from agnostic.errors import InvalidInput

Range = tuple[float, float]


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
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Photos, at any depth.")],
    photos: Annotated[int, typer.Option(min=1, help="How many photos: rows, evenly over the sorted files.")] = 6,
    draws: Annotated[int, typer.Option(min=1, help="How many draws of each: columns after the photo itself.")] = 8,
    size: Annotated[int, typer.Option(min=8, help="Side of each picture in pixels; photos are cut to a square.")] = 150,
    rotation: Annotated[Range, typer.Option(metavar="LOW HIGH", help="Degrees counter-clockwise.")] = (-40, 40),
    height_shift: Annotated[Range, typer.Option(metavar="LOW HIGH", help="Fraction of the height.")] = (-0.2, 0.2),
    width_shift: Annotated[Range, typer.Option(metavar="LOW HIGH", help="Fraction of the width.")] = (-0.2, 0.2),
    shear: Annotated[Range, typer.Option(metavar="LOW HIGH", help="Degrees that upright lines lean.")] = (-10, 10),
    zoom: Annotated[Range, typer.Option(metavar="LOW HIGH", help="Factor; above 1 magnifies.")] = (0.8, 1.25),
    horizontal_flip: Annotated[float, typer.Option(min=0, max=1, help="Probability.")] = 0.5,
    vertical_flip: Annotated[float, typer.Option(min=0, max=1, help="Probability.")] = 0.0,
    brightness: Annotated[Range, typer.Option(metavar="LOW HIGH", help="Factor.")] = (1, 1),
    contrast: Annotated[Range, typer.Option(metavar="LOW HIGH", help="Factor.")] = (1, 1),
    channel_shift: Annotated[Range, typer.Option(metavar="LOW HIGH", help="Fraction of the range.")] = (0, 0),
    fill_mode: Annotated[str, typer.Option(help="nearest, constant, reflect or wrap.")] = "nearest",
    seed: Seed = 0,
    out: Out = Path("pictures"),
    json: Json = False,
) -> None:
    """Draw what an augmentation does: a row a photo, a column a draw, the photo itself first."""
    import numpy as np

    from agnostic.augmentation import Augmentation, pictures
    from agnostic.augmentation.iterators import EXTENSIONS
    from agnostic.files import write_png
    from agnostic.visualization.mosaic import mosaic

    augmentation = Augmentation(
        rotation=rotation,
        height_shift=height_shift,
        width_shift=width_shift,
        shear=shear,
        zoom=zoom,
        horizontal_flip=horizontal_flip,
        vertical_flip=vertical_flip,
        brightness=brightness,
        contrast=contrast,
        channel_shift=channel_shift,
        fill_mode=fill_mode,
    )
    if not folder.is_dir():
        raise InvalidInput(f"{str(folder)!r} is no folder: give one that has photos in it, at any depth")
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name.lower().endswith(EXTENSIONS))
    if not files:
        raise InvalidInput(f"{str(folder)!r} has no photos: files that end in {', '.join(EXTENSIONS)}")
    chosen = [files[k * len(files) // min(photos, len(files))] for k in range(min(photos, len(files)))]
    rows = []
    with progress("augmenting", len(chosen)) as advance:
        for row, file in enumerate(chosen):
            photo = pictures.load(file, "rgb", (size, size), "bilinear", keep_aspect_ratio=True) / np.float32(255)
            same = np.repeat(photo[None], draws, axis=0)
            drawn = augmentation(same, seed=seed, index=range(row * draws, (row + 1) * draws))
            rows += [photo[None], drawn]
            advance(1)
    path = out / f"augment-{folder.resolve().name or 'root'}.png"
    write_png(
        path, mosaic(np.concatenate(rows), columns=draws + 1), {"augmentation": repr(augmentation), "seed": str(seed)}
    )
    if json:
        print_json({"path": path, "photos": chosen, "draws": draws, "seed": seed, "augmentation": repr(augmentation)})
    else:
        say(f"{path}: {len(chosen)} of {len(files)} photos, {draws} draws each")
