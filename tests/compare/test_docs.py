"""docs/compare.md: its code runs, and its table is made of the entries."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agnostic.compare.known import KNOWN, markdown

PAGE = Path(__file__).parents[2] / "docs" / "compare.md"


def test_the_table_is_made_of_the_entries() -> None:
    """To write it anew: print agnostic.compare.known.markdown()."""
    table = PAGE.read_text().partition("<!-- mistakes -->\n")[2].partition("<!-- /mistakes -->")[0]
    assert table == markdown()
    assert len({x.key for x in KNOWN}) == len(KNOWN)


def test_the_code_runs() -> None:
    pytest.importorskip("torch")
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102 - the page's own code
