"""Weights of Keras models: read from files without executing code, taken out as NumPy, and put in."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.src.utils import module_utils

from agnostic.errors import InvalidInput, InvalidWeights
from agnostic.files import atomic_path, open_regular, safetensors_as_os_errors
from agnostic.models.attached import card_of
from agnostic.models.cards import card_to_json
from agnostic.models.weight_files import read_arrays
from agnostic.models.weights import check_types, fit
from agnostic.patching import held
from agnostic_keras.archives import check_h5
from agnostic_keras.layers import named_layers
from agnostic_keras.ops import KerasOps

CARD = "agnostic.json"
"""The card of a model in its ``.keras`` file, which is a zip file."""

SUFFIXES = (".safetensors", ".pth", ".pt")


def read_weights(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """See :meth:`agnostic.contracts.weights.Weights.read_weights`.

    Args:
        path: ``.safetensors`` with the names of :func:`weights`; or ``.pth`` and ``.pt``, which are PyTorch's and come
            in PyTorch's names and layout, read without PyTorch.
    """
    if path.name.endswith(".weights.h5"):
        raise InvalidWeights(
            f"{path} numbers its arrays by the model's own structure: give it to the model's load_weights, or to "
            "agnostic.load as weights= of a model with a specification"
        )
    return {name: np.array(x) for name, x in read_arrays(path, SUFFIXES, "Keras").items()}


def load_weights(model: keras.Layer, path: Path, name: str) -> None:
    """See :meth:`agnostic.contracts.weights.Weights.load_weights`."""
    if not path.name.endswith(".weights.h5"):
        fit_weights(model, read_weights(path), path, name)
        return
    with open_regular(path, InvalidWeights) as file:
        check_h5(path, path, os.fstat(file.fileno()).st_size)
    before = [np.array(x) for x in model.get_weights()]
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError, TypeError, RuntimeError) as error:
        model.set_weights(before)  # Keras has set those before the one that failed
        raise InvalidWeights(f"{path} does not fit {name}: {' '.join(str(error).split())[:200]}") from error


def fit_weights(model: keras.Layer, entries: Any, path: Path, name: str) -> None:
    """:func:`set_weights` of what a file holds, which an error names."""
    try:
        set_weights(model, entries)
    except InvalidWeights as error:
        raise InvalidWeights(f"{path} does not fit {name}: {error}") from None


def save(model: keras.Layer, path: Path) -> None:
    """See :mod:`agnostic.contracts.weights`: ``.keras`` is the model and its card, the others are weights."""
    if not path.name.endswith((".keras", ".weights.h5", ".safetensors")):
        raise InvalidInput(f"Keras writes .keras, .weights.h5 and .safetensors, not {path.name!r}")
    with atomic_path(path) as temporary:
        if path.suffix == ".safetensors":
            from safetensors.numpy import save_file

            with safetensors_as_os_errors():
                save_file({name: np.ascontiguousarray(x) for name, x in weights(model).items()}, temporary)
        elif path.suffix == ".keras":
            with _without_tensorflow():
                model.save(temporary)
            if (card := card_of(model)) is not None:
                # Keras reads the entries that it knows by name, and leaves others alone.
                with zipfile.ZipFile(temporary, "a") as file:
                    file.writestr(CARD, json.dumps(card_to_json(card)))
        else:
            _find_room(temporary, sum(x.nbytes + _HDF5_OVERHEAD for x in weights(model).values()))
            model.save_weights(temporary)


@contextlib.contextmanager
def _tensorflow_is_absent() -> Iterator[None]:
    found = module_utils.tensorflow._available
    module_utils.tensorflow._available = False
    try:
        yield
    finally:
        module_utils.tensorflow._available = found


def _without_tensorflow() -> contextlib.AbstractContextManager[None]:
    """Inside, Keras does not import TensorFlow to ask whether a value that it saves is one of TensorFlow's.

    Where nothing has imported TensorFlow, no value is. The import takes seconds, and ends a process in which PyTorch
    has loaded triton.
    """
    if "tensorflow" in sys.modules or not hasattr(module_utils.tensorflow, "_available"):
        return contextlib.nullcontext()
    return held("the TensorFlow of Keras", _tensorflow_is_absent)


_HDF5_OVERHEAD = 4096
"""More bytes than HDF5 needs for the group, the names and the header of one array."""


def _find_room(path: Path, size: int) -> None:
    """Raise the system's error now if a file cannot become so long.

    HDF5 ends the process by a segmentation fault, at its end, where a write to a file has failed.
    """
    if hasattr(os, "posix_fallocate"):
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)


def weights(model: keras.Layer) -> dict[str, np.ndarray[Any, Any]]:
    """See :meth:`agnostic.contracts.weights.Weights.weights`: ``"conv_stem.kernel"``, ``"bn1.moving_mean"``."""
    ops = KerasOps()
    return {name: ops.numpy(variable.value) for name, variable in _variables(model).items()}


def set_weights(model: keras.Layer, values: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """See :meth:`agnostic.contracts.weights.Weights.set_weights`. Nothing is set unless everything fits."""
    variables = _variables(model)
    expected = {name: tuple(v.shape) for name, v in variables.items()}
    pairs = fit(expected, {name: tuple(x.shape) for name, x in values.items()})
    check_types(set(), {name for name, x in values.items() if x.dtype.kind == "c"}, pairs)
    for ours, theirs in pairs.items():
        variables[ours].assign(values[theirs])


def _variables(model: keras.Layer) -> dict[str, keras.Variable]:
    """Every weight and statistic by its layer's name and its own; the states of random generators are none."""
    found: dict[str, keras.Variable] = {}
    for path, layer in {"": model, **named_layers(model)}.items():
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
            name, number = f"{path}.{variable.name}".lstrip("."), 2
            while name in found:
                name, number = f"{path}.{variable.name}#{number}".lstrip("."), number + 1
            found[name] = variable
    return found
