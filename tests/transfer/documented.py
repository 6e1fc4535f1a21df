"""Whether docs/transfer.md says of every layer of a framework that has weights what its counterpart is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).resolve().parents[2] / "docs" / "transfer.md"


def missing(module: ModuleType, base: type, makes_weights: str) -> list[str]:
    """The public layers in whose source weights are made, and that the page does not name.

    Args:
        base: of all layers; its own source does not count.
        makes_weights: a pattern of what makes a weight.
    """
    section = PAGE.read_text().partition("## What has a counterpart")[2].partition("\n## ")[0]
    named = {_plain(word) for word in re.findall(r"\w+", section)}
    classes = [x for x in vars(module).values() if inspect.isclass(x) and issubclass(x, base) and x is not base]
    weighted = {x.__name__ for x in classes if re.search(makes_weights, _source(x, base))}
    assert len(weighted) > 20, weighted
    return sorted(name for name in weighted if _plain(name) not in named)


def _plain(name: str) -> str:
    """Without dimensions, and without what only says how a layer is built."""
    return re.sub(r"[123][dD]|^Lazy|(Cell)?Base$|Cell$", "", name)


def _source(cls: type, base: type) -> str:
    return "".join(inspect.getsource(x) for x in cls.__mro__ if issubclass(x, base) and x is not base)
