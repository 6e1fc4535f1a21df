"""Keras models written as torch source: the port computes the same, has the layers' names, and is plain torch.

The verdict is :class:`agnostic.port.report.PortReport`'s: outputs and layers of the written source, run in a process of
its own, against the model in float64 where the engine has it, at two sizes of the inputs.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

import agnostic as ag
from agnostic.contracts.writer import WRITER
from agnostic.port.check import judged, run_in_process, trial
from agnostic.port.verb import cases, drafted_for
from agnostic.registry import backend_of, get_backend
from tests.forks import run_prepared

ENGINE = keras.config.backend()

pytestmark = pytest.mark.usefixtures("prepared_processes")


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype("float32")


def torch_tensor(x: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(x)


def shaken(model: keras.Model) -> keras.Model:
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        elif weight.dtype.startswith(("float", "bfloat")):
            weight.assign(
                keras.ops.convert_to_numpy(keras.ops.cast(weight.value, "float32"))
                + 0.1 * generator.standard_normal(weight.shape)
            )
    return model


def convolutional() -> keras.Model:
    """Strides with SAME at even and odd sizes, channels per group, a shared layer, a model inside, two outputs."""
    same: dict[str, Any] = {"padding": "same"}
    x = keras.Input((None, None, 3), name="image")
    y = kl.Conv2D(8, 3, 2, activation="relu", name="stem", **same)(x)
    y = kl.BatchNormalization(name="stem_bn")(y)
    inner = keras.Sequential(
        [keras.Input((None, None, 8)), kl.DepthwiseConv2D(3, name="depthwise", **same), kl.ReLU(6.0),
         kl.Conv2D(8, 1, use_bias=False, name="1x1"), kl.BatchNormalization(scale=False, name="bn")],
        name="inner",
    )  # fmt: skip
    y = kl.Add()([y, inner(y)])
    shared = kl.Conv2D(8, 3, groups=2, name="shared", **same)
    y = shared(kl.MaxPooling2D(3, 2, **same)(shared(y)))
    up = kl.Conv2DTranspose(4, 3, 2, name="up", **same)(kl.UpSampling2D(2)(y))
    y = kl.Dense(5, activation="softmax", name="head")(kl.Dropout(0.2)(kl.GlobalAveragePooling2D()(y)))
    return keras.Model(x, {"classes": y, "mask": up}, name="convolutional")


def sequential() -> keras.Model:
    """Recurrent layers, attention with causal and padding masks, layer norm, embeddings of tokens and positions."""
    ids = keras.Input((6,), dtype="int32", name="tokens")
    x = kl.Embedding(11, 8, mask_zero=True, name="embed")(ids) + kl.Embedding(6, 8, name="place")(ops.arange(6))
    x = kl.LayerNormalization(name="norm")(x + kl.MultiHeadAttention(2, 4, name="attend")(x, x, use_causal_mask=True))
    x = kl.Bidirectional(kl.GRU(4, return_sequences=True, name="gru"), name="both")(kl.Identity()(x), mask=None)
    return keras.Model(ids, kl.LSTM(5, name="lstm")(kl.Dense(8, "gelu", name="mlp")(x), mask=None), name="sequence_net")


@pytest.fixture(scope="module")
def ports() -> dict[str, Any]:
    keras.utils.set_random_seed(0)
    inputs = {
        "convolutional": numbers(2, 16, 17, 3),
        "sequence_net": np.array([[1, 2, 3, 4, 5, 6], [7, 8, 9, 0, 0, 0]]),
    }
    models = {model.name: shaken(model) for model in (convolutional(), sequential())}
    return {name: ag.port(model, "torch", inputs[name]) for name, model in models.items()}


def test_outputs_and_layers_are_the_same(ports: dict[str, Any]) -> None:
    for name, port in ports.items():
        assert port.report.is_same, (name, str(port.report), port.report.found)
        assert port.report.first is None, (name, port.report.first)


def test_images_of_any_size_are_taken_and_nothing_is_transposed(ports: dict[str, Any]) -> None:
    port = ports["convolutional"]
    assert port.report.free == "batch and image size"
    assert not port.report.draft.laid.moves


def test_names_are_those_of_the_layers(ports: dict[str, Any]) -> None:
    names = {path.replace("/", ".") for path in ports["convolutional"].arrays}
    assert names >= {"stem.weight", "stem.bias", "stem_bn.running_var", "inner.depthwise.weight", "inner.1x1.weight",
                     "inner.bn.bias", "shared.weight", "up.weight", "head.weight"}  # fmt: skip
    assert "inner.bn.weight" not in names
    text = {path.replace("/", ".") for path in ports["sequence_net"].arrays}
    assert {"both.forward_gru.weight_ih_l0", "lstm.weight_hh_l0", "embed.weight", "norm.bias"} <= text


def test_the_source_is_plain_torch_that_passes_ruff(ports: dict[str, Any], tmp_path: Path) -> None:
    for name, port in ports.items():
        tree = ast.parse(port.source)
        imported = {x.name for node in ast.walk(tree) if isinstance(node, ast.Import) for x in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert imported <= {"torch", "torch.nn", "json", "pathlib", "collections"}
        (tmp_path / f"{name}.py").write_text(port.source)
    pytest.importorskip("ruff")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length=120", "--select=E,F,W,I,B,UP", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_saved_files_make_the_model_elsewhere(ports: dict[str, Any], tmp_path: Path) -> None:
    """In a process without any of this project: the source and its file of weights are enough."""
    path = ports["convolutional"].save(tmp_path)
    assert sorted(x.name for x in tmp_path.iterdir()) == [
        "convolutional.py",
        "convolutional.safetensors",
        "report.html",
    ]
    code = (
        "import torch, convolutional as c; m = c.make_model(); y = m(torch.zeros(1, 3, 9, 11)); "
        "print(sorted(y), tuple(y['mask'].shape)); y['mask'].sum().backward(); "
        "print(all(p.grad is not None for n, p in m.named_parameters() if 'head' not in n)); c.make_model(weights=None)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=path.parent, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["['classes', 'mask'] (1, 4, 12, 12)", "True"], done.stderr


# Kinds of layers, each beside others in one model ---------------------------------------------------------------------
def of_images() -> list[Any]:
    same: dict[str, Any] = {"padding": "same"}
    first: dict[str, Any] = {"data_format": "channels_first"}
    return [
        kl.Conv2D(4, 3, 2, activation="gelu", groups=2, **same), kl.Conv2D(4, (3, 2), dilation_rate=2),
        kl.Conv2D(4, 3, 2, **same, **first), kl.DepthwiseConv2D(3, 2, depth_multiplier=2, **same),
        kl.SeparableConv2D(4, 3, dilation_rate=2), kl.Conv2DTranspose(4, 3, 2, **same), kl.Conv2DTranspose(4, 2, 3),
        kl.Conv2DTranspose(4, 3, 2, output_padding=1), kl.Conv2DTranspose(4, 3, dilation_rate=2, **same),
        kl.BatchNormalization(scale=False), kl.BatchNormalization(axis=1), kl.GroupNormalization(3),
        kl.GroupNormalization(-1, center=False), kl.LayerNormalization(), kl.LayerNormalization(axis=[2, 3]),
        kl.LayerNormalization(axis=[1, 3], rms_scaling=True), kl.RMSNormalization(), kl.UnitNormalization(axis=1),
        kl.SpectralNormalization(kl.Conv2D(4, 3)), kl.MaxPooling2D(3, 2, **same), kl.AveragePooling2D(3, 2, **same),
        kl.AveragePooling2D((2, 3), 1, **first, **same), kl.AdaptiveAveragePooling2D((4, 3)),
        kl.AdaptiveMaxPooling2D(3),
        kl.GlobalAveragePooling2D(**first), kl.PReLU(), kl.PReLU(shared_axes=[1, 2]), kl.Permute((3, 1, 2)),
        kl.Flatten(**first), kl.Reshape((4, -1)), kl.ZeroPadding2D(((1, 2), (0, 3))), kl.Cropping2D(1),
        kl.CenterCrop(4, 5),
        kl.UpSampling2D((2, 3)), kl.UpSampling2D(2, interpolation="bilinear"),
        kl.UpSampling2D(2, interpolation="bicubic"),
        kl.Resizing(13, 5, interpolation="nearest"), kl.Resizing(5, 7, antialias=True, interpolation="bicubic"),
        kl.Resizing(5, 12, pad_to_aspect_ratio=True), kl.RandomFlip(), kl.SpatialDropout2D(0.3), kl.GaussianNoise(0.1),
        *([] if ENGINE == "torch" else [kl.UpSampling2D(2, interpolation="lanczos3"), kl.LayerNormalization(axis=1)]),
    ]  # fmt: skip


def of_sequences() -> list[Any]:
    every: dict[str, Any] = {"return_sequences": True}
    return [
        kl.Conv1D(4, 3, padding="causal", dilation_rate=2), kl.Conv1DTranspose(4, 3, 2), kl.Dense(5, activation="silu"),
        kl.EinsumDense("abc,cd->abd", (None, 4), bias_axes="d"), kl.LayerNormalization(), kl.Softmax(axis=(1, 2)),
        kl.ReLU(2.0, 0.1, 0.3), kl.AveragePooling1D(3, 2, padding="same"), kl.LSTM(4),
        kl.LSTM(4, go_backwards=True, **every),
        kl.LSTM(4, activation="relu"), kl.LSTM(4, dropout=0.2, recurrent_dropout=0.2), kl.GRU(4, **every),
        kl.GRU(4, reset_after=False), kl.SimpleRNN(4), kl.Bidirectional(kl.LSTM(4, **every)),
        kl.Bidirectional(kl.GRU(3), merge_mode="ave"), kl.RNN([kl.LSTMCell(4), kl.GRUCell(3)]),
        kl.TimeDistributed(kl.Dense(3)), kl.Lambda(lambda x: x[:, ::2, None, 1] * 2 + ops.sin(x[:, 1:4, :1])),
    ]  # fmt: skip


def of_operations(x: Any) -> dict[str, Any]:
    """Functions of ``keras.ops`` in a functional graph, many of which are composed of others."""
    return {
        "known": ops.nanmean(ops.where(x > 1, np.nan, x), axis=1) + ops.fmax(ops.nansum(x, axis=1), 0.0),
        "sorted": ops.median(x, axis=1) + ops.quantile(x, 0.3, axis=1) - ops.ptp(x, axis=1),
        "spread": ops.concatenate([ops.diff(x, axis=1), x[:, ::2] * 2], axis=1),
        "kept": ops.segment_sum(x[0], np.array([0, 0, 1, 2, 1]), 3),
        "steps": ops.heaviside(x, ops.ones_like(x)) * ops.sinc(x),
        "bits": ops.left_shift(ops.cast(x, "int32"), 2) + ops.gcd(ops.cast(x * 9, "int32"), ops.cast(x * 4, "int32")),
        "mirrored": ops.pad(x, ((0, 0), (1, 2), (0, 1)), mode="reflect"), "inverse": ops.irfft(ops.rfft(x)),
        "mapped": ops.map(lambda y: y * 2 + ops.sum(y), ops.transpose(x, (1, 0, 2))), "constant": ops.ones_like(x),
        "loss": ops.categorical_crossentropy(ops.softmax(x), ops.softmax(x * 2)), "turned": ops.arctan2(x, 2.0),
        "line": ops.linspace(x[:, 0], x[:, 1], 3),
        "erf": ops.erfinv(ops.tanh(x)) + ops.logaddexp2(x, 1.0), "crossed": ops.cross(x[..., :3], x[..., 3:]),
    }  # fmt: skip


class Several(keras.Model):
    """A subclassed model with a list as its one input, a flag for training, and layers in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = [kl.Dense(4, name=f"block_{n}") for n in range(3)]

    def call(self, inputs: Any, training: bool = False) -> Any:
        x, y = inputs
        for block in self.blocks:
            x = ops.relu(block(x))
        return {"sum": x + y, "doubled": y * 2 if training else y * 3}


def side_by_side(layers: list[Any], shape: tuple[int, ...]) -> keras.Model:
    x = keras.Input(shape)
    return keras.Model(x, {f"{n} {layer.name}": layer(x) for n, layer in enumerate(layers)})


def half(policy: str) -> keras.Model:
    options: dict[str, Any] = {"dtype": policy}
    x = keras.Input((9, 8, 3))
    y = kl.BatchNormalization(**options)(kl.Conv2D(4, 3, 2, padding="same", **options)(x))
    y = kl.Dense(5, "relu", **options)(kl.GlobalAveragePooling2D(**options)(y))
    return keras.Model(x, kl.Dense(3, "softmax", dtype="float32")(y))


def test_kinds_of_layers_and_models_are_the_same() -> None:
    """All written sources run in one process. Engines but torch have the images alone: the rest is read alike."""
    keras.utils.set_random_seed(0)
    several, both = Several(), [numbers(2, 6), numbers(2, 4)]
    several(both)
    x = keras.Input((5, 6))
    images = (side_by_side(of_images(), (9, 8, 6)), numbers(2, 9, 8, 6))
    made = {
        "sequences": (side_by_side(of_sequences(), (5, 6)), numbers(2, 5, 6)),
        "operations": (keras.Model(x, of_operations(x)), numbers(2, 5, 6)), "several": (several, both),
        "float16": (half("float16"), numbers(2, 9, 8, 3)), "mixed": (half("mixed_bfloat16"), numbers(2, 9, 8, 3)),
    }  # fmt: skip
    made = {"images": images, **(made if ENGINE == "torch" else {})}
    writer, trials = get_backend("torch")[WRITER], {}
    with tempfile.TemporaryDirectory() as name:
        for kind, (model, inputs) in made.items():
            backend = backend_of(shaken(model))
            written = drafted_for(backend, model, inputs, writer.dialect())
            path = Path(name) / f"{kind}.py"
            path.write_text(written.draft.written.text)
            weights = writer.write_weights(written.arrays, path.parent, kind)
            given = cases(backend, inputs, written.variation)
            trials[kind] = trial(backend, model, written.draft, given, "torch", path, weights, written.rounding)
        outcomes = run_in_process([found.job for found in trials.values()])
    for (kind, found), outcome in zip(trials.items(), outcomes, strict=True):
        rows = judged(found, outcome)
        assert [row for row in rows if not row.is_same] == [], kind
        assert sum(not row.name for row in rows) == len(found.draft.program.outputs) * len(found.inputs)


class Odd(keras.layers.Layer):
    """Runs an operation that has no spelling in torch."""

    def call(self, x: Any) -> Any:
        return kl.Lambda(lambda y: ops.view(y, "int32"))(x)


def test_what_cannot_be_read_is_named() -> None:
    x = keras.Input((3, 3))
    model = keras.Model(x, Odd(name="odd")(x))
    with pytest.raises(ag.InvalidInput, match=r"operator View reads the bits.*: layer 'odd.*test_port\.py:\d+"):
        ag.port(model, "torch", np.eye(3, dtype="float32")[None])


def test_there_and_back_gives_the_same_numbers_and_names() -> None:
    """From torch to Keras and back, in this process, which only the engine torch allows."""
    if ENGINE != "torch":
        pytest.skip("torch.export and tensorflow do not share a process")
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.mix = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, width, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.mix(torch.relu(self.bn1(self.conv1(x))))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 6, 3, 2, 1)
            self.layer1 = nn.Sequential(Block(6), Block(6))
            self.fc = nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.layer1(self.stem(x)).mean((2, 3)))

    model, x = Network().eval(), torch.randn(2, 3, 15, 14)
    there = ag.port(model, "keras", x, check=False).model
    back = ag.port(there, "torch", x.permute(0, 2, 3, 1).numpy(), check=False).model
    assert back.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value, rtol=0, atol=0)
    # Sums of 54 products at most, four layers deep, in another order.
    torch.testing.assert_close(back(x), model(x), rtol=0, atol=4 * 54 * 2.0**-24)


class Leaving(keras.layers.Layer):
    """Leaves Keras for NumPy, with a weight and a number of its own."""

    def __init__(self, power: int = 2, **options: Any) -> None:
        super().__init__(**options)
        self.power = power

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), name="scale", initializer="ones")

    def call(self, x: Any) -> Any:
        flipped = np.flip(ops.convert_to_numpy(x), 1).copy()  # the line that the message names
        return ops.convert_to_tensor(flipped) ** self.power * self.scale

    def get_config(self) -> Any:
        return {**super().get_config(), "power": self.power}


def leaving_model() -> tuple[Any, Any]:
    x = keras.Input((6, 6, 3))
    y = kl.Conv2D(4, 3, padding="same", name="conv")(x)
    inner = Leaving(3, name="odd")
    inner.build((None, 6, 6, 4))
    # A functional model wants to know the shape, which a layer that leaves Keras cannot tell.
    inner.compute_output_spec = lambda given, **options: keras.KerasTensor(given.shape, given.dtype)
    y = inner(y)
    z = ops.view(ops.reshape(y, (-1, 6, 24))[:, :, :6], "float32")
    model = keras.Model(x, [kl.GlobalAveragePooling2D()(y), z], name="odd_one")
    return model, np.random.default_rng(0).standard_normal((2, 6, 6, 3)).astype("float32")


@ag.custom_operator("Leaving", to="torch")
def leaving(x: Any, scale: Any, power: Any) -> Any:
    """The layer, in torch."""
    return torch.flip(x, (1,)) ** power * scale  # noqa: F821 (the written file has it)


@ag.custom_operator("View", to="torch", reference=lambda x: x)
def seen(x: Any) -> Any:
    """The same bits."""
    return x.view(torch.float32)  # noqa: F821


def test_a_layer_that_leaves_keras_is_named_taught_or_left_to_fill_in(tmp_path: Any) -> None:
    model, x = leaving_model()
    with pytest.raises(ag.InvalidInput) as caught:
        ag.port(model, "torch", x)
    assert re.search(r"2 operators of odd_one .*Leaving leaves Keras.*layer 'odd' \(Leaving\), \S*test_port\.py:\d+",
                     str(caught.value))  # fmt: skip
    assert "operator View reads the bits" in str(caught.value)
    left = ag.port(model, "torch", x, stubs=True)
    assert {stub.function for stub in left.report.draft.stubs} == {"leaving", "view"}
    source = left.source
    for name, body in (("leaving", "torch.flip(x, (1,)) ** power * scale"), ("view", "x.view(torch.float32)")):
        pattern = rf'(def {name}\(.*?\n    """\n)    raise NotImplementedError\([^\n]*\n'
        source = re.sub(pattern, rf"\g<1>    return {body}\n", source, flags=re.S)
    left.save(tmp_path)

    def tested() -> str:
        code = "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))"
        return run_prepared(code, "-q", "-p", "no:cacheprovider", ".", cwd=tmp_path, variables={}).stdout

    assert "3 failed" in (found := tested()), found
    (tmp_path / "odd_one.py").write_text(source)
    assert "3 passed" in (found := tested()), found
    ported = ag.port(model, "torch", x, operators=[leaving, seen])
    assert ported.report.is_same, str(ported.report)


def masked() -> keras.Model:
    """Layers of each kind over places that a mask hides at the end, in the middle and at the beginning."""
    ids, start = keras.Input((None,), dtype="int32", name="ids"), keras.Input((3,), name="start")
    x = kl.Embedding(9, 4, mask_zero=True, name="table")(ids)
    shared = kl.GRU(3, name="shared")
    every: dict[str, Any] = {"return_sequences": True}
    y = kl.Bidirectional(kl.LSTM(3, name="both", **every))(x)
    return keras.Model(
        [ids, start],
        {
            "pooled": kl.GlobalAveragePooling1D()(kl.TimeDistributed(kl.Dense(3))(y)),
            "states": kl.LSTM(3, return_state=True, name="memory", **every)(x),
            "shared": [shared(x), shared(kl.Masking(0.0)(kl.Dense(4, use_bias=False)(x)))],
            "started": kl.GRU(3, go_backwards=True, name="started", **every)(x, initial_state=start),
            "before": kl.GRU(3, reset_after=False, name="before")(x),
            "plain": kl.SimpleRNN(3, zero_output_for_mask=True, go_backwards=True, name="plain", **every)(y),
        },
        name="masked",
    )


def test_masked_recurrent_layers_stay_layers_of_any_length() -> None:
    ids = np.array([[1, 2, 0, 3, 0, 0], [0, 0, 4, 5, 6, 0], [0] * 6])
    ported = ag.port(shaken(masked()), "torch", [ids, numbers(3, 3)])
    assert ported.report.is_same, str(ported.report)
    assert ported.report.free == "batch and length"
    assert ported.source.count("nn.LSTM(") == 3
    assert ported.source.count("self.shared = nn.GRU(") == 1


@keras.saving.register_keras_serializable()
class Gated(kl.Layer):
    """A recurrent cell with two states, of which a layer without states returns one."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units, self.state_size = units, [units, units]
        self.gates = kl.Dense(2 * units, name="gates")

    def build(self, shape: Any) -> None:
        self.gates.build((*shape[:-1], shape[-1] + self.units))

    def call(self, x: Any, states: Any) -> Any:
        h, c = states
        gate, new = ops.split(self.gates(ops.concatenate([x, h], axis=-1)), 2, axis=-1)
        c = ops.sigmoid(gate) * c + ops.tanh(new)
        h = ops.tanh(c)
        return h, [h, c]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def test_cells_are_blocks_that_a_loop_calls_at_each_time() -> None:
    """With a mask and without, from the last place to the first, of images, and beside a layer that is called alone."""
    x = keras.Input((None, 4))
    seen = kl.Masking()(x)
    every: dict[str, Any] = {"return_sequences": True}
    y = kl.RNN([Gated(3, name="own"), kl.LSTMCell(2), kl.GRUCell(2)], **every, name="cells")(x)
    z = kl.RNN(Gated(2), zero_output_for_mask=True, **every)(seen)
    u = kl.Bidirectional(kl.RNN(Gated(2), **every), merge_mode="sum")(seen)
    v = kl.ConvLSTM2D(2, 3, padding="same", go_backwards=True, name="images")(kl.Reshape((-1, 2, 2, 1))(x))
    given = numbers(2, 3, 4)
    given[0, 0] = given[1, 2] = 0
    ported = ag.port(shaken(keras.Model(x, [y, z, u, v])), "torch", given)
    assert ported.report.is_same, str(ported.report)
    assert ported.report.free == "batch and length"
    # Keras counts the layers of a class whose user gives no name, over all models of the process.
    # The two directions are one class.
    assert len(re.findall(r"over_time\(self\.\w+, \[", ported.source)) == 4
    assert not re.search(r"= self\.(stacked_rnn|gated|conv_lstm)_cell\w*\(", ported.source)


class Block(kl.Layer):
    """Rotated pairs and a causal mask, made of the length of the inputs; layers as attributes and in a list."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = kl.Dense(width)
        self.parts = [kl.Dense(width, activation="tanh"), kl.LayerNormalization()]

    def turned(self, x: Any) -> Any:
        angle = ops.arange(ops.shape(x)[1], dtype="float32")[:, None] * ops.arange(1, 3, dtype="float32")
        low, high = ops.split(x, 2, axis=-1)
        return ops.concatenate([low * ops.cos(angle) - high * ops.sin(angle), high * ops.cos(angle)], axis=-1)

    def call(self, inputs: Any) -> Any:
        keys = self.turned(self.mix(inputs))
        n = ops.shape(inputs)[1]
        mask = ops.reshape(ops.arange(n)[:, None] >= ops.arange(n), (1, n, n))
        batch = ops.expand_dims(ops.shape(inputs)[0], -1)
        mask = ops.tile(mask, ops.concatenate([batch, ops.convert_to_tensor([1, 1])], axis=0))
        scores = ops.matmul(self.turned(inputs), ops.transpose(keys, (0, 2, 1)))
        x = ops.matmul(ops.softmax(ops.where(mask, scores, -1e9)), keys)
        for part in self.parts:
            x = part(x)
        return x


class Tower(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.table = kl.Embedding(11, 4)
        self.towers = [Block(4), Block(4)]

    def call(self, ids: Any) -> Any:
        x = self.table(ids)
        for block in self.towers:
            x = block(x)
        return x


def test_what_is_made_of_lengths_stays_free_and_layers_have_the_names_of_their_attributes() -> None:
    ids = np.arange(10).reshape(2, 5)
    model = Tower()
    model(ids)
    ported = ag.port(shaken(model), "torch", ids)
    assert ported.report.is_same, str(ported.report)
    assert ported.report.free == "batch and length"
    assert {path.replace("/", ".").replace("-", ".") for path in ported.arrays} >= {
        "table.weight", "towers.0.mix.weight", "towers.1.parts.0.bias", "towers.1.parts.1.weight"
    }  # fmt: skip
    assert ported.source.count("class Block(") == 1, ported.source
    assert "class Block_2(" not in ported.source, ported.source
    inner = f"{model.towers[1].name}.{model.towers[1].mix.name}"
    assert ported.layers["towers.1.mix"] == inner
    body = ported.source[ported.source.index("class Block(") :]
    # What both calls of a method compute is computed once, on the device of the inputs.
    assert body.count("torch.cos(") == 1
    assert re.search(r"torch\.arange\(\w+\.shape\[1\], dtype=torch\.float32, device=\w+\.device\)", body), body


def test_a_dict_keeps_its_order_and_integers_become_real_in_products() -> None:
    kind, size = keras.Input((1,), dtype="int32", name="kind"), keras.Input((2,), name="size")
    hot = kl.CategoryEncoding(4, output_mode="multi_hot")(kind)
    both = {"size": size, "kind": kind}
    model = keras.Model(both, {"z": kl.Dense(3, name="dense")(hot), "a": kl.Dense(2, name="other")(size)})
    ported = ag.port(shaken(model), "torch", {"size": numbers(2, 2), "kind": np.array([[1], [3]])})
    assert ported.report.is_same, str(ported.report)
    assert "def forward(self, size, kind):" in ported.source


def test_layers_that_prepare_images_are_no_training() -> None:
    x = keras.Input((8, 8, 3))
    y = kl.Conv2D(2, 3, name="conv")(kl.Resizing(6, 5)(kl.RandomFlip()(kl.RandomCrop(7, 7)(x))))
    assert ag.port(shaken(keras.Model(x, y)), "torch", numbers(2, 8, 8, 3)).report.is_same


class Looked(kl.Layer):
    """Rows of a table by their places, and a product over axes with capital letters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.table = kl.Embedding(8, 4, name="table")

    def call(self, x: Any) -> Any:
        y = x + self.table(ops.arange(ops.shape(x)[1]))
        return ops.einsum("btc,bTc->btT", y, y)


def test_a_length_beyond_a_table_of_positions_is_not_free() -> None:
    x = keras.Input((None, 4))
    model, given = shaken(keras.Model(x, Looked(name="looked")(x))), numbers(2, 7, 4)
    ported = ag.port(model, "torch", given, check=False)
    assert ported.report.free == "batch and length up to 7"
    assert any("row 9 of a table of 8 is looked up in layer 'looked" in note for note in ported.report.notes)
    [table] = ported.arrays.values()
    y = given + table[:7]
    # Sums of 4 products.
    right = np.einsum("btc,bTc->btT", y, y)
    found = ported.model(torch_tensor(given))
    np.testing.assert_allclose(found.detach().numpy(), right, rtol=0, atol=8 * 4 * 2.0**-24 * np.abs(right).max())


class Scored(kl.Layer):
    """Adds a loss, which a model of inference does not give."""

    def call(self, target: Any, x: Any) -> Any:
        lengths = (n * ops.ones((ops.shape(x)[0],), "int32") for n in (2, 3))
        self.add_loss(ops.mean(ops.ctc_loss(target, x, *lengths)))
        return x


def test_integers_are_looked_up() -> None:
    """The layer needs TensorFlow, which the processes of the other engines do not have."""
    if ENGINE != "tensorflow":
        pytest.skip("IntegerLookup requires TensorFlow")
    text, number = keras.Input((1,), dtype="string"), keras.Input((1,), dtype="int64")
    for model, given, said in (
        (keras.Model(text, kl.StringLookup(vocabulary=["a"], name="words")(text)), np.array([["a"]]), "looks up text"),
        (keras.Model(number, kl.Hashing(3, name="bins")(number)), np.array([[7]]), "hashes its inputs as text"),
    ):
        with pytest.raises(ag.InvalidInput, match=rf"{said}: run it before the model.*: layer '\w+' \(.*test_port"):
            ag.port(model, "torch", given)
    ids, known = keras.Input((3,), dtype="int64"), [7, 30, 11]
    layers = [
        kl.IntegerLookup(vocabulary=known), kl.IntegerLookup(vocabulary=known, num_oov_indices=2, mask_token=0),
        kl.IntegerLookup(vocabulary=known, output_mode="multi_hot"),
        kl.IntegerLookup(vocabulary=known, output_mode="tf_idf", idf_weights=[0.5, 1.0, 2.0], max_tokens=6,
                         pad_to_max_tokens=True), kl.IntegerLookup(vocabulary=[0, *known], invert=True),
    ]  # fmt: skip
    model = keras.Model(ids, [layer(ids % 4 if layer.invert else ids) for layer in layers])
    ported = ag.port(model, "torch", np.array([[7, 11, 99], [0, 30, 8]]))
    assert ported.report.is_same, str(ported.report)


def test_losses_are_left_out_and_the_floor_is_the_models_own() -> None:
    real = keras.Input((3, 4))
    found = Scored()(ops.cast(real[:, :2, 0] > 0, "int32") + 1, kl.Dense(5)(real))
    ported = ag.port(shaken(keras.Model(real, found)), "torch", numbers(2, 3, 4))
    assert ported.report.is_same, str(ported.report)
    assert "ctc" not in ported.source
    assert min(row.floor for row in ported.report.found if not row.name) > 0
