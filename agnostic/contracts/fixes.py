"""Capability: say how to fix a mistake that a comparison found, in code of the framework."""

from __future__ import annotations

from typing import Protocol

from agnostic.contracts.capability import Capability


class Fixes(Protocol):
    """Texts of fixes. The module imports no framework, since traces are compared without one."""

    def fix(self, mistake: str) -> str:
        """The code or action that fixes a mistake; ``{a}`` is A's value, ``{b}`` B's, ``{layer}`` the name of B's
        layer.

        Args:
            mistake: a key of :data:`agnostic.compare.mistakes.words.CATALOGUE`.
        """


FIXES: Capability[Fixes] = Capability("fixes", Fixes, "say how a mistake is fixed")
