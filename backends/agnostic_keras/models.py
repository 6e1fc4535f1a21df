"""Keras models: built from a described architecture, made by keras.applications, or read from a ``.keras`` file."""

from __future__ import annotations

import inspect
import math
import random
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from agnostic.errors import InvalidInput, InvalidWeights, UnknownName, nearest
from agnostic.models import architecture as described
from agnostic.models import efficientnet_lite
from agnostic.models.architecture import Architecture
from agnostic.models.cards import ModelCard, Preprocessing, attach
from agnostic.models.classes import imagenet_classes
from agnostic.models.specs import Weights, parse, parse_weights
from agnostic.transfer.layouts import architecture_to_keras
from agnostic_keras.weights import read_weights, set_weights


# Described architectures --------------------------------------------------------------------------------------------
def build(architecture: Architecture) -> keras.Model:
    """See :meth:`agnostic.backend.Backend.build`. The random weights are the same every time, on every engine."""
    first = next(node for _, node in described.leaves(architecture) if isinstance(node, described.Conv))
    with _own_randomness():
        model = _model(architecture.name, architecture.layers, first.inputs, residual=False)
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers(False, True):
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D | keras.layers.Dense):
            shape = tuple(layer.kernel.shape)
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            inputs = math.prod(shape[:2] if depthwise else shape[:-1])
            layer.kernel.assign(rng.normal(0.0, (2 / inputs) ** 0.5, shape))
    return model


def _model(name: str, nodes: Iterable[described.Node], channels: int, *, residual: bool) -> keras.Model:
    first = keras.config.image_data_format() == "channels_first"
    inputs = keras.Input((channels, None, None) if first else (None, None, channels))
    outputs = inputs
    for node in nodes:
        outputs = _layer(node, outputs.shape[1 if first else -1])(outputs)
    # An operator, not a layer: the layers are those that the description names.
    return keras.Model(inputs, inputs + outputs if residual else outputs, name=name)


def _layer(node: described.Node, channels: int) -> keras.Layer:
    axis = 1 if keras.config.image_data_format() == "channels_first" else -1
    match node:
        case described.Chain():
            return _model(node.name, node.layers, channels, residual=node.residual)
        case described.Conv() if node.groups == node.inputs == node.outputs > 1:
            return keras.layers.DepthwiseConv2D(
                node.kernel, node.stride, "same", use_bias=False, depthwise_initializer="zeros", name=node.name
            )
        case described.Conv():
            return keras.layers.Conv2D(
                node.outputs, node.kernel, node.stride, "same", groups=node.groups, use_bias=False,
                kernel_initializer="zeros", name=node.name,
            )  # fmt: skip
        case described.BatchNorm():
            return keras.layers.BatchNormalization(axis, node.momentum, node.epsilon, name=node.name)
        case described.ReLU6():
            return keras.layers.ReLU(6.0, name=node.name)
        case described.GlobalAveragePool():
            return keras.layers.GlobalAveragePooling2D(name=node.name)
        case described.Dense():
            return keras.layers.Dense(node.outputs, kernel_initializer="zeros", name=node.name)


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
def load(spec: str, weights: str | Path | None = None) -> keras.Model:
    """See :meth:`agnostic.backend.Backend.load`; of the embedded networks, keras.applications and ``.keras`` files."""
    parsed, chosen = parse(spec), parse_weights(weights)
    match parsed.family:
        case "embedded":
            model, card = _embedded(parsed.name, chosen)
        case "keras":
            model, card = _application(parsed.name, chosen)
        case "keras-file":
            assert parsed.path is not None
            model, card = _file(parsed.path, chosen), None
        case _:
            raise InvalidInput(
                f"Keras cannot make {spec!r}; it makes 'efficientnet_lite0', 'keras:VGG16' and 'model.keras'"
            )
    if card is not None:
        attach(model, card)
    return model


def _embedded(variant: str, weights: Weights) -> tuple[keras.Model, ModelCard]:
    architecture = efficientnet_lite.efficientnet_lite(variant)
    model = build(architecture)
    if weights != "random":
        path = efficientnet_lite.weights_file(variant) if weights == "default" else weights
        if path.name.endswith(".weights.h5"):
            _fill(model, path, architecture.name)
        else:
            entries = read_weights(path)
            if path.suffix in (".pth", ".pt"):
                entries = architecture_to_keras(architecture, efficientnet_lite.from_package(entries, architecture))
            _fit(model, entries, path, architecture.name)
    return model, efficientnet_lite.card(variant)


def _application(name: str, weights: Weights) -> tuple[keras.Model, ModelCard]:
    known = {
        x: module
        for module in vars(keras.applications).values()
        if inspect.ismodule(module) and hasattr(module, "preprocess_input")
        for x, value in vars(module).items()
        if inspect.isfunction(value) and x[0].isupper()
    }
    if name not in known:
        raise UnknownName(f"no model {name!r} in keras.applications ({len(known)} models){nearest(name, known)}")
    make = getattr(known[name], name)
    try:
        with _own_randomness():
            # Logits, as everywhere in agnostic: an ascent through a softmax lowers the other classes instead.
            known_options = inspect.signature(make).parameters
            logits = {"classifier_activation": None} if "classifier_activation" in known_options else {}
            model = make(weights="imagenet" if weights == "default" else None, **logits)
    except (OSError, ValueError) as error:
        if weights != "default":
            raise
        raise InvalidWeights(
            f"cannot get the weights of keras:{name} ({str(error).partition(chr(10))[0]}): connect to the network, or "
            "give their file as weights=..., or weights='random'"
        ) from error
    if isinstance(weights, Path):
        _fill(model, weights, f"keras:{name}")
    return model, _application_card(name, model, known[name].preprocess_input)


def _application_card(name: str, model: keras.Model, preprocess: Any) -> ModelCard:
    """From what the model's own ``preprocess_input`` does to black and to the pure colours, since it is affine."""
    probes = np.zeros((4, 1, 1, 3), np.float32)
    for colour in range(3):
        probes[colour + 1, ..., colour] = 255.0
    black, *colours = np.asarray(preprocess(probes.copy(), data_format="channels_last"), np.float64)[:, 0, 0]
    gains = np.stack([colour - black for colour in colours]) / 255.0  # (colour in, channel out)
    order = "BGR" if abs(gains[0, 2]) > abs(gains[0, 0]) else "RGB"
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


def _file(path: Path, weights: Weights) -> keras.Model:
    if weights == "random":
        raise InvalidInput(f"the weights of {path} are in the file: leave weights='random' out")
    if not path.is_file():
        raise InvalidWeights(f"cannot read a model from {path}: there is no such file")
    if not zipfile.is_zipfile(path):
        raise InvalidWeights(f"{path} is damaged, cut off, or no .keras file: save it again with model.save(...)")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # whatever a damaged or foreign configuration raises
        said = " ".join(str(error).split())
        if "safe_mode" in said or "unsafe" in said.lower() or "lambda" in said.lower():
            raise InvalidWeights(
                f"reading {path} would execute code (a Lambda layer), which agnostic never does: rebuild the model in "
                "a file of your own and load 'file.py:make_model'"
            ) from None
        raise InvalidWeights(f"{path} cannot be read as a model ({said[:200]})") from error
    if isinstance(weights, Path):
        _fill(model, weights, str(path))
    return model


def _fill(model: keras.Model, path: Path, name: str) -> None:
    """Put a weight file into a model."""
    if not path.name.endswith(".weights.h5"):
        _fit(model, read_weights(path), path, name)
        return
    if not path.is_file():
        raise InvalidWeights(f"cannot read weights from {path}: there is no such file")
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise InvalidWeights(f"{path} does not fit {name}: {' '.join(str(error).split())[:200]}") from error


def _fit(model: keras.Model, entries: Any, path: Path, name: str) -> None:
    try:
        set_weights(model, entries)
    except InvalidWeights as error:
        raise InvalidWeights(f"{path} does not fit {name}: {error}") from None
