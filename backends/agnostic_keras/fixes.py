"""Code that fixes what a comparison found; see :mod:`agnostic.contracts.fixes`."""

from __future__ import annotations

from typing import Any


def setting(layer: str, operator: str, name: str, value: Any) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.setting`: a built layer's settings are its configuration's."""
    return None


def weight(role: str, name: str, undo: str) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.weight`."""
    return None


def copied(to: tuple[str, str], source: tuple[str, str]) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.copied`."""
    return None
