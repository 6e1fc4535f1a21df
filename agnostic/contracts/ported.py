"""Capability: run models from source that was written for a framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    import numpy.typing as npt

Keep = Callable[[str, "npt.NDArray[Any]"], None]


def first_outputs(
    keep: Callable[[str, Any], None], change: Callable[[Any], Any] | None = None
) -> Callable[[Any], Sequence[Any]]:
    """For :meth:`agnostic.contracts.calls.Calls.intercept`: hand on what the first call of each layer returns.

    Args:
        keep: is called with the name and the native array of a layer that returns one array.
        change: of each array that a layer returns, before it is handed on and used.
    """

    def around(call: Any) -> Sequence[Any]:
        arrays: Sequence[Any] = call.run() if change is None else tuple(map(change, call.run()))
        if call.number == 0 and len(arrays) == 1:
            keep(call.name, arrays[0])
        return arrays

    return around


class PortedModels(Protocol):
    """Models from written source."""

    def run(
        self, model: Model, inputs: Sequence[npt.NDArray[Any]], layers: Sequence[str], keep: Keep
    ) -> list[npt.NDArray[Any]]:
        """The outputs of a model in inference mode, in order, without gradients.

        Args:
            inputs: in the order of the call, in the model's own layout.
            layers: by name; a layer whose output is not a single array is left out.
            keep: is called with the name and the output of the first call of each of them, as soon as it returns, since
                all together may take more memory than the model; the array may be changed after that.
        """


PORTED: Capability[PortedModels] = Capability("ported", PortedModels, "run written source")
