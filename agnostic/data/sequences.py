"""Pad sequences of different lengths to one array, as ``keras.utils.pad_sequences`` does, without a Python loop.

Three forms are fast: lists of Python integers, NumPy arrays, and :class:`Ragged`, one array of all values with the
lengths beside it. Everything else (nested lists, strings, floats in lists) is converted sequence by sequence.
"""

from __future__ import annotations

import marshal
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.checks import one_of
from agnostic.contracts.data import DATA, Data
from agnostic.errors import InvalidInput
from agnostic.registry import array_owner, get_backend
from agnostic.text import counted

NDArray = np.ndarray[Any, Any]

# Cells of the output that are worked on at a time: few enough to stay in a core's cache.
_CELLS = 1 << 18

# What marshal writes before the length of a list, of a tuple, and before a 32-bit integer.
_LIST, _TUPLE, _INT = b"[(i"
_RECORD = np.dtype([("kind", "u1"), ("value", "<i4")])


class _Default(str):
    """A dtype that was not chosen."""


_INT32 = _Default("int32")


@dataclass(frozen=True, eq=False, repr=False)
class Ragged(Sequence[Any]):
    """Sequences of different lengths, one after the other in one array.

    Attributes:
        values: (total, ...), an array of NumPy or of a framework.
        lengths: (n,) integers that add up to ``total``.

    Raises:
        InvalidInput: the lengths are not integers, are negative, or do not add up.

    Example:
        >>> ragged = ag.data.Ragged.from_lists([[1, 2, 3], [4]])
        >>> len(ragged), ragged[1].tolist()
        (2, [4])
    """

    values: Any
    lengths: Any

    def __repr__(self) -> str:
        spread = f" of {self.lengths.min()} to {self.lengths.max()}" if len(self.lengths) else ""
        return f"<Ragged: {counted(len(self.lengths), 'sequence')}{spread}, values {display.described(self.values)}>"

    def __post_init__(self) -> None:
        if array_owner(self.values) is None:
            object.__setattr__(self, "values", np.asarray(self.values))
        # An array on another device is not NumPy's to read.
        owner = array_owner(self.lengths)
        lengths = np.asarray(self.lengths if owner is None else get_backend(owner.name).ops.numpy(self.lengths))
        if lengths.ndim != 1 or (lengths.size and lengths.dtype.kind not in "iu"):
            raise InvalidInput(f"lengths must be a 1-D array of integers, not {lengths.ndim}-D of {lengths.dtype}")
        lengths = lengths.astype(np.int64)
        if self.values.ndim == 0:
            raise InvalidInput("values must have at least one dimension, the one that the lengths divide")
        if (lengths < 0).any() or int(lengths.sum()) != len(self.values):
            raise InvalidInput(
                f"lengths must be 0 or more and add up to the {counted(len(self.values), 'value')}; they add up to "
                f"{lengths.sum()}"
            )
        object.__setattr__(self, "lengths", lengths)
        object.__setattr__(self, "_ends", np.cumsum(lengths))

    @classmethod
    def from_lists(cls, sequences: Sequence[Any], dtype: npt.DTypeLike = "int32") -> Ragged:
        """Store lists or arrays end to end.

        Args:
            sequences: lists of numbers, or arrays of equal trailing shape.
            dtype: of the values.

        Returns:
            The sequences, copied.

        Raises:
            InvalidInput: an element is not a number, or does not fit the dtype.
        """
        rows = list(sequences)
        target = np.dtype(dtype)
        lengths = _lengths(rows)
        read = _reader(rows, target, _sample_shape(rows))
        values: NDArray | None = None
        if read is not None:
            values = read([row for row in rows if len(row)])
        if values is None:
            parts = [np.asarray(row, dtype=target) for row in rows if len(row)]
            values = np.concatenate(parts) if parts else np.empty(0, target)
        return cls(values, np.array(lengths, np.int64))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: Any) -> Any:
        """The sequence at ``index``, a view; a slice gives a list of views."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        end = int(self._ends[i])  # type: ignore[attr-defined]
        return self.values[end - int(self.lengths[i]) : end]

    def __iter__(self) -> Iterator[Any]:
        start = 0
        for end in self._ends.tolist():  # type: ignore[attr-defined]
            yield self.values[start:end]
            start = end


def pad_sequences(
    sequences: Any,
    maxlen: int | None = None,
    dtype: Any = _INT32,
    padding: str = "pre",
    truncating: str = "pre",
    value: float | str = 0.0,
) -> Any:
    """Pad or cut sequences to one length.

    Args:
        sequences: n sequences: lists, tuples, arrays, strings, torch tensors, or a :class:`Ragged`. Their elements may
            have a shape, the same in all.
        maxlen: length to cut and pad to; None: the length of the longest sequence.
        dtype: of the result. A string dtype is possible, ``object`` for strings of any length; None: the dtype
            of ``value``. The default drops the fractions of floating-point numbers, with a warning.
        padding: ``"pre"`` or ``"post"``: put ``value`` before or after a sequence that is shorter.
        truncating: ``"pre"`` or ``"post"``: remove from the beginning or the end of a sequence that is longer.
        value: what to pad with.

    Returns:
        (n, maxlen, ...) of ``dtype``: a NumPy array; a torch tensor on the same device if the sequences are tensors.

    Raises:
        InvalidInput: in all cases where Keras raises its own ValueError. An element that ``dtype`` cannot hold raises
            NumPy's error (ValueError, TypeError or OverflowError), as in Keras.

    Source: behaviour of ``keras.utils.pad_sequences``, Keras 3.15.

    Example:
        >>> ag.data.pad_sequences([[1, 2, 3], [4]], maxlen=2)
        array([[2, 3],
               [0, 4]], dtype=int32)
    """
    if not hasattr(sequences, "__len__"):
        raise InvalidInput(
            f"sequences must be a list of sequences, not {type(sequences).__name__}; convert it with list()"
        )
    chosen = not isinstance(dtype, _Default)
    if not chosen:
        dtype = str(dtype)
        rows = [sequences.values] if isinstance(sequences, Ragged) else sequences
        if any(_is_floating(row) for row in rows if hasattr(row, "dtype")):
            _warn_of_fractions()
            chosen = True
    if dtype is None:
        dtype = np.asarray(value).dtype if not isinstance(value, str) else None
    if isinstance(sequences, Ragged):
        if (data := _data_of([sequences.values])) is not None:
            return data.pad_ragged(sequences.values, sequences.lengths, maxlen, dtype, padding, truncating, value)
        return _pad_ragged(sequences, maxlen, dtype, padding, truncating, value)
    rows = list(sequences)
    if rows and (data := _data_of(rows)) is not None:
        return data.pad_rows(rows, maxlen, dtype, padding, truncating, value)

    lengths = np.array(_lengths(rows), np.int64)
    shape = _sample_shape(rows)
    out = _blank(lengths, shape, maxlen, dtype, value)
    if not lengths.any():
        return out
    check_sides(padding, truncating)
    width = out.shape[1]
    read = _reader(rows, out.dtype, shape) if width else None
    if read is None or not _fill(out, rows, lengths, read, padding, truncating):
        _fill_singly(out, rows, shape, padding, truncating)
        # Here, because lists of integers have no need of a look at each element.
        if not chosen and any(map(_is_floating, rows)):
            _warn_of_fractions()
    return out


def _is_floating(row: Any) -> bool:
    name = getattr(row, "dtype", None)
    # A framework's array names its type; to make NumPy of it may cost a copy, or be refused.
    return "float" in str(name) if name is not None else np.asarray(row).dtype.kind == "f"


def _warn_of_fractions() -> None:
    """Warn that floating-point numbers become integers because no dtype was chosen."""
    warnings.warn(
        "floating-point sequences become int32, the default dtype: their fractions are dropped, and gradients "
        "end here; give dtype='float32' to keep them, or dtype='int32' to confirm",
        stacklevel=3,
    )


def check_sides(padding: str, truncating: str) -> None:
    """Raise InvalidInput unless both are ``"pre"`` or ``"post"``."""
    for name, side in (("truncating", truncating), ("padding", padding)):
        one_of(name, side, ("pre", "post"))


def width_of(lengths: NDArray, maxlen: int | None) -> int:
    """The length to pad to.

    Raises:
        InvalidInput: there is no sequence to take it from.
    """
    if maxlen is not None:
        return maxlen
    if not len(lengths):
        raise InvalidInput("there are no sequences: give maxlen")
    return int(lengths.max())


def _blank(lengths: NDArray, shape: tuple[int, ...], maxlen: int | None, dtype: Any, value: Any) -> NDArray:
    width = width_of(lengths, maxlen)
    textual = np.issubdtype(dtype, np.str_) or np.issubdtype(dtype, np.bytes_)
    # Keras takes only the type `object` here, not its name.
    if isinstance(value, str) and dtype is not object and not textual:
        raise InvalidInput(f"value {value!r} is text and dtype is {dtype}; for text of any length give dtype=object")
    size = (len(lengths), width, *shape)
    zero = np.dtype(dtype).kind in "iuf" and isinstance(value, int | float) and value == 0 and np.copysign(1, value) > 0
    # Fresh zeroed pages need no second pass.
    return np.zeros(size, dtype) if zero else np.full(size, value, dtype)


def _data_of(rows: Sequence[Any]) -> Data | None:
    """The data functions of the backend that all of these arrays belong to; None for NumPy's, lists and mixtures."""
    kinds = set(map(type, rows))
    if any(issubclass(kind, np.ndarray | list | tuple | str | bytes) for kind in kinds):
        return None
    owners = {None if (found := array_owner(row)) is None else found.name for row in _one_of_each(rows, kinds)}
    name = owners.pop() if len(owners) == 1 else None
    return None if name is None else get_backend(name)[DATA]


def _one_of_each(rows: Sequence[Any], kinds: set[type]) -> list[Any]:
    return [next(row for row in rows if type(row) is kind) for kind in kinds]


def _lengths(rows: list[Any]) -> list[int]:
    try:
        return list(map(len, rows))
    except TypeError:
        for position, row in enumerate(rows):
            if not hasattr(row, "__len__"):
                raise InvalidInput(
                    f"sequences must be a list of sequences; at position {position} is {row!r} of type "
                    f"{type(row).__name__}, which has no length"
                ) from None
        raise InvalidInput("sequences must be a list of sequences; one of them is 0-dimensional") from None


def _sample_shape(rows: list[Any]) -> tuple[int, ...]:
    """The shape of an element, by the first sequence that has one."""
    for row in rows:
        if len(row):
            return np.asarray(row).shape[1:]
    return ()


# Quick paths ------------------------------------------------------------------------------------------------------
Reader = Callable[[list[Any]], NDArray | None]
"""Takes sequences, none empty, and gives their elements end to end; None where they are not what they seemed."""


def _reader(rows: list[Any], dtype: np.dtype[Any], shape: tuple[int, ...]) -> Reader | None:
    kinds = set(map(type, rows))
    # Numbers of at least 32 bits hold or round every 32-bit integer as Python's own conversion would.
    if kinds <= {list, tuple} and shape == () and (dtype.kind in "iu" or dtype in (np.float32, np.float64)):
        return lambda chunk: _integers(chunk, dtype)
    if kinds == {np.ndarray} and dtype.kind in "biuf":
        full = [row for row in rows if len(row)]
        if {row.dtype.kind for row in full} <= set("biuf") and all(row.shape[1:] == shape for row in full):
            return lambda chunk: np.concatenate(chunk, dtype=dtype, casting="unsafe")
    return None


def _integers(rows: list[Any], dtype: np.dtype[Any]) -> NDArray | None:
    """The elements of lists of Python integers of at most 32 bits, end to end; None if anything else is among them.

    marshal (format 2, which has no back references) writes a list as ``[``, its length in 4 bytes, its elements, and
    an integer as ``i`` and 4 bytes: records of 5 bytes throughout, which NumPy reads at once. Every record's kind is
    checked, from the first on, so nothing else can be taken for integers.
    """
    lengths = list(map(len, rows))
    try:
        data = marshal.dumps(rows, 2)
    except ValueError:
        return None
    heads = np.fromiter(accumulate((n + 1 for n in lengths), initial=0), np.int64, len(lengths) + 1)
    if len(data) != 5 * (1 + int(heads[-1])):
        return None
    records = np.frombuffer(data, _RECORD, offset=5)
    kinds = records["kind"]
    heads = heads[:-1]
    opening = kinds[heads]
    if not ((opening == _LIST) | (opening == _TUPLE)).all():
        return None
    if np.count_nonzero(kinds == _INT) != len(records) - len(rows):
        return None
    keep = np.ones(len(records), bool)
    keep[heads] = False
    values = records["value"][keep]
    if dtype.kind in "iu" and not np.can_cast(values.dtype, dtype) and len(values):
        limits = np.iinfo(dtype)
        if values.min() < limits.min or values.max() > limits.max:
            return None
    return values


def _fill(out: NDArray, rows: list[Any], lengths: NDArray, read: Reader, padding: str, truncating: str) -> bool:
    """Write the sequences into ``out``; False, and ``out`` undefined outside the padding, where ``read`` gives up."""
    width = out.shape[1]
    kept = np.minimum(lengths, width)
    for span in _spans(out):
        chunk = rows[span]
        if (lengths[span] > width).any():
            cut = slice(-width, None) if truncating == "pre" else slice(width)
            chunk = [row if len(row) <= width else row[cut] for row in chunk]
        chunk = [row for row in chunk if len(row)]
        if chunk:
            values = read(chunk)
            if values is None:
                return False
            out[span][_occupied(kept[span], width, padding)] = values
    return True


def _pad_ragged(
    ragged: Ragged, maxlen: int | None, dtype: Any, padding: str, truncating: str, value: float | str
) -> NDArray:
    lengths, values = ragged.lengths, ragged.values
    out = _blank(lengths, values.shape[1:], maxlen, dtype, value)
    if not lengths.any():
        return out
    check_sides(padding, truncating)
    width = out.shape[1]
    if width == 0 or out.dtype.kind not in "biuf" or values.dtype.kind not in "biuf":
        _fill_singly(out, list(ragged), values.shape[1:], padding, truncating)
        return out
    kept = np.minimum(lengths, width)
    ends = np.cumsum(lengths)
    start = 0
    for span in _spans(out):
        end = int(ends[span][-1])
        part = values[start:end]
        over = np.flatnonzero(lengths[span] > width)
        if len(over):
            keep = np.ones(end - start, bool)
            last = ends[span][over] - start
            first = last - lengths[span][over]
            gone = (
                zip(first, last - width, strict=False)
                if truncating == "pre"
                else zip(first + width, last, strict=False)
            )
            for a, b in gone:
                keep[a:b] = False
            part = part[keep]
        out[span][_occupied(kept[span], width, padding)] = part
        start = end
    return out


def _spans(out: NDArray) -> Iterator[slice]:
    step = max(1, _CELLS * len(out) // max(1, out.size))
    for start in range(0, len(out), step):
        yield slice(start, min(start + step, len(out)))


def _occupied(kept: NDArray, width: int, padding: str) -> NDArray:
    """(n, width) of bool: which cells hold a sequence, of which ``kept`` elements remain."""
    # The narrower the numbers, the quicker the comparison.
    kind = "int16" if width < 1 << 15 else "int64"
    columns: NDArray = np.arange(width).astype(kind)
    counts: NDArray = kept.astype(kind)[:, None]
    occupied: NDArray = columns < counts if padding == "post" else columns >= width - counts
    return occupied


def _fill_singly(out: NDArray, rows: list[Any], shape: tuple[int, ...], padding: str, truncating: str) -> None:
    width = out.shape[1]
    for position, row in enumerate(rows):
        if not len(row):
            continue
        part = np.asarray(row[-width:] if truncating == "pre" else row[:width], dtype=out.dtype)
        if part.shape[1:] != shape:
            raise InvalidInput(
                f"the elements of the sequence at position {position} have shape {part.shape[1:]}; those before it "
                f"have {shape}, and one array needs one shape"
            )
        # With maxlen 0, [-0:] keeps everything: Keras fails there, and so must we.
        if len(part) > max(width, 1):
            raise InvalidInput(f"maxlen {width} removes the whole sequence at position {position}; give 1 or more")
        if padding == "post":
            out[position, : len(part)] = part[: max(width, 0)]
        elif len(part):
            out[position, -len(part) :] = part[: max(width, 0)]
