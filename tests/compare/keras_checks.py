"""One network in both frameworks, and faults in the Keras one; a trace by one process, compared by another."""

from __future__ import annotations

import importlib.util
import linecache
import sys
from collections import OrderedDict
from pathlib import Path
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


def _recurrent(kind: str) -> list[Any]:
    """(kernel, recurrent kernel, bias) of a cell with 4 units on 3 features, as Keras has them."""
    rng, gates = np.random.default_rng(1), {"LSTM": 4, "GRU": 3}[kind]
    shapes = (3, 4 * gates), (4, 4 * gates), (4 * gates,) if kind == "LSTM" else (2, 4 * gates)
    return [(rng.normal(size=shape) / 2).astype(np.float32) for shape in shapes]


def torch_recurrent(kind: str) -> Any:
    """A layer whose PyTorch form has two biases where Keras' LSTM has one."""
    import torch

    layer = getattr(torch.nn, kind)(3, 4, batch_first=True)
    kernel, inner, bias = _recurrent(kind)
    if kind == "GRU":  # r, z, n where Keras has z, r, h
        order = np.r_[4:8, 0:4, 8:12]
        kernel, inner, bias = kernel[:, order], inner[:, order], bias[:, order]
    both = (bias * 0.75, bias * 0.25) if kind == "LSTM" else tuple(bias)
    state = {"weight_ih_l0": kernel.T, "weight_hh_l0": inner.T, "bias_ih_l0": both[0], "bias_hh_l0": both[1]}
    layer.load_state_dict({k: torch.tensor(np.ascontiguousarray(x)) for k, x in state.items()})

    class Only(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = layer

        def forward(self, x: Any) -> Any:
            return self.inner(x)[0]

    return Only().eval()


def keras_recurrent(kind: str) -> Any:
    import keras

    model = keras.Sequential([keras.Input((5, 3)), getattr(keras.layers, kind)(4, return_sequences=True)])
    model.set_weights(_recurrent(kind))
    return model


SEQUENCES = np.random.default_rng(2).normal(size=(2, 5, 3)).astype(np.float32)


def learning(trace: str, own: str, right: Any, recurrent: dict[str, str]) -> None:
    """The same rule is the same on both sides, and the framework's own names the conventions that it has otherwise."""
    import agnostic as ag
    from agnostic.optimizers import Adam

    found = ag.compare(trace, own)
    assert found.same, str(found)
    assert sum(row.kind.startswith("update") for row in found.output) == 4, str(found)
    images = np.random.default_rng(0).random((3, 16, 16, 3), np.float32)
    ag.trace(right, images, own, update=(Adam.keras(), 2))
    found = ag.compare(trace, own)
    assert found.first_divergence.kind == "update", str(found)
    assert found.diagnosis.mistake == "optimizer_convention", str(found)
    assert "before correction where A has after correction" in found.diagnosis[0].sentence, str(found)
    for kind, path in recurrent.items():
        ag.trace(keras_recurrent(kind), SEQUENCES, own, update=(Adam.torch(), 2))
        for pair in ((path, own), (own, path)):
            found = ag.compare(*pair)
            assert found.same, str(found)
        assert any("sum of 2 weights" in note for note in found.notes) == (kind == "LSTM"), str(found)


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


def separable(images: Any, folder: Path) -> None:
    """One separable convolution stands for a depthwise and a pointwise one."""
    import keras

    import agnostic as ag

    def network(apart: bool, activation: str = "relu") -> Any:
        if apart:
            depthwise = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")
            layers = [depthwise, keras.layers.Conv2D(6, 1, activation=activation, name="pointwise")]
        else:
            layers = [keras.layers.SeparableConv2D(6, 3, padding="same", activation=activation, name="separable")]
        ends = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4, name="head")]
        model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(8, 3, name="first"), *layers, *ends])
        rng = np.random.default_rng(3)
        model.set_weights([rng.normal(size=x.shape) / np.sqrt(np.prod(x.shape[:-1])) for x in model.get_weights()])
        return model

    pairs = (False, True), (True, False)
    for pair in pairs:
        a, b = map(network, pair)
        files = [ag.trace(x, images, folder / f"{i}.trace") for i, x in enumerate((a, b))]
        for found in (ag.compare(a, b, images), ag.compare(*files)):
            assert found.same, str(found)
            assert any("separable" in x and "pointwise" in x for x in map(" ".join, found.matches)), str(found)
            assert found.weights[1] == 0, str(found)
        found = ag.compare(a, network(pair[1], "linear"), images)
        # The layer of B, or of the two that make it up the one that lacks the activation.
        places = ("separable", "depthwise", "pointwise")
        assert any(x in str(found.first_divergence) for x in places), str(found)
        assert found.diagnosis[0].mistake == "activation_missing", str(found)


def _sure(model: Any) -> Any:
    """The model with weights of its own."""
    rng = np.random.default_rng(4)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.weights])
    return model


def _masked(masks: bool) -> Any:
    import keras
    from keras import layers

    stack = [layers.Embedding(9, 3, mask_zero=masks), layers.GRU(2), layers.Dense(2)]
    return _sure(keras.Sequential([keras.Input((4,), dtype="int32"), *stack]))


def _named_inputs() -> Any:
    import keras
    from keras import layers

    size, code = keras.Input((5,), name="size"), keras.Input((1,), dtype="int32", name="code")
    both = layers.Concatenate()([size, layers.Flatten()(layers.Embedding(9, 3)(code))])
    return _sure(keras.Model({"size": size, "code": code}, layers.Dense(2)(both)))


def as_written() -> None:
    """Models as users have them: a mask, inputs by name, sequences, layers that are not called, fixes that run."""
    import keras
    import torch
    from keras import layers

    import agnostic as ag

    tokens = np.array([[1, 2, 3, 0], [4, 5, 0, 0]], np.int32)
    found = ag.compare(_masked(True), _masked(False), tokens)
    assert found.diagnosis.mistake == "attention_mask", str(found)
    assert found.diagnosis[0].proven, str(found)

    named = {"size": np.ones((3, 5), np.float32), "code": np.array([[1], [5], [7]], np.int32)}
    found = ag.compare(_named_inputs(), _named_inputs(), named)
    assert found.same, str(found)
    assert not any("not by the operators" in note for note in found.notes), found.notes

    class Spare(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = layers.Dense(3, activation="tanh"), layers.Dense(4)

        def call(self, x: Any) -> Any:
            return self.used(x)

    inputs = np.random.default_rng(5).normal(size=(2, 6, 4)).astype(np.float32)
    a, b = Spare(), Spare()
    for model in (a, b):
        model(inputs)
        _sure(model)
    b.used.activation = keras.activations.relu
    found = ag.compare(a, b, inputs)
    assert not b.spare.built, "a comparison gave a layer weights"
    assert found.diagnosis.mistake == "activation_differs", str(found)
    exec(found.diagnosis[0].fix, {"model": b, "other": a, "ag": ag})  # noqa: S102 - our own text
    assert ag.compare(a, b, inputs).same

    image = keras.Input((6, 4))
    shown = layers.Conv1D(5, 3, dilation_rate=2, padding="causal")(image)  # at this line
    line = next(
        k for k, text in enumerate(Path(__file__).read_text().split("\n"), 1) if text.endswith("# at this line")
    )
    right = _sure(keras.Model(image, shown))
    kernel, bias = map(np.array, right.get_weights())
    twin = torch.nn.Sequential(torch.nn.ConstantPad1d((4, 0), 0.0), torch.nn.Conv1d(4, 5, 3, dilation=2)).eval()
    with torch.no_grad():
        twin[1].weight.copy_(torch.from_numpy(kernel.transpose(2, 1, 0).copy()))
        twin[1].bias.copy_(torch.from_numpy(bias))
    turned = np.ascontiguousarray(inputs.transpose(0, 2, 1))
    assert ag.compare(twin, right, turned).same
    assert ag.compare(right, twin, inputs).same
    right.set_weights([kernel[::-1], bias])
    found = ag.compare(twin, right, turned)
    assert found.diagnosis[0].place_b.endswith(f"keras_checks.py:{line}"), found.diagnosis[0].place_b
    exec(found.diagnosis[0].fix, {"model": right, "other": twin})  # noqa: S102 - our own text
    assert ag.compare(twin, right, turned).same
    right.set_weights([kernel[::-1], bias])
    copied = keras.models.clone_model(right)  # which no line here makes, layer by layer
    copied.set_weights([kernel[::-1], bias])
    assert ag.compare(twin, copied, turned).diagnosis[0].place_b == ""


def weights_are_carried() -> None:
    """Fixes of weights run in either framework: each keeps the gates of a GRU in an order of its own."""
    import keras
    import torch
    from keras import layers

    import agnostic as ag

    with torch.random.fork_rng():
        torch.manual_seed(0)
        rows, end = torch.nn.GRU(4, 3, batch_first=True), torch.nn.Linear(3, 2)

    class Steps(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows, self.end = rows, end

        def forward(self, x: Any) -> Any:
            return self.end(self.rows(x)[1][0])

    a = Steps().eval()
    image = keras.Input((5, 4))
    b = keras.Model(image, layers.Dense(2, name="end")(layers.GRU(3, name="rows")(image)))
    w = {name: x.detach().numpy() for name, x in a.named_parameters()}
    b.get_layer("end").set_weights([w["end.weight"].T, w["end.bias"]])

    def poured(order: tuple[int, ...]) -> None:
        kernel, recurrent, *biases = (
            np.concatenate([np.split(w[f"rows.{name}_l0"], 3)[k] for k in order])
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        b.get_layer("rows").set_weights([kernel.T, recurrent.T, np.stack(biases)])

    inputs = np.random.default_rng(0).standard_normal((2, 5, 4)).astype(np.float32)
    poured((1, 0, 2))
    assert ag.compare(a, b, inputs).same
    poured((0, 1, 2))
    for one, other in ((a, b), (b, a)):
        found = ag.compare(one, other, inputs)
        assert [x.mistake for x in found.diagnosis][:1] == ["gate_order"], str(found)
        kept = [x.clone() for x in a.parameters()] if other is a else b.get_weights()
        exec(found.diagnosis[0].fix, {"model": other, "other": one, "torch": torch})  # noqa: S102 - our own text
        assert ag.compare(one, other, inputs).same, found.diagnosis[0].fix
        if other is b:
            b.set_weights(kept)


_WRITTEN = """
import keras
from keras import layers, ops


class Gate(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.one = layers.Conv2D(8, 1, name="one")

    def build(self, shape):
        self.one.build(shape)

    def call(self, x):
        a, b = ops.split(self.one(x), 2, axis=-1)
        return ops.tanh(a) * ops.sigmoid(b)


def make():
    i = keras.Input((8, 8, 3))
    x = layers.ZeroPadding2D(1)(i)
    x = layers.Conv2D(4, 3, strides=2, name="stem")(x)
    x = ops.relu(x)
    y = Gate(name="gate")(x)
    y = layers.MaxPooling2D(3, strides=1, padding="same")(y)
    x = x + y * 0.5
    z = ops.concatenate([x, y], axis=-1)
    z = layers.UpSampling2D(2, interpolation="bilinear")(z)
    z = ops.softplus(z[:, 1:])
    return keras.Model(i, ops.softmax(z, axis=-1))
"""

_EDITS = (
    ("ZeroPadding2D(1)(i)\n    x = layers.Conv2D(4, 3, strides=2, ", 'Conv2D(4, 3, strides=2, padding="same", ', "(i)"),
    ("ZeroPadding2D(1)", "ZeroPadding2D(((0, 2), (0, 2)))"),
    ("x = ops.relu(x)", "x = ops.leaky_relu(x)"),
    ("ops.tanh(a) * ops.sigmoid(b)", "ops.tanh(b) * ops.sigmoid(a)"),
    ("ops.tanh(a) * ", "ops.tanh(a) + "),
    ("MaxPooling2D", "AveragePooling2D"),
    ("x + y * 0.5", "y * 0.5"),
    ("y * 0.5", "y * 0.25"),
    ("[x, y]", "[y, x]"),
    ("bilinear", "nearest"),
    ("z[:, 1:]", "z[:, :-1]"),
    ("(z, axis=-1)", "(z, axis=1)"),
)
"""Edits of that source: what stands there, and what else; with the padding, the next layer's operand is another."""


def loaded(folder: Path, text: str) -> Any:
    """The model that a file with a function ``make`` makes."""
    path = folder / f"network_{abs(hash(text))}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("network", path)
    assert spec is not None
    assert spec.loader is not None
    linecache.clearcache()  # which knows the files of the models before
    module = sys.modules["network"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make()


def carry(layer: Any, source: Any) -> None:
    """Give a convolution of Keras what one of PyTorch has."""
    layer.set_weights([source.weight.detach().numpy().transpose(2, 3, 1, 0), source.bias.detach().numpy()])


def rewritten(folder: Path) -> None:
    """Edits of the source are found at their lines, and patches of it undo them."""
    import torch
    from torch import nn

    import agnostic as ag
    from tests.compare.edits import patched

    with torch.random.fork_rng():
        torch.manual_seed(0)
        stem, one = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 8, 1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one = stem, one

        def forward(self, x: Any) -> Any:
            x = torch.relu(self.stem(x))
            a, b = self.one(x).chunk(2, 1)
            y = nn.functional.max_pool2d(torch.tanh(a) * torch.sigmoid(b), 3, 1, 1)
            z = torch.cat([x + y * 0.5, y], 1)
            z = nn.functional.interpolate(z, scale_factor=2, mode="bilinear")[:, :, 1:]
            return nn.functional.softplus(z).softmax(1)

    def made(text: str) -> Any:
        model = loaded(folder, text)
        inner = model.get_layer("gate").one
        for layer, source in ((model.get_layer("stem"), stem), (inner, one)):
            carry(layer, source)
        return model

    a, images = Net().eval(), np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    assert ag.compare(a, made(_WRITTEN), images).same
    for old, new, *rest in _EDITS:
        text = _WRITTEN.replace(old, new, 1)
        text = text.replace('name="stem")(x)', f'name="stem"){rest[0]}') if rest else text
        found = ag.compare(a, made(text), images)
        [finding] = found.diagnosis
        line = int(finding.place_b.rpartition(":")[2] or 0)
        changed = [k for k, x in enumerate(text.split("\n"), 1) if x not in _WRITTEN.split("\n")]
        assert "Padding" in old or line in changed, f"{finding.place_b} {changed}: {found}"
        patches = [x.findings[0].fix for x in found.divergences]
        assert all(x.startswith("--- ") for x in patches), found
        assert ag.compare(a, made(patched(text, patches)), images).same, patches
    del sys.modules["network"]


def main(trace: str, own: str, coded: str, lacking: str, lstm: str, gru: str) -> None:
    import agnostic as ag
    from agnostic.optimizers import Adam
    from tests.compare import keras_patches

    right = keras_model(None)
    images = np.random.default_rng(0).random((3, 16, 16, 3), np.float32)
    ag.trace(right, images, own, update=(Adam.torch(), 2))
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
            assert traces.weights == (3, 0), str(traces)
            assert any(x.startswith("batch norm with momentum 0.99 where A has 0.9") for x in traces.notes), str(traces)
            assert any("compared only between two traces" in note for note in found.notes), str(found)
    assert ag.compare(own, trace).same, "the activation is a layer of its own in B, and inside in A"
    # The layer has its activation inside on one side, and code applies it on the other.
    for pair in ((coded, own), (own, coded)):
        traces = ag.compare(*pair)
        assert traces.same, str(traces)
    for pair, place, mistake in (
        ((lacking, own), "conv_b", "activation_extra"), ((own, lacking), "start.c2", "activation_missing"),
    ):  # fmt: skip
        traces = ag.compare(*pair)
        assert str(traces.first_divergence) == place, str(traces)
        assert traces.diagnosis.mistake == mistake, str(traces)
        assert traces.diagnosis[0].proven, str(traces)
    separable(images, Path(own).parent)
    as_written()
    weights_are_carried()
    rewritten(Path(own).parent)
    keras_patches.check(Path(own).parent)
    learning(trace, own, right, {"LSTM": lstm, "GRU": gru})
