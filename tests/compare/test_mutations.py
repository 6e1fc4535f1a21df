"""Faults that a rule makes, in networks that the comparison was not built on. More of them: scripts/mutations.py."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from tests.compare import mutations

SEED, COUNT = 5, 24


def test_faults_are_seen_located_named_and_proven() -> None:
    """What is proven needs no luck: all of them. Of names, one in ten may be another word for the same."""
    found = [mutations.judged(fault) for fault in mutations.faults(SEED, COUNT)]
    assert len({x["name"].partition(":")[0] for x in found}) >= 8, "too few architectures were drawn to tell anything"
    for key in ("seen", "located", "proven"):
        assert all(x[key] for x in found), [x for x in found if not x[key]]
    assert sum(x["named"] for x in found) >= 0.9 * COUNT, [x for x in found if not x["named"]]
