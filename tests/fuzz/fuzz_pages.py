"""Pages: no text becomes an element, an attribute or a script."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from agnostic.compare.report import text
from tests.fuzz import hostile
from tests.test_pages import Parsed, comparison, page_of


def prepare(folder: Path) -> Callable[[random.Random], str]:
    """One case: a comparison whose every text is hostile."""
    benign = Parsed(page_of(comparison(lambda: "name"), folder))

    def one(rng: random.Random) -> str:
        found = comparison(lambda: hostile.text(rng))
        parsed = Parsed(page_of(found, folder))
        assert parsed.elements == benign.elements
        assert parsed.values == benign.values
        assert parsed.others == []
        assert "".join(parsed.texts).replace("\n", "").isprintable()
        assert all(line.isprintable() for line in text(found).split("\n"))
        return "escaped"

    return one
