"""The Keras backend: each method lives in the file that mirrors its interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import numpy.typing as npt

from agnostic.backend import Backend
from agnostic.layers import Layer
from agnostic.taps.records import Activations
from agnostic_keras import calls, devices, engines, layers, taps
from agnostic_keras import inputs as inputs_
from agnostic_keras.ops import KerasOps

if TYPE_CHECKING:
    from agnostic.compare.calls import Around
    from agnostic.description import LayerDescription
    from agnostic.models.architecture import Architecture
    from agnostic.models.cards import Preprocessing
    from agnostic.models.inputs import Input, Trial
    from agnostic.transfer.access import Access
    from agnostic.visualization.ascent import Ascent, Climbed, Settings


class KerasBackend(Backend):
    """See :class:`agnostic.backend.Backend`."""

    name = "keras"

    def __init__(self) -> None:
        engines.current()  # an engine that cannot differentiate is refused here
        self.engine = keras.config.backend()
        self.ops = KerasOps()

    # Looking inside -------------------------------------------------------------------------------------------------
    def tree(self, model: keras.Layer) -> list[Layer]:
        return layers.tree(model)

    def trial(self, model: keras.Layer, inputs: Any) -> Trial:
        return inputs_.trial(model, inputs)

    def layer_name(self, model: keras.Layer, layer: Any) -> str | None:
        return next((name for name, x in layers.named_layers(model).items() if x is layer), None)

    def expected(self, model: keras.Layer, layer: str | None) -> str | None:
        return layers.expected(model if layer is None else layers.named_layers(model)[layer])

    def is_refusal(self, error: Exception) -> bool:
        return super().is_refusal(error) or isinstance(error, engines.current().REFUSALS)

    def describe(self, model: keras.Layer, names: Sequence[str] | None = None) -> list[LayerDescription]:
        from agnostic_keras.description import describe

        return describe(model, names)

    def watch(
        self, model: keras.Layer, layers: Sequence[str], *, detach: bool = False
    ) -> AbstractContextManager[Activations]:
        return taps.watch(model, layers, detach=detach)

    def guard(self, model: keras.Model) -> AbstractContextManager[None]:
        from agnostic_keras.guards import guard

        return guard(model)

    def capture(self, model: keras.Layer, inputs: Any, layers: Sequence[str]) -> Activations:
        return taps.capture(model, inputs, layers)

    def submodel(self, model: keras.Layer, layers: Sequence[str]) -> keras.Model:
        return taps.submodel(model, layers)

    def stated_inputs(self, model: keras.Layer) -> Sequence[Input] | None:
        return inputs_.stated_inputs(model)

    def stated_preprocessing(self, model: keras.Layer) -> Preprocessing | None:
        return inputs_.stated_preprocessing(model)

    def input_count(self, model: keras.Layer) -> int:
        return inputs_.input_count(model)

    def native_inputs(self, model: keras.Layer, arrays: Sequence[npt.NDArray[Any]]) -> Any:
        return inputs_.native_inputs(model, arrays)

    # Comparing ------------------------------------------------------------------------------------------------------
    def intercept(self, model: keras.Layer, names: Sequence[str], around: Around) -> AbstractContextManager[None]:
        return calls.intercept(model, names, around)

    def run(self, model: keras.Layer, inputs: Any, *, seed: int = 0) -> tuple[Any, ...]:
        return calls.run(model, inputs, seed)

    def is_training(self, model: keras.Layer) -> bool:
        return calls.is_training(model)

    def to_numpy(self, x: Any) -> npt.NDArray[Any]:
        return calls.numpy(x)

    def to_native(self, x: npt.NDArray[Any], like: Any, *, dtype: str | None = None) -> Any:
        return calls.native(x, like, dtype)

    def gradients_of_loss(self, model: keras.Layer, inputs: Any) -> Mapping[str, npt.NDArray[Any]]:
        from agnostic_keras.learning import gradients

        return gradients(model, inputs)

    def training_steps(
        self, model: keras.Layer, inputs: Any, optimizer: Any, rates: Sequence[float]
    ) -> Iterator[tuple[Mapping[str, npt.NDArray[Any]], Mapping[str, npt.NDArray[Any]]]]:
        from agnostic_keras.learning import steps

        return steps(model, inputs, optimizer, rates)

    def versions(self) -> Mapping[str, str]:
        return calls.versions()

    # Ascent ---------------------------------------------------------------------------------------------------------
    def ascend(self, model: keras.Layer, ascent: Ascent, settings: Settings) -> Iterator[Climbed]:
        from agnostic_keras.ascent import ascend

        return ascend(model, ascent, settings)

    # Models and weights ---------------------------------------------------------------------------------------------
    def build(self, architecture: Architecture) -> keras.Model:
        from agnostic_keras.models import build

        return build(architecture)

    def on_device(self, name: str) -> AbstractContextManager[Callable[[keras.Layer], keras.Layer]]:
        return devices.on_device(name)

    def load(self, spec: str, weights: str | Path | None, *, trust: bool = False) -> keras.Model:
        from agnostic_keras.models import load

        return load(spec, weights, trust=trust)

    def weights(self, model: keras.Layer) -> Mapping[str, np.ndarray[Any, Any]]:
        from agnostic_keras.weights import weights

        return weights(model)

    def set_weights(self, model: keras.Layer, weights: Mapping[str, np.ndarray[Any, Any]]) -> None:
        from agnostic_keras.weights import set_weights

        set_weights(model, weights)

    def read_weights(self, path: Path) -> Mapping[str, np.ndarray[Any, Any]]:
        from agnostic_keras.weights import read_weights

        return read_weights(path)

    def load_weights(self, model: keras.Layer, path: Path, name: str) -> None:
        from agnostic_keras.models import fill

        fill(model, path, name)

    def save(self, model: keras.Layer, path: Path) -> None:
        from agnostic_keras.weights import save

        save(model, path)

    def access(self, model: keras.Layer) -> Access:
        from agnostic_keras.transfer import KerasAccess

        return KerasAccess(model)
