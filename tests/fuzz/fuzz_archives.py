"""Files of Keras: whatever they hold, they are read or refused in one sentence, and call nothing but what computes."""

from __future__ import annotations

import io
import json
import random
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras

import agnostic as ag
from agnostic.contracts.weights import WEIGHTS
from agnostic.errors import AgnosticError
from agnostic.models.attached import attach
from agnostic.models.cards import ModelCard, Preprocessing
from tests.fuzz import mutations


def prepare(folder: Path) -> Callable[[random.Random], str]:
    """One case: an archive, or a file of weights, damaged."""
    warnings.simplefilter("ignore")
    x = keras.Input((4, 4, 2))
    y = keras.layers.Flatten()(keras.layers.Conv2D(2, 3, activation="relu", kernel_regularizer="l2")(x))
    model = keras.Model(x, keras.layers.Activation("softmax")(keras.layers.Dense(2)(y)))
    attach(model, ModelCard("x", Preprocessing((0.5,) * 2, (0.2,) * 2), (4, 4)))
    backend = ag.backend_of(model)
    backend[WEIGHTS].save(model, folder / "a.keras")
    with zipfile.ZipFile(folder / "a.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    whole = (folder / "a.keras").read_bytes()

    def one(rng: random.Random) -> str:
        kind = rng.choice(("bytes", "config", "config", "card", "arrays", "weights"))
        path = folder / ("b.weights.h5" if kind == "weights" else "b.keras")
        if kind == "weights":
            path.write_bytes(mutations.damaged(rng, members["model.weights.h5"]))
        else:
            path.write_bytes(mutations.damaged(rng, whole) if kind == "bytes" else _archive(rng, members, kind))
        try:
            if kind == "weights":
                backend[WEIGHTS].load_weights(model, path, "it")
            else:
                ag.load(str(path), backend="keras")
        except AgnosticError as error:
            return f"{kind}: refused" if str(error).isprintable() else _fail(str(error))
        return f"{kind}: read"

    return one


def _fail(said: str) -> str:
    raise AssertionError(said)


def _archive(rng: random.Random, members: dict[str, bytes], kind: str) -> bytes:
    """An archive with one member changed."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as copy:
        for name, content in members.items():
            if name == {"config": "config.json", "card": "agnostic.json"}.get(kind):
                content = json.dumps(mutations.mutated(rng, json.loads(content), rng.choice((1, 1, 3)))).encode()
            elif kind == "arrays" and name == "model.weights.h5":
                content = mutations.damaged(rng, content)
            copy.writestr(name, content)
    return made.getvalue()
