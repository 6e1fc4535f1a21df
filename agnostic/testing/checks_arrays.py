"""Checks of what computes with arrays: operations, gradients, data, augmentation; and of texts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from agnostic.augmentation import Augmentation
from agnostic.contracts.augmentation import AUGMENTATION
from agnostic.contracts.data import DATA
from agnostic.contracts.doctor import DOCTOR
from agnostic.contracts.fixes import FIXES
from agnostic.contracts.gradients import GRADIENTS
from agnostic.contracts.ops import OPS
from agnostic.data import Ragged, pad_sequences, shuffle
from agnostic.errors import InvalidInput
from agnostic.gradients import gradients, jacobian, per_sample
from agnostic.reference.ops import NumpyOps
from agnostic.registry import array_owner, capability
from agnostic.testing import operations
from agnostic.testing.subject import Subject, require


def operations_equal_the_reference(subject: Subject) -> None:
    """Every operation of ``ops`` in float32."""
    reference = dict(operations.results(NumpyOps()))
    for name, result in operations.results(subject.owner.ops):
        right = reference[name]
        require(result.shape == right.shape, OPS, "ops_for", f"{name} has shape {result.shape}, not {right.shape}")
        same = np.isfinite(right) == np.isfinite(result)
        error = np.abs(result.astype(np.float64) - right.astype(np.float64))[np.isfinite(right)].max(initial=0.0)
        most = operations.tolerance(right)
        require(same.all() and error <= most, OPS, "ops_for", f"{name} errs by {error:.1e}, allowed {most:.1e}")
    engine, engines = subject.owner[OPS].engine(), subject.owner.registration.engines or (subject.backend,)
    require(engine in engines, OPS, "engine", f"{engine!r} is none of {', '.join(engines)}")


def derivatives_are_right(subject: Subject) -> None:
    """``pullback``, ``per_sample`` and ``jacobian`` on polynomials, whose derivatives are exact in float32."""
    ops = subject.owner.ops
    x, y = ops.asarray(np.array([1, 2, 3], np.float32)), ops.asarray(np.array([4, 5, 6], np.float32))
    found = gradients(lambda x, y: [x * x * y, y], [x, y])
    for name, g, right in (("x", found[0], [8, 20, 36]), ("y", found[1], [2, 5, 10])):
        same = np.array_equal(ops.numpy(g), np.array(right, np.float32))
        require(same, GRADIENTS, "pullback", f"the gradient for {name} of x * x * y + y is {ops.numpy(g)}, not {right}")
    free = gradients(lambda x, y: x, [x, y], unconnected="none")[1]
    require(free is None, GRADIENTS, "pullback", "an input that no output depends on has a gradient")
    rows = ops.numpy(per_sample(lambda x, row: x * row, x, ops.stack([x, y])))
    same = np.array_equal(rows, np.array([[1, 2, 3], [4, 5, 6]], np.float32))
    require(same, GRADIENTS, "per_sample", f"of x * row, the gradients are {rows.tolist()}")
    square = ops.numpy(jacobian(lambda x: x * x, x))
    require(np.array_equal(square, np.diag([2, 4, 6])), GRADIENTS, "jacobian", f"of x * x, it is {square.tolist()}")


def rows_keep_their_framework(subject: Subject) -> None:
    """``take`` gives rows in order, as native arrays."""
    ops, x = subject.owner.ops, np.arange(12, dtype=np.float32).reshape(6, 2)
    own = ops.asarray(x)
    moved = shuffle(own, seed=3)
    require(array_owner(moved) == array_owner(own), DATA, "take", f"it made {type(moved).__name__} of a native array")
    require(np.array_equal(ops.numpy(moved), shuffle(x, seed=3)), DATA, "take", "the rows are in another order")


def sequences_are_padded(subject: Subject) -> None:
    """``pad_rows`` and ``pad_ragged`` give the numbers that NumPy's arrays are padded to."""
    ops, rows = subject.owner.ops, [np.arange(n, dtype=np.int32) + 1 for n in (3, 1, 5)]
    for options in ({}, {"maxlen": 2}, {"maxlen": 4, "padding": "post", "truncating": "post", "value": 7}):
        right = pad_sequences(rows, **options)
        padded = pad_sequences([ops.asarray(row) for row in rows], **options)
        require(np.array_equal(_plain(subject, padded), right), DATA, "pad_rows", f"{options}: the numbers differ")
        ragged = Ragged(ops.asarray(np.concatenate(rows)), np.array([3, 1, 5]))
        padded = pad_sequences(ragged, **options)
        require(np.array_equal(_plain(subject, padded), right), DATA, "pad_ragged", f"{options}: the numbers differ")


def _plain(subject: Subject, x: Any) -> Any:
    return x if isinstance(x, np.ndarray) else subject.owner.ops.numpy(x)


def images_are_resized(subject: Subject) -> None:
    """``resize`` keeps a plain image plain, and the mean of a smooth one."""
    data, ramp = subject.owner[DATA], np.linspace(0, 255, 16).astype(np.uint8)
    image = np.stack([np.tile(ramp, (12, 1)), np.full((12, 16), 9, np.uint8), np.tile(ramp[:12, None], 16)], axis=-1)
    for interpolation in ("bilinear", "bicubic"):
        small = data.resize(image.copy(), (6, 8), interpolation)
        require(small.shape == (6, 8, 3), DATA, "resize", f"{image.shape} became {small.shape}, not (6, 8, 3)")
        require(small.dtype == np.uint8, DATA, "resize", f"it made {small.dtype} of uint8")
        require((small[..., 1] == 9).all(), DATA, "resize", "an image of one value changes it")
        # Two pixels become one: a ramp keeps its mean, but for what is rounded to whole numbers.
        apart = np.abs(small.mean((0, 1)) - image.mean((0, 1))).max()
        require(apart <= 1, DATA, "resize", f"the mean moves by {apart:.2f} of 255")


def transforms_are_checked(subject: Subject) -> None:
    """``check_transform`` accepts a module, whose ``transform_image`` is then repeatable, or raises InvalidInput."""
    data, model = subject.owner[DATA], subject.model()
    try:
        data.check_transform(model)
    except InvalidInput:
        return


def augmented_as_numpy(subject: Subject) -> None:
    """``apply`` moves pixels as NumPy's arrays are moved; the array stays one of the framework."""
    ops, chosen = subject.owner.ops, Augmentation(rotation=(-30, 30), horizontal_flip=0.5, brightness=(0.9, 1.1))
    pixels = subject.pixels()
    right = chosen(pixels, seed=1)
    own = ops.asarray(pixels)
    # Where a backend computes by another framework, the arrays are that one's.
    capability(own, AUGMENTATION).check_concrete(own)
    moved = chosen(own, seed=1, layout="NHWC")
    native = array_owner(moved) == array_owner(own)
    require(native, AUGMENTATION, "apply", f"it made {type(moved).__name__} of a native array")
    # Both interpolate at positions in float64 or float32 between pixels in [0, 1] that are at most 1.1 apart.
    apart = float(np.abs(ops.numpy(moved) - right).max())
    require(apart < 1e-3, AUGMENTATION, "apply", f"a pixel differs from NumPy's by {apart:.1e}")


def loaders_are_heard(subject: Subject) -> None:
    """``loading`` says nothing where no data loader asks; ``dataset_class`` gives a subclass."""
    from agnostic.augmentation.iterators import Iterator

    backend = subject.owner[AUGMENTATION]
    require(backend.loading(sys._getframe()) is None, AUGMENTATION, "loading", "a loader is said to ask for a batch")
    own = backend.dataset_class(Iterator)
    require(issubclass(own, Iterator), AUGMENTATION, "dataset_class", f"{own} is no subclass of the iterator")


def the_doctor_is_told(subject: Subject) -> None:
    """``packages`` has the one that is required."""
    names = [package.name for package in subject.owner[DOCTOR].packages()]
    required = subject.owner.registration.requires
    require(required in names, DOCTOR, "packages", f"{required!r} is not among {', '.join(names)}")
    require(len(set(names)) == len(names), DOCTOR, "packages", "a package is there twice")


def fixes_are_code(subject: Subject) -> None:
    """What is given to fix a model is code, or None."""
    fixes = subject.owner[FIXES]
    found = {
        "setting": fixes.setting("block.norm", "BatchNorm", "batch_norm", "epsilon", 1e-5),
        "weight": fixes.weight("parameter", "block.norm.weight", "p.flip(0)"),
        "copied": fixes.copied(("buffer", "mean"), ("parameter", "weight")),
        "reading": fixes.reading("other", "parameter", "block.norm.weight"),
        "writing": fixes.writing("parameter", "block.norm.weight", "array"),
    }
    for name, code in found.items():
        if code is not None:
            try:
                compile(code, name, "exec")
            except SyntaxError as error:
                require(False, FIXES, name, f"{code!r} is no code: {error}")


CHECKS: Mapping[str, Sequence[Callable[[Subject], None]]] = {
    "ops": (operations_equal_the_reference,),
    "gradients": (derivatives_are_right,),
    "data": (rows_keep_their_framework, sequences_are_padded, images_are_resized, transforms_are_checked),
    "augmentation": (augmented_as_numpy, loaders_are_heard),
    "doctor": (the_doctor_is_told,),
    "fixes": (fixes_are_code,),
}
