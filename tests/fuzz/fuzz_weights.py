"""Weight files: whatever they hold, they are read or refused in one sentence, in little memory."""

from __future__ import annotations

import io
import json
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from agnostic.errors import InvalidWeights
from agnostic.models.weight_files import read_arrays
from tests.fuzz import mutations


def prepare(folder: Path) -> Callable[[random.Random], str]:
    """One case: a file of one of the formats, damaged."""
    warnings.simplefilter("ignore")
    base = torch.arange(64.0).reshape(8, 8)
    state = {
        "a.weight": base, "a.bias": base[0], "b": base.T.bfloat16(), "c": base.to(torch.float8_e4m3fn),
        "d": torch.complex(base, base), "e": base > 3, "f": torch.tensor(3), "g": base[1:4, ::2],
    }  # fmt: skip
    content = {"safetensors": save({name: x.contiguous().clone() for name, x in state.items()})}
    for name, options in (("zip", {}), ("old", {"_use_new_zipfile_serialization": False})):
        file = io.BytesIO()
        torch.save({"epoch": 3, "state_dict": state}, file, **options)
        content[name] = file.getvalue()
    sound = {}
    for kind, data in content.items():
        (folder / _name(kind)).write_bytes(data)
        sound[kind] = {name: x.tobytes() for name, x in read_arrays(folder / _name(kind), _SUFFIXES, "PyTorch").items()}

    def one(rng: random.Random) -> str:
        kind = rng.choice(list(content))
        how = rng.choice(("bit", "bytes", "structure"))
        if how == "bit":
            data = mutations.flipped(rng, content[kind])
        elif how == "structure" and kind != "old":
            data = (_header if kind == "safetensors" else _pickle)(rng, content[kind])
        else:
            how, data = "bytes", mutations.damaged(rng, content[kind])
        path = folder / _name(kind)
        path.write_bytes(data)
        try:
            found = {name: np.array(x).tobytes() for name, x in read_arrays(path, _SUFFIXES, "PyTorch").items()}
        except InvalidWeights:
            return f"{kind}, {how}: refused"
        # Only the zip format has checksums of what it holds.
        assert (kind, how) != ("zip", "bit") or found == sound[kind], "other numbers without notice"
        return f"{kind}, {how}: read"

    return one


_SUFFIXES = (".safetensors", ".pth")


def _name(kind: str) -> str:
    return "a.safetensors" if kind == "safetensors" else "a.pth"


def _header(rng: random.Random, data: bytes) -> bytes:
    length = struct.unpack("<Q", data[:8])[0]
    text = json.dumps(mutations.mutated(rng, json.loads(data[8 : 8 + length]), rng.choice((1, 2)))).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _pickle(rng: random.Random, data: bytes) -> bytes:
    """Another pickle in the archive, whose checksums fit."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(made, "w") as copy:
        for name in source.namelist():
            content = source.read(name)
            copy.writestr(name, mutations.damaged(rng, content) if name.endswith("data.pkl") else content)
    return made.getvalue()
