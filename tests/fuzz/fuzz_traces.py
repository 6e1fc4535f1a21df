"""Traces: damage is refused or changes nothing; whatever a signed header says, a sentence or an answer comes of it."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

import agnostic as ag
from agnostic.errors import AgnosticError
from tests.fuzz import mutations


def _model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(16, 6), nn.LayerNorm(6), nn.Linear(6, 3),
    ).eval()  # fmt: skip


def prepare(folder: Path) -> Callable[[random.Random], str]:
    """One case: a pair of traces, one of them damaged."""
    torch.set_num_threads(1)
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    paths = [folder / f"{name}.trace" for name in "ab"]
    for seed, path in enumerate(paths):
        ag.trace(_model(seed), images, path, update=(ag.optimizers.SGD(0.1, momentum=0.9), 2))
    contents = [path.read_bytes() for path in paths]
    sound = str(ag.compare(*paths))
    broken = folder / "broken.trace"

    def one(rng: random.Random) -> str:
        side = rng.randrange(2)
        kind = rng.choice(("bit", "bytes", "said", "said", "said", "header"))
        content = contents[side]
        if kind == "bit":
            content = mutations.flipped(rng, content)
        elif kind == "bytes":
            content = mutations.damaged(rng, content)
        else:
            content = _signed(rng, content, inside=kind == "said")
        broken.write_bytes(content)
        pair = [broken, paths[1]] if side == 0 else [paths[0], broken]
        try:
            found = ag.compare(*pair)
            text = str(found)
            found.html(folder / "page.html")
        except AgnosticError as error:
            text, outcome = str(error), "refused"
        else:
            outcome = "answered"
        assert all(line.isprintable() for line in text.split("\n"))
        # A bit of an array that the comparison did not need may be another.
        quiet = outcome == "answered" and kind in ("bit", "bytes")
        assert not quiet or text == sound, "the answer changed without notice"
        return f"{kind}: {outcome}"

    return one


def _signed(rng: random.Random, content: bytes, *, inside: bool) -> bytes:
    """A trace whose header says something else, with a checksum that fits."""
    length = struct.unpack("<Q", content[:8])[0]
    header, arrays = json.loads(content[8 : 8 + length]), content[8 + length :]
    times = rng.choice((1, 1, 2, 4))
    if inside:
        about = mutations.mutated(rng, json.loads(header["__metadata__"]["agnostic"]), times)
        header["__metadata__"]["agnostic"] = json.dumps(about)
    else:
        metadata = header.pop("__metadata__")
        header = {"__metadata__": metadata, **mutations.mutated(rng, header, times)}
    header["__metadata__"] = {**header["__metadata__"], "checksum": "0" * 64}
    text = json.dumps(header).encode()
    whole = struct.pack("<Q", len(text)) + text
    return whole.replace(b"0" * 64, hashlib.sha256(whole).hexdigest().encode(), 1) + arrays
