"""Speed of the ascent on one engine of Keras, layer by layer, against the loop of the guides on that engine.

    KERAS_BACKEND=jax .venv/bin/python scripts/bench/ascent_keras.py [--json FILE]

``scripts/bench/ascent.py`` runs it for every engine, a process each, and puts all in one table.

Same work on both sides: VGG16 with random weights, images of 150 x 150 that maximize the mean of one channel of a
convolution each, raw pixels, normalized gradients. The peer is the loop of keras.io's "Visualizing what convnets
learn", written for the engine: the model is cut at the layer, a step is one tf.function or one jitted function, made
once and used for all filters; on PyTorch it is eager; one filter at a time; only the image is differentiated. Rounds of
both are interleaved. Compiling is not in the times of a step; it is reported beside them, as the first call's.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import agnostic as ag
from agnostic.contracts.ascent import ASCENT
from agnostic.files import atomic_path
from agnostic.visualization.ascent import Settings
from agnostic.visualization.verb import Options, prepare

LAYERS = ("block1_conv1", "block2_conv1", "block3_conv1", "block4_conv1")
SIZE = 150
ENGINE = keras.config.backend()


def torch_step(model: keras.Model) -> Callable[[Any, int], Any]:
    """One step, eager: the loss of the truncated model, the gradient of the image alone, normalized."""
    import torch

    def step(image: Any, channel: int) -> Any:
        image = image.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model(image)[..., channel].mean(), image)
        return (image + gradient / (gradient.square().mean().sqrt() + 1e-5)).detach()

    return step


def jax_step(model: keras.Model) -> Callable[[Any, int], Any]:
    """The same, jitted once for all channels."""
    import jax

    @jax.jit
    def step(image: Any, channel: Any) -> Any:
        gradient = jax.grad(lambda image: model(image)[..., channel].mean())(image)
        return image + gradient / (jax.numpy.sqrt(jax.numpy.square(gradient).mean()) + 1e-5)

    return lambda image, channel: jax.block_until_ready(step(image, np.int32(channel)))


def tensorflow_step(model: keras.Model) -> Callable[[Any, int], Any]:
    """The same, one tf.function for all channels."""
    import tensorflow as tf

    @tf.function
    def step(image: Any, channel: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(image)
            loss = tf.reduce_mean(model(image)[..., channel])
        gradient = tape.gradient(loss, image)
        return image + gradient / (tf.sqrt(tf.reduce_mean(tf.square(gradient))) + 1e-5)

    return lambda image, channel: step(image, tf.constant(channel))


STEPS = {"torch": torch_step, "jax": jax_step, "tensorflow": tensorflow_step}


def peer(model: keras.Model, layer: str) -> Callable[[int], None]:
    """The guides' loop: so many steps for one filter, the filters in turn."""
    step = STEPS[ENGINE](keras.Model(model.inputs, model.get_layer(layer).output))
    rng = np.random.default_rng(0)

    def run(steps: int) -> None:
        image = keras.ops.convert_to_tensor(rng.random((1, SIZE, SIZE, 3), np.float32) * 20 + 128)
        for _ in range(steps):
            image = step(image, 3)
        keras.ops.convert_to_numpy(image)

    return run


def ours(model: keras.Model, layer: str, steps: int, rounds: int, dtype: str | None) -> Iterator[int]:
    """One call of ours for as many filters as fill its micro-batches, one a round; yields how many are done."""
    channels = model.get_layer(layer).filters

    def prepared(count: int) -> Any:
        objective = ag.objectives.channel(layer, [i % channels for i in range(count)])
        return prepare(model, objective, Options("classic", SIZE, steps))

    settings = Settings(dtype=dtype)
    # As many filters as the backend itself would take at once, in every round.
    backend, ascent = prepared(channels)
    size = micro_batch(ascent, dtype or chosen(model))
    backend, ascent = prepared(size * rounds)
    for climbed in backend[ASCENT].ascend(model, ascent, settings):
        yield len(climbed.images)


def chosen(model: keras.Model) -> str:
    """The type that the backend takes by default here."""
    name: str = importlib.import_module("agnostic_keras.ascent").choose_dtype(model, ENGINE)
    return name


def micro_batch(ascent: Any, dtype: str) -> int:
    """Images that the backend computes together."""
    size: int = importlib.import_module("agnostic_keras.ascent").choose_micro_batch(ascent, dtype)
    return size


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """Of one call, and what it returned."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps of one round")
    parser.add_argument("--layers", default=",".join(LAYERS), help="names, joined by commas")
    parser.add_argument("--dtypes", default="", help="types of ours, joined by commas; by default what ours chooses")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    model = keras.applications.VGG16(weights=None, input_shape=(SIZE, SIZE, 3), include_top=False)
    dtypes = dict.fromkeys([chosen(model), *filter(None, arguments.dtypes.split(","))])
    version = importlib.import_module(ENGINE).__version__
    print(f"keras {keras.__version__} on {ENGINE} {version}; ours computes in {', '.join(dtypes)}", flush=True)

    rows: dict[str, dict[str, Any]] = {}
    for layer in arguments.layers.split(","):
        loop = peer(model, layer)
        climbs = {x: ours(model, layer, arguments.steps, arguments.rounds + 1, x) for x in dtypes}
        first: dict[str, float] = {"loop": seconds(lambda: loop(arguments.steps))[0]}  # noqa: B023 - called here
        for name, climb in climbs.items():
            first[name] = seconds(lambda: next(climb))[0]  # noqa: B023 - called here
        times: dict[str, list[float]] = {name: [] for name in ("loop", *climbs)}
        sizes = {}
        for _ in range(arguments.rounds):
            times["loop"].append(seconds(lambda: loop(arguments.steps))[0] / arguments.steps * 1e3)  # noqa: B023
            for name, climb in climbs.items():
                spent, sizes[name] = seconds(lambda: next(climb))  # noqa: B023
                times[name].append(spent / (arguments.steps * sizes[name]) * 1e3)
        rows[layer] = {"ms": times, "first_s": first, "micro_batch": sizes}
        line = f"{layer:13s}"
        for name, values in times.items():
            middle = statistics.median(values)
            line += f"   {name} {middle:6.1f} ms ({min(values):.1f}-{max(values):.1f}), first {first[name]:.1f} s"
            if name != "loop":
                line += f", {sizes[name]} at once = {statistics.median(times['loop']) / middle:4.2f}x"
        print(line, flush=True)
    together = {name: math.fsum(statistics.median(row["ms"][name]) for row in rows.values()) for name in times}
    print("together      " + "   ".join(f"{x} {t:.1f} ms = {together['loop'] / t:.2f}x" for x, t in together.items()))
    if arguments.json:
        with atomic_path(arguments.json) as temporary:
            found = {"engine": ENGINE, "keras": keras.__version__, "version": version, "layers": rows}
            temporary.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
