"""Capabilities: layers, inputs, taps, calls and description."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from agnostic import contracts
from agnostic.compare.layouts import Layout
from agnostic.description import LayerDescription
from agnostic.layers import Layer
from agnostic.models.forms import Input, ModelRun
from agnostic.taps.records import Activations
from agnostic_tiny.networks import Network
from agnostic_tiny.tape import Tensor


class Layers(contracts.LayerTree):
    def tree(self, model):
        sizes = {name: sum(x.value.size for x in layer.weights.values()) for name, layer in model.layers.items()}
        return [Layer(n, type(x).__name__, None, None, None, sizes[n], calls=0) for n, x in model.layers.items()]

    def layer_name(self, model, layer):
        return next((name for name, x in model.layers.items() if x is layer), None)


class Inputs(contracts.ModelInputs):
    def trial(self, model, inputs):
        found = {layer.name: layer for layer in layers.tree(model)}

        def see(name, run, x):
            y, axes = run(x), model.layers[name].axes
            found[name] = replace(found[name], shape=(None, *y.shape[1:]), axes=axes, channels=y.shape[-1], calls=1)
            return y

        try:
            with model.hooked(see):
                model(inputs)
        except ValueError as error:  # what NumPy raises for shapes that do not fit
            return ModelRun(list(found.values()), error)
        return ModelRun(list(found.values()))

    def stated_inputs(self, model):
        return [Input((1, None, None, 3), "NHWC")]

    def input_count(self, model):
        return 1

    def input_names(self, model):
        return []

    def takes_other_names(self, model):
        return False

    def native_inputs(self, model, arrays):
        return Tensor(arrays[0])

    def is_refusal(self, error):
        return isinstance(error, ValueError)


class Taps(contracts.Taps):
    @contextmanager
    def watch(self, model, names, *, detach=False) -> Iterator[Activations]:
        calls: dict[str, list[Tensor]] = {name: [] for name in names}

        def record(name, run, x):
            y = run(x)
            if name in calls:
                calls[name].append(Tensor(y.value) if detach else y)
            return y

        with model.hooked(record):
            yield Activations({x.name: x for x in _tree(model) if x.name in calls}, calls, np.array)

    def capture(self, model, inputs, names):
        with self.watch(model, names) as record:
            model(inputs)
        return record

    def submodel(self, model, names):
        return Part(model, names)


class Part(Network):
    """The layers of a network as far as the last one that is wanted; they share its weights."""

    def __init__(self, whole: Network, wanted: list[str]) -> None:
        names = list(whole.layers)
        super().__init__({name: whole.layers[name] for name in names[: 1 + max(map(names.index, wanted))]})
        self.wanted = wanted

    def __call__(self, x: Any) -> Any:
        with taps.watch(self, self.wanted) as record:
            super().__call__(x)
        return record[self.wanted[0]] if len(self.wanted) == 1 else [record[name] for name in self.wanted]


class Call:
    """See :class:`agnostic.compare.calls.LayerCall`."""

    def __init__(self, name: str, number: int, layer: Any, x: Tensor, axes: str) -> None:
        self.name, self.number, self.arrays, self._layer, self._axes = name, number, (x,), layer, axes
        self.layouts = (Layout("NHWC" if x.ndim == 4 else "NC"),)

    def run(self, arrays: Any = None) -> tuple[Tensor, ...]:
        return (self._layer((arrays or self.arrays)[0]),)

    def output_layouts(self, outputs: Any) -> tuple[Layout, ...]:
        return (Layout(self._axes),)


class Calls(contracts.Calls):
    def intercept(self, model, names, around):
        counts = dict.fromkeys(names, -1)

        def hook(name, run, x):
            if name not in counts:
                return run(x)
            counts[name] += 1
            return around(Call(name, counts[name], run, x, model.layers[name].axes))[0]

        return model.hooked(hook)

    def run(self, model, inputs, seed=0):
        return (model(inputs),)

    def returned(self, model, inputs, seed=0):
        return self.run(model, inputs, seed)

    def in_float64(self, model):
        return nullcontext(False)

    def is_training(self, model):
        return False

    def numpy(self, x):
        return np.array(x)

    def native(self, x, like, dtype=None):
        return Tensor(np.asarray(x, dtype or like.dtype))

    def versions(self):
        return {"numpy": np.__version__}


_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "Conv": ("conv", {"strides": (1, 1), "padding": "valid"}),
    "ReLU": ("activation", {"activation": "relu"}),
    "Mean": ("global_average_pool", {}),
    "Dense": ("dense", {}),
}


class Descriptions(contracts.Descriptions):
    def describe(self, model, names=None):
        found = []
        for name in model.layers if names is None else names:
            layer = model.layers[name]
            kind, config = _KINDS[type(layer).__name__]
            own = {"class": type(layer).__name__, "framework": "tiny", "dtype": "float32", "training": False, **config}
            found.append(LayerDescription(name, kind, own, {key: x.value for key, x in layer.weights.items()}))
        return found


layers, inputs, taps, calls, description = Layers(), Inputs(), Taps(), Calls(), Descriptions()
_tree = layers.tree
