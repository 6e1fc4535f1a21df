"""Augmentation for Keras, jax and tensorflow: iterators that ``model.fit`` takes, a layer, and arrays back.

Frameworks are imported by the functions that need them: whoever has jax alone needs no Keras.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from agnostic.augmentation import Augmentation, Parameters, inputs, iterators
from agnostic.contracts.augmentation import Loading
from agnostic.errors import InvalidInput

_I = TypeVar("_I", bound=iterators.Iterator)


@functools.cache
def dataset_class(cls: type[_I]) -> type[_I]:
    """The iterator class that is a ``keras.utils.PyDataset`` besides, so that ``model.fit`` takes it."""
    import keras

    def initialize(self: Any, *args: Any, **kwargs: Any) -> None:
        cls.__init__(self, *args, **kwargs)
        keras.utils.PyDataset.__init__(self)

    namespace = {"__init__": initialize, "__module__": __name__, "__doc__": cls.__doc__, "__qualname__": cls.__name__}
    return type(cls.__name__, (cls, keras.utils.PyDataset), namespace)


def loading(caller: FrameType) -> Loading | None:
    """None: Keras tells its datasets where an epoch ends, and its worker processes are copies made after that."""
    return None


def __getattr__(name: str) -> Any:
    # Where pickle looks for the classes made above.
    cls = getattr(iterators, name, None)
    if isinstance(cls, type) and issubclass(cls, iterators.Iterator):
        return dataset_class(cls)  # type: ignore[arg-type] # a class is hashable
    if name == "AugmentationLayer":
        return _layer_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _is_tensorflow(images: Any) -> bool:
    return any(cls.__module__.partition(".")[0] == "tensorflow" for cls in type(images).__mro__)


def check_concrete(images: Any) -> None:
    """Raise InvalidInput for what stands for values in a graph and has none yet."""
    if _is_tensorflow(images):
        import tensorflow as tf

        if not tf.executing_eagerly() or not isinstance(images, tf.Tensor | tf.Variable):
            raise InvalidInput(
                "images are symbolic, or no dense tensor: use Augmentation.tensorflow_map in tf.data, keras_layer in a "
                "model"
            )
        return
    import jax

    if not isinstance(images, jax.Array):
        raise InvalidInput(f"images are a jax array, not {type(images).__name__}")
    if isinstance(images, jax.core.Tracer):
        raise InvalidInput(
            "images are traced by jax, and parameters are drawn outside: augment before the jitted function"
        )


def apply(augmentation: Augmentation, images: Any, parameters: Sequence[Parameters], layout: str, filling: str) -> Any:
    """See :meth:`agnostic.contracts.augmentation.Augmentations.apply`."""
    return through_numpy(lambda values: augmentation.apply_numpy(values, parameters, layout, filling), images)


def through_numpy(change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], images: Any) -> Any:
    """A function of NumPy arrays on a jax or tensorflow array; the result is of its framework, on its device."""
    check_concrete(images)
    if _is_tensorflow(images):
        import tensorflow as tf

        with tf.device(images.device):
            return tf.convert_to_tensor(change(images.numpy()))
    import jax

    return jax.device_put(change(np.asarray(images)), images.sharding)


def tensorflow_map(augmentation: Augmentation, seed: int, epoch: int = 0) -> Callable[[Any, Any], Any]:
    """A function ``(index, image) -> image`` for ``tf.data``; see :meth:`Augmentation.tensorflow_map`."""
    import tensorflow as tf

    def change(index: npt.NDArray[Any], image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        result: npt.NDArray[Any] = augmentation(image[None], seed=seed, index=int(index), epoch=epoch)[0]
        return result

    def function(index: Any, image: Any) -> Any:
        result = tf.numpy_function(change, [index, image], image.dtype)
        result.set_shape(image.shape)
        return result

    return function


def _through_engine(change: Callable[[Any, Any], Any], images: Any, first: Any) -> Any:
    """What ``change(images, first)`` returns, also where the engine traces."""
    import keras

    engine = keras.backend.backend()
    if engine == "torch":
        return change(images, first)

    def in_numpy(images: Any, first: Any) -> Any:
        return change(np.asarray(images), first)

    if engine == "tensorflow":
        import tensorflow as tf

        result = tf.numpy_function(in_numpy, [images, first], images.dtype)
        result.set_shape(images.shape)
        return result
    import jax

    return jax.pure_callback(in_numpy, jax.ShapeDtypeStruct(images.shape, images.dtype), images, first)


@functools.cache
def _layer_class() -> Any:
    import keras

    class AugmentationLayer(keras.layers.Layer):
        """Augments batches in training; the number of images seen is one of its variables."""

        def __init__(self, augmentation: Augmentation, seed: int, layout: str | None = None, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            first = keras.config.image_data_format() == "channels_first"
            self.augmentation = augmentation
            self.layout = layout or ("NCHW" if first else "NHWC")
            self._layout_in_doubt = layout is None
            self.seed_of_augmentation = seed
            self.seen = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="seen")

        def build(self, input_shape: Any) -> None:
            # Here, where the sentence reaches the user: inside a compiled step it would come wrapped by the engine.
            shape = [1 if side is None else side for side in input_shape]
            inputs.layout_of("Keras", self.layout, shape, None if self._layout_in_doubt else self.layout)

        def call(self, images: Any, training: bool = False) -> Any:
            if not training:
                return images
            # The variable may change in place: it is counted up after it was read.
            result = _through_engine(self._change, images, self.seen.value)
            self.seen.assign_add(keras.ops.shape(images)[0])
            return result

        def _change(self, images: Any, first: Any) -> Any:
            return self.augmentation(images, seed=self.seed_of_augmentation, index=int(first), layout=self.layout)

        def compute_output_shape(self, input_shape: Any) -> Any:
            return input_shape

        def get_config(self) -> dict[str, Any]:
            import dataclasses

            settings = dataclasses.asdict(self.augmentation)
            return {
                **super().get_config(),
                "augmentation": settings,
                "seed": self.seed_of_augmentation,
                "layout": self.layout,
            }

        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            config = dict(config)
            return cls(augmentation=Augmentation(**config.pop("augmentation")), **config)

    return keras.saving.register_keras_serializable("agnostic")(AugmentationLayer)


def augmentation_layer(augmentation: Augmentation, seed: int, layout: str | None = None) -> Any:
    """A layer for ``keras.Sequential``; see :meth:`Augmentation.keras_layer`."""
    return _layer_class()(augmentation, seed, layout)
