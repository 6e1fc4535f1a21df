"""What every framework computes for the parity suite: the same calls, whatever the backend.

Each function returns arrays by name. They run in the framework's own process; see worker.py.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import agnostic as ag
from agnostic.contracts.weights import WEIGHTS
from agnostic.registry import Model, backend_of
from agnostic.taps.verbs import prepare as prepare_images
from agnostic.transfer.layouts import to_canonical
from agnostic.visualization.verb import Options, prepare

Array = np.ndarray[Any, Any]

SIZE, STEPS = 48, 10
RECIPES = ("classic", "fourier", "jitter", "maco")

OBJECTIVES: dict[str, Callable[[], Any]] = {
    "channel": lambda: ag.objectives.channel("tanh", [3, 1]),
    "channel of a convolution": lambda: ag.objectives.channel("conv2", [0, 4]),
    "neuron": lambda: ag.objectives.neuron("depthwise", 5, (1, 2)),
    "logit": lambda: ag.objectives.logit([4, 0]),
    "direction": lambda: ag.objectives.direction("tanh", np.linspace(-1, 1, 6)),
    "deepdream": lambda: ag.objectives.deepdream("pool"),
    "diversity": lambda: ag.objectives.channel("tanh", [3] * 3) + 10 * ag.objectives.diversity("tanh"),
    "position": lambda: ag.objectives.position("pool", (3, 5)),
    "head": lambda: ag.objectives.head("tanh", [0, 2], 3),
    "cosine": lambda: ag.objectives.cosine("conv2", np.linspace(-1, 1, 6)) * ag.objectives.channel("tanh", 1),
    "alignment": lambda: ag.objectives.channel("conv2", [1, 4]) + 0.5 * ag.objectives.alignment("pool"),
    "interpolation": lambda: ag.objectives.interpolation(ag.objectives.logit(1), ag.objectives.logit(3), 3),
    "caricature": lambda: ag.objectives.caricature("pool", photographs(64)[0], power=2),
    "style": lambda: ag.objectives.style("conv1", list(photographs(64))),
    "function": lambda: ag.objectives.function(energy, ["conv1", "conv2"]),
    "negative": lambda: -ag.objectives.channel("conv2", [2, 5]),
    "composed": lambda: (
        2 * ag.objectives.channel("tanh", 2) * ag.objectives.logit(3) - 0.1 * ag.objectives.total_variation()
    ),
}


TOKENS: dict[str, Callable[[], Any]] = {
    "channel of patches": lambda: ag.objectives.channel("tokens", [1, 4]),
    "neuron of patches": lambda: ag.objectives.neuron("tokens", 2, (3, 7)),
    "position of patches": lambda: ag.objectives.position("tokens"),
    "token": lambda: ag.objectives.token("tokens", 5, [0, 3]),
    "head of tokens": lambda: ag.objectives.head("tokens", 1, 2),
}


def energy(ops: Any, taps: Any) -> Any:
    """An objective of a user's own: what two layers do, as means of squares.

    Nothing cancels in it: one run of torch in float32 would not tell the noise of what is left.
    """
    first, second = (ops.mean(ops.square(taps[name][:, 0]), (1, 2)) for name in ("conv1", "conv2"))
    return first * second


def others() -> dict[str, Any]:
    """Recipes of other parameterizations and views than the named ones have."""
    from agnostic.visualization.layered import Alpha, Shared
    from agnostic.visualization.parameterization import CPPN, Fourier, Masked, Pyramid
    from agnostic.visualization.robustness import Jitter, Tiles

    mask = np.zeros((SIZE, SIZE))
    mask[8:40, 8:40] = 1
    return {
        "pyramid": ag.recipes.fourier(image=Pyramid()),
        "network": ag.recipes.fourier(image=CPPN(width=6, depth=3)),
        "mask": ag.recipes.fourier(image=Masked(Fourier(), mask, photographs(SIZE)[0] / 255)),
        "tiles": ag.recipes.fourier(views=Tiles()),
        "blur": ag.recipes.fourier(views=Jitter(blur=1.0)),
        "alpha": ag.recipes.fourier(image=Alpha()),
        "shared": ag.recipes.fourier(image=Shared(coarser=(2, 8))),
    }


def photographs(size: int) -> Array:
    """(2, size, size, 3) uint8: a cup of coffee and a cat."""
    from PIL import Image
    from skimage import data

    return np.stack([np.asarray(Image.fromarray(x()).resize((size, size))) for x in (data.coffee, data.chelsea)])


def canonical(value: Array, axes: str | None) -> Array:
    """Channels first."""
    if axes is None or "C" not in axes:
        return value
    return np.moveaxis(value, axes.index("C"), 1)


def listing(model: Model) -> str:
    """The layers as JSON, without what is a framework's own: its names of classes and its order of axes."""
    layers = []
    for x in ag.layers(model):
        shape = None if x.shape is None or x.axes is None else dict(zip(x.axes, x.shape, strict=True))
        layers.append((x.name, shape, x.channels, x.parameters, x.calls))
    return json.dumps(layers, sort_keys=True)


def taps(model: Model) -> Iterator[tuple[str, Array]]:
    """Every layer of the model for two photographs, and the logits at the model's own size."""
    record = ag.capture(model, prepare_images(model, photographs(64)), "**")
    arrays = record.numpy()
    for name in record:
        yield name, canonical(arrays[name], record.axes(name))
    yield "logits", ag.capture(model, prepare_images(model, photographs(224)), "classifier").numpy()["classifier"]


def smooth(framework: str) -> Model:
    """A small network without kinks, the same in both frameworks, by the rules of agnostic.transfer.

    Where a ReLU's input is zero but for rounding, two correct gradients differ; here rounding is all that differs.
    """
    rng = np.random.default_rng(3)
    weights = {
        "conv1": ("conv", {"weight": rng.normal(0, 0.3, (8, 3, 3, 3)), "bias": rng.normal(0, 0.1, 8)}),
        "conv2": ("conv", {"weight": rng.normal(0, 0.2, (6, 8, 3, 3)), "bias": rng.normal(0, 0.1, 6)}),
        "norm": (
            "batch_norm",
            {
                "weight": rng.uniform(0.5, 1.5, 6), "bias": rng.normal(0, 0.1, 6),
                "running_mean": rng.normal(0, 0.1, 6), "running_var": rng.uniform(0.5, 1.5, 6),
            },
        ),
        "depthwise": ("depthwise_conv", {"weight": rng.normal(0, 0.3, (6, 1, 3, 3)), "bias": rng.normal(0, 0.1, 6)}),
        "dense": ("dense", {"weight": rng.normal(0, 0.5, (5, 6)), "bias": rng.normal(0, 0.1, 5)}),
    }  # fmt: skip
    if framework == "torch":
        return _smooth_torch({f"{x}.{k}": v for x, (_, own) in weights.items() for k, v in own.items()})
    return _smooth_keras(
        {f"{x}.{k}": v for x, (kind, own) in weights.items() for k, v in to_canonical(kind, own).items()}
    )


def _smooth_torch(weights: dict[str, Array]) -> Model:
    from torch import nn

    from agnostic_torch.models import GlobalAveragePool

    layers = {
        "conv1": nn.Conv2d(3, 8, 3, padding=1), "silu": nn.SiLU(), "pool": nn.AvgPool2d(2),
        "conv2": nn.Conv2d(8, 6, 3), "norm": nn.BatchNorm2d(6, eps=1e-3), "tanh": nn.Tanh(),
        "depthwise": nn.Conv2d(6, 6, 3, groups=6), "mean": GlobalAveragePool(), "dense": nn.Linear(6, 5),
    }  # fmt: skip
    model = nn.Sequential(OrderedDict(layers)).eval()
    backend_of(model)[WEIGHTS].set_weights(model, weights)
    return model


def _smooth_keras(weights: dict[str, Array]) -> Model:
    import keras
    from keras import layers as kl

    layers = [
        kl.Conv2D(8, 3, padding="same", name="conv1"), kl.Activation("silu", name="silu"),
        kl.AveragePooling2D(2, name="pool"), kl.Conv2D(6, 3, name="conv2"),
        kl.BatchNormalization(epsilon=1e-3, name="norm"), kl.Activation("tanh", name="tanh"),
        kl.DepthwiseConv2D(3, name="depthwise"), kl.GlobalAveragePooling2D(name="mean"), kl.Dense(5, name="dense"),
    ]  # fmt: skip
    model = keras.Sequential([keras.Input((None, None, 3)), *layers])
    backend_of(model)[WEIGHTS].set_weights(model, weights)
    return model


def paired(framework: str) -> Model:
    """A photo and two numbers, the same in both frameworks: a tower that runs once, scaled by what the numbers say."""
    rng = np.random.default_rng(4)
    weights = {
        "conv": ("conv", {"weight": rng.normal(0, 0.3, (6, 3, 3, 3)), "bias": rng.normal(0, 0.1, 6)}),
        "years": ("dense", {"weight": rng.normal(0, 0.5, (6, 2)), "bias": rng.normal(0, 0.1, 6)}),
        "mix": ("conv", {"weight": rng.normal(0, 0.3, (6, 6, 3, 3)), "bias": rng.normal(0, 0.1, 6)}),
    }
    if framework == "torch":
        model, own = _paired_torch(), {f"{x}.{k}": v for x, (_, own) in weights.items() for k, v in own.items()}
    else:
        model = _paired_keras()
        own = {f"{x}.{k}": v for x, (kind, own) in weights.items() for k, v in to_canonical(kind, own).items()}
    backend_of(model)[WEIGHTS].set_weights(model, own)
    return model


def _paired_torch() -> Model:
    import torch
    from torch import nn

    class Paired(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.years, self.mix = nn.Conv2d(3, 6, 3), nn.Linear(2, 6), nn.Conv2d(6, 6, 3)
            self.tanh = nn.Tanh()

        def forward(self, photo: torch.Tensor, age: torch.Tensor) -> torch.Tensor:
            return self.tanh(self.mix(self.conv(photo).tanh() * self.years(age)[:, :, None, None]))

    return Paired().eval()


def _paired_keras() -> Model:
    import keras
    from keras import layers as kl

    photo, age = keras.Input((None, None, 3), name="photo"), keras.Input((2,), name="age")
    factors = kl.Reshape((1, 1, 6), name="factors")(kl.Dense(6, name="years")(age))
    seen = kl.Activation("tanh", name="inner")(kl.Conv2D(6, 3, name="conv")(photo))
    out = kl.Activation("tanh", name="tanh")(kl.Conv2D(6, 3, name="mix")(kl.Multiply(name="times")([seen, factors])))
    return keras.Model([photo, age], out)


def patches(framework: str) -> Model:
    """Tokens that are patches of 4 x 4 pixels of an image of ``SIZE``, the same in both frameworks."""
    rng, side = np.random.default_rng(5), SIZE // 4
    weights = {
        "patches": ("conv", {"weight": rng.normal(0, 0.3, (6, 3, 4, 4)), "bias": rng.normal(0, 0.1, 6)}),
        "tokens": ("dense", {"weight": rng.normal(0, 0.5, (6, 6)), "bias": rng.normal(0, 0.1, 6)}),
    }
    if framework == "torch":
        model, own = _patches_torch(), {f"{x}.{k}": v for x, (_, own) in weights.items() for k, v in own.items()}
    else:
        model = _patches_keras(side)
        own = {f"{x}.{k}": v for x, (kind, own) in weights.items() for k, v in to_canonical(kind, own).items()}
    backend_of(model)[WEIGHTS].set_weights(model, own)
    return model


def _patches_torch() -> Model:
    import torch
    from torch import nn

    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.tokens = nn.Conv2d(3, 6, 4, stride=4), nn.Linear(6, 6)

        def forward(self, photo: torch.Tensor) -> torch.Tensor:
            return self.tokens(self.patches(photo).tanh().flatten(2).transpose(1, 2)).tanh().mean(1)

    return Patches().eval()


def _patches_keras(side: int) -> Model:
    import keras
    from keras import layers as kl

    photo = keras.Input((SIZE, SIZE, 3), name="photo")
    seen = kl.Conv2D(6, 4, strides=4, activation="tanh", name="patches")(photo)
    tokens = kl.Dense(6, name="tokens")(kl.Reshape((side * side, 6), name="row")(seen))
    return keras.Model(photo, kl.GlobalAveragePooling1D(name="mean")(kl.Activation("tanh", name="tanh")(tokens)))


def gradients(
    model: Model, dtype: str, objectives: dict[str, Callable[[], Any]] = OBJECTIVES
) -> Iterator[tuple[str, Array]]:
    """Each objective and its gradient with respect to the image's parameters, at the start, for the first step."""
    named: list[tuple[str, Callable[[], Any], Any]] = [
        (name, objective, "jitter" if name == "caricature" else RECIPES[number % 2])
        for number, (name, objective) in enumerate(objectives.items())
    ]
    if objectives is OBJECTIVES:
        named += [(name, OBJECTIVES["channel"], recipe) for name, recipe in others().items()]
    for name, objective, recipe in named:
        # Aligned images start alike, where their differences have no gradient yet: from two photographs they have.
        start = photographs(SIZE) if name == "alignment" else None
        backend, ascent = prepare(model, objective(), Options(recipe, SIZE, seed=1, start=start))
        function = _torch_step if backend.name == "torch" else _keras_step
        value, gradient = function(model, ascent, dtype)
        called = getattr(recipe, "name", recipe)
        yield f"{name}, {called}, value", value
        yield f"{name}, {called}, gradient", gradient


def _torch_step(model: Model, ascent: Any, dtype: str) -> tuple[Array, Array]:
    import torch

    from agnostic_torch.ascent import _Loop, frozen

    kind, layout = getattr(torch, dtype), torch.channels_last
    images = range(ascent.count)
    cpu = torch.device("cpu")
    network = frozen(model, kind, layout, cpu, ascent.objective.layers())
    loop = _Loop(network, ascent, images, kind, layout, cpu)
    parameters = loop.ops.asarray(ascent.initial(images), dtype).requires_grad_()
    now = {key: loop._data(array)[0] for key, array in ascent.schedule(images).items()}
    value = ascent.score(loop.ops, loop._forward, parameters, now, loop.arrays, loop.constants)
    (gradient,) = torch.autograd.grad(value.sum(), parameters)
    return value.detach().numpy(), gradient.numpy()


def _keras_step(model: Model, ascent: Any, dtype: str) -> tuple[Array, Array]:
    from agnostic_keras import engines
    from agnostic_keras.ascent import Network

    network = Network(model, ascent, dtype)
    images = range(ascent.count)
    data = network.shared | {
        "arrays": [tuple(map(network.data, own)) for own in ascent.arrays(images)],
        "others": list(map(network.data, ascent.others(images))),
        "channels": {
            layer: list(map(network.data, own))
            for layer, own in ascent.channel_means(images).items()
            if layer in network.sliced
        },
    }
    now = {key: network.data(array)[0] for key, array in ascent.schedule(images).items()}
    parameters = network.data(ascent.initial(images))
    value, (gradient, *_) = engines.current().value_and_gradient(
        lambda point: network.score(point, now, data), (parameters, *network.probes(parameters))
    )
    return network.ops.numpy(value), network.ops.numpy(gradient)


def ascents(
    model: Model, layer: str, dtype: str, *, preprocess: bool = False, inputs: Any = None
) -> Iterator[tuple[str, Array]]:
    """Ten steps of each recipe: the images, their scores, their mosaic.

    Args:
        model: the network.
        layer: whose channels.
        dtype: what is computed in.
        preprocess: hand the classic recipe's pixels to the network in [0, 1], not in [0, 255], where a tanh is 1 in
            float32 and has no gradient.
        inputs: what the network is called with around the picture.
    """
    for name in RECIPES:
        recipe = ag.recipes.classic(preprocess=True) if preprocess and name == "classic" else name
        objective = ag.objectives.channel(layer, [3, 5, 0])
        images = ag.visualize(
            model, objective, recipe=recipe, size=SIZE, steps=STEPS, seed=1, dtype=dtype, inputs=inputs
        )
        yield f"{name}, images", np.asarray(images)
        yield f"{name}, scores", images.scores
        yield f"{name}, mosaic", ag.mosaic(np.asarray(images), columns=2)
        if images.importance is not None:
            yield f"{name}, importance", images.importance


def explanations(model: Model) -> Iterator[tuple[str, Array]]:
    """The maps of methods for two photographs and their own highest classes.

    Without those that need a ReLU or an attention; without guided integrated gradients, which sorts pixels by the sizes
    of their gradients, so that a rounding changes the path; and of relevance those rules that have all parts.
    """
    from agnostic.attribution import METHODS

    images = photographs(SIZE)
    for method in METHODS:
        if method in ("guided_backpropagation", "guided_integrated_gradients", "attention_rollout", "lrp_epsilon",
                      "lrp_gamma"):  # fmt: skip
            continue
        found = ag.explain(model, images, method=method, steps=4, samples=6, window=16)
        yield f"{method}, maps", found.maps
        yield f"{method}, scores", np.asarray(found.scores)
        yield f"{method}, layer", np.array(found.layer or "")
