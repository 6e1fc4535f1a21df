"""Keras models: built from a described architecture, made by keras.applications, or read from a ``.keras`` file."""

from __future__ import annotations

import http.client
import inspect
import math
import random
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from agnostic.errors import InvalidInput, InvalidWeights, UnknownName, nearest
from agnostic.models import architecture as described
from agnostic.models import efficientnet_lite, twins
from agnostic.models.architecture import Architecture
from agnostic.models.attached import attach
from agnostic.models.cards import ModelCard, Preprocessing, card_from_text
from agnostic.models.classes import imagenet_classes
from agnostic.models.specs import WeightsChoice, parse, parse_weights
from agnostic.text import counted
from agnostic.transfer.layouts import architecture_to_canonical
from agnostic_keras.archives import bounded_weights, check_archive
from agnostic_keras.weights import CARD, fit_weights, load_weights, read_weights


# Described architectures --------------------------------------------------------------------------------------------
def build(architecture: Architecture) -> keras.Model:
    """See :mod:`agnostic.contracts.models`. The random weights are the same every time, on every engine."""
    first = next(node for _, node in described.leaves(architecture) if isinstance(node, described.Conv))
    sequences = any(isinstance(node, described.Sequence) for _, node in described.leaves(architecture))
    # A sequence has a learned position for each place, and so one length alone.
    size = architecture.size if sequences else (None, None)
    shape = (first.inputs, *size) if _channels_first() else (*size, first.inputs)
    with _own_randomness():
        model = _model(architecture.name, described.Chain("", architecture.layers), shape)
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers(False, True):
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D | keras.layers.Dense | _EinsumDense):
            shape = tuple(layer.kernel.shape)
            match layer:
                case keras.layers.DepthwiseConv2D():
                    inputs = math.prod(shape[:2])
                case _EinsumDense():  # one of an attention's projections, to heads or from them
                    inputs = math.prod(shape[:-1]) if layer.name == "attention_output" else shape[0]
                case _:
                    inputs = math.prod(shape[:-1])
            layer.kernel.assign(rng.normal(0.0, (2 / inputs) ** 0.5, shape))
        elif isinstance(layer, ClassToken | PositionEmbedding):
            layer.value.assign(rng.normal(0.0, 0.02, tuple(layer.value.shape)))
    return model


_EinsumDense = keras.layers.EinsumDense


def _channels_first() -> bool:
    return bool(keras.config.image_data_format() == "channels_first")


def _model(name: str, chain: described.Chain, shape: tuple[int | None, ...]) -> keras.Model:
    inputs = keras.Input(shape)
    return keras.Model(inputs, _run(chain, inputs), name=name)


def _run(chain: described.Chain, inputs: Any) -> Any:
    """The symbolic output of a chain. Merging is an operator, not a layer: the layers are those that are described."""
    outputs = inputs
    for node in chain.layers:
        outputs = _applied(node, outputs)
    if chain.merge is None:
        return outputs
    beside = inputs if chain.shortcut is None else _applied(chain.shortcut, inputs)
    match chain.merge:
        case "add":
            return beside + outputs
        case "multiply":
            return beside * outputs
        case "concatenate":
            return keras.ops.concatenate([beside, outputs], 1 if _channels_first() else -1)


def _applied(node: described.ArchitectureNode, x: Any) -> Any:
    if isinstance(node, described.Chain):
        return _model(node.name, node, x.shape[1:])(x) if node.name else _run(node, x)
    if isinstance(node, described.MaxPool) and node.padding:
        x = _padded(x, node.padding, -math.inf)
    elif isinstance(node, described.Conv) and node.padding != "same" and node.padding and not _is_same(node):
        x = _padded(x, node.padding, 0.0)
    layer = _layer(node)
    return layer(x, x) if isinstance(layer, keras.layers.MultiHeadAttention) else layer(x)


def _is_same(node: described.Conv) -> bool:
    """Whether a padding is the same as "same": without a stride, half a kernel on both sides is."""
    return node.padding == "same" or (node.stride == 1 and node.kernel == 2 * node.padding + 1)


def _padded(x: Any, padding: int, value: float) -> Any:
    pairs = [(0, 0), (0, 0), (0, 0), (0, 0)]
    for axis in (2, 3) if _channels_first() else (1, 2):
        pairs[axis] = (padding, padding)
    return keras.ops.pad(x, pairs, constant_values=value)


def _layer(node: described.ArchitectureLeaf) -> keras.Layer:
    axis = 1 if _channels_first() else -1
    match node:
        case described.Conv():
            padding = "same" if _is_same(node) else "valid"
            if node.groups == node.inputs == node.outputs > 1:
                return keras.layers.DepthwiseConv2D(
                    node.kernel, node.stride, padding, use_bias=node.bias, depthwise_initializer="zeros", name=node.name
                )
            return keras.layers.Conv2D(
                node.outputs, node.kernel, node.stride, padding, groups=node.groups, use_bias=node.bias,
                kernel_initializer="zeros", name=node.name,
            )  # fmt: skip
        case described.BatchNorm():
            return keras.layers.BatchNormalization(axis, node.momentum, node.epsilon, name=node.name)
        case described.ReLU6():
            return keras.layers.ReLU(6.0, name=node.name)
        case described.Activation():
            # Keras' "gelu" is the exact one as an activation.
            return keras.layers.Activation(node.function, name=node.name)
        case described.LayerNorm():
            return keras.layers.LayerNormalization(axis if axis == -1 else [1], epsilon=node.epsilon, name=node.name)
        case described.MaxPool():
            return keras.layers.MaxPooling2D(node.kernel, node.stride, name=node.name)
        case described.AveragePool():
            return keras.layers.AveragePooling2D(node.kernel, node.stride, name=node.name)
        case described.AdaptiveAveragePool():
            return AdaptiveAveragePool(node.size, name=node.name)
        case described.GlobalAveragePool():
            return keras.layers.GlobalAveragePooling2D(keepdims=node.keep, name=node.name)
        case described.Flatten():
            return keras.layers.Flatten(name=node.name)
        case described.Dense():
            return keras.layers.Dense(node.outputs, kernel_initializer="zeros", name=node.name)
        case described.LayerScale():
            return LayerScale(name=node.name)
        case described.Sequence():
            return keras.layers.Reshape((-1, node.channels), name=node.name)
        case described.ClassToken():
            return ClassToken(name=node.name)
        case described.PositionEmbedding():
            return PositionEmbedding(name=node.name)
        case described.SelfAttention():
            return keras.layers.MultiHeadAttention(node.heads, node.channels // node.heads, name=node.name)
        case described.TakeFirst():
            return TakeFirst(name=node.name)


@keras.saving.register_keras_serializable("agnostic")
class AdaptiveAveragePool(keras.layers.Layer):
    """The means of ``size`` x ``size`` windows that cover an image of any size. (Keras' own needs to know it.)"""

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size

    def compute_output_shape(self, shape: Any) -> tuple[int | None, ...]:
        """(N, size, size, channels), or channels first."""
        if _channels_first():
            return (*shape[:2], self.size, self.size)
        return (shape[0], self.size, self.size, shape[-1])

    def call(self, x: Any) -> Any:
        """Two matrix products: along the height, and along the width."""
        letters = "nchw" if _channels_first() else "nhwc"
        for axis, letter in enumerate(letters):
            if letter in "hw":
                means = self._means(keras.ops.shape(x)[axis], x.dtype)
                x = keras.ops.einsum(f"{letters},o{letter}->{letters.replace(letter, 'o')}", x, means)
        return x

    def _means(self, length: Any, dtype: str) -> Any:
        """(size, length): window i starts at floor(i length / size) and ends before ceil((i + 1) length / size)."""
        window = keras.ops.arange(self.size, dtype="int32")[:, None]
        start, stop = window * length // self.size, -((window + 1) * -length // self.size)
        place = keras.ops.arange(length, dtype="int32")[None, :]
        inside = keras.ops.cast(keras.ops.logical_and(place >= start, place < stop), dtype)
        return inside / keras.ops.sum(inside, 1, keepdims=True)

    def get_config(self) -> dict[str, Any]:
        """What Keras needs to make it again."""
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable("agnostic")
class LayerScale(keras.layers.Layer):
    """One factor per channel."""

    def build(self, shape: Any) -> None:
        """(N, ..., channels)."""
        self.value = self.add_weight(shape=(shape[-1],), initializer="ones", name="value")

    def call(self, x: Any) -> Any:
        """The same shape."""
        return x * self.value


@keras.saving.register_keras_serializable("agnostic")
class ClassToken(keras.layers.Layer):
    """One more position, learned, before all others."""

    def build(self, shape: Any) -> None:
        """(N, L, channels)."""
        self.value = self.add_weight(shape=(1, 1, shape[-1]), initializer="zeros", name="value")

    def call(self, x: Any) -> Any:
        """(N, L + 1, channels)."""
        token = keras.ops.broadcast_to(self.value, (keras.ops.shape(x)[0], 1, x.shape[-1]))
        return keras.ops.concatenate([keras.ops.cast(token, x.dtype), x], 1)


@keras.saving.register_keras_serializable("agnostic")
class PositionEmbedding(keras.layers.Layer):
    """A learned summand for each position."""

    def build(self, shape: Any) -> None:
        """(N, L, channels), with a known L."""
        self.value = self.add_weight(shape=(1, *shape[1:]), initializer="zeros", name="value")

    def call(self, x: Any) -> Any:
        """The same shape."""
        return x + self.value


@keras.saving.register_keras_serializable("agnostic")
class TakeFirst(keras.layers.Layer):
    """The first position of a sequence."""

    def call(self, x: Any) -> Any:
        """(N, L, channels) to (N, channels)."""
        return x[:, 0]


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Keras draws the seeds of its initializers from Python's generator, which is left as it was."""
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


# Models by specification --------------------------------------------------------------------------------------------
def load(spec: str, weights: str | Path | None = None, *, trust: bool = False) -> keras.Model:
    """See :mod:`agnostic.contracts.models`; of the embedded networks, keras.applications and ``.keras`` files."""
    parsed, chosen = parse(spec), parse_weights(weights)
    card: ModelCard | None
    match parsed.family:
        case "embedded":
            model, card = _embedded(parsed.name, chosen)
        case "twin":
            model, card = _twin(parsed.name, chosen)
        case "keras":
            model, card = _application(parsed.name, chosen)
        case "file":
            assert parsed.path is not None
            model, card = _file(parsed.path, chosen, trust), _card_in(parsed.path)
        case _:
            raise InvalidInput(
                f"Keras cannot make {spec!r}; it makes 'efficientnet_lite0', 'keras:VGG16' and 'model.keras'"
            )
    if card is not None:
        attach(model, card)
    return model


def _embedded(variant: str, weights: WeightsChoice) -> tuple[keras.Model, ModelCard]:
    architecture = efficientnet_lite.efficientnet_lite(variant)
    model = build(architecture)
    if weights != "random":
        path = efficientnet_lite.weights_file(variant) if weights == "default" else weights
        if path.name.endswith(".weights.h5"):
            load_weights(model, path, architecture.name)
        else:
            entries = read_weights(path)
            if path.suffix in (".pth", ".pt"):
                entries = architecture_to_canonical(architecture, efficientnet_lite.from_package(entries, architecture))
            fit_weights(model, entries, path, architecture.name)
    return model, efficientnet_lite.card(variant)


def _twin(name: str, weights: WeightsChoice) -> tuple[keras.Model, ModelCard]:
    architecture = twins.twin(name)
    if weights == "default":
        raise InvalidWeights(
            f"the weights of {name} are torchvision's: give their file as weights=..., or weights='random', or "
            f"transfer them from 'torchvision:{name}'"
        )
    model = build(architecture)
    if isinstance(weights, Path):
        if weights.name.endswith(".weights.h5"):
            load_weights(model, weights, name)
        else:
            entries = read_weights(weights)
            if weights.suffix in (".pth", ".pt"):
                entries = architecture_to_canonical(architecture, entries)
            fit_weights(model, entries, weights, name)
    return model, twins.card(name)


def _application(name: str, weights: WeightsChoice) -> tuple[keras.Model, ModelCard]:
    known = {
        x: module
        for module in vars(keras.applications).values()
        if inspect.ismodule(module) and hasattr(module, "preprocess_input")
        for x, value in vars(module).items()
        if inspect.isfunction(value) and x[0].isupper()
    }
    # MobileNetV3 stands beside its module, not in it.
    for x, value in vars(keras.applications).items():
        if inspect.isfunction(value) and x[0].isupper():
            module = getattr(keras.applications, value.__module__.rpartition(".")[2], None)
            if module is not None and hasattr(module, "preprocess_input"):
                known.setdefault(x, module)
    if name not in known:
        raise UnknownName(
            f"no model {name!r} in keras.applications ({counted(len(known), 'model')}){nearest(name, known)}"
        )
    make = getattr(keras.applications, name, None) or getattr(known[name], name)
    # Logits, as everywhere in agnostic: an ascent through a softmax lowers the other classes instead.
    logits = {"classifier_activation": None} if "classifier_activation" in inspect.signature(make).parameters else {}
    if weights == "default":
        # Keras tells of a download on standard output, which is a command's answer.
        with _downloading(name), _own_randomness(), redirect_stdout(sys.stderr):
            model = make(weights="imagenet", **logits)
    else:
        with _own_randomness():
            model = make(weights=None, **logits)
    if isinstance(weights, Path):
        load_weights(model, weights, f"keras:{name}")
    return model, _application_card(name, model, known[name].preprocess_input)


@contextmanager
def _downloading(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Without a connection Keras raises a plain Exception, and for a wrong checksum a ValueError.
        if not isinstance(error, OSError | ValueError | http.client.HTTPException) and type(error) is not Exception:
            raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InvalidWeights(
            f"cannot get the weights of keras:{name} ({reason}): connect to the network, or give their file as "
            "weights=..., or weights='random'"
        ) from error


def _application_card(name: str, model: keras.Model, preprocess: Any) -> ModelCard:
    """From what the model's own ``preprocess_input`` does to black and to the pure colours, since it is affine."""
    probes = np.zeros((4, 1, 1, 3), np.float32)
    for colour in range(3):
        probes[colour + 1, ..., colour] = 255.0
    black, *colours = np.asarray(preprocess(probes.copy(), data_format="channels_last"), np.float64)[:, 0, 0]
    gains = np.stack([colour - black for colour in colours]) / 255.0  # (colour in, channel out)
    order: Literal["RGB", "BGR"] = "BGR" if abs(gains[0, 2]) > abs(gains[0, 0]) else "RGB"
    gain = (gains[::-1] if order == "BGR" else gains).diagonal()
    # The probes are float32; the numbers that they show have three decimals at most.
    mean, std = (tuple(float(round(x, 3)) + 0.0 for x in values) for values in (-black / gain, 1 / gain))
    shape = model.input_shape[1:3] if keras.config.image_data_format() == "channels_last" else model.input_shape[2:]
    return ModelCard(
        spec=f"keras:{name}",
        preprocessing=Preprocessing(mean, std, scale=255.0, channel_order=order),
        size=(shape[0] or 224, shape[1] or 224),
        class_names=imagenet_classes() if model.output_shape[-1] == 1000 else None,
    )


def _file(path: Path, weights: WeightsChoice, trust: bool) -> keras.Model:
    if weights == "random":
        raise InvalidInput(f"the weights of {path} are in the file: leave weights='random' out")
    check_archive(path, trust=trust)
    try:
        with bounded_weights(path):
            model = keras.saving.load_model(path, compile=False, safe_mode=not trust)
    except InvalidWeights:
        raise
    except Exception as error:  # whatever a damaged or foreign configuration raises
        raise InvalidWeights(f"{path} cannot be read as a model ({' '.join(str(error).split())[:200]})") from error
    if isinstance(weights, Path):
        load_weights(model, weights, str(path))
    return model


def _card_in(path: Path) -> ModelCard | None:
    """What agnostic wrote beside the model in its file, if it did."""
    with zipfile.ZipFile(path) as file:
        return card_from_text(file.read(CARD), str(path)) if CARD in file.namelist() else None
