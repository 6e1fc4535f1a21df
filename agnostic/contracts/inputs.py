"""Capability: find the inputs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    import numpy.typing as npt

    from agnostic.models.cards import ModelCard, Preprocessing
    from agnostic.models.forms import Input, ModelRun


class ModelInputs(Protocol):
    """The inputs of a model: its declaration, and trial runs."""

    def trial(self, model: Model, inputs: Any) -> ModelRun:
        """Run the model once in inference mode, and report what its layers receive and return, also if the run fails.

        Args:
            inputs: the arguments of the model: a native array, a NumPy array in the model's own layout, or a tuple
                or dict of them.

        Returns:
            The result of the run. An error of the model is in ``ModelRun.error``, not raised.
        """

    def stated_inputs(self, model: Model) -> Sequence[Input] | None:
        """The inputs that the model itself declares, in order; None if it declares none."""

    def stated_preprocessing(self, model: Model, place: int = 0) -> Preprocessing | None:
        """From images in [0, 1] to the range that the model's own first layer expects; None if not known.

        Args:
            place: of the images among the model's inputs.
        """

    def stated_card(self, model: Model) -> ModelCard | None:
        """The card that the model's own description implies; None if it has none."""

    def input_count(self, model: Model) -> int:
        """Number of inputs that a call of the model requires."""

    def input_names(self, model: Model) -> Sequence[str]:
        """The names of the model's inputs, in the order of :meth:`stated_inputs`, those that a call requires first.

        Empty where inputs have no names.
        """

    def takes_other_names(self, model: Model) -> bool:
        """Whether a call may name inputs beside :meth:`input_names`, as ``**kwargs`` of a Python function."""

    def native_inputs(self, model: Model, arrays: Sequence[npt.NDArray[Any]]) -> Any:
        """The native arguments of the model from NumPy arrays in its own layout: one array, or a structure of arrays.

        Arrays are moved to the model's device and, if they are floating point, to its type.
        """

    def is_refusal(self, error: Exception) -> bool:
        """Whether an error of a run may mean that the model does not take its inputs; out of memory does not."""


INPUTS: Capability[ModelInputs] = Capability("inputs", ModelInputs, "find the inputs of a model")
