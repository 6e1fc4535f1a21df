"""Capability: copy arrays to and from the device while it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    import numpy.typing as npt


class Copies(Protocol):
    """Copies that neither the processor nor the device waits for.

    A loop over batches calls :meth:`staged` in the threads that read, :meth:`sent` before each run of the model and
    :meth:`fetching` after it, and the function that this returns after the next run has begun.
    """

    def staged(self, model: Model, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The batch in memory that the model's device reads by itself; as it is where there is no such memory."""

    def sent(self, model: Model, make: Callable[[], Any]) -> Any:
        """``make()``, which gives native inputs of the model from staged batches, beside what the device computes.

        What the device is asked for afterwards finds them there. The staged batches are kept until it has run.
        """

    def fetching(self, arrays: Sequence[Any]) -> Callable[[], Sequence[npt.NDArray[Any]]]:
        """Begin to copy native arrays into main memory, once they are computed.

        Returns:
            A function that waits for these copies, and for nothing that the device was asked for later; it returns the
            arrays as :meth:`agnostic.contracts.calls.Calls.numpy` does.
        """


COPIES: Capability[Copies] = Capability("copies", Copies, "copy arrays while the device computes")
