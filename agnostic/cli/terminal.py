"""Pictures on a terminal that can show them: by the protocols of kitty and iTerm, and by sixel."""

from __future__ import annotations

import base64
import io
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_CHUNK = 4096
_WIDEST = 1000
"""Pixels, to which a picture is made smaller for a terminal."""


def protocol_of(environment: Mapping[str, str]) -> str | None:
    """``"kitty"``, ``"iterm"`` or ``"sixel"``, as the terminal names itself; None where none is known.

    Args:
        environment: of the process.
    """
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or term.startswith("screen"):
        return None  # which pass none of them on as they are
    if "KITTY_WINDOW_ID" in environment or term == "xterm-kitty" or "ghostty" in (term, program.lower()):
        return "kitty"
    if program in ("iTerm.app", "WezTerm", "vscode") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    if term.split("-")[0] in ("foot", "mlterm", "contour", "yaft") or term == "xterm-sixel" or program == "mintty":
        return "sixel"
    return None


def show(path: Path) -> bool:
    """Show a PNG file where standard output is a terminal that can; whether it was shown."""
    protocol = protocol_of(os.environ)
    if protocol is None or not sys.stdout.isatty():
        return False
    sys.stdout.flush()
    # Bytes of our own making: no text of a file is among them.
    sys.stdout.buffer.write(encoded(path.read_bytes(), protocol) + b"\n")
    sys.stdout.buffer.flush()
    return True


def encoded(png: bytes, protocol: str) -> bytes:
    """A PNG file as a protocol sends it.

    Args:
        png: the file.
        protocol: ``"kitty"``, ``"iterm"`` or ``"sixel"``.
    """
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.thumbnail((_WIDEST, 10 * _WIDEST))
    if protocol == "sixel":
        return _sixel(image)
    plain = io.BytesIO()
    image.save(plain, format="PNG")
    data = base64.standard_b64encode(plain.getvalue())
    return _kitty(data) if protocol == "kitty" else _iterm(data, len(plain.getvalue()))


def _kitty(data: bytes) -> bytes:
    """See the terminal graphics protocol of kitty, section "Remote client"."""
    parts = [data[i : i + _CHUNK] for i in range(0, len(data), _CHUNK)]
    found = []
    for i, part in enumerate(parts):
        more = b"m=%d" % (i + 1 < len(parts))
        found.append(b"\x1b_G" + (b"a=T,f=100,q=2," if i == 0 else b"") + more + b";" + part + b"\x1b\\")
    return b"".join(found)


def _iterm(data: bytes, size: int) -> bytes:
    """See the inline images protocol of iTerm2."""
    return b"\x1b]1337;File=inline=1;size=%d:" % size + data + b"\x07"


def _sixel(image: Any) -> bytes:
    """Six rows at a time, one colour after the other; see the VT340's manual, chapter 14."""
    import numpy as np

    indexed = image.quantize(255)
    pixels, palette = np.asarray(indexed), np.array(indexed.getpalette()).reshape(-1, 3)
    height, width = pixels.shape
    found = [b'\x1bPq"1;1;%d;%d' % (width, height)]
    found += [b"#%d;2;%d;%d;%d" % (i, *(round(int(c) * 100 / 255) for c in colour)) for i, colour in enumerate(palette)]
    for top in range(0, height, 6):
        band = pixels[top : top + 6]
        weights = (1 << np.arange(len(band)))[:, None]
        for colour in np.unique(band):
            found += [b"#%d" % colour, *_runs((weights * (band == colour)).sum(0) + 63), b"$"]
        found.append(b"-")
    return b"".join([*found, b"\x1b\\"])


def _runs(row: Any) -> Iterator[bytes]:
    """Characters with how often they are repeated."""
    import numpy as np

    starts = np.flatnonzero(np.diff(row, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(row)], strict=True):
        character, count = bytes([int(row[start])]), int(end - start)
        yield b"!%d" % count + character if count > 3 else character * count
