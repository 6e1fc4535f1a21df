"""Capability: say what ``agnostic doctor`` should look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agnostic.contracts.capability import Capability
from agnostic.renamed import old_names


@dataclass(frozen=True)
class Advice:
    """One thing that a user should know: what it is, and the fix."""

    what: str
    fix: str


@dataclass(frozen=True)
class Package:
    """A package that a backend computes with.

    Attributes:
        name: of the module.
        probe: a program for a process of its own, which uses the package and sets ``answer`` to a dict with
            ``"version"``, and as far as they are known ``"engine"``, ``"devices"`` and ``"kernels"``.
        distributions: names under which it may be installed; empty: the module's.
        built_for: another package, of which it needs the one version that it was built for.
        fix: what to do where it does not work; ``""``: install it again.
    """

    name: str
    probe: str
    distributions: tuple[str, ...] = ()
    built_for: str = ""
    fix: str = ""


class Doctor(Protocol):
    """What to look at. The module imports no framework."""

    def packages(self) -> Sequence[Package]:
        """The packages, that which the backend requires among them."""

    def unusable(self, installed: Sequence[str]) -> Advice | None:
        """What is known to keep the framework from being imported, so that there is no need to try; None: nothing.

        Args:
            installed: the packages of all backends that are installed.
        """

    def notes(self, installed: Sequence[str]) -> Sequence[Advice]:
        """What works, and is worth knowing."""


DOCTOR: Capability[Doctor] = Capability("doctor", Doctor, "tell agnostic doctor what to look at")

if not TYPE_CHECKING:
    __getattr__ = old_names(__name__, {"Finding": "Advice"})
