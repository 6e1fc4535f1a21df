"""Every public function of ``keras.ops`` is read from a functional graph and ported to torch, or refused here by name.

Each is called once on small arrays, all of them in one model, whose outputs bear their names. A function that is not
named here, as one of a later Keras, is called by its signature.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

import agnostic as ag
from agnostic.program.evaluate import run

Function = Callable[..., Any]
TORCH = keras.config.backend() == "torch"
LIMIT = 36 * 100 * 2.0**-24
SEGMENTS = np.array([0, 0, 1, 2, 1])


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype("float32")


def square(x: Any) -> Any:
    """A matrix for each image, symmetric and positive, whose eigenvalues lie apart."""
    return ops.matmul(x[:, :4], ops.transpose(x[:, :4], (0, 2, 1))) / 6 + np.diag(np.arange(1.0, 5)).astype("float32")


def whole(x: Any) -> Any:
    """Integers from 1 to 9."""
    return ops.cast(ops.abs(ops.tanh(x)) * 8 + 1, "int32")


def gaps(x: Any) -> Any:
    """Numbers of which some are none, and at least one of each column is."""
    return ops.where(ops.logical_and(x > 0.5, np.arange(5)[:, None] > 0), np.nan, x)


def heads(x: Any) -> Any:
    return ops.reshape(x, (-1, 5, 2, 3))


def each(names: str, call: Callable[..., Any]) -> dict[str, Function]:
    """The same call of several functions."""
    return {name: lambda x, name=name: call(getattr(ops, name), x) for name in names.split()}


CASES: Mapping[str, Function] = {
    # Where a function has a domain.
    **each("arccos arcsin arctanh erfinv", lambda f, x: f(ops.tanh(x) * 0.9)),
    **each("arccosh log log10 log1p log2 rsqrt sqrt reciprocal cbrt", lambda f, x: f(ops.abs(x) + 1.5)),
    **each("cholesky cholesky_inverse det inv logdet lu_factor", lambda f, x: f(square(x))),
    # An eigenvector has no sign of its own.
    "eigh": lambda x: (ops.eigh(square(x))[0], ops.abs(ops.eigh(square(x))[1])),
    "slogdet": lambda x: ops.slogdet(square(x)[0]), "trace": lambda x: ops.trace(x, axis1=1, axis2=2),
    "matrix_rank": lambda x: ops.matrix_rank(ops.concatenate([x, x], axis=1)), "corrcoef": lambda x: ops.corrcoef(x[0]),
    **each("solve solve_triangular", lambda f, x: f(ops.tril(square(x)), x[:, :4], **(
        {"lower": True} if f is ops.solve_triangular else {}))),
    **each("bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift left_shift right_shift gcd lcm",
           lambda f, x: f(whole(x), whole(ops.flip(x, 1)) % 4 + 1)),
    **each("bitwise_invert bitwise_not", lambda f, x: f(whole(x))),
    **each("logical_and logical_or logical_xor", lambda f, x: f(x > 0, x < 0.5)),
    **each("nanargmax nanargmin nancumprod nancumsum nanmax nanmean nanmedian nanmin nanprod nanstd nansum nanvar",
           lambda f, x: f(gaps(x), axis=1)),
    "nanquantile": lambda x: (ops.nanquantile(gaps(x), 0.3, axis=1), ops.nanquantile(gaps(x), [0.2, 0.7], axis=(1, 2))),
    "nanpercentile": lambda x: ops.nanpercentile(gaps(x), 30.0, axis=1, method="nearest", keepdims=True),
    "nan_to_num": lambda x: ops.nan_to_num(gaps(x) / 0.0),
    **each("isnan isinf isfinite isposinf isneginf", lambda f, x: f(gaps(x) / ops.relu(x))),
    # Where its parameters have no defaults.
    **each("quantile percentile", lambda f, x: (f(x, 0.3, axis=1), f(gaps(x), 0.0, axis=1))),
    **each("segment_sum segment_max segment_min segment_prod", lambda f, x: f(x[0], SEGMENTS, 3)),
    **each("concatenate stack hstack vstack dstack", lambda f, x: f([x, x * 2])),
    "split": lambda x: ops.split(x, [2, 3], axis=1), "array_split": lambda x: ops.array_split(x, 2, axis=1),
    "hsplit": lambda x: ops.hsplit(x, [2, 3]),
    "vsplit": lambda x: ops.vsplit(x[0], [2]), "dsplit": lambda x: ops.dsplit(x, 3),
    **each("linspace logspace", lambda f, x: f(x[:, 0], x[:, 1], 4)),
    "geomspace": lambda x: ops.geomspace(ops.abs(x[:, 0]) + 1, ops.abs(x[:, 1]) + 1, 4),
    **each("max_pool average_pool", lambda f, x: f(x, 2)),
    **each("adaptive_average_pool adaptive_max_pool", lambda f, x: f(x, (2,))),
    "conv": lambda x: ops.conv(x, numbers(3, 6, 4), 2, "same"),
    "depthwise_conv": lambda x: ops.depthwise_conv(x, numbers(3, 6, 2)),
    "separable_conv": lambda x: ops.separable_conv(x, numbers(3, 6, 2), numbers(1, 12, 4)),
    "batch_normalization": lambda x: ops.batch_normalization(x, np.ones(6, "float32"), np.full(6, 2, "float32"), -1),
    "layer_normalization": lambda x: ops.layer_normalization(x), "moments": lambda x: ops.moments(x, [1]),
    "dot_product_attention": lambda x: ops.dot_product_attention(heads(x), heads(x * 2), heads(x - 1), is_causal=True),
    "binary_crossentropy": lambda x: ops.binary_crossentropy(ops.sigmoid(x * 2), ops.sigmoid(x)),
    "categorical_crossentropy": lambda x: ops.categorical_crossentropy(ops.softmax(x * 2), ops.softmax(x)),
    "sparse_categorical_crossentropy": lambda x: ops.sparse_categorical_crossentropy(
        whole(x[..., 0]) % 6, x, from_logits=True),
    "one_hot": lambda x: ops.one_hot(whole(x[..., 0]), 9), "multi_hot": lambda x: ops.multi_hot(whole(x[..., 0]), 9),
    "threshold": lambda x: ops.threshold(x, 0.2, -1.0), "clip": lambda x: ops.clip(x, -0.5, 0.5),
    "psnr": lambda x: ops.psnr(x, x * 2, 3.0), "polar": lambda x: ops.view_as_real(ops.polar(ops.abs(x), x)),
    **each("angle real imag conj conjugate isreal", lambda f, x: ops.cast(f(ops.view_as_complex(x[..., :2]))
           if f not in (ops.conj, ops.conjugate) else ops.real(f(ops.view_as_complex(x[..., :2]))), "float32")),
    "ctc_decode": lambda x: [ops.ctc_decode(x, np.array([5, 3]), merge_repeated=merge) for merge in (True, False)],
    "empty_like": lambda x: ops.zeros_like(ops.empty_like(x)),
    "view_as_complex": lambda x: ops.view_as_real(ops.view_as_complex(x[..., :2]) * 2),
    "view_as_real": lambda x: ops.view_as_real(ops.view_as_complex(x[..., 2:4])),
    **each("fft fft2 ifft2", lambda f, x: f((x, x * 2))),
    "irfft": lambda x: ops.irfft(ops.rfft(x)), "stft": lambda x: ops.stft(ops.reshape(x, (-1, 30)), 8, 4, 16),
    "istft": lambda x: (ops.istft(ops.stft(ops.reshape(x, (-1, 30)), 8, 4, 8), 8, 4, 8),
                        ops.istft(ops.stft(ops.reshape(x, (-1, 30)), 6, 3, 8), 6, 3, 8, length=20)),
    "extract_sequences": lambda x: ops.extract_sequences(x, 3, 2),
    "cdist": lambda x: ops.cdist(x, x[:, :3] * 2), "cross": lambda x: ops.cross(x[..., :3], x[..., 3:]),
    "dot": lambda x: ops.dot(x, ops.transpose(x[0])), "tensordot": lambda x: ops.tensordot(x, x[0], [[2], [1]]),
    "matmul": lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))),
    "einsum": lambda x: ops.einsum("bij,bkj->bik", x, x),
    "kron": lambda x: ops.kron(x[0], x[1, :2]), "outer": lambda x: ops.outer(x[0, 0], x[0, 1]),
    "inner": lambda x: ops.inner(x, x[0]), "vdot": lambda x: ops.vdot(x[0, 0], x[1, 0]),
    "correlate": lambda x: [ops.correlate(x[0, 0], x[0, 1, :4], mode) for mode in ("valid", "same", "full")],
    "qr": lambda x: (*ops.qr(x), *ops.qr(x, mode="complete")),
    "svd": lambda x: (*ops.svd(x, full_matrices=False), ops.svd(x, compute_uv=False)),
    "lstsq": lambda x: (ops.lstsq(ops.transpose(x[0]), x[1, 0]), ops.lstsq(ops.transpose(x[0]), ops.transpose(x[1]))),
    "norm": lambda x: [ops.norm(x, order, axes) for order, axes in (
        (None, None), (2, (1, 2)), ("nuc", (1, 2)), ("fro", (1, 2)), (1, (1, 2)), (-1, (1, 2)), (np.inf, (1, 2)),
        (-np.inf, (1, 2)), (-2, (1, 2)), (3, 1), (0, 1), (np.inf, 1))],
    "normalize": lambda x: (ops.normalize(x), ops.normalize(x, axis=1, order=1), ops.normalize(x, order=3)),
    "nextafter": lambda x: ops.nextafter(x, x + 1),
    "take": lambda x: ops.take(x, [2, 0], axis=1), "get_item": lambda x: ops.get_item(x, (slice(None), 1)),
    "take_along_axis": lambda x: ops.take_along_axis(x, whole(x) % 5, axis=1), "top_k": lambda x: ops.top_k(x, 2),
    "in_top_k": lambda x: ops.in_top_k(whole(x[:, 0, 0]) % 6, x[:, 0], 2),
    "isin": lambda x: ops.isin(whole(x), np.array([1, 3])), "searchsorted": lambda x: ops.searchsorted(
        np.array([-1.0, 0.0, 1.0], "float32"), x[0, 0]),
    "digitize": lambda x: ops.digitize(x, np.array([-1.0, 0.0, 1.0])), "where": lambda x: ops.where(x > 0, x, 0.5),
    "select": lambda x: ops.select([x > 1, x > 0], [x, x * 2], 5.0),
    "unravel_index": lambda x: ops.unravel_index(whole(x), (5, 6)),
    "slice": lambda x: ops.slice(x, (0, 1, 2), (2, 3, 2)),
    "slice_update": lambda x: ops.slice_update(x, (0, 1, 2), x[:, :3, :2] * 9),
    "scatter": lambda x: ops.scatter(np.array([[0], [2], [0], [1], [2]]), x[0, :, 0], (4,)),
    "scatter_update": lambda x: ops.scatter_update(x[0], [[1, 2], [0, 3]], [5.0, 7.0]),
    "pad": lambda x: [ops.pad(x, ((0, 0), (1, 2), (0, 1)), mode) for mode in (
        "constant", "reflect", "symmetric", *(("edge", "wrap") if not TORCH else ()))],
    **each("reshape", lambda f, x: f(x, (-1, 6, 5))), "broadcast_to": lambda x: ops.broadcast_to(x[:, :1], (2, 4, 6)),
    "expand_dims": lambda x: ops.expand_dims(x, 1), "squeeze": lambda x: ops.squeeze(x[:, :1], 1),
    "moveaxis": lambda x: ops.moveaxis(x, 1, 2), "swapaxes": lambda x: ops.swapaxes(x, 1, 2),
    "repeat": lambda x: ops.repeat(x, 2, axis=1), "tile": lambda x: ops.tile(x, (1, 2, 3)),
    "roll": lambda x: ops.roll(x, 2, axis=1), "rot90": lambda x: ops.rot90(x, 1, (1, 2)),
    "depth_to_space": lambda x: ops.depth_to_space(ops.reshape(x, (-1, 3, 2, 5))[..., :4], 2),
    "space_to_depth": lambda x: ops.space_to_depth(ops.reshape(x, (-1, 2, 2, 15)), 2),
    "unfold": lambda x: ops.unfold(ops.reshape(x, (-1, 2, 3, 5)), 2),
    "fold": lambda x: ops.fold(ops.unfold(ops.reshape(x, (-1, 2, 3, 5)), 2, stride=1), (3, 5), 2),
    "rearrange": lambda x: ops.rearrange(x, "b t (h c) -> b h t c", h=2), "vander": lambda x: ops.vander(x[0, 0], 4),
    "diag": lambda x: ops.diag(x[0, 0], 1), "meshgrid": lambda x: ops.meshgrid(x[0, 0], x[0, 1]),
    "cast": lambda x: ops.cast(x, "int32"), "saturate_cast": lambda x: ops.saturate_cast(x * 200, "uint8"),
    "full_like": lambda x: ops.full_like(x, 2.0),
    "trapezoid": lambda x: ops.trapezoid(x, dx=0.5), "ldexp": lambda x: ops.ldexp(x, whole(x)),
    "heaviside": lambda x: ops.heaviside(x, ops.ones_like(x) / 2), "power": lambda x: ops.power(ops.abs(x), 1.5),
    # Functions of functions.
    "map": lambda x: ops.map(lambda y: y * 2, x), "vectorized_map": lambda x: ops.vectorized_map(ops.sum, x),
    "scan": lambda x: ops.scan(lambda c, y: (c + y, c * y), x[:, 0], ops.transpose(x, (1, 0, 2))),
    "associative_scan": lambda x: (ops.associative_scan(ops.add, x, axis=1),
                                   ops.associative_scan(ops.multiply, x, reverse=True, axis=1)),
    "fori_loop": lambda x: ops.fori_loop(0, 3, lambda i, y: y * 2 + i, x),
    "while_loop": lambda x: ops.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * 2),
                                            (ops.convert_to_tensor(0), x))[1],
    "cond": kl.Lambda(lambda x: ops.cond(ops.sum(x) > 0, lambda: x, lambda: x * 2)),
    "switch": lambda x: ops.switch(whole(x[0, 0, 0]) % 2, [lambda y: y * 2, lambda y: y - 1], x),
    # Constants, which a graph takes as they are.
    **{name: partial(lambda x, name, args: x + ops.sum(ops.cast(getattr(ops, name)(*args), "float32")), name=name,
                     args=args)
       for name, args in {"arange": (4,), "bartlett": (4,), "blackman": (4,), "hamming": (4,), "hanning": (4,),
                          "kaiser": (4, 2.0), "eye": (3,), "identity": (3,), "tri": (3,), "zeros": ((2,),),
                          "ones": ((2,),), "full": ((2,), 3.0)}.items()},
    "empty": lambda x: x + 0 * ops.cast(ops.shape(ops.empty((2,)))[0], "float32"),
    "shape": lambda x: x * ops.shape(x)[1], "ndim": lambda x: x * len(ops.ndim(x).shape),
    "dtype": lambda x: ops.cast(x, ops.dtype(x)), "is_tensor": lambda x: x * int(ops.is_tensor(x)),
    "convert_to_tensor": lambda x: ops.convert_to_tensor(x), "size": lambda x: ops.size(x),
    "unstack": lambda x: ops.unstack(x, axis=1), "average": lambda x: ops.average(x, -1, np.arange(1.0, 7)),
}  # fmt: skip

REFUSED: Mapping[str, tuple[Function, str]] = {
    "argpartition": (lambda x: ops.argpartition(x, 2), "order of most places"),
    "bincount": (lambda x: ops.bincount(whole(x[0, 0])), "a shape that depends on the data"),
    "ctc_loss": (lambda x: ops.ctc_loss(whole(x[..., 0]) % 5, x, np.array([2, 3]), np.array([5, 5])), "is a loss"),
    "eig": (lambda x: ops.eig(square(x)), "complex numbers"),
    "nonzero": (ops.nonzero, "a shape that depends on the data"),
    "unique": (ops.unique, "a shape that depends on the data"),
    "view": (lambda x: ops.view(x, "int32"), "the bits of a number"),
}
"""With the reason that the error gives."""

NO_GRAPH = {
    "convert_to_numpy": "needs numbers",
    "conv_transpose": "exchanges two of its arguments when a graph runs it (Keras 3.15)",
    "custom_gradient": "makes a function, whose forward is read",
    "jvp": "differentiates a function, and takes no symbolic tensors",
    "histogram": "is called under a name that its engine torch lacks (Keras 3.15)",
    "vectorize": "makes a function that takes no symbolic tensors on every engine",
}
"""What Keras itself has in no functional graph that runs."""


def called(name: str, x: Any) -> list[Any]:
    """What a function gives for these arrays, or what its signature suggests."""
    function = getattr(ops, name)
    parameters = inspect.signature(function).parameters.values()
    needed = sum(p.default is p.empty and p.kind is not p.VAR_POSITIONAL for p in parameters)
    guessed = {1: function, 2: lambda x: function(x, ops.flip(x, 1) * 2)}
    return [y for y in keras.tree.flatten(CASES.get(name, guessed.get(needed))(x)) if isinstance(y, keras.KerasTensor)]


def names() -> list[str]:
    public = [name for name in dir(ops) if inspect.isfunction(getattr(ops, name)) and not name.startswith("_")]
    return [name for name in public if name not in NO_GRAPH and name not in REFUSED]


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """One model with an output, or several, for each function."""
    if not TORCH:
        pytest.skip("a graph of everything is slow on the other engines, which test_port.py runs by samples")
    x = keras.Input(batch_shape=(2, 5, 6), name="x")
    return keras.Model(x, {name: called(name, x) for name in names()})


def test_every_function_is_read_and_ported(model: keras.Model) -> None:
    given = numbers(2, 5, 6)
    want = keras.tree.map_structure(ops.convert_to_numpy, model(given))
    ported = ag.port(model, "torch", given, check=False)
    laid = ported.report.draft.laid
    found = ported.model(ops.convert_to_tensor(np.ascontiguousarray(given.transpose(laid.inputs["x"]))))
    exact = run(ag.program(model, given), {"x": given}, {})
    wrong = []
    for name, arrays in want.items():
        for place, right in enumerate(arrays):
            path = f"{name}.{place}"
            moved = right.transpose(laid.outputs[path])
            for x, y in ((np.asarray(found[name][place].detach()), moved), (np.asarray(exact[path]), right)):
                # Sums of 36 products at most, in matrices whose condition is below 100.
                if x.shape != y.shape or not np.allclose(x, y, rtol=0, atol=LIMIT * spread(y), equal_nan=True):
                    wrong.append(path)
    assert not wrong
    assert len(want) > 280


def spread(x: np.ndarray) -> float:
    """The largest number, at least 1."""
    finite = np.abs(x[np.isfinite(x)]) if x.dtype.kind == "f" else np.abs(x)
    return max(1.0, float(finite.max(initial=0)))


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named_with_its_reason(name: str) -> None:
    call, reason = REFUSED[name]
    x = keras.Input(batch_shape=(2, 5, 6), name="x")
    outputs = [y for y in keras.tree.flatten(call(x)) if isinstance(y, keras.KerasTensor)]
    with pytest.raises(ag.InvalidInput, match=reason):
        ag.port(keras.Model(x, outputs), "torch", numbers(2, 5, 6))
