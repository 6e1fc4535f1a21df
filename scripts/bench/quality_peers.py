"""What ``quality.py`` draws by other libraries: one of them in a process of its own, for some classes.

    python scripts/bench/quality_peers.py NAME FILE.npz '{"classes": [1, 2], "steps": 256, "size": 160, "seed": 0}'

The file gets ``images``, (classes, H, W, 3) float32 in [0, 1], and ``seconds`` of processor. The network is the
embedded EfficientNet-Lite0, and takes what the library's own preprocessing gives. All else is the library's default; a
name with ``own`` keeps its number of steps and its size too.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.float32]
Draw = Callable[[int], Images]
"""From the number of a class to its picture."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which the libraries apply
# Library, steps and size of each row; None: those that are given.
ROWS: dict[str, tuple[str, int | None, int | None]] = {
    "torch-lucent": ("torch-lucent", None, None),
    "torch-lucent own": ("torch-lucent", 512, 128),
    "torch-dreams": ("torch-dreams", None, None),
    "torch-dreams own": ("torch-dreams", 120, 256),
    "tf-keras-vis": ("tf-keras-vis", None, None),
    "tf-keras-vis own": ("tf-keras-vis", 200, 224),
}


def network() -> Any:
    """Lite0 for images with ImageNet's mean and deviation."""
    import torch

    import agnostic as ag

    class Lite0(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = ag.load("efficientnet_lite0").requires_grad_(False)
            self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
            self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None])

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            own: torch.Tensor = self.own(((images * self.deviation + self.mean) * 255 - 127) / 128)
            return own

    return Lite0().eval()


def torch_lucent(steps: int, size: int, seed: int, own: bool) -> Draw:
    import torch
    from lucent.optvis import objectives, param, render

    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002, the library draws from it
    model = network()

    def draw(number: int) -> Images:
        drawn = render.render_vis(
            model, objectives.channel("own_classifier", number), lambda: param.image(size), thresholds=(steps,),
            progress=False, show_image=False, fixed_image_size=None if own else size,
        )  # fmt: skip
        found: Images = drawn[-1][0]
        return found

    return draw


def torch_dreams(steps: int, size: int, seed: int, own: bool) -> Draw:
    import random

    import torch
    from torch_dreams import Dreamer

    torch.manual_seed(seed)
    random.seed(seed)
    model = network()
    dreamer = Dreamer(model, quiet=True, device="cpu")

    def draw(number: int) -> Images:
        def loss(outputs: Any) -> Any:
            return -outputs[0].reshape(-1)[number]

        found = dreamer.render([model.own.classifier], width=size, height=size, iters=steps, custom_func=loss)
        return np.asarray(found)

    return draw


def tf_keras_vis(steps: int, size: int, seed: int, own: bool) -> Draw:
    import keras
    import tensorflow as tf
    from tf_keras_vis.activation_maximization import ActivationMaximization

    import agnostic as ag

    keras.utils.set_random_seed(seed)
    lite0 = ag.load("efficientnet_lite0", backend="keras")
    inputs = keras.Input((size, size, 3))
    ascent = ActivationMaximization(keras.Model(inputs, lite0(keras.layers.Rescaling(1 / 128, -127 / 128)(inputs))))

    def draw(number: int) -> Images:
        found = ascent(lambda outputs: outputs[:, number], steps=steps)
        return np.asarray(tf.convert_to_tensor(found))[0] / 255

    return draw


DRAWERS: dict[str, Callable[[int, int, int, bool], Draw]] = {
    "torch-lucent": torch_lucent, "torch-dreams": torch_dreams, "tf-keras-vis": tf_keras_vis,
}  # fmt: skip


def main() -> None:
    name, path, job = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    library, steps, size = ROWS[name]
    draw = DRAWERS[library](steps or job["steps"], size or job["size"], job["seed"], name.endswith("own"))
    start = time.process_time()  # all is imported and loaded
    images = np.stack([np.asarray(draw(number), np.float32) for number in job["classes"]])
    np.savez(path, images=images, seconds=time.process_time() - start)


if __name__ == "__main__":
    main()
