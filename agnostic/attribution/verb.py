"""``explain``: find the pixels that an output of a model depends on."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.attribution.explanation import Explanation
from agnostic.attribution.methods import METHODS, MethodOptions, check_method
from agnostic.attribution.network import ExplainedModel, Target, finite
from agnostic.checks import whole_number
from agnostic.errors import InvalidInput
from agnostic.layers import Selector
from agnostic.models.attached import card_of
from agnostic.models.classes import class_index, class_label
from agnostic.models.inputs import Size
from agnostic.models.preparing import model_pixels
from agnostic.registry import Model, model_backend
from agnostic.text import counted

ClassName = str | int
_MICRO_BATCH = 16


def explain(
    model: Model,
    images: npt.ArrayLike | str | os.PathLike[str],
    *,
    target: ClassName | Sequence[ClassName] | Target | None = None,
    method: str = "grad_cam",
    layer: Selector | None = None,
    steps: int = 32,
    samples: int | None = None,
    noise: float = 0.15,
    window: int | None = None,
    seed: int = 0,
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    inputs: Any = None,
    image: int | str | None = None,
    size: Size | None = None,
    channels_in: int | None = None,
    micro_batch: int = _MICRO_BATCH,
    progress: Callable[[int], None] | None = None,
) -> Explanation:
    """Find the pixels that an output of a model depends on: one map per image.

    The score that is explained is the logit of a class, before a softmax or a sigmoid, or a number that you define.
    The methods are written once, and give the same maps in every framework up to the arithmetic of float32.

    Args:
        model: a native model.
        images: as for :func:`prepare`: (N, H, W, C) or (H, W, C), uint8 or floating point in [0, 1], or an image file.
        target: the class, by name or number: one for all images, or one for each; None: for each the class of the
            highest logit. Or a function ``f(ops, output)`` that returns one score per image, (N,), of what the model
            returned for N images: for detectors, segmentation, regression. It must be differentiable.
        method: ``"gradient"``, ``"gradient_x_input"``, ``"integrated_gradients"``, ``"blur_integrated_gradients"``,
            ``"guided_integrated_gradients"``, ``"smoothgrad"``, ``"guided_backpropagation"``; ``"lrp"``,
            ``"lrp_epsilon"``, ``"lrp_gamma"``; ``"grad_cam"``, ``"grad_cam_plus_plus"``, ``"layer_cam"``,
            ``"score_cam"``; ``"attention_rollout"``; ``"occlusion"``, ``"rise"``. See
            :mod:`agnostic.attribution.methods` for the formula of each.
        layer: of a class activation map: a layer with height and width, or whose tokens are the patches of the image.
            None: the last suitable one, see :func:`agnostic.attribution.layers.layer_gradients`.
        steps: of integrated gradients: points on the path, or sections of it.
        samples: noisy copies of ``smoothgrad`` (None: 16), masks of ``rise`` (None: 1,000).
        noise: of ``smoothgrad``: standard deviation as a part of each image's range, above 0.
        window: of ``occlusion``: side of the hidden square in pixels; None: an eighth of the shorter side.
        seed: of noise and masks.
        epsilon: of ``lrp``: what stabilizes a division, above 0.
        gamma: of ``lrp`` and ``lrp_gamma``: how much more positive contributions count, at least 0.
        inputs, image, size, channels_in: as for :func:`prepare`, for models with several inputs or free sizes.
        micro_batch: images, or changed copies of them, that are computed together.
        progress: called with the number of images that were computed.

    Returns:
        The maps, with the target and its probability for each image.

    Raises:
        UnknownName: no such method, class or layer.
        InvalidInput: the model returns no (batch, classes) and ``target`` is not a function; or the layer is not a
            grid.
        NonFinite: the score or its gradient is not finite.

    Example:
        >>> explanation = ag.explain(model, images, target=1)
        >>> explanation
        <Explanation of 2 images by grad_cam at 'relu': class 1, class 1>
        >>> explanation.maps.shape
        (2, 16, 16)
    """
    check_method(method)
    _check(steps, samples, noise, window, micro_batch)
    _check_relevance(epsilon, gamma)
    network, targets = explained_model(
        model, images, target, inputs=inputs, image=image, size=size, channels_in=channels_in, micro_batch=micro_batch
    )
    options = MethodOptions(
        layer=layer, steps=steps, samples=samples, noise=noise, window=window, seed=seed, epsilon=epsilon, gamma=gamma,
        progress=progress,
    )  # fmt: skip
    found = METHODS[method](network, options)
    return Explanation(
        maps=found.maps.astype(np.float32),
        images=network.shown,
        method=method,
        layer=found.layer,
        classes=None if network.target is not None else tuple(map(int, network.classes)),
        labels=targets.labels,
        probabilities=targets.probabilities,
        scores=targets.scores,
    )


def explained_model(
    model: Model,
    images: npt.ArrayLike | str | os.PathLike[str],
    target: ClassName | Sequence[ClassName] | Target | None,
    *,
    inputs: Any = None,
    image: int | str | None = None,
    size: Size | None = None,
    channels_in: int | None = None,
    micro_batch: int = _MICRO_BATCH,
) -> tuple[ExplainedModel, Targets]:
    """A model with the images and targets to explain; the arguments are those of :func:`explain`.

    Returns:
        The model, and what is known of its targets.

    Raises:
        NonFinite: a score is not finite.
    """
    backend = model_backend(model)
    form, call, shown, pixels = model_pixels(
        model, images, inputs=inputs, image=image, size=size, channels_in=channels_in
    )
    function = target if callable(target) else None
    network = ExplainedModel(backend, model, form, call, shown, pixels, micro_batch, function)
    classes, targets = _targets(network, target)
    return dataclasses.replace(network, classes=classes), targets


def _check(steps: Any, samples: Any, noise: Any, window: Any, micro_batch: Any) -> None:
    whole_number("steps", steps, 1)
    whole_number("micro_batch", micro_batch, 1)
    if samples is not None:
        whole_number("samples", samples, 1)
    if window is not None:
        whole_number("window", window, 1)
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not noise > 0:
        raise InvalidInput(f"noise is a fraction of the range of the image, above 0, not {noise!r}")


def _check_relevance(epsilon: Any, gamma: Any) -> None:
    for name, value, fits in (("epsilon", epsilon, "above 0"), ("gamma", gamma, "0 or more")):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not (value > 0 or (value == 0 and name == "gamma")):
            raise InvalidInput(f"{name} is a number, {fits}, not {value!r}")


@dataclasses.dataclass(frozen=True)
class Targets:
    """What is explained of each image.

    Attributes:
        labels: what each target is called.
        probabilities: of the classes; None where the target is a function.
        scores: the numbers that are explained.
    """

    labels: tuple[str, ...]
    probabilities: tuple[float | None, ...]
    scores: tuple[float, ...]


def _targets(network: ExplainedModel, target: Any) -> tuple[npt.NDArray[np.int64], Targets]:
    """The class of each image, and what is explained of it."""
    count = network.count
    if callable(target):
        name = getattr(target, "__name__", type(target).__name__)
        scores = network.scores(network.images, np.arange(count))
        return np.zeros(count, np.int64), Targets((name,) * count, (None,) * count, tuple(map(float, scores)))
    logits, probabilities = network.predictions(network.images, np.arange(count))
    names = _names(network, logits.shape[1])
    if target is None:
        classes = logits.argmax(1)
    else:
        single = isinstance(target, str | int | np.integer)
        wanted = [target] * count if single else list(target)
        if len(wanted) != count:
            raise InvalidInput(
                f"{counted(len(wanted), 'target')} for {counted(count, 'image')}: give one for all, or one for each"
            )
        classes = np.asarray([_number(x, names, logits.shape[1]) for x in wanted], np.int64)
    scores, chosen = (x[np.arange(count), classes] for x in (logits, probabilities))
    labels = tuple(class_label(int(i), names) for i in classes)
    return classes, Targets(labels, tuple(map(float, chosen)), tuple(map(float, finite(scores))))


def _names(network: ExplainedModel, classes: int) -> Sequence[str] | None:
    card = card_of(network.model)
    names = None if card is None else card.class_names
    return names if names is not None and len(names) == classes else None


def _number(target: Any, names: Sequence[str] | None, classes: int) -> int:
    if names is None and isinstance(target, str) and not target.isdecimal():
        raise InvalidInput(f"the model has no class names to find {target!r} by: give the number of the class")
    return class_index(target, names if names is not None else [str(i) for i in range(classes)])
