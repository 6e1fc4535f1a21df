"""The same networks in Keras, with weights poured in from PyTorch's, and what can go wrong on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers as kl
from keras import ops

import agnostic as ag
from agnostic.contracts.description import DESCRIPTION
from agnostic.transfer.layouts import flattened_rows
from tests.compare import networks as net
from tests.compare.faults import Case, inputs_of

Options = dict[str, Any]


def pour(source: Any, target: keras.Model) -> keras.Model:
    """Weights by name and canonical entry; Keras' layers are called as torch's, with '_' for '.'."""
    layers = {x.name: x for x in target._flatten_layers(False, True)}
    for found in ag.backend_of(source)[DESCRIPTION].describe(source):
        layer = layers.get(found.name.replace(".", "_"))
        if layer is None or not found.weights:
            continue
        holder = getattr(layer, "cell", layer)
        for name, value in found.weights.items():
            owner, entry = holder, name
            if found.kind == "attention":
                part, entry = name.split("_")
                owner = getattr(layer, f"_{part}_dense")
            if found.name == "fc1" or (found.name == "9" and name == "kernel"):
                value = _rows(value, entry)
            variable = getattr(owner, entry)
            if variable is not None:
                variable.assign(value.reshape(variable.shape))
    return target


def _rows(value: np.ndarray, entry: str) -> np.ndarray:
    """The first dense layer reads features flattened as (H, W, C)."""
    channels = 12
    return value[flattened_rows(channels, len(value) // channels)] if entry == "kernel" else value


def conv(name: str, d: int, k: int = 3, s: int = 1, *, bias: bool = True, **options: Any) -> Callable[[Any], Any]:
    """PyTorch's padding of k // 2, by hand where the stride is not 1."""
    if s == 1 and options.get("padding") is None and not options.get("dilation_rate"):
        return kl.Conv2D(d, k, padding="same", use_bias=bias, name=name, **options)
    own = {"padding": "valid", **options}
    layer = kl.Conv2D(d, k, s, use_bias=bias, name=name, **own)
    if own["padding"] == "same" or k == 1:
        return layer
    return lambda x: layer(kl.ZeroPadding2D(k // 2, name=f"{name}_pad")(x))


@keras.saving.register_keras_serializable("tests")
class Pinned(kl.BatchNormalization):
    """Training mode for ever, as somebody writes who wants the statistics of each batch."""

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        return super().call(inputs, training=True, mask=mask)


def residual(o: Options) -> keras.Model:
    epsilon = o.get("epsilon", 1e-5)
    x = inputs = keras.Input((net.SIZE, net.SIZE, 3))
    if o.get("bgr"):
        x = ops.flip(x, -1)
    if o.get("range"):
        x = kl.Rescaling(o["range"])(x) if o.get("range layer") else x * o["range"]
    x = kl.ReLU(name="relu")(
        (Pinned if o.get("training") else kl.BatchNormalization)(epsilon=epsilon, name="bn1")(
            conv("conv1", 8, bias=False)(x)
        )
    )
    pool = kl.AveragePooling2D if o.get("average") else kl.MaxPooling2D
    x = pool(3, 2, "same", name="pool")(x)
    for k, (d, s) in enumerate(((8, 1), (16, 2), (16, 1)), 1):
        b, own = f"layer{k}", o.get(k, {})
        y = conv(f"{b}_conv1", d, s=s, bias=False, **({"padding": "same"} if own.get("same") else {}))(x)
        y = kl.BatchNormalization(epsilon=own.get("epsilon", epsilon), name=f"{b}_bn1")(y)
        y = kl.ReLU(name=f"{b}_relu")(y) if not own.get("no relu") else y
        y = conv(f"{b}_conv2", d, bias=False)(y)
        y = kl.BatchNormalization(epsilon=epsilon, name=f"{b}_bn2")(y)
        if s > 1:
            x = kl.Conv2D(d, 1, s, use_bias=False, name=f"{b}_down_0")(x)
            x = kl.BatchNormalization(epsilon=epsilon, name=f"{b}_down_1")(x)
        y = y if own.get("no residual") else kl.Add(name=f"{b}_add")([y, x])
        x = kl.ReLU(name=f"{b}_out")(y)
    x = (kl.GlobalMaxPooling2D if o.get("max") else kl.GlobalAveragePooling2D)(name="avgpool")(x)
    return keras.Model(inputs, kl.Dense(10, name="fc")(x))


def plain(o: Options) -> keras.Model:
    """Fused activations throughout."""
    act = o.get("gelu", "gelu")
    x = inputs = keras.Input((net.SIZE, net.SIZE, 3))
    x = conv("conv1", 8, activation="relu")(x)
    x = conv("conv2", 12, s=2, activation=o.get("conv2", "relu"))(x)
    # SAME on 8 pixels would begin elsewhere.
    border = [[0, 0], [1, 1], [1, 1], [0, 0]]
    x = kl.MaxPooling2D(3, 2, name="pool")(ops.pad(x, border, constant_values=-float("inf")))
    x = conv("conv3", 12, activation=o.get("conv3", "relu"))(x)
    if o.get("chw"):
        x = kl.Permute((3, 1, 2))(x)
    x = kl.Flatten(name="flatten")(x)
    x = kl.Dense(20, activation=o.get("fc1", act), name="fc1")(x)
    x = kl.Dense(20, activation=act, name="fc2")(x)
    if o.get("doubled"):
        x = kl.Activation("gelu")(x)
    last = None if o.get("no softmax") else "softmax"
    x = kl.Dense(7, activation=last, name="fc3", use_bias=not o.get("no bias"))(x)
    return keras.Model(inputs, kl.Softmax(name="softmax")(x) if o.get("two softmax") else x)


def mobile(o: Options) -> keras.Model:
    """Sequential on the outside; PyTorch's names are numbers."""
    x = inputs = keras.Input((net.SIZE, net.SIZE, 3))

    def norm(name: str, **own: Any) -> Any:
        return kl.BatchNormalization(**{"epsilon": 1e-5, "name": name, **own})

    x = norm("1", epsilon=1e-3)(conv("0", 8, s=2, bias=False, **o.get("0", {}))(x))
    x = kl.Activation(o.get("2", "hard_silu"), name="2")(x)
    for k, (d, s) in ((3, (8, 1)), (4, (12, 2))):
        y = kl.ReLU(6.0, name=f"{k}_body_2")(norm(f"{k}_body_1")(conv(f"{k}_body_0", 16, 1, bias=False)(x)))
        depthwise = kl.DepthwiseConv2D(
            3, s, o.get(f"{k} padding", "valid"), use_bias=False, name=f"{k}_body_3"
        )  # fmt: skip
        y = depthwise(y if o.get(f"{k} padding") else kl.ZeroPadding2D(1, name=f"{k}_pad")(y))
        y = kl.ReLU(o.get(f"{k} most", 6.0), name=f"{k}_body_5")(norm(f"{k}_body_4")(y))
        y = norm(f"{k}_body_7", **o.get(f"{k}_body_7", {}))(conv(f"{k}_body_6", d, 1, bias=False)(y))
        x = x + y if s == 1 else y
    x = kl.Conv2D(12, 3, padding="same", groups=o.get("groups", 3), name="5")(x)
    x = kl.LeakyReLU(o.get("slope", 0.1), name="6")(x)
    if o.get("pool"):
        x = kl.AveragePooling2D(3, 2, "same", name="7")(x)
    else:
        x = kl.AveragePooling2D(3, 2, name="7")(kl.ZeroPadding2D(1, name="7_pad")(x))
    x = kl.Dense(6, name="9")(kl.Flatten(name="8")(x))
    return keras.Model(inputs, kl.Activation("sigmoid", name="10")(x))


def transformer(o: Options) -> keras.Model:
    d, heads = 12, 3
    x = inputs = keras.Input((net.SIZE, net.SIZE, 3))
    x = kl.Reshape((9, d), name="tokens")(kl.Conv2D(d, 5, 5, name="patches")(x))
    x = Position(name="position")(x)
    for k in range(3):
        own = o.get(k, {})
        b = f"blocks_{k}"
        y = kl.LayerNormalization(epsilon=own.get("epsilon", 1e-6), name=f"{b}_ln1")(x)
        x = kl.Add()([x, kl.MultiHeadAttention(heads, own.get("key_dim", d // heads), name=f"{b}_attention")(y, y)])
        y = kl.LayerNormalization(epsilon=1e-6, name=f"{b}_ln2")(x)
        y = kl.Dense(2 * d, name=f"{b}_mlp1")(y)
        if own.get("tanh"):
            y = ops.gelu(y)
        else:
            y = kl.Activation(own.get("act", "gelu"), name=f"{b}_act")(y)
        y = kl.Dense(d, name=f"{b}_mlp2")(y)
        x = x + (y if own.get("no scale") else Scale(name=f"{b}_scale")(y))
    x = kl.LayerNormalization(epsilon=o.get("last", 1e-6), name="norm")(x)[:, 0]
    return keras.Model(inputs, kl.Dense(6, name="head")(x))


@keras.saving.register_keras_serializable("tests")
class Position(kl.Layer):
    """The class token and the position embedding."""

    def build(self, shape: Any) -> None:
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")
        self.position = self.add_weight(shape=(1, shape[1] + 1, shape[-1]), name="position")

    def call(self, x: Any) -> Any:
        token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, x.shape[-1]))
        return ops.concatenate([token, x], 1) + self.position


@keras.saving.register_keras_serializable("tests")
class Scale(kl.Layer):
    def build(self, shape: Any) -> None:
        self.gamma = self.add_weight(shape=(shape[-1],), name="gamma")

    def call(self, x: Any) -> Any:
        return x * self.gamma


def recurrent(kind: str) -> Callable[[Options], keras.Model]:
    def make(o: Options) -> keras.Model:
        layer = {"lstm": kl.LSTM, "gru": kl.GRU}[kind]
        x = inputs = keras.Input((9,), dtype="int32")
        x = kl.Embedding(30, 8, name="embedding")(x)
        x = layer(10, name="rnn", **o.get("rnn", {}))(x)
        return keras.Model(inputs, kl.Dense(5, activation=o.get("head", "tanh"), name="head")(x))

    return make


class Decoder(keras.Model):
    """Subclassed: there is no symbolic graph."""

    def __init__(self, o: Options) -> None:
        super().__init__()
        self.o = o
        self.pad = kl.ZeroPadding2D(1, name="down_pad")
        self.down = kl.Conv2D(8, 3, 2, name="down", **({"padding": "same"} if o.get("same") else {}))
        self.norm = kl.GroupNormalization(o.get("groups", 4), epsilon=o.get("epsilon", 1e-5), name="norm")
        self.up1 = kl.Conv2DTranspose(8, 4, 2, o.get("up", "same"), name="up1")
        self.mid = kl.Conv2D(6, 3, padding="same", dilation_rate=o.get("dilation", 2), activation="elu", name="mid")
        self.up2 = kl.UpSampling2D(2, interpolation=o.get("interpolation", "bilinear"), name="up2")
        self.out = kl.Conv2D(3, 3, name="out")
        self.resize = kl.Resizing(40, 40, name="resize")
        self.last = kl.Conv2D(2, 1, activation="sigmoid", name="last")

    def call(self, x: Any) -> Any:
        x = ops.silu(self.norm(self.down(x if self.o.get("same") else self.pad(x))))
        x = ops.leaky_relu(self.up1(x), self.o.get("slope", 0.1))
        x = self.up2(self.mid(x))
        x = self.out(ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode=self.o.get("border", "reflect")))
        return self.last(self.resize(x))


def decoder(o: Options) -> keras.Model:
    model = Decoder(o)
    model(np.zeros((1, net.SIZE, net.SIZE, 3), np.float32))
    return model


FAMILIES: dict[str, tuple[Callable[[], Any], Callable[[Options], keras.Model]]] = {
    "residual": (net.Residual, residual),
    "plain": (net.Plain, plain),
    "mobile": (net.mobile, mobile),
    "vit": (net.Transformer, transformer),
    "lstm": (lambda: net.Sequence("lstm"), recurrent("lstm")),
    "gru": (lambda: net.Sequence("gru"), recurrent("gru")),
    "decoder": (net.Decoder, decoder),
}


def pair(family: str, options: Options, after: Callable[[keras.Model], None] | None = None) -> Callable[[], Any]:
    def build() -> tuple[Any, Any, Any]:
        make, twin = FAMILIES[family]
        a = net.randomized(make())
        b = pour(a, twin(options))
        _extras(a, b)
        if after is not None:
            after(b)
        return a, b, inputs_of(a)

    return build


def _extras(a: Any, b: keras.Model) -> None:
    """Parameters of blocks, which are no layer's in PyTorch."""
    for layer in b._flatten_layers(False, True):
        if isinstance(layer, Position):
            layer.token.assign(a.token.detach().numpy())
            layer.position.assign(a.position.detach().numpy())
        if isinstance(layer, Scale):
            layer.gamma.assign(a.blocks[int(layer.name.split("_")[1])].gamma.detach().numpy())


def at(name: str) -> Callable[[keras.Model], Any]:
    return lambda model: next(x for x in model._flatten_layers(False, True) if x.name == name)


def edit(name: str, entry: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[keras.Model], None]:
    def after(model: keras.Model) -> None:
        layer = at(name)(model)
        variable = getattr(getattr(layer, "cell", layer), entry)
        value = np.array(ag.backend_of(model).ops.numpy(variable.value))
        variable.assign(np.ascontiguousarray(change(value)))

    return after


def attribute(name: str, **values: Any) -> Callable[[keras.Model], None]:
    def after(model: keras.Model) -> None:
        for key, value in values.items():
            setattr(at(name)(model), key, value)

    return after


def exchanged(name: str, one: str, two: str) -> Callable[[keras.Model], None]:
    def after(model: keras.Model) -> None:
        layer = at(name)(model)
        x, y = (np.array(ag.backend_of(model).ops.numpy(getattr(layer, n).value)) for n in (one, two))
        getattr(layer, one).assign(y)
        getattr(layer, two).assign(np.abs(x))

    return after


def permuted(order: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.concatenate([np.split(x, len(order), -1)[g] for g in order], -1)


def gates(order: tuple[int, ...]) -> Callable[[keras.Model], None]:
    def after(model: keras.Model) -> None:
        for entry in ("kernel", "recurrent_kernel", "bias"):
            edit("rnn", entry, permuted(order))(model)

    return after


Spec = tuple[str, str, Options, Callable[[keras.Model], None] | None, tuple[str, ...], tuple[str, ...]]

_PAD = ("same_padding", "pad_then_stride")

SPECS: tuple[Spec, ...] = (
    ("Keras' epsilon everywhere", "residual", {"epsilon": 1e-3}, None, ("bn1",), ("batch_norm_epsilon",)),
    ("epsilon in a block", "residual", {2: {"epsilon": 1e-3}}, None, ("layer2_bn1",), ("batch_norm_epsilon",)),
    (
        "epsilon set afterwards",
        "residual",
        {},
        attribute("layer3_bn2", epsilon=1e-4),
        ("layer3_bn2",),
        ("batch_norm_epsilon",),
    ),
    (
        "epsilon in a mobile block",
        "mobile",
        {"4_body_7": {"epsilon": 1e-3}},
        None,
        ("4_body_7",),
        ("batch_norm_epsilon",),
    ),
    ("training pinned", "residual", {"training": True}, None, ("bn1",), ("train_mode",)),
    (
        "gamma and beta swapped",
        "residual",
        {},
        exchanged("layer1_bn2", "gamma", "beta"),
        ("layer1_bn2",),
        ("gamma_beta_swapped", "weights_differ"),
    ),
    (
        "mean and variance swapped",
        "mobile",
        {},
        exchanged("3_body_4", "moving_mean", "moving_variance"),
        ("3_body_4",),
        ("mean_variance_swapped", "weights_differ"),
    ),
    (
        "statistics not copied",
        "residual",
        {},
        lambda m: (
            edit("layer2_bn2", "moving_mean", np.zeros_like)(m),
            edit("layer2_bn2", "moving_variance", np.ones_like)(m),
        ),
        ("layer2_bn2",),
        ("statistics_missing",),
    ),
    ("SAME in a block", "residual", {2: {"same": True}}, None, ("layer2_conv1",), _PAD),
    ("SAME depthwise", "mobile", {"4 padding": "same"}, None, ("4_body_3",), _PAD),
    ("SAME average pool", "mobile", {"pool": True}, None, ("7",), ("average_pool_padding", "same_padding")),
    ("average for maximum", "residual", {"average": True}, None, ("pool", "layer1_conv1"), ("pool_kind",)),
    ("global maximum", "residual", {"max": True}, None, ("avgpool", "fc"), ("pool_kind",)),
    (
        "kernel in PyTorch's order, reshaped",
        "plain",
        {},
        edit("conv3", "kernel", lambda k: k.transpose(3, 2, 0, 1).reshape(k.shape)),
        ("conv3",),
        ("kernel_transposed",),
    ),
    (
        "kernel's inputs and outputs",
        "residual",
        {},
        edit("layer3_conv1", "kernel", lambda k: k.swapaxes(2, 3)),
        ("layer3_conv1",),
        ("kernel_transposed",),
    ),
    (
        "kernel flipped as Theano's",
        "plain",
        {},
        edit("conv1", "kernel", lambda k: k[::-1, ::-1]),
        ("conv1",),
        ("kernel_flipped",),
    ),
    (
        "depthwise kernel transposed",
        "mobile",
        {},
        edit("3_body_3", "kernel", lambda k: k.swapaxes(0, 1)),
        ("3_body_3",),
        ("kernel_transposed",),
    ),
    ("dense transposed", "plain", {}, edit("fc2", "kernel", lambda k: k.T), ("fc2",), ("kernel_transposed",)),
    (
        "groups interleaved",
        "mobile",
        {},
        edit("5", "kernel", lambda k: k.reshape(3, 3, 4, 3, 4).swapaxes(3, 4).reshape(k.shape)),
        ("5",),
        ("groups",),
    ),
    (
        "transposed convolution flipped",
        "decoder",
        {},
        edit("up1", "kernel", lambda k: k[::-1, ::-1]),
        ("up1",),
        ("kernel_flipped",),
    ),
    ("flattened CHW", "plain", {"chw": True}, None, ("fc1", "flatten", "permute"), ("flatten_order",)),
    (
        "rows of the dense kernel in PyTorch's order",
        "plain",
        {},
        edit("fc1", "kernel", lambda k: k.reshape(16, 12, 20).swapaxes(0, 1).reshape(k.shape)),
        ("fc1",),
        ("flatten_order",),
    ),
    ("BGR", "residual", {"bgr": True}, None, ("conv1", "flip"), ("channel_order",)),
    ("kernel for BGR", "plain", {}, edit("conv1", "kernel", lambda k: k[:, :, ::-1]), ("conv1",), ("channel_order",)),
    ("0..255", "residual", {"range": 255.0}, None, ("conv1",), ("preprocessing_range",)),
    (
        "1/255 by a layer",
        "residual",
        {"range": 1 / 255, "range layer": True},
        None,
        ("conv1", "rescaling"),
        ("preprocessing_range",),
    ),
    ("tanh GELU by ops.gelu", "vit", {1: {"tanh": True}}, None, ("blocks_1_mlp2", "blocks_1_mlp1"), ("gelu_tanh",)),
    (
        "tanh GELU in a layer",
        "vit",
        {2: {"act": lambda x: keras.activations.gelu(x, approximate=True)}},
        None,
        ("blocks_2_act",),
        ("gelu_tanh",),
    ),
    (
        "tanh GELU fused",
        "plain",
        {"fc1": lambda x: keras.activations.gelu(x, approximate=True)},
        None,
        ("fc1",),
        ("gelu_tanh",),
    ),
    ("ReLU for GELU fused", "plain", {"fc1": "relu"}, None, ("fc1",), ("activation_differs",)),
    ("fused activation missing", "plain", {"conv2": None}, None, ("conv2", "conv3"), ("activation_missing",)),
    ("fused activation missing later", "plain", {"conv3": None}, None, ("conv3", "fc1"), ("activation_missing",)),
    (
        "activation missing in a block",
        "residual",
        {3: {"no relu": True}},
        None,
        ("layer3_conv2", "layer3_bn1", "layer3.relu"),
        ("activation_missing", "layer_missing"),
    ),
    ("GELU doubled", "plain", {"doubled": True}, None, ("fc3", "fc2", "activation"), ("activation_doubled",)),
    ("softmax missing", "plain", {"no softmax": True}, None, ("fc3", "output"), ("activation_missing",)),
    ("softmax twice", "plain", {"two softmax": True}, None, ("fc3", "output", "softmax"), ("activation_doubled",)),
    ("ReLU6 without its 6", "mobile", {"4 most": None}, None, ("4_body_5",), ("activation_differs",)),
    ("SiLU for hard swish", "mobile", {"2": "silu"}, None, ("2",), ("activation_differs",)),
    ("Keras' slope", "mobile", {"slope": 0.3}, None, ("6",), ("activation_slope",)),
    ("slope in code", "decoder", {"slope": 0.2}, None, ("mid", "up1"), ("activation_slope",)),
    ("layer norm epsilon", "vit", {1: {"epsilon": 1e-3}}, None, ("blocks_1_ln1",), ("layer_norm_epsilon",)),
    ("last layer norm epsilon", "vit", {"last": 1e-3}, None, ("norm",), ("layer_norm_epsilon",)),
    (
        "layer scale missing",
        "vit",
        {0: {"no scale": True}},
        None,
        ("blocks_1_ln1", "blocks_0_mlp2"),
        ("scale_missing",),
    ),
    (
        "attention scale",
        "vit",
        {},
        attribute("blocks_0_attention", _inverse_sqrt_key_dim=1.0),
        ("blocks_0_attention",),
        ("attention_scale",),
    ),
    ("group norm epsilon", "decoder", {"epsilon": 1e-3}, None, ("norm",), ("norm_epsilon",)),
    ("group norm groups", "decoder", {"groups": 2}, None, ("norm",), ("norm_groups",)),
    ("SAME in the decoder", "decoder", {}, edit("mid", "bias", np.zeros_like), ("mid",), ("bias_missing",)),
    ("dilation", "decoder", {"dilation": 1}, None, ("mid",), ("dilation",)),
    ("nearest for bilinear", "decoder", {"interpolation": "nearest"}, None, ("up2",), ("interpolation",)),
    ("border", "decoder", {"border": "constant"}, None, ("out",), ("padding_mode")),
    ("LSTM gates", "lstm", {}, gates((0, 2, 1, 3)), ("rnn",), ("gate_order",)),
    ("GRU gates as PyTorch's", "gru", {}, gates((1, 0, 2)), ("rnn",), ("gate_order",)),
    ("reset_after", "gru", {}, attribute("rnn", dummy=0), ("rnn",), ("reset_after",)),
    ("backwards", "lstm", {"rnn": {"go_backwards": True}}, None, ("rnn",), ("direction",)),
    (
        "hard sigmoid of old Keras",
        "lstm",
        {"rnn": {"recurrent_activation": "hard_sigmoid"}},
        None,
        ("rnn",),
        ("recurrent_activation",),
    ),
    ("head's activation", "gru", {"head": "softmax"}, None, ("head",), ("activation_differs",)),
    ("head's activation missing", "lstm", {"head": None}, None, ("head", "output"), ("activation_missing",)),
    ("a bias lost", "plain", {}, edit("conv2", "bias", np.zeros_like), ("conv2",), ("bias_missing",)),
    (
        "weights of another training",
        "mobile",
        {},
        edit("4_body_6", "kernel", lambda k: np.random.default_rng(3).standard_normal(k.shape).astype("f") * 0.2),
        ("4_body_6",),
        ("weights_differ",),
    ),
    (
        "weights in float16",
        "residual",
        {},
        edit("layer1_conv1", "kernel", lambda k: k.astype(np.float16).astype(np.float32)),
        ("layer1_conv1",),
        ("dtype",),
    ),
)


def keras_cases() -> list[Case]:
    """Every fault, PyTorch against Keras on the engine of this process."""
    found = []
    for fault, family, options, after, where, keys in SPECS:
        if fault == "reset_after":
            build = pair_reset()
        else:
            build = pair(family, options, after)
        found.append(Case(fault, build, where, keys))
    return found


def pair_reset() -> Callable[[], Any]:
    """PyTorch's GRU against Keras' with reset_after=False: the biases added up."""

    def build() -> tuple[Any, Any, Any]:
        a = net.randomized(net.Sequence("gru"))
        b = recurrent("gru")({"rnn": {"reset_after": False}})
        layers = {x.name: x for x in b.layers}
        for found in ag.backend_of(a)[DESCRIPTION].describe(a):
            for name, value in found.weights.items():
                layer = layers[found.name]
                variable = getattr(getattr(layer, "cell", layer), name)
                variable.assign(value.sum(0) if found.name == "rnn" and name == "bias" else value)
        return a, b, inputs_of(a)

    return build


def keras_pairs() -> list[Case]:
    """Correct pairs: every family, ported without a mistake; and a model with its own copy."""
    found = [Case(f"correct {family}", pair(family, {})) for family in FAMILIES]
    found.append(Case("correct SAME on an odd size", pair("mobile", {"0": {"padding": "same"}})))

    def copied(family: str) -> Callable[[], Any]:
        def build() -> tuple[Any, Any, Any]:
            _, b, x = pair(family, {})()
            twin = FAMILIES[family][1]({})
            twin.set_weights(b.get_weights())
            x = np.moveaxis(x, 1, -1) if x.ndim == 4 else x
            return b, twin, x

        return build

    return found + [Case(f"Keras with itself: {family}", copied(family)) for family in FAMILIES]
