"""What ``peers.py`` measures on Keras' engines jax and tensorflow: see ``peers_torch.py``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from peers_job import Job, ours, peak, serve

ENGINE = keras.config.backend()
if ENGINE == "tensorflow":
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

Contestant = Callable[[Job], Callable[[], Any]]


def network(job: Job) -> keras.Model:
    """VGG16 with random weights, without its head."""
    keras.utils.set_random_seed(0)
    return keras.applications.VGG16(weights=None, input_shape=(job.size, job.size, 3), include_top=False)


def _step(model: keras.Model) -> Callable[[Any, Any], Any]:
    """One step of the guides' loop for any number of images, compiled by the engine: images, channels -> images."""
    if ENGINE == "jax":
        import jax
        from jax import numpy as jnp

        @jax.jit
        def stepped(images: Any, channels: Any) -> Any:
            def score(images: Any) -> Any:
                return model(images)[jnp.arange(images.shape[0]), :, :, channels].mean((1, 2)).sum()

            gradient = jax.grad(score)(images)
            return images + gradient / (jnp.sqrt(jnp.square(gradient).mean((1, 2, 3), keepdims=True)) + 1e-5)

        return stepped

    @tf.function
    def step(images: Any, channels: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            score = tf.reduce_mean(tf.gather(model(images), channels, axis=3, batch_dims=1), (1, 2))
        gradient = tape.gradient(score, images)
        return images + gradient / (tf.sqrt(tf.reduce_mean(tf.square(gradient), (1, 2, 3), keepdims=True)) + 1e-5)

    return step


def guide_loop(batch: bool) -> Contestant:
    """The loop of keras.io: the network cut at the layer, a compiled step; one channel at a time, or all at once."""

    def contestant(job: Job) -> Callable[[], Any]:
        model = network(job)
        step = _step(keras.Model(model.inputs, model.get_layer(job.layer).output))
        rng = np.random.default_rng(0)

        def run() -> None:
            for channels in [job.channels] if batch else [(c,) for c in job.channels]:
                pixels = rng.random((len(channels), job.size, job.size, 3), np.float32) * 20 + 128
                images = keras.ops.convert_to_tensor(pixels)
                wanted = keras.ops.convert_to_tensor(np.array(channels, np.int32))
                for _ in range(job.steps):
                    images = step(images, wanted)
                keras.ops.convert_to_numpy(images)

        return run

    return contestant


def tf_keras_vis(batch: bool) -> Contestant:
    def contestant(job: Job) -> Callable[[], Any]:
        from tf_keras_vis.activation_maximization import ActivationMaximization

        model = network(job)
        cut = keras.Model(model.inputs, model.get_layer(job.layer).output)
        ascent, rng = ActivationMaximization(cut), np.random.default_rng(0)

        def normalized(gradient: Any) -> Any:
            rms = tf.sqrt(tf.reduce_mean(tf.square(gradient), (1, 2, 3), keepdims=True))
            return gradient / (rms + 1e-5)

        def run() -> None:
            for channels in [job.channels] if batch else [(c,) for c in job.channels]:

                def score(output: Any, channels: tuple[int, ...] = channels) -> Any:
                    return [tf.reduce_mean(output[i, :, :, c]) for i, c in enumerate(channels)]

                pixels = rng.random((len(channels), job.size, job.size, 3), np.float32) * 20 + 128
                ascent(
                    score, seed_input=pixels, steps=job.steps, input_modifiers=[], regularizers=[],
                    optimizer=keras.optimizers.SGD(1.0), gradient_modifier=normalized,
                )  # fmt: skip

        return run

    return contestant


def xplique(job: Job) -> Callable[[], Any]:
    from xplique.features_visualizations import Objective, optimize

    model = network(job)

    def run() -> None:
        objective = Objective.channel(model, job.layer, list(job.channels))
        optimize(
            objective, keras.optimizers.Adam(0.05), nb_steps=job.steps, transformations=None,
            custom_shape=(job.size, job.size),
        )  # fmt: skip

    return run


def seconds_of_product(dtype: str) -> Callable[[int], float]:
    """Processor seconds of a matrix product on this engine."""

    def seconds(side: int) -> float:
        a, b = (keras.ops.cast(np.random.default_rng(i).random((side, side)), dtype) for i in (0, 1))
        start = time.process_time()
        keras.ops.convert_to_numpy(keras.ops.cast(keras.ops.matmul(a, b)[0, 0], "float32"))
        return time.process_time() - start

    return seconds


CONTESTANTS: dict[str, Contestant] = {
    "ours float32": ours(network, "float32"),
    "ours default": ours(network, None),
    "keras.io loop": guide_loop(False),
    "batch loop": guide_loop(True),
    "tf-keras-vis": tf_keras_vis(False),
    "tf-keras-vis batch": tf_keras_vis(True),
    "xplique batch": xplique,
}

if __name__ == "__main__":
    serve(CONTESTANTS, lambda dtype: peak(seconds_of_product(dtype)))
