"""The torch backend: each method lives in the file that mirrors its interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from agnostic.backend import Backend
from agnostic.layers import Layer
from agnostic.taps.records import Activations
from agnostic_torch import calls, devices, layers, taps
from agnostic_torch import inputs as inputs_
from agnostic_torch.ops import TorchOps

if TYPE_CHECKING:
    from agnostic.compare.calls import Around
    from agnostic.description import LayerDescription
    from agnostic.models.architecture import Architecture
    from agnostic.models.inputs import Trial
    from agnostic.program.nodes import Program
    from agnostic.transfer.access import Access
    from agnostic.visualization.ascent import Ascent, Climbed, Settings


class TorchBackend(Backend):
    """See :class:`agnostic.backend.Backend`."""

    name = "torch"
    engine = "torch"

    def __init__(self) -> None:
        self.ops = TorchOps()

    # Looking inside -------------------------------------------------------------------------------------------------
    def tree(self, model: nn.Module) -> list[Layer]:
        return layers.tree(layers.unwrap(model))

    def trial(self, model: nn.Module, inputs: Any) -> Trial:
        return inputs_.trial(model, inputs)

    def layer_name(self, model: nn.Module, layer: Any) -> str | None:
        return next((name for name, x in layers.named_layers(layers.unwrap(model)).items() if x is layer), None)

    def expected(self, model: nn.Module, layer: str | None) -> str | None:
        return None if layer is None else layers.expected(layers.named_layers(layers.unwrap(model))[layer])

    def is_refusal(self, error: Exception) -> bool:
        return super().is_refusal(error) and not isinstance(error, torch.OutOfMemoryError)

    def describe(self, model: nn.Module, names: Sequence[str] | None = None) -> list[LayerDescription]:
        from agnostic_torch.description import describe

        return describe(model, names)

    def watch(
        self, model: nn.Module, layers: Sequence[str], *, detach: bool = False
    ) -> AbstractContextManager[Activations]:
        return taps.watch(model, layers, detach=detach)

    def guard(self, model: nn.Module) -> AbstractContextManager[None]:
        from agnostic_torch.guards import guard

        return guard(model)

    def capture(self, model: nn.Module, inputs: Any, layers: Sequence[str]) -> Activations:
        return taps.capture(model, inputs, layers)

    def submodel(self, model: nn.Module, layers: Sequence[str]) -> nn.Module:
        return taps.submodel(model, layers)

    def input_count(self, model: nn.Module) -> int:
        return inputs_.input_count(model)

    def native_inputs(self, model: nn.Module, arrays: Sequence[npt.NDArray[Any]]) -> Any:
        return inputs_.native_inputs(model, arrays)

    # Comparing ------------------------------------------------------------------------------------------------------
    def intercept(self, model: nn.Module, names: Sequence[str], around: Around) -> AbstractContextManager[None]:
        return calls.intercept(model, names, around)

    def run(self, model: nn.Module, inputs: Any, *, seed: int = 0) -> tuple[Any, ...]:
        return calls.run(model, inputs, seed)

    def in_float64(self, model: nn.Module) -> AbstractContextManager[bool]:
        return calls.in_float64(model)

    def is_training(self, model: nn.Module) -> bool:
        return calls.is_training(model)

    def to_numpy(self, x: Any) -> npt.NDArray[Any]:
        return calls.numpy(x)

    def to_native(self, x: npt.NDArray[Any], like: Any, *, dtype: str | None = None) -> Any:
        return calls.native(x, like, dtype)

    def gradients_of_loss(self, model: nn.Module, inputs: Any) -> Mapping[str, npt.NDArray[Any]]:
        from agnostic_torch.learning import gradients

        return gradients(model, inputs)

    def training_steps(
        self, model: nn.Module, inputs: Any, optimizer: Any, rates: Sequence[float]
    ) -> Iterator[tuple[Mapping[str, npt.NDArray[Any]], Mapping[str, npt.NDArray[Any]]]]:
        from agnostic_torch.learning import steps

        return steps(model, inputs, optimizer, rates)

    def program(self, model: nn.Module, inputs: Any) -> Program:
        from agnostic_torch.program import program

        return program(model, inputs)

    def versions(self) -> Mapping[str, str]:
        return calls.versions()

    # Ascent ---------------------------------------------------------------------------------------------------------
    def ascend(self, model: nn.Module, ascent: Ascent, settings: Settings) -> Iterator[Climbed]:
        from agnostic_torch.ascent import ascend

        return ascend(model, ascent, settings)

    # Models and weights ---------------------------------------------------------------------------------------------
    def build(self, architecture: Architecture) -> nn.Module:
        from agnostic_torch.models import build

        return build(architecture)

    def on_device(self, name: str) -> AbstractContextManager[Callable[[nn.Module], nn.Module]]:
        return devices.on_device(name)

    def load(self, spec: str, weights: str | Path | None, *, trust: bool = False) -> nn.Module:
        from agnostic_torch.models import load

        return load(spec, weights)

    def weights(self, model: nn.Module) -> Mapping[str, np.ndarray[Any, Any]]:
        from agnostic_torch.weights import weights

        return weights(model)

    def set_weights(self, model: nn.Module, weights: Mapping[str, np.ndarray[Any, Any]]) -> None:
        from agnostic_torch.weights import set_weights

        set_weights(model, weights)

    def read_weights(self, path: Path) -> Mapping[str, np.ndarray[Any, Any]]:
        from agnostic_torch.weights import read_weights

        return read_weights(path)

    def check_transform(self, transform: nn.Module) -> None:
        """Every module may be one: what it makes of an image is checked where it makes it."""

    def transform_image(self, transform: nn.Module, image: npt.NDArray[Any], draws: int) -> npt.NDArray[Any]:
        from agnostic_torch.data import transform_image

        return transform_image(transform, image, draws)

    def save(self, model: nn.Module, path: Path) -> None:
        from agnostic_torch.weights import save

        save(model, path)

    def access(self, model: nn.Module) -> Access:
        from agnostic_torch.transfer import TorchAccess

        return TorchAccess(model)
