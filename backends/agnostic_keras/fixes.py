"""Code that fixes what a comparison found; see :mod:`agnostic.contracts.fixes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ATTRIBUTES: Mapping[str, Mapping[str, str]] = {
    "batch_norm": {"epsilon": "epsilon"},
    "layer_norm": {"epsilon": "epsilon"},
    "group_norm": {"epsilon": "epsilon", "groups": "groups"},
    "leaky_relu": {"negative_slope": "negative_slope"},
}
"""What layers call the attributes of their operators, by operator; of those that a layer looks up when it is called."""


def setting(layer: str, operator: str, name: str, value: Any) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.setting`: of the model's own layers, which it finds by name."""
    attribute = _ATTRIBUTES.get(operator, {}).get(name)
    return None if attribute is None or "." in layer else f"model.get_layer({layer!r}).{attribute} = {value!r}"


def weight(role: str, name: str, undo: str) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.weight`."""
    return None


def copied(to: tuple[str, str], source: tuple[str, str]) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.copied`."""
    return None


def settings(layer: str, source: str) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.settings`."""
    return None


def layer(name: str, source: str | None) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.layer`."""
    return None
