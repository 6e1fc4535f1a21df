"""The work that all contestants of ``peers.py`` do, and the process that each of them runs in."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# VGG16's convolutions: name, input and output channels, and how many poolings come before.
CONVOLUTIONS = (
    ("block1_conv1", 3, 64, 0), ("block1_conv2", 64, 64, 0), ("block2_conv1", 64, 128, 1),
    ("block2_conv2", 128, 128, 1), ("block3_conv1", 128, 256, 2), ("block3_conv2", 256, 256, 2),
    ("block3_conv3", 256, 256, 2), ("block4_conv1", 256, 512, 3),
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """So many images of VGG16's channels.

    Attributes:
        recipe: ``"classic"``: raw pixels, normalized gradients; ``"fourier"``: a scaled spectrum in decorrelated
            colours, the model's preprocessing, Adam; the whole image is seen in both.
        layer: a convolution of VGG16, by Keras' name.
        count: channels.
        steps: updates of each image.
        size: pixels of a side.
    """

    recipe: str
    layer: str
    count: int
    steps: int
    size: int

    @property
    def channels(self) -> tuple[int, ...]:
        """Which channels are drawn."""
        most = next(given for name, _, given, _ in CONVOLUTIONS if name == self.layer)
        return tuple(i % most for i in range(self.count))

    @property
    def operations(self) -> float:
        """Floating-point operations that a channel and step need at least: the convolutions below, there and back."""
        total = 0.0
        for name, taken, given, halvings in CONVOLUTIONS:
            if name == self.layer:
                break
            total += 2 * 2 * 9 * taken * given * (self.size // 2**halvings) ** 2
        return total


def ours(model: Callable[[Job], Any], dtype: str | None) -> Callable[[Job], Callable[[], Any]]:
    """``ag.visualize``, all channels in one call: what is measured beside every contestant.

    Args:
        model: makes the network.
        dtype: of the network; None: what agnostic chooses.
    """

    def contestant(job: Job) -> Callable[[], Any]:
        import agnostic as ag
        from agnostic.visualization.robustness import Whole

        network = model(job)
        recipe = ag.recipes.classic() if job.recipe == "classic" else ag.recipes.fourier(views=Whole())
        objective = ag.objectives.channel(job.layer, job.channels)
        return lambda: ag.visualize(network, objective, recipe=recipe, size=job.size, steps=job.steps, dtype=dtype)

    return contestant


def peak(seconds_of_product: Callable[[int], float], side: int = 1024) -> float:
    """Floating-point operations a second of a product of two square matrices, the best of six.

    Args:
        seconds_of_product: the seconds that the product of that side took once.
        side: of the matrices.
    """
    return 2 * side**3 / min(seconds_of_product(side) for _ in range(6))


def serve(contestants: Mapping[str, Callable[[Job], Callable[[], Any]]], peak: Callable[[str], float]) -> None:
    """Answer each line of JSON with one: ``{"run": name, "job": {...}}`` or ``{"peak": type}``.

    A contestant is built when it is first asked for; building is in no time.

    Args:
        contestants: by name.
        peak: operations a second of a matrix product of a type.
    """
    answers, built = os.fdopen(os.dup(1), "w", buffering=1), {}
    os.dup2(2, 1)  # what libraries print must not be taken for an answer
    for line in sys.stdin:
        asked = json.loads(line)
        if "peak" in asked:
            print(json.dumps({"peak": peak(asked["peak"])}), file=answers)
            continue
        key = asked["run"], json.dumps(asked["job"], sort_keys=True)
        if key not in built:
            built[key] = contestants[asked["run"]](Job(**asked["job"]))
        wall, processor = time.perf_counter(), time.process_time()
        built[key]()
        found = {"processor": time.process_time() - processor, "wall": time.perf_counter() - wall}
        found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(found), file=answers)
