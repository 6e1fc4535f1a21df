"""Capability: find out what a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    import numpy.typing as npt

    from agnostic.models.cards import ModelCard, Preprocessing
    from agnostic.models.forms import Input, ModelRun


class ModelInputs(Protocol):
    """The inputs of a model: what it declares, and what a run tells."""

    def trial(self, model: Model, inputs: Any) -> ModelRun:
        """Run the model once in inference mode, for what its layers receive and return; also where the run fails.

        Args:
            inputs: what the model is called with: a native array, a NumPy array in the model's own layout, or a tuple
                or dict of them.

        Returns:
            What the run told. An error of the model is in ``ModelRun.error``, not raised.
        """

    def stated_inputs(self, model: Model) -> Sequence[Input] | None:
        """The inputs that the model itself declares, in order; None where it declares none, and must be tried out."""

    def stated_preprocessing(self, model: Model, place: int = 0) -> Preprocessing | None:
        """From images in [0, 1] to the range that the model's own first layer expects; None where it does not tell.

        Args:
            place: of the images among the model's inputs.
        """

    def stated_card(self, model: Model) -> ModelCard | None:
        """What the model's own description says it expects and returns; None where it has none."""

    def input_count(self, model: Model) -> int:
        """Number of inputs that a call of the model requires."""

    def input_names(self, model: Model) -> Sequence[str]:
        """The names of the model's inputs, in the order of :meth:`stated_inputs`, those that a call requires first.

        Empty where inputs have no names.
        """

    def takes_other_names(self, model: Model) -> bool:
        """Whether a call may name inputs beside :meth:`input_names`, as ``**kwargs`` of a Python function."""

    def native_inputs(self, model: Model, arrays: Sequence[npt.NDArray[Any]]) -> Any:
        """What the model is called with, of NumPy arrays in its own layout: one array, or all of them in its structure.

        Arrays are moved to the model's device and, if they are floating point, to its type.
        """

    def is_refusal(self, error: Exception) -> bool:
        """Whether an error of a run may say that the model does not take its inputs: not where memory ran out."""


INPUTS: Capability[ModelInputs] = Capability("inputs", ModelInputs, "tell what a model takes")
