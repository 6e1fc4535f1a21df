"""The key by which a capability is requested."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

Model = Any
"""A model of the framework, such as a torch.nn.Module or a keras.Model."""

C = TypeVar("C")


class Capability(Generic[C]):
    """A capability: its name, its protocol and its purpose.

    Args:
        name: of the file in :mod:`agnostic.contracts`, such as ``"taps"``.
        contract: the protocol; its members are the functions that a backend's module must have.
        purpose: a phrase that completes "the backend cannot ...", for the error if it is missing.

    Example:
        >>> from agnostic.contracts.taps import TAPS
        >>> TAPS
        Capability('taps')
        >>> TAPS.members
        ('capture', 'watch', 'submodel', 'loop')
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

    def returns(self, member: str) -> str:
        """What a function must return, as the protocol writes it."""
        return str(getattr(self.contract, member).__annotations__["return"])

    def missing(self, implementation: Any) -> list[str]:
        """The functions that an implementation lacks.

        An object that inherits from the protocol has them all; methods that may return None are optional.
        """
        found = []
        for member in self.members:
            function = getattr(implementation, member, None)
            inherited = getattr(function, "__func__", None) is getattr(self.contract, member)
            if function is None or (inherited and not self.returns(member).endswith("| None")):
                found.append(member)
        return found
