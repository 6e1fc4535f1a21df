"""Capability: tell ``agnostic doctor`` what to check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agnostic.contracts.capability import Capability
from agnostic.renamed import old_names


@dataclass(frozen=True)
class Advice:
    """Advice for the user: what was found, and how to fix it."""

    what: str
    fix: str


@dataclass(frozen=True)
class Package:
    """A package that a backend computes with.

    Attributes:
        name: of the module.
        probe: a program for a separate process, which uses the package and sets ``answer`` to a dict with
            ``"version"``, and as far as they are known ``"engine"``, ``"devices"`` and ``"kernels"``.
        distributions: its possible distribution names; empty: the name of the module.
        built_for: another package, which must have the version that this one was built for.
        fix: what to do if it does not work; ``""``: reinstall it.
    """

    name: str
    probe: str
    distributions: tuple[str, ...] = ()
    built_for: str = ""
    fix: str = ""


class Doctor(Protocol):
    """What to check. The module imports no framework."""

    def packages(self) -> Sequence[Package]:
        """The packages to check, including the one that the backend requires."""

    def unusable(self, installed: Sequence[str]) -> Advice | None:
        """A known reason why the framework cannot be imported, so that no import is tried; None: no such reason.

        Args:
            installed: the packages of all backends that are installed.
        """

    def notes(self, installed: Sequence[str]) -> Sequence[Advice]:
        """Advice about things that work."""


DOCTOR: Capability[Doctor] = Capability("doctor", Doctor, "tell agnostic doctor what to check")

if not TYPE_CHECKING:
    __getattr__ = old_names(__name__, {"Finding": "Advice"})
