"""Capability: record layer outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    from agnostic.layers import Layer
    from agnostic.taps.records import Activations


@dataclass(frozen=True)
class ListingLoop:
    """What :meth:`Taps.loop` may return: a function whose first run tells the layers too.

    Attributes:
        run: from the model's inputs to what each call of each named layer returned.
        layers: as :func:`agnostic.layers` lists those that the first run came to, after it; empty before.
    """

    run: Callable[[Any], Mapping[str, Sequence[Any]]]
    layers: Sequence[Layer]

    def __call__(self, inputs: Any) -> Mapping[str, Sequence[Any]]:
        return self.run(inputs)


class Taps(Protocol):
    """The outputs of layers."""

    def capture(self, model: Model, inputs: Any, names: Sequence[str]) -> Activations:
        """Run the model in inference mode, stop after the last of the named layers, and return the record.

        A layer that did not run has no calls in the record.

        Args:
            inputs: as in :func:`agnostic.capture`.
        """

    def watch(self, model: Model, names: Sequence[str], *, detach: bool = False) -> AbstractContextManager[Activations]:
        """Record the outputs of the named layers while the context is open; hooks are removed also after an error."""

    def submodel(self, model: Model, names: Sequence[str]) -> Model:
        """A native model that returns the outputs of the named layers: one array for one layer, else a list."""

    def loop(
        self, model: Model, names: Sequence[str], *, dtype: str | None = None
    ) -> Callable[[Any], Mapping[str, Sequence[Any]]] | None:
        """:meth:`capture` prepared once and called often, with inputs of one shape; compiled where the engine compiles.

        Between the calls the model stays as it is.

        Args:
            dtype: what layers compute in, whose weights stay as they are: ``"bfloat16"``; None: their own type.

        Returns:
            A function of the model's inputs, which returns what each call of each layer returned; a
            :class:`ListingLoop` where listing the layers by a run of its own would cost a compilation more. None: the
            loop is made of :meth:`capture`.
        """


TAPS: Capability[Taps] = Capability("taps", Taps, "record layer outputs")
