"""Mistakes that an edit of a model's source makes: what is said of them, and the fix, applied as it is printed."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.compare import edits

FAULTS = {"llama": (0, 8, 16), "conformer": (1, 15), "nerf": (2, 6), "gan": (6,), "pointer": (2,), "detr": (9,)}
"""Some of each kind; all: scripts/mutations.py --edited."""

CORRECT = {"llama": (0, 2), "conformer": (0,), "nerf": (3,), "gan": (0,), "yolo": (1,)}


def test_faults_are_named_and_their_fixes_run(tmp_path: Path) -> None:
    found = [edits.judged(x) for name, chosen in FAULTS.items()
             for x in edits.edited(name, tmp_path, faults=True, chosen=chosen)]  # fmt: skip
    for key in ("seen", "located", "named", "proven", "fixed"):
        assert all(x[key] for x in found), [x for x in found if not x[key]]


def test_other_ways_to_compute_the_same_raise_no_alarm(tmp_path: Path) -> None:
    import agnostic as ag

    for name, chosen in CORRECT.items():
        for case in edits.edited(name, tmp_path, faults=False, chosen=chosen):
            found = ag.compare(case.a, case.b, case.inputs)
            assert found.same, f"{case.name}: {found}"
            assert not any("not by the operators" in note for note in found.notes)
