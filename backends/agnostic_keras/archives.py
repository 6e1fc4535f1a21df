"""What is checked in files of Keras before Keras reads them: what they would call, what they hold, and how much."""

from __future__ import annotations

import io
import json
import math
import re
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import keras
import numpy as np

from agnostic.errors import InvalidWeights
from agnostic.files import open_regular
from agnostic.limits import allowance, refusal
from agnostic.text import type_named

_DEEPEST = 200
_LARGEST_CONFIG = 1 << 26

_BASES = (
    keras.Operation, keras.initializers.Initializer, keras.regularizers.Regularizer, keras.constraints.Constraint,
    keras.DTypePolicy, keras.Loss, keras.Metric, keras.Optimizer, keras.random.SeedGenerator, keras.Quantizer,
    keras.quantizers.QuantizationConfig, keras.optimizers.schedules.LearningRateSchedule,
)  # fmt: skip
"""What a configuration may name: objects that compute. Layers and models are operations."""

_PROGRAMS = frozenset({"TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"})
"""Layers that hold a program: a pickle, or a graph in another file."""

_LOOKUPS = frozenset({"StringLookup", "IntegerLookup", "TextVectorization"})
"""Layers whose vocabulary may be the name of a file on this machine, which they read."""

_FUNCTION_MODULES = ("keras.activations", "keras.losses", "keras.metrics")
_OPERATIONS = ("keras.src.ops.nn", "keras.src.ops.numpy", "keras.src.ops.math", "keras.src.ops.image")
_SPECIAL = frozenset({"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"})
_DTYPE = re.compile(r"bool|string|(bfloat|float|u?int|complex)\d{0,3}(_\w{1,16})?")


# Archives ------------------------------------------------------------------------------------------------------------
def check_archive(path: Path, *, trust: bool = False) -> None:
    """Whether a ``.keras`` file may be given to Keras.

    Args:
        trust: let its configuration name anything, and hold code.

    Raises:
        InvalidWeights: it is damaged; its configuration names what is no layer, activation, initializer and so on of
            Keras, or registered in this process; its arrays are damaged; or it asks for more memory than
            :func:`agnostic.limits.allowance` grants.
    """
    with open_regular(path, InvalidWeights) as file:
        size = path.stat().st_size
        if not zipfile.is_zipfile(file):
            raise InvalidWeights(f"{path} is damaged, cut off, or no .keras file: save it again with model.save(...)")
        try:
            with zipfile.ZipFile(file) as archive:
                needed = sum(x.file_size for x in archive.infolist())
                if needed > allowance(size):
                    raise InvalidWeights(refusal(str(path), needed, size))
                config = _config(archive, path)
                if not trust:
                    _check_config(config, path, allowance(size))
                if "model.weights.h5" in archive.namelist():
                    check_h5(io.BytesIO(archive.read("model.weights.h5")), path, size)
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            EOFError,
            RuntimeError,
            KeyError,
            OSError,
            ValueError,
        ) as error:
            if isinstance(error, InvalidWeights):
                raise
            said = " ".join(str(error).split())[:160]
            raise InvalidWeights(f"{path} is damaged or no .keras file ({said}): save it again") from None


def _config(archive: zipfile.ZipFile, path: Path) -> Any:
    if archive.getinfo("config.json").file_size > _LARGEST_CONFIG:
        raise InvalidWeights(
            f"the configuration in {path} is larger than {_LARGEST_CONFIG >> 20} MiB, as no model's is"
        )
    try:
        return json.loads(archive.read("config.json"))
    except RecursionError:
        raise _too_deep(path) from None


def _too_deep(path: Path) -> InvalidWeights:
    return InvalidWeights(f"the configuration in {path} is nested more than {_DEEPEST} deep, as no model's is")


def _check_config(config: Any, path: Path, limit: int) -> None:
    """Every object that Keras would make or call is one of :data:`_BASES`, or was registered by the user."""
    left: list[tuple[Any, int]] = [(config, 0)]
    while left:
        value, depth = left.pop()
        if depth > _DEEPEST:
            raise _too_deep(path)
        if isinstance(value, dict):
            if "class_name" in value and (named := _unknown(value)):
                raise InvalidWeights(
                    f"reading {path} would call {named}, which is no layer, activation or the like of Keras: if you "
                    "trust its author, say trust=True (--trust), or rebuild the model in a file of your own and load "
                    "'file.py:make_model'"
                )
            _check_shape(value, path, limit)
            left += ((x, depth + 1) for x in value.values())
        elif isinstance(value, list):
            left += ((x, depth + 1) for x in value)


def _check_shape(value: dict[str, Any], path: Path, limit: int) -> None:
    shape = value.get("batch_shape")
    if isinstance(shape, list):
        sizes = [x for x in shape if isinstance(x, int)]
        if min(sizes, default=0) < 0 or 4 * math.prod(sizes) > limit:
            raise InvalidWeights(f"the configuration in {path} has inputs of the impossible shape {shape}")


def _unknown(config: dict[str, Any]) -> str | None:
    """The name of what a configuration would make or call, if that is not allowed; as Keras looks it up."""
    name, inner, module = config["class_name"], config.get("config"), config.get("module")
    if not isinstance(name, str):
        return type_named(name)
    if name in _SPECIAL:
        dtype = inner.get("dtype", "bool") if isinstance(inner, dict) else "bool"
        return None if isinstance(dtype, str) and _DTYPE.fullmatch(dtype) else f"an array of type {dtype!r}"
    if name.startswith("__"):
        return "a Lambda layer's code" if name == "__lambda__" else name
    if name == "function":
        return None if _function_allowed(inner, module) else f"{module}.{inner}"
    key = config.get("registered_name", name)
    registered = keras.saving.get_registered_object(key) if isinstance(key, str) else None
    found = registered if registered is not None else _exported(module, name)
    if not (isinstance(found, type) and issubclass(found, _BASES)) or found.__name__ in _PROGRAMS:
        return f"{module}.{name}" if module else name
    if found.__name__ in _LOOKUPS and isinstance(inner, dict) and isinstance(inner.get("vocabulary"), str):
        return f"{name} with the file {inner['vocabulary']!r}"
    return None


def _function_allowed(name: Any, module: Any) -> bool:
    if not isinstance(name, str):
        return False
    if keras.saving.get_registered_object(name) is not None:
        return True
    if module == "keras.ops":
        return str(getattr(getattr(keras.ops, name, None), "__module__", "")) in _OPERATIONS
    if module != "builtins" and module not in _FUNCTION_MODULES:
        return False
    return name not in ("deserialize", "get", "serialize") and any(
        name in vars(sys.modules[x]) and not isinstance(vars(sys.modules[x])[name], type) for x in _FUNCTION_MODULES
    )


def _exported(module: Any, name: str) -> Any:
    """What a module of Keras has under a name; modules that are not loaded are not loaded for it."""
    if not isinstance(module, str) or module.split(".")[0] != "keras":
        return None
    return vars(sys.modules[module]).get(name) if module in sys.modules else None


@contextmanager
def bounded_weights(path: Path) -> Iterator[None]:
    """Let layers have no more weights than the file that they are read from can fill.

    Raises:
        InvalidWeights: in the block, where a layer asks for more than :func:`agnostic.limits.allowance` grants.
    """
    size, add_weight, needed = path.stat().st_size, keras.Layer.add_weight, 0

    def counted(layer: Any, shape: Any = None, *arguments: Any, **options: Any) -> Any:
        nonlocal needed
        lengths = (shape,) if isinstance(shape, int) else tuple(shape or ())
        needed += 4 * math.prod(max(int(n), 0) for n in lengths if n is not None)
        if needed > allowance(size):
            raise InvalidWeights(refusal(str(path), needed, size))
        return add_weight(layer, shape, *arguments, **options)

    keras.Layer.add_weight = counted
    try:
        yield
    finally:
        keras.Layer.add_weight = add_weight


# HDF5 ----------------------------------------------------------------------------------------------------------------
def check_h5(source: Path | BinaryIO, path: Path, size: int) -> None:
    """Whether an HDF5 file with weights may be given to Keras.

    HDF5 has no checksum of the numbers, so a changed bit gives another number; what can be seen is checked.

    Args:
        source: the file.
        path: what it is called.
        size: of the file on disk, in bytes.

    Raises:
        InvalidWeights: it is damaged, points into other files, holds what is no number or not finite, or asks for more
            memory than :func:`agnostic.limits.allowance` grants.
    """
    import h5py

    try:
        with h5py.File(source, "r") as file:
            arrays = list(_datasets(file, path))
            needed = sum(x.size * x.dtype.itemsize for x in arrays)
            if needed > allowance(size):
                raise InvalidWeights(refusal(str(path), needed, size))
            for x in arrays:
                if x.dtype.kind == "f" and not np.isfinite(np.asarray(x[()])).all():
                    raise InvalidWeights(
                        f"{path} is damaged: its array {x.name!r} holds numbers that are not finite; download or copy "
                        "it again"
                    )
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, OverflowError, AttributeError) as error:
        if isinstance(error, InvalidWeights):
            raise
        said = " ".join(str(error).split())[:160]
        raise InvalidWeights(f"{path} is damaged or no HDF5 file ({said}): download or copy it again") from None


def _datasets(file: Any, path: Path) -> Iterator[Any]:
    """All arrays of a file, each once, however its groups are linked."""
    import h5py

    left, seen = [file], set()
    while left:
        group = left.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise InvalidWeights(f"{path} is refused: its entry {name!r} points into another place or file")
            found = group[name]
            place = h5py.h5o.get_info(found.id).addr
            if place in seen:
                continue
            seen.add(place)
            if isinstance(found, h5py.Group):
                left.append(found)
                continue
            if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
                raise InvalidWeights(f"{path} is refused: its entry {name!r} is no array of its own")
            if found.dtype.kind not in "fiubc" and not (found.dtype.kind == "V" and found.dtype.itemsize <= 2):
                raise InvalidWeights(f"{path} is refused: its array {name!r} holds {found.dtype}, which is no number")
            yield found
