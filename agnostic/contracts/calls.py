"""Capability: run a model and take part in the calls of its layers, for traces and comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    import numpy.typing as npt

    from agnostic.compare.calls import Around


class Calls(Protocol):
    """Calls of layers, which may be replaced, and arrays from and to NumPy."""

    def intercept(self, model: Model, names: Sequence[str], around: Around) -> AbstractContextManager[None]:
        """A context in which ``around`` replaces each call of the named layers; eager on every engine."""

    def run(self, model: Model, inputs: Any, seed: int = 0) -> tuple[Any, ...]:
        """Run the model in its current mode, without gradients.

        Changes of the run (running statistics, states of random generators) are undone afterwards.

        Args:
            inputs: as in :func:`agnostic.capture`.
            seed: of the random numbers of the model.

        Returns:
            The native arrays in the output of the model, in order, without those of truth values.
        """

    def returned(self, model: Model, inputs: Any, seed: int = 0) -> tuple[Any, ...]:
        """As :meth:`run`, with arrays of truth values."""

    def in_float64(self, model: Model) -> AbstractContextManager[bool]:
        """A context in which the model computes in float64; it yields False if the framework has no exact float64."""

    def is_training(self, model: Model) -> bool:
        """Whether any layer is in training mode."""

    def numpy(self, x: Any) -> npt.NDArray[Any]:
        """A native array as NumPy, without a copy if possible; bfloat16 becomes float32."""

    def native(self, x: npt.NDArray[Any], like: Any, dtype: str | None = None) -> Any:
        """NumPy as a native array of the kind, device and type of another one, or of the named type."""

    def versions(self) -> Mapping[str, str]:
        """The versions of the computing packages, by name."""


CALLS: Capability[Calls] = Capability("calls", Calls, "record traces of models")
