"""The methods of attribution: each from a network to one map per image, in NumPy float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from agnostic.attribution.attention import rollout
from agnostic.attribution.layers import layer_gradients
from agnostic.attribution.maps import Maps, blurred, enlarged
from agnostic.attribution.network import ExplainedModel
from agnostic.attribution.relevance import Relevance
from agnostic.errors import UnknownName, nearest
from agnostic.layers import Layer, Selector
from agnostic.tables import filling

ModelImages = npt.NDArray[np.float32]


@dataclass(frozen=True)
class MethodOptions:
    """What a method may be told; see :func:`agnostic.explain` for each.

    Attributes:
        layer: of a class activation map; None: chosen by itself.
        steps: points on the path of integrated gradients.
        samples: noisy copies of SmoothGrad, masks of RISE.
        noise: standard deviation of SmoothGrad's noise, as a part of the range of the image.
        window: side of the square that occlusion hides, in pixels; None: an eighth of the shorter side.
        seed: of noise and masks.
        epsilon, gamma: of relevance.
        progress: called with the number of rows that were computed.
    """

    layer: Selector | None = None
    steps: int = 32
    samples: int | None = None
    noise: float = 0.15
    window: int | None = None
    seed: int = 0
    epsilon: float = 1e-6
    gamma: float = 0.25
    progress: Callable[[int], None] | None = None

    def done(self, rows: int) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress(rows)


@dataclass(frozen=True)
class MethodMaps:
    """Maps of a method.

    Attributes:
        maps: (N, H, W).
        layer: that was looked at; None for methods that look at none.
    """

    maps: Maps
    layer: str | None = None


Method = Callable[[ExplainedModel, MethodOptions], MethodMaps]
METHODS: dict[str, Method] = {}
"""Every method by its name."""

_method = filling(METHODS)


def check_method(name: str) -> None:
    """Raise UnknownName where no method has this name."""
    if name not in METHODS:
        raise UnknownName(f"no method {name!r}: they are {', '.join(METHODS)}{nearest(name, METHODS)}")


# Gradients with respect to pixels ------------------------------------------------------------------------------------
@_method("gradient")
def gradient(network: ExplainedModel, options: MethodOptions) -> MethodMaps:
    """The largest absolute derivative of the score among the channels of a pixel.

    Source: Simonyan, Vedaldi, Zisserman, "Deep inside convolutional networks", 2014, section 3.
    """
    return MethodMaps(_largest(_pixel_gradients(network, options)))


@_method("gradient_x_input")
def gradient_x_input(network: ExplainedModel, options: MethodOptions) -> MethodMaps:
    """The derivative times the pixel as the model is given it, summed over channels; positive speaks for the target.

    Source: Shrikumar, Greenside, Shcherbina, Kundaje, "Not just a black box", 2016.
    """
    return MethodMaps((_pixel_gradients(network, options) * network.images).sum(-1))


@_method("integrated_gradients")
def integrated_gradients(network: ExplainedModel, options: MethodOptions) -> MethodMaps:
    """The mean gradient on the straight path from zeros to the image, times the image, summed over channels.

    The sum of a map is the score of the image less that of zeros, up to the error of the quadrature (Gauss-Legendre
    with ``steps`` points). Zeros are what the model is given, the mean of its training set where it subtracts that.

    Source: Sundararajan, Taly, Yan, "Axiomatic attribution for deep networks", 2017, equation 1.
    """
    points, weights = np.polynomial.legendre.leggauss(options.steps)
    total = np.zeros(network.images.shape)
    owners = np.arange(network.count)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        total += weight * network.gradients((network.images * point).astype(np.float32), owners).pixels
        options.done(network.count)
    return MethodMaps((total * network.images).sum(-1))


@_method("blur_integrated_gradients")
def blur_integrated_gradients(network: ExplainedModel, options: MethodOptions) -> MethodMaps:
    """The gradients on the path from a blurred image to the image, times the steps of the path, summed over channels.

    The path shows no colour that the image has not, and no hidden part. The sum of a map is the score of the image less
    that of the most blurred one, up to the error of the quadrature (trapezoids with ``steps`` sections).

    Source: Xu, Venugopalan, Sundararajan, "Attribution in scale and space", 2020, equation 4; the standard deviation of
    the blur falls linearly from a sixth of the shorter side.
    """
    images, owners = network.images, np.arange(network.count)
    most, total = min(network.size) / 6, np.zeros(network.images.shape)
    seen: tuple[ModelImages, npt.NDArray[np.float64]] | None = None
    for step in range(options.steps + 1):
        rows = blurred(images, most * (1 - step / options.steps)) if step < options.steps else images
        slopes = network.gradients(rows, owners).pixels
        if seen is not None:
            total += (slopes + seen[1]) / 2 * (rows.astype(np.float64) - seen[0])
        seen = rows, slopes
        options.done(network.count)
    return MethodMaps(total.sum(-1))


_FIRST = 0.25
"""The part of the pixels, those of the smallest gradients, that moves first in guided integrated gradients."""

_BAND = 0.02
"""How far a pixel may be ahead of, or behind, the straight path there."""


@_method("guided_integrated_gradients")
def guided_integrated_gradients(network: ExplainedModel, options: MethodOptions) -> MethodMaps:
    """Integrated gradients on a path from zeros on which those pixels move first that change the score least.

    It stays near the straight path, and avoids the noise of where the score is steep in pixels that matter little. Each
    section counts the mean of the gradients at its ends, but the first one that at its end alone: where a network
    divides by a standard deviation, as a layer norm does, the gradient at zeros holds nowhere else.

    Source: Kapishnikov et al., "Guided integrated gradients", 2021, algorithm 1, with a quarter of the pixels at a time
    and a band of 0.02.
    """
    images, owners = network.images.astype(np.float64), np.arange(network.count)
    at, total = np.zeros_like(images), np.zeros_like(images)
    slopes = network.gradients(at.astype(np.float32), owners).pixels
    for step in range(1, options.steps + 1):
        after = np.stack([_guided_step(*own, step, options.steps) for own in zip(images, at, slopes, strict=True)])
        before, slopes = slopes, network.gradients(after.astype(np.float32), owners).pixels
        total += (after - at) * (slopes if step == 1 else (before + slopes) / 2)
        at = after
        options.done(network.count)
    return MethodMaps(total.sum(-1))


def _guided_step(image: Maps, at: Maps, slopes: Maps, step: int, steps: int) -> Maps:
    """Where the path from zeros is after a step, in which it nears the image by one part of ``steps``."""
    low, high = (image * np.clip(step / steps + band, 0, 1) for band in (-_BAND, _BAND))
    ahead = np.abs(at) >= np.abs(low)
    at = np.where(ahead, at, low)
    left = np.abs(image).sum() * (1 - step / steps)
    # Pixels move as far as the band allows, those of the smallest gradients first, until the distance is right.
    waiting = np.abs(high - at) > 0
    while (surplus := np.abs(image - at).sum() - left) > 1e-9 * np.abs(image).sum() and waiting.any():
        sizes = np.abs(slopes[waiting])
        most = np.quantile(sizes, _FIRST, method="lower")
        moving = waiting & (np.abs(slopes) <= most)
        possible = np.abs(high - at)[moving].sum()
        part = min(1.0, surplus / possible)
        at = np.where(moving, at + part * (high - at), at)
        waiting &= ~moving
    return at


@_method("smoothgrad")
def smoothgrad(network: ExplainedModel, options: MethodOptions) -> MethodMaps:
    """The gradient, averaged over noisy copies of the image (``samples`` of them, 16 by default).

    Source: Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017.
    """
    generator, count = np.random.default_rng(options.seed), options.samples or 16
    images, owners = network.images, np.arange(network.count)
    spread = options.noise * (images.max((1, 2, 3)) - images.min((1, 2, 3)))[:, None, None, None]
    total = np.zeros(images.shape)
    for _ in range(count):
        # The same noise for each image, so that a map does not depend on the images beside it.
        noise = generator.standard_normal(images.shape[1:])
        total += network.gradients((images + spread * noise).astype(np.float32), owners).pixels
        options.done(network.count)
    return MethodMaps(_largest(total / count))


@_method("guided_backpropagation")
def guided_backpropagation(network: ExplainedModel, options: MethodOptions) -> MethodMaps:
    """The gradient, where each ReLU passes back positive gradients alone; the largest absolute value of a pixel.

    Source: Springenberg, Dosovitskiy, Brox, Riedmiller, "Striving for simplicity", 2015, section 3.4.
    """
    found = network.gradients(network.images, np.arange(network.count), guided=True).pixels
    options.done(network.count)
    return MethodMaps(_largest(found))


# Relevance -----------------------------------------------------------------------------------------------------------
@_method("lrp")
def lrp(network: ExplainedModel, options: MethodOptions) -> MethodMaps:
    """Layer-wise relevance propagation by kind of layer: convolutions by the gamma rule, other layers by epsilon.

    The sum of a map is the score, less what biases contribute. See :class:`agnostic.attribution.relevance.Relevance`
    for the rules and their sources, and Montavon et al., 2019, section 10.3, for why they differ by layer.
    """
    return _relevance(network, options, gamma=options.gamma, dense_gamma=0.0)


@_method("lrp_epsilon")
def lrp_epsilon(network: ExplainedModel, options: MethodOptions) -> MethodMaps:
    """Layer-wise relevance propagation with the epsilon rule in every layer.

    In a network of ReLUs, with a small epsilon, it is ``gradient_x_input``.
    """
    return _relevance(network, options, gamma=0.0, dense_gamma=0.0)


@_method("lrp_gamma")
def lrp_gamma(network: ExplainedModel, options: MethodOptions) -> MethodMaps:
    """Layer-wise relevance propagation with the gamma rule in every layer."""
    return _relevance(network, options, gamma=options.gamma, dense_gamma=options.gamma)


def _relevance(network: ExplainedModel, options: MethodOptions, *, gamma: float, dense_gamma: float) -> MethodMaps:
    rules = partial(Relevance, epsilon=options.epsilon, gamma=gamma, dense_gamma=dense_gamma)
    found = network.gradients(network.images, np.arange(network.count), rules=rules).pixels
    options.done(network.count)
    return MethodMaps((found * network.images).sum(-1))


def _pixel_gradients(network: ExplainedModel, options: MethodOptions) -> npt.NDArray[np.float64]:
    found = network.gradients(network.images, np.arange(network.count)).pixels
    options.done(network.count)
    return found


def _largest(gradients: npt.NDArray[np.float64]) -> Maps:
    found: Maps = np.abs(gradients).max(-1)
    return found


# Class activation maps -----------------------------------------------------------------------------------------------
@_method("grad_cam")
def grad_cam(network: ExplainedModel, options: MethodOptions) -> MethodMaps:
    """The channels of a layer, each weighed by the mean of its gradient; what is negative in the sum is 0.

    Source: Selvaraju et al., "Grad-CAM", 2017, equations 1 and 2.
    """
    layer, values, gradients = layer_gradients(network, options.layer)
    options.done(network.count)
    weights = gradients.mean((2, 3), keepdims=True)
    return _class_activation(network, layer, (weights * values).sum(1))


@_method("grad_cam_plus_plus")
def grad_cam_plus_plus(network: ExplainedModel, options: MethodOptions) -> MethodMaps:
    """As Grad-CAM, with the positive gradients of a channel weighed by their part in it.

    Source: Chattopadhyay, Sarkar, Howlader, Balasubramanian, "Grad-CAM++", 2018, equations 10 and 19, with the score's
    exponential as the differentiated function.
    """
    layer, values, gradients = layer_gradients(network, options.layer)
    options.done(network.count)
    total = values.sum((2, 3), keepdims=True)
    below = 2 * gradients**2 + total * gradients**3
    alpha = np.divide(gradients**2, below, out=np.zeros_like(below), where=below != 0)
    weights = (alpha * np.maximum(gradients, 0)).sum((2, 3), keepdims=True)
    return _class_activation(network, layer, (weights * values).sum(1))


@_method("layer_cam")
def layer_cam(network: ExplainedModel, options: MethodOptions) -> MethodMaps:
    """The channels of a layer, each position weighed by its own positive gradient; works in early layers too.

    Source: Jiang, Zhang, Hou, Cheng, Wei, "LayerCAM", 2021, equations 4 and 5.
    """
    layer, values, gradients = layer_gradients(network, options.layer)
    options.done(network.count)
    return _class_activation(network, layer, (np.maximum(gradients, 0) * values).sum(1))


@_method("score_cam")
def score_cam(network: ExplainedModel, options: MethodOptions) -> MethodMaps:
    """The channels of a layer, weighed by the score of the image seen through each channel alone.

    One run for each channel; no gradient.

    Source: Wang et al., "Score-CAM", 2020, equations 4 to 6: weights are the softmax of the scores over the channels.
    """
    (layer, values, _), size = layer_gradients(network, options.layer), network.size
    low, high = values.min((2, 3), keepdims=True), values.max((2, 3), keepdims=True)
    shown = np.divide(values - low, high - low, out=np.zeros_like(values), where=high > low)
    scores = np.empty(values.shape[:2])
    for image in range(network.count):
        for start in range(0, values.shape[1], network.micro_batch):
            masks = enlarged(shown[image, start : start + network.micro_batch], size)[..., None]
            rows = (masks * network.images[image]).astype(np.float32)
            scores[image, start : start + len(rows)] = network.scores(rows, np.full(len(rows), image))
            options.done(len(rows))
    exponentials = np.exp(scores - scores.max(1, keepdims=True))
    weights = exponentials / exponentials.sum(1, keepdims=True)
    return _class_activation(network, layer, (weights[:, :, None, None] * values).sum(1))


def _class_activation(network: ExplainedModel, layer: Layer, maps: Maps) -> MethodMaps:
    return MethodMaps(enlarged(np.maximum(maps, 0), network.size), layer.name)


# Attention -----------------------------------------------------------------------------------------------------------
@_method("attention_rollout")
def attention_rollout(network: ExplainedModel, options: MethodOptions) -> MethodMaps:
    """How much attention flows from the tokens that the score is read from to the patches, through all layers.

    The weights of each attention are averaged over its heads, and half of each token stays what it was. It does not
    depend on the target: all classes have the same map. Fused attentions are followed as others are; attention within
    windows has no rollout.

    Source: Abnar, Zuidema, "Quantifying attention flow in transformers", 2020, section 3.
    """
    found = rollout(network)
    options.done(network.count)
    return MethodMaps(enlarged(found, network.size))


# Images that are changed ---------------------------------------------------------------------------------------------
@_method("occlusion")
def occlusion(network: ExplainedModel, options: MethodOptions) -> MethodMaps:
    """How much the score falls where a square is hidden by zeros: for a pixel, the mean over the squares that hide it.

    Squares start at every half of a square's side.

    Source: Zeiler, Fergus, "Visualizing and understanding convolutional networks", 2014, section 4.2.
    """
    height, width = network.size
    side = min(options.window or max(2, min(height, width) // 8), height, width)
    step = max(1, side // 2)
    tops = sorted({*range(0, height - side, step), height - side})
    lefts = sorted({*range(0, width - side, step), width - side})
    places = [(top, left) for top in tops for left in lefts]
    whole = network.scores(network.images, np.arange(network.count))
    total, hidden = np.zeros((network.count, height, width)), np.zeros((height, width))
    for top, left in places:
        hidden[top : top + side, left : left + side] += 1
    for image in range(network.count):
        for start in range(0, len(places), network.micro_batch):
            part = places[start : start + network.micro_batch]
            rows = np.repeat(network.images[image : image + 1], len(part), 0)
            for row, (top, left) in zip(rows, part, strict=True):
                row[top : top + side, left : left + side] = 0
            fall = whole[image] - network.scores(rows, np.full(len(part), image))
            for value, (top, left) in zip(fall, part, strict=True):
                total[image, top : top + side, left : left + side] += value
            options.done(len(part))
    return MethodMaps(total / hidden)


@_method("rise")
def rise(network: ExplainedModel, options: MethodOptions) -> MethodMaps:
    """The mean of random masks (``samples`` of them, 1,000 by default), weighed by the score of the masked image.

    A mask is a grid of 7 by 7 cells, half of them open, enlarged and shifted at random.

    Source: Petsiuk, Das, Saenko, "RISE", 2018, equation 6 and section 3.2; the weights are the scores themselves, less
    their mean, so that a constant added to the score changes nothing.
    """
    generator, count = np.random.default_rng(options.seed), options.samples or 1000
    size, cells = network.size, 7
    masks = np.stack([_mask(generator, size, cells) for _ in range(count)]).astype(np.float32)
    maps = np.empty((network.count, *size))
    for image in range(network.count):
        scores = []
        for start in range(0, count, network.micro_batch):
            rows = masks[start : start + network.micro_batch, :, :, None] * network.images[image]
            scores.append(network.scores(rows, np.full(len(rows), image)))
            options.done(len(rows))
        weights = np.concatenate(scores)
        maps[image] = np.tensordot(weights - weights.mean(), masks, 1) / (count * 0.5)
    return MethodMaps(maps)


def _mask(generator: np.random.Generator, size: tuple[int, int], cells: int) -> Maps:
    """(H, W) in [0, 1]."""
    steps = [-(-length // cells) for length in size]
    open_ = (generator.random((cells, cells)) < 0.5).astype(np.float64)
    large = enlarged(open_, ((cells + 1) * steps[0], (cells + 1) * steps[1]))
    top, left = (int(generator.integers(step)) for step in steps)
    return large[top : top + size[0], left : left + size[1]]
