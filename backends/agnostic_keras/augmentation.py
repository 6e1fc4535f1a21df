"""Augmentation for Keras: iterators that ``model.fit`` takes, and a layer."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import keras

from agnostic.augmentation import iterators

_I = TypeVar("_I", bound=iterators.Iterator)


@functools.cache
def dataset_class(cls: type[_I]) -> type[_I]:
    """The iterator class that is a ``keras.utils.PyDataset`` besides, so that ``model.fit`` takes it."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        cls.__init__(self, *args, **kwargs)
        keras.utils.PyDataset.__init__(self)

    namespace = {"__init__": __init__, "__module__": __name__, "__doc__": cls.__doc__, "__qualname__": cls.__name__}
    return type(cls.__name__, (cls, keras.utils.PyDataset), namespace)


def __getattr__(name: str) -> Any:
    # Where pickle looks for the classes made above.
    cls = getattr(iterators, name, None)
    if isinstance(cls, type) and issubclass(cls, iterators.Iterator):
        return dataset_class(cls)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
