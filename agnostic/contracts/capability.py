"""The key that a capability is asked for by."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

Model = Any
"""A model of the framework at hand, such as a torch.nn.Module or a keras.Model."""

C = TypeVar("C")


class Capability(Generic[C]):
    """A capability: what it is called, the protocol that implements it, and what it is for.

    Args:
        name: of the file in :mod:`agnostic.contracts`, such as ``"taps"``.
        contract: the protocol; its members are the functions that a backend's module must have.
        purpose: a phrase that completes "the backend cannot ...", for the error where it is not provided.

    Example:
        >>> from agnostic.contracts.taps import TAPS
        >>> TAPS
        Capability('taps')
        >>> TAPS.members
        ('capture', 'watch', 'submodel')
    """

    def __init__(self, name: str, contract: Any, purpose: str) -> None:
        self.name = name
        self.contract = contract
        self.purpose = purpose

    def __repr__(self) -> str:
        return f"Capability({self.name!r})"

    @property
    def members(self) -> tuple[str, ...]:
        """The names of the functions that implement it."""
        return tuple(name for name in vars(self.contract) if not name.startswith("_"))
