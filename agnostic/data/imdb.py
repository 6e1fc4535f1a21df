"""The IMDB reviews that ``keras.datasets.imdb`` loads, read without executing anything from the file.

The file stores its ragged reviews as object arrays, for which NumPy has no form but a pickle. A pickle is a program; of
its instructions, those that call something are answered here by two inert stand-ins, so neither NumPy nor any other
code is reached from the file: what comes out is made of lists, tuples, strings and numbers, and is then checked.
"""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from agnostic.checks import whole_number
from agnostic.data.sequences import NDArray, Ragged
from agnostic.errors import InvalidInput
from agnostic.files import open_regular
from agnostic.npy import header, numbers, unpacked
from agnostic.pickles import check_pickle
from agnostic.text import counted

# What a file may unpack to, unless the caller says otherwise: 4 times its size, and 16 MiB in any case. The real one
# has 17 MB and unpacks to twice that.
_FACTOR, _LEAST = 4, 1 << 24

_FEW = 1 << 16

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def load_imdb(
    path: str | Path,
    num_words: int | None = None,
    skip_top: int = 0,
    maxlen: int | None = None,
    seed: int = 113,
    start_char: int | None = 1,
    oov_char: int | None = 2,
    index_from: int | None = 3,
    *,
    limit: int | None = None,
) -> tuple[tuple[NDArray, NDArray], tuple[NDArray, NDArray]]:
    """The reviews and labels of an ``imdb.npz``, as ``keras.datasets.imdb.load_data`` returns them.

    Args:
        path: the file; nothing is downloaded.
        num_words: word indices from this one on become ``oov_char``. None: the largest index that occurs, so that only
            this one becomes ``oov_char``, as in Keras.
        skip_top: word indices below this one become ``oov_char``.
        maxlen: reviews of this length or longer, ``start_char`` included, are dropped.
        seed: of the shuffling, with a private stream.
        start_char: the first index of every review; None: none.
        oov_char: the index for words outside the limits; None: they are dropped.
        index_from: what is added to every word index.
        limit: bytes that a compressed file may unpack to; None: 4 times its size, or 16 MiB. Reading takes about 20
            times as much memory.

    Returns:
        ``(x_train, y_train), (x_test, y_test)``: x is (n,) of lists of integers, y is (n,) of the file's integer type.
        x is 1-D even where all reviews have one length (there, Keras' is 2-D).

    Raises:
        InvalidInput: the file is missing or has another format, contains anything but lists of integers, or no review
            is left.

    Source: behaviour of ``keras.datasets.imdb.load_data``, Keras 3.15.
    """
    seed = whole_number("seed", seed, most=2**32 - 1)
    settings = {"num_words": num_words, "skip_top": skip_top, "maxlen": maxlen, "start_char": start_char}
    for name, number in (settings | {"oov_char": oov_char, "index_from": index_from}).items():
        if number is not None:
            whole_number(name, number, -(2**62), 2**62)
    members = _read(Path(path), limit)
    if start_char is not None and index_from is None:
        raise InvalidInput("start_char needs an integer index_from; give 0 to leave the indices as they are")
    rng = np.random.RandomState(seed)
    parts = []
    for part in ("train", "test"):
        x, y = members[f"x_{part}"], members[f"y_{part}"]
        order = np.arange(len(x))
        rng.shuffle(order)
        parts.append(_prepare([x[i] for i in order], y[order], maxlen, start_char, index_from))
    if maxlen and not all(len(x) for x, _ in parts):
        raise InvalidInput(f"no review is shorter than maxlen {maxlen}; give a larger one")
    if not num_words:
        if any(len(x) == 0 or not x.lengths.all() for x, _ in parts):
            raise InvalidInput("num_words None takes the largest index, and a review is empty; give num_words")
        num_words = max(int(x.values.max()) for x, _ in parts)
    train, test = ((_lists(_limit(x, skip_top, num_words, oov_char)), y) for x, y in parts)
    return train, test


def _prepare(
    reviews: list[Any], labels: NDArray, maxlen: int | None, start_char: int | None, index_from: int | None
) -> tuple[Ragged, NDArray]:
    x = _ragged(reviews)
    values, lengths = x.values + (index_from or 0), x.lengths
    if start_char is not None:
        values = np.insert(values, np.cumsum(lengths) - lengths, start_char)
        lengths = lengths + 1
    if maxlen:
        kept = lengths < maxlen
        values = values[np.repeat(kept, lengths)]
        lengths, labels = lengths[kept], labels[kept]
    return Ragged(values, lengths), labels


def _limit(x: Ragged, skip_top: int, num_words: int, oov_char: int | None) -> Ragged:
    known = (x.values >= skip_top) & (x.values < num_words)
    if oov_char is not None:
        return Ragged(np.where(known, x.values, oov_char), x.lengths)
    counts = np.diff(np.concatenate([[0], np.cumsum(known)])[np.concatenate([[0], np.cumsum(x.lengths)])])
    return Ragged(x.values[known], counts)


def _lists(x: Ragged) -> NDArray:
    out = np.empty(len(x), dtype=object)
    out[:] = [review.tolist() for review in x] or None
    return out


def _ragged(reviews: list[Any]) -> Ragged:
    for review in reviews:
        if type(review) is not list or not set(map(type, review)) <= {int}:
            raise InvalidInput("the reviews of an imdb.npz are lists of integers; this file has something else")
    try:
        return Ragged.from_lists(reviews, "int64")
    except OverflowError:
        raise InvalidInput("a word index in this file does not fit 64 bits; it is not an imdb.npz") from None


# Reading ----------------------------------------------------------------------------------------------------------
def _read(path: Path, limit: int | None) -> dict[str, Any]:
    where = repr(str(path))
    with open_regular(path) as file:
        if limit is None:
            limit = max(_FACTOR * os.fstat(file.fileno()).st_size, _LEAST)
        content = unpacked(file, where, [f"{name}.npy" for name in _ARRAYS], limit)
    members = {name: _array(content[f"{name}.npy"], where) for name in _ARRAYS}
    for part in ("train", "test"):
        x, y = members[f"x_{part}"], members[f"y_{part}"]
        if not isinstance(y, np.ndarray) or y.ndim != 1 or y.dtype.kind not in "biu" or len(y) != len(x):
            raise InvalidInput(f"y_{part} in {where} must be one integer per review ({counted(len(x), 'review')})")
    return members


def _array(data: bytes, where: str) -> Any:
    """An array of numbers, or the list of lists that an object array holds."""
    file = io.BytesIO(data)
    shape, dtype = header(file, where)
    if not dtype.hasobject:
        file.seek(0)
        return numbers(file, len(data), where)
    try:
        _check(data, file.tell())
        content = _Unpickler(file, encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise InvalidInput(f"{where} is refused: {error}") from None
    # A damaged stream makes the unpickler fail in any of these ways.
    except (EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError, OverflowError) as error:
        raise InvalidInput(f"{where} holds a damaged array: {error}") from None
    if not isinstance(content, _Array) or content.items is None or (len(content.items),) != shape:
        raise InvalidInput(f"{where} must have 1-D arrays of lists; it has something else")
    if sum(len(x) for x in content.items if type(x) is list) > len(data):
        raise InvalidInput(f"{where} is refused: its lists have more elements than its bytes can hold")
    return content.items


def _check(data: bytes, start: int) -> None:
    """Refuse a pickle that takes far more memory than the lists of numbers that it should hold."""
    check_pickle(data, start)
    # An empty list takes 56 bytes and one to write; one that picklers write takes 4 at least, with its memo.
    if sum(map(data.count, (b"]", b"(l", b"}", b"(d", b"\x8f"))) * 4 > len(data) + _FEW:
        raise pickle.UnpicklingError("it makes more lists than there can be reviews in it")


class _Dtype:
    """Stands in for ``numpy.dtype``: takes what a pickled dtype says, and is nothing."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


class _Array:
    """Stands in for ``numpy.ndarray`` and its reconstruction: takes the list of elements, and nothing else."""

    items: list[Any] | None = None

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        # NumPy's: version, shape, dtype, Fortran order, elements.
        if type(state) is not tuple or len(state) != 5 or type(state[4]) is not list:
            raise pickle.UnpicklingError("an array in it does not hold a list of objects")
        self.items = state[4]


class _Unpickler(pickle.Unpickler):
    _KNOWN: ClassVar[dict[tuple[str, str], type]] = {
        ("numpy", "dtype"): _Dtype,
        ("numpy", "ndarray"): _Array,
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
    }

    def find_class(self, module: str, name: str) -> type:
        known = self._KNOWN.get((module, name))
        if known is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and an array of lists needs no such thing")
        return known

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to objects outside the file")
