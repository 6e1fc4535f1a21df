"""Specification strings: the model and its weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from agnostic.errors import InvalidInput, UnknownName, nearest
from agnostic.files import open_regular
from agnostic.models.efficientnet_lite import VARIANTS
from agnostic.models.twins import TWINS
from agnostic.registry import registrations

WeightsChoice: TypeAlias = Literal["default", "random"] | Path
"""The spec's own weights, random ones, or those in a file."""

EMBEDDED = {f"efficientnet_{variant}": variant for variant in VARIANTS}
"""The networks that agnostic describes and has weights for, by name.

There are also twins, by torchvision's names: torchvision's own networks for PyTorch, described for Keras."""


def forms() -> str:
    """The forms of specifications, by examples."""
    known = registrations().values()
    examples = [example for registration in known for example in registration.specs.values()]
    files = [f"model{suffix}" for registration in known for suffix in registration.model_files]
    return f"{', '.join(map(repr, ['efficientnet_lite0', *examples, *files]))} or 'file.py:make_model'"


@dataclass(frozen=True)
class ModelSpec:
    """The parts of a specification.

    Attributes:
        text: as it was given.
        family: where the model comes from: ``"embedded"``, ``"twin"``, ``"function"``, ``"file"`` for a file that holds
            a whole model, or the prefix of a backend's own models, such as ``"torchvision"``.
        name: of the model within its family; of the function for ``"function"``; ``""`` for ``"file"``.
        path: of the file, for the families that are files.
    """

    text: str
    family: str
    name: str
    path: Path | None = None

    @property
    def backend(self) -> str | None:
        """The only backend that can make it, or None if several can, or if only running it shows."""
        for registration in registrations().values():
            if self.family in registration.specs or (
                self.family == "file" and str(self.path).endswith(registration.model_files)
            ):
                return registration.name
        return None


def parse(text: str) -> ModelSpec:
    """Split a specification into its parts. Its family checks whether the model exists.

    Raises:
        UnknownName: it has no known form.
        InvalidInput: a file of Python code is named without a function, or a family without a model.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"a model is specified by a string such as {forms()}, not by {text!r}")
    before, colon, name = text.rpartition(":")
    if colon and before.endswith(".py"):
        if not name.isidentifier():
            raise InvalidInput(f"{text!r} has no function: write '{before}:make_model'")
        return ModelSpec(text, "function", name, Path(before).expanduser())
    if text.endswith(".py"):
        raise InvalidInput(f"{text!r} does not say which function makes the model: write '{text}:make_model'")
    known = registrations().values()
    if text.endswith(tuple(suffix for registration in known for suffix in registration.model_files)):
        return ModelSpec(text, "file", "", Path(text).expanduser())
    if any(before in registration.specs for registration in known):
        if not name:
            raise InvalidInput(f"{text!r} names no model; a specification is {forms()}")
        return ModelSpec(text, before, name)
    if text in EMBEDDED:
        return ModelSpec(text, "embedded", EMBEDDED[text])
    if text in TWINS:
        return ModelSpec(text, "twin", text)
    raise UnknownName(f"no model {text!r}: a specification is {forms()}{nearest(text, [*EMBEDDED, *TWINS])}")


def require_files(*specs: str, weights: Sequence[str | None] = ()) -> None:
    """Check that the files in specifications and weights exist, before anything slow begins.

    Raises:
        InvalidInput: one is missing, or cannot be read.
    """
    paths = [parse(spec).path for spec in specs]
    paths += [chosen for x in weights if isinstance(chosen := parse_weights(x), Path)]
    for path in paths:
        if path is not None:
            open_regular(path).close()


def parse_weights(weights: str | os.PathLike[str] | None) -> WeightsChoice:
    """Parse the weights: None and ``"default"`` are the spec's own, ``"random"`` random ones, the rest a file."""
    if weights is None or weights == "default":
        return "default"
    if weights == "random":
        return "random"
    if not isinstance(weights, str | os.PathLike) or not os.fspath(weights):
        raise InvalidInput(f"weights are 'default', 'random' or the name of a file, not {weights!r}")
    return Path(weights).expanduser()
