"""One network in both frameworks, and faults in the Keras one; a trace by one process, compared by another."""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import Any

import numpy as np

EXPECTED = {None: None, "eps": "norm", "gelu": "conv_b", "flatten": "head"}
"""By fault, where it is."""


def _weights() -> dict[str, Any]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    norm = [rng.uniform(0.5, 1.5, 8), rng.normal(size=8), rng.normal(size=8) * 0.3, rng.uniform(0.5, 2, 8)]
    first, second, head = normal(8, 3, 3, 3), normal(16, 8, 3, 3), normal(5, 16 * 4 * 4)
    return {"first": first, "bias": normal(8), "norm": norm, "second": second, "head": head, "end": normal(5)}


def torch_model(code: str | None = None) -> Any:
    """The network.

    Args:
        code: ``"gelu"``: its GELU is no module, but code; ``"none"``: it has none.
    """
    import torch
    from torch import nn

    w = _weights()
    first, second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, padding=1, bias=False)
    layers = OrderedDict(c1=first, bn=nn.BatchNorm2d(8), act=nn.ReLU(), c2=second, gelu=nn.GELU(), pool=nn.MaxPool2d(2))
    model = nn.Sequential(OrderedDict(**layers, flat=nn.Flatten(), fc=nn.Linear(256, 5))).eval()
    bn = dict(zip(("weight", "bias", "running_mean", "running_var"), w["norm"], strict=True))
    state = {"c1.weight": w["first"], "c1.bias": w["bias"], "c2.weight": w["second"], "fc.weight": w["head"]}
    state |= {"fc.bias": w["end"], **{f"bn.{k}": x for k, x in bn.items()}}
    tensors = {k: torch.tensor(np.asarray(x, np.float32)) for k, x in state.items()}
    model.load_state_dict(tensors, strict=False)
    if code is None:
        return model

    class Coded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.end = model[:4], model[5:]

        def forward(self, x: Any) -> Any:
            x = self.start(x)
            return self.end(nn.functional.gelu(x) if code == "gelu" else x)

    return Coded().eval()


def keras_model(fault: str | None) -> Any:
    import keras
    from keras import layers

    w = _weights()
    x = i = keras.Input((16, 16, 3))
    x = layers.ZeroPadding2D(1, name="pad")(x)
    x = layers.Conv2D(8, 3, 2, name="conv_a")(x)
    x = layers.BatchNormalization(epsilon=1e-3 if fault == "eps" else 1e-5, name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    gelu = (lambda z: keras.ops.gelu(z, approximate=True)) if fault == "gelu" else "gelu"
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, activation=gelu, name="conv_b")(x)
    x = layers.Flatten(name="flatten")(layers.MaxPooling2D(2, name="pool")(x))
    model = keras.Model(i, layers.Dense(5, name="head")(x))
    model.get_layer("conv_a").set_weights([w["first"].transpose(2, 3, 1, 0), w["bias"]])
    model.get_layer("norm").set_weights(w["norm"])
    model.get_layer("conv_b").set_weights([w["second"].transpose(2, 3, 1, 0)])
    head = w["head"].reshape(5, 16, 4, 4).transpose(2, 3, 1, 0).reshape(256, 5)
    model.get_layer("head").set_weights([w["head"].T if fault == "flatten" else head, w["end"]])
    return model


def main(trace: str, own: str, coded: str, lacking: str) -> None:
    import agnostic as ag

    right = keras_model(None)
    images = np.random.default_rng(0).random((3, 16, 16, 3), np.float32)
    ag.trace(right, images, own, gradients=True)
    for fault, place in EXPECTED.items():
        version = keras_model(fault)
        for a in (trace, own):
            found = ag.compare(a, version)
            where = None if found.first_divergence is None else str(found.first_divergence)
            assert where == place, f"{fault} against {a}: {found}"
        if fault is None:
            assert ("conv_a", "conv_a") in found.matches
            traces = ag.compare(trace, own)
            assert traces.same, str(traces)
            assert any(row.kind.startswith("gradient") for row in traces.output)
    # The layer has its activation inside on one side, and code applies it on the other.
    for pair in ((coded, own), (own, coded)):
        traces = ag.compare(*pair)
        assert traces.same, str(traces)
    for pair, place in (((lacking, own), "pool"), ((own, lacking), "end.pool")):
        traces = ag.compare(*pair)
        assert str(traces.first_divergence) == place, str(traces)
        assert traces.first_divergence.kind == "glue", str(traces)
    print("passed")


if __name__ == "__main__":
    main(*sys.argv[1:])
