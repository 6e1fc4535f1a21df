"""``agnostic top``: the photos that excite a channel most, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agnostic.cli import common, drawing
from agnostic.text import counted


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "top",
        epilog=common.example(
            "agnostic top acts.zarr --layer blocks.5 --channel 17",
            "agnostic top acts.zarr --layer blocks.5 --channel 17 --photos /other/place/photos",
        ),
    )(top)


def top(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A store that agnostic extract wrote.")],
    layer: Annotated[str, typer.Option("--layer", help="Name of a layer in the store.")],
    channel: Annotated[int, typer.Option(min=0, help="Channel of the layer.")],
    count: Annotated[int, typer.Option(min=1, help="Number of photos.")] = 16,
    photos: Annotated[str | None, typer.Option(help="The data set, if it is no longer where it was.")] = None,
    columns: drawing.Columns = 4,
    out: common.Out = drawing.PICTURES,
    json: common.Json = False,
) -> None:
    """Draw the photos that excite a channel most, as the model sees them, with a frame around the place."""
    from agnostic.extract.top import top as find

    found = find(store, layer, channel, count)
    path = out / f"{drawing.file_name(Path(store).stem, layer, f'channel-{channel}', 'top')}.png"
    found.save(path, photos, columns)
    rows = [
        (name, f"{value:.4g}", "-" if found.places is None else ", ".join(map(str, found.places[i].tolist())))
        for i, (name, value) in enumerate(zip(found.names, found.values, strict=True))
    ]
    if json:
        places = None if found.places is None else found.places.tolist()
        common.print_json({"path": path, "samples": found.names, "values": found.values.tolist(), "places": places})
        return
    common.print_table(("sample", "value", "place"), rows, right=("value",))
    if len(rows) < count:
        common.say(f"{len(rows)} of {counted(count, 'sample')}: the store keeps no more for this channel")
    common.say(path)
