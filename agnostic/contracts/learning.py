"""Capability: gradients of a loss, and the steps of an optimizer on it, for traces and comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    import numpy.typing as npt

    from agnostic.optimizers.specs import Spec

Arrays = Mapping[str, "npt.NDArray[Any]"]


class LearningSteps(Protocol):
    """One loss, half the mean square of each output, its gradients and updates."""

    def gradients(self, model: Model, inputs: Any) -> Arrays:
        """The gradients of the loss of :mod:`agnostic.compare.learning`, by the names of the weights.

        The model is unchanged afterwards.
        """

    def steps(self, model: Model, inputs: Any, spec: Spec, rates: Sequence[float]) -> Iterator[tuple[Arrays, Arrays]]:
        """Take steps of an optimizer on that loss, one per learning rate.

        The caller may change the weights between two steps, if it restores them.

        Args:
            spec: the optimizer, without its learning rate.

        Yields:
            (the gradients of a step, the trainable weights after it), by the names of the weights. When it ends or is
            closed, the weights of the model are restored.
        """


LEARNING: Capability[LearningSteps] = Capability(
    "learning", LearningSteps, "record gradients and the steps of an optimizer"
)
