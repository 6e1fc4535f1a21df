"""Class names, and the number of a class by its name."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from importlib.resources import files

import numpy as np

from agnostic.errors import InvalidInput, UnknownName, nearest
from agnostic.text import counted


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """The names of the 1000 classes of ImageNet (ILSVRC 2012), in the order of the networks' outputs.

    Source: the categories in the metadata of torchvision's weights, which distinguish the two cranes and the two
    maillots: "crane bird" and "crane", "maillot" and "maillot tank suit".
    """
    text = files("agnostic.models").joinpath("imagenet_classes.json").read_text(encoding="utf-8")
    return tuple(json.loads(text))


def class_index(class_: str | int, names: Sequence[str]) -> int:
    """The number of a class.

    Args:
        class_: its number, or its full name. Case is ignored, and ``_`` and ``-`` stand for a space. A part of a name
            is not accepted, since its meaning would depend on the other classes. A string of digits that is not a name
            is a number.
        names: of all classes, in the order of the model's outputs.

    Raises:
        UnknownName: no class has that name; the message names the nearest.
        InvalidInput: several have it, or the number is out of range.
    """
    if isinstance(class_, str):
        return _by_name(class_, names)
    if isinstance(class_, bool) or not isinstance(class_, int | np.integer):
        raise InvalidInput(f"a class is chosen by its name or its number, not by {class_!r}")
    if not 0 <= class_ < len(names):
        raise InvalidInput(
            f"no class {class_}: the model has {counted(len(names), 'class', 'classes')}, 0 to {len(names) - 1}"
        )
    return int(class_)


def class_label(number: int, names: Sequence[str] | None) -> str:
    """The name of a class, with its number if others have the same name; or ``"class 967"``."""
    if names is None:
        return f"class {number}"
    name = names[number]
    return name if list(names).count(name) == 1 else f"{name} ({number})"


def _key(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _by_name(name: str, names: Sequence[str]) -> int:
    same = [i for i, other in enumerate(names) if other == name] or [
        i for i, other in enumerate(names) if _key(other) == _key(name)
    ]
    if len(same) == 1:
        return same[0]
    if same:
        which = " and ".join(f"{i} ({names[i]!r})" for i in same)
        raise InvalidInput(
            f"{name!r} is the name of {counted(len(same), 'class', 'classes')}, {which}: give the number"
        )
    if name.strip().isdecimal():
        return class_index(int(name), names)
    # "cat" is far from "Egyptian cat" in letters, so that whole words come first.
    sharing = [other for other in names if f" {_key(name)} " in f" {_key(other)} "]
    if sharing:
        hint = f"; with that word there are {', '.join(map(repr, sharing[:5]))}" + (" and others" * (len(sharing) > 5))
    else:
        hint = nearest(name, names)
    raise UnknownName(f"no class {name!r} among the model's {len(names)}{hint}")
