"""Run where the plug-in is found: killed runs go on, and a plug-in extracts without a line for it."""

from __future__ import annotations

from pathlib import Path

from tests.extract.killing import once, photos, runs


def test_killed_runs_go_on_with_the_same_bytes(tmp_path: Path) -> None:
    assert list(runs(tmp_path, kills=5))


def test_a_plug_in_extracts(tmp_path: Path) -> None:
    store = once(photos(tmp_path / "photos"), tmp_path / "a.zarr")
    assert store["conv"]["mean"].shape == (22, 4)
    assert list(store.unreadable) == ["007.png"]
