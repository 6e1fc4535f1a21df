"""Whether maps say what a model looks at: curves of deletion and insertion, and maps of a model of random weights."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.attribution.maps import blurred
from agnostic.attribution.methods import METHODS, MethodOptions, check_method
from agnostic.attribution.network import ExplainedModel, Target
from agnostic.attribution.verb import ClassName, explained_model
from agnostic.checks import whole_number
from agnostic.contracts.weights import WEIGHTS
from agnostic.models.inputs import Size
from agnostic.registry import Model

Array = npt.NDArray[np.float64]

RANDOM = "random"
"""The row of maps of random numbers, which every method should beat."""

BLIND = 0.5
"""A rank correlation above this says that a map depends on the image more than on the weights."""


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What was measured of one method, in the mean over the images.

    Attributes:
        method: its name, or ``"random"``.
        deletion: mean score while the brightest pixels are hidden, from none to all; low is good.
        insertion: mean score while the brightest pixels appear in a blurred image, from none to all; high is good.
        correlation: rank correlation (Spearman) of the absolute map with that of the model with shuffled weights; near
            0 is good. None for random maps.
        seconds: that the maps took.

    Example:
        >>> judge(model, images, methods=[], target=1, steps=2)[0].method
        'random'
    """

    method: str
    deletion: float
    insertion: float
    correlation: float | None
    seconds: float

    @property
    def blind(self) -> bool:
        """Whether the map hardly depends on the weights.

        Example:
            >>> Judgement("gradient", 0.1, 0.6, 0.9, 1.0).blind
            True
        """
        return self.correlation is not None and self.correlation > BLIND


class Judgements(tuple[Judgement, ...]):
    """Judgements of several methods; ``print`` shows a table.

    Example:
        >>> found = judge(model, images, methods=["gradient"], steps=2)
        >>> [one.method for one in found]
        ['gradient', 'random']
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return display.columns([_TITLES, *map(_cells, self)])

    def _repr_html_(self) -> str:
        return display.table("methods of attribution", _TITLES, [_cells(x) for x in self])


_TITLES = ("method", "deletion (low)", "insertion (high)", "shuffled weights", "seconds")


def _cells(one: Judgement) -> tuple[str, ...]:
    correlation = "-" if one.correlation is None else f"{one.correlation:.2f}" + " (blind)" * one.blind
    return one.method, f"{one.deletion:.3f}", f"{one.insertion:.3f}", correlation, f"{one.seconds:.1f}"


def judge(
    model: Model,
    images: npt.ArrayLike | str | os.PathLike[str],
    *,
    methods: Sequence[str] = ("gradient", "integrated_gradients", "grad_cam", "layer_cam"),
    target: ClassName | Sequence[ClassName] | Target | None = None,
    steps: int = 16,
    samples: int | None = None,
    seed: int = 0,
    inputs: Any = None,
    image: int | str | None = None,
    size: Size | None = None,
    channels_in: int | None = None,
    micro_batch: int = 16,
    progress: Callable[[int], None] | None = None,
) -> Judgements:
    """Measure how well methods of attribution say what a model looks at.

    Deletion and insertion follow the target's probability (the score, where the target is a function) while pixels go
    or come in the order of the map. The weights of the model are shuffled within each array for the third judge, and
    are as before afterwards; other threads must leave the model alone meanwhile.

    Args:
        model, images, target, samples, inputs, image, size, channels_in, micro_batch, progress: as for
            :func:`agnostic.explain`.
        methods: their names.
        steps: of each curve, at least 1.
        seed: of noise, masks, random maps and shuffled weights.

    Returns:
        A judgement of each method, and of random maps.

    Raises:
        UnknownName: no such method.

    Source: Petsiuk, Das, Saenko, "RISE", 2018, section 4.1 (deletion, insertion); Adebayo et al., "Sanity checks for
    saliency maps", 2018, section 4 (randomized weights; all of them at once).

    Example:
        >>> judge(model, images, methods=["gradient"], target=1, steps=2)[0].insertion > 0
        True
    """
    for name in methods:
        check_method(name)
    whole_number("steps", steps, 1)
    network, _ = explained_model(
        model, images, target, inputs=inputs, image=image, size=size, channels_in=channels_in, micro_batch=micro_batch
    )
    options = MethodOptions(samples=samples, seed=seed, progress=progress)
    maps: dict[str, Array] = {}
    seconds: dict[str, float] = {RANDOM: 0.0}
    for name in methods:
        start = time.perf_counter()
        maps[name] = METHODS[name](network, options).maps
        seconds[name] = time.perf_counter() - start
    with _shuffled(network, seed):
        others = {name: METHODS[name](network, options).maps for name in methods}
    maps[RANDOM] = np.random.default_rng(seed).random(network.images.shape[:3])
    found = []
    for name, own in maps.items():
        correlation = _correlation(np.abs(own), np.abs(others[name])) if name in others else None
        deletion, insertion = _curves(network, own, steps)
        found.append(Judgement(name, deletion, insertion, correlation, seconds[name]))
    return Judgements(found)


@contextmanager
def _shuffled(network: ExplainedModel, seed: int) -> Iterator[None]:
    """The numbers of each weight array in another order inside; the model's own afterwards."""
    weights, generator = network.backend[WEIGHTS], np.random.default_rng(seed)
    own = weights.weights(network.model)
    mixed = {name: generator.permutation(x.ravel()).reshape(x.shape) for name, x in own.items()}
    try:
        weights.set_weights(network.model, mixed)
        yield
    finally:
        weights.set_weights(network.model, own)


def _curves(network: ExplainedModel, maps: Array, steps: int) -> tuple[float, float]:
    """The mean of the target's probability along deletion and along insertion."""
    count = network.count
    order = np.argsort(-maps.reshape(count, -1), axis=1, kind="stable")
    flat = network.images.reshape(count, order.shape[1], -1)
    hazy = blurred(network.images, min(network.size) / 20).reshape(flat.shape)
    shown = np.rint(np.linspace(0, order.shape[1], steps + 1)).astype(int)
    areas = []
    for start, end in ((flat, np.zeros_like(flat)), (hazy, flat)):
        curve = []
        for most in shown:
            rows = start.copy()
            for i in range(count):
                rows[i, order[i, :most]] = end[i, order[i, :most]]
            curve.append(_chances(network, rows.reshape(network.images.shape)).mean())
        # The trapezoidal rule.
        areas.append(float((sum(curve) - (curve[0] + curve[-1]) / 2) / steps))
    return areas[0], areas[1]


def _chances(network: ExplainedModel, rows: npt.NDArray[np.float32]) -> Array:
    """(N,): the probability of each image's class, or the score of the user's function."""
    owners = np.arange(network.count)
    if network.target is not None:
        return network.scores(rows, owners)
    chances: Array = network.predictions(rows, owners)[1][owners, network.classes]
    return chances


def _correlation(a: Array, b: Array) -> float:
    """The mean over images of the rank correlation of two maps; 0 where one of them is constant."""
    found = []
    for x, y in zip(a, b, strict=True):
        ranks = [_ranks(z.ravel()) for z in (x, y)]
        constant = any(np.ptp(r) == 0 for r in ranks)
        found.append(0.0 if constant else float(np.corrcoef(ranks[0], ranks[1])[0, 1]))
    return float(np.mean(found))


def _ranks(x: Array) -> Array:
    """The place of each number in their order; equal ones share the mean of their places."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + last - 1) / 2)[inverse.ravel()]
