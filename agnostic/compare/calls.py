"""One call of one layer, as a backend hands it to whoever intercepts it.

Everything that compares is built from it: recording, teacher forcing, and measuring what arithmetic does to a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agnostic.compare.layouts import Layout
from agnostic.renamed import old_names

Array = Any
"""A native array."""


class LayerCall(Protocol):
    """A call of a leaf: a layer without layers inside, or one that is described as a whole (attention, LSTM)."""

    name: str
    """The layer's name."""

    number: int
    """Which call of this layer it is, from 0."""

    arrays: tuple[Array, ...]
    """The native arrays among its arguments, in order; masks of Booleans are none."""

    layouts: tuple[Layout, ...]
    """The layout of each of them."""

    def run(self, arrays: Sequence[Array] | None = None) -> tuple[Array, ...]:
        """What the layer returns, of its own arguments or of these in their place; may be called several times."""

    def output_layouts(self, outputs: Sequence[Array]) -> tuple[Layout, ...]:
        """The layout of each array that :meth:`run` returned."""


Around = Callable[[LayerCall], Sequence[Array]]
"""Called in place of a layer; returns the arrays the model continues with, as many as :meth:`LayerCall.run` gives."""

if not TYPE_CHECKING:
    __getattr__ = old_names(__name__, {"Call": "LayerCall"})
