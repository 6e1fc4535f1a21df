"""pad_sequences against the installed Keras: the same arrays and the same refusals."""

import os
import warnings

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agnostic.data import Ragged, pad_sequences
from agnostic.errors import InvalidInput

keras_utils = pytest.importorskip("keras.utils")
theirs = keras_utils.pad_sequences


def outcome(function, *args, **kwargs):
    """What a call gives: an array, or the kind of error."""
    try:
        return function(*args, **kwargs)
    except (ValueError, TypeError, OverflowError) as error:
        # InvalidInput is a ValueError; a subclass counts as its base.
        return next(k for k in (OverflowError, TypeError, ValueError) if isinstance(error, k))


def assert_same(*args, **kwargs):
    expected, got = outcome(theirs, *args, **kwargs), outcome(pad_sequences, *args, **kwargs)
    if isinstance(expected, type):
        assert got is expected
        return
    assert isinstance(got, np.ndarray), got
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got, expected)


integers = st.integers(-(2**31), 2**31 - 1) | st.integers(0, 100)
element = integers | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(-1e6, 1e6) | st.just("7") | st.just("x")
row = (
    st.lists(integers, max_size=7)
    | st.lists(integers, max_size=7).map(tuple)
    | st.lists(integers, max_size=7).map(lambda x: np.array(x, np.int64))
    | st.lists(st.floats(-1e3, 1e3), max_size=7).map(np.array)
)
sides = st.sampled_from(["pre", "post"])
dtypes = st.sampled_from(["int32", "int64", "uint8", "int8", "uint32", "float32", "float64", "float16", "bool", object])


@settings(max_examples=600, deadline=None)
@given(
    st.one_of(
        st.lists(st.lists(integers, max_size=7), max_size=6),
        st.lists(st.lists(integers, max_size=7).map(lambda x: np.array(x, np.int64)), max_size=6),
        st.lists(row, max_size=6),
        st.lists(st.lists(element, max_size=4), max_size=5),
    ),
    st.none() | st.integers(0, 9),
    dtypes,
    sides,
    sides,
    st.sampled_from([0.0, -0.0, 0, 1, -1, 2.5, "pad", float("inf"), 300]),
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_as_keras(sequences, maxlen, dtype, padding, truncating, value):
    assert_same(sequences, maxlen, dtype, padding, truncating, value)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.integers(-5, 300), max_size=9), max_size=9),
    st.none() | st.integers(1, 9),
    st.sampled_from(["int32", "uint16", "float32", "bool", object]),
    sides,
    sides,
    st.sampled_from([0.0, 3]),
)
def test_ragged_is_the_lists(sequences, maxlen, dtype, padding, truncating, value):
    arrays = [np.array(s, np.int64) for s in sequences]
    ragged = Ragged(np.concatenate([np.empty(0, np.int64), *arrays]), [len(s) for s in sequences])
    expected = outcome(theirs, arrays, maxlen, dtype, padding, truncating, value)
    got = outcome(pad_sequences, ragged, maxlen, dtype, padding, truncating, value)
    if isinstance(expected, type):
        assert got is expected
    else:
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("storage", ["lists", "arrays", "ragged"])
@pytest.mark.parametrize("truncating", ["pre", "post"])
def test_more_than_one_chunk(storage, truncating):
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 900, 3000)
    arrays = np.split(rng.integers(0, 10_000, lengths.sum()), np.cumsum(lengths)[:-1])
    lists = [a.tolist() for a in arrays]
    given = {"lists": lists, "arrays": arrays, "ragged": Ragged(np.concatenate(arrays), lengths)}[storage]
    got = pad_sequences(given, 500, truncating=truncating)
    np.testing.assert_array_equal(got, theirs(lists, 500, truncating=truncating))


@pytest.mark.parametrize(
    ("sequences", "options"),
    [
        ([["a", "bb"], ["ccc"]], {"dtype": object, "value": "pad"}),
        ([["a", "bb"], ["ccc"]], {"dtype": "<U3", "value": "pad"}),
        ([["a", "bb"], ["ccc"]], {"dtype": "U2", "value": "xyz"}),
        ([[b"a"], [b"bb", b"c"]], {"dtype": "S2", "value": ""}),
        ([["a", "bb"], ["ccc"]], {"value": "pad"}),
        ([["a", "bb"], ["ccc"]], {"dtype": "object", "value": "pad"}),
        ([["a"], ["b", "c"]], {}),
        (["abc", "de"], {"dtype": object}),
        ([[[1, 2], [3, 4]], [[5, 6]], []], {}),
        ([[[1, 2], [3, 4]], [[5, 6]]], {"maxlen": 1, "value": -1}),
        ([[[1, 2]], [[1, 2, 3]]], {}),
        ([[1, 2], [[1, 2]]], {}),
        ([np.ones((2, 3)), np.empty(0), np.ones((1, 3))], {"dtype": "float32"}),
        ([np.ones((2, 3)), np.ones((1, 2))], {"dtype": "float32"}),
        ([[1], 2], {}),
        (7, {}),
        ((x for x in ([1], [2])), {}),
        ([], {}),
        ([], {"maxlen": 3}),
        ([[], []], {}),
        ([[], []], {"padding": "no", "truncating": "no"}),
        ([[1]], {"padding": "no"}),
        ([[1]], {"truncating": "no"}),
        ([[1, 2]], {"maxlen": -1}),
        ([[1, 2]], {"maxlen": 2.0}),
        ([[2**40]], {}),
        ([[2**40, 1]], {"maxlen": 1}),
        ([[300]], {"dtype": "uint8"}),
        ([np.array([300])], {"dtype": "uint8"}),
        ([[True, False], [True]], {}),
        ([[np.int64(3)], [4]], {}),
        ([[1.9, 2], [3]], {}),
        (np.arange(6).reshape(2, 3), {"maxlen": 2}),
        (np.array([[1, 2], [3]], dtype=object), {}),
        ({1: 2}, {}),
        ([{1: 2}], {}),
        ([range(3), range(1)], {}),
        ([b"ab", b"c"], {}),
        ([np.array(["1", "2"])], {}),
        ([np.array([1, 2]), [3]], {}),
        ([np.array([1 + 2j])], {"dtype": "complex64"}),
        ([(1, 2), [3]], {}),
    ],
    ids=lambda x: str(x).partition(" at 0x")[0][:40],
)
def test_edges_as_keras(sequences, options):
    assert_same(sequences, **options)


def test_marshalled_lookalikes_are_not_taken_for_integers():
    # The first five take five bytes, as an integer does; the others more or fewer.
    for odd in ([], (), "", b"", set(), np.int64(5), 1.0, 2**40, None, "i\x01\x00\x00\x00", [5], (5,)):
        assert_same([[1, 2], [3, odd]])


def test_errors_say_what_to_do():
    with pytest.raises(InvalidInput, match="padding is one of pre, post, not 'pst'; did you mean 'post'"):
        pad_sequences([[1]], padding="pst")
    with pytest.raises(InvalidInput, match="position 1"):
        pad_sequences([[1], 2])
    with pytest.raises(InvalidInput, match="add up to the 3 values"):
        Ragged(np.arange(3), [1, 1])
    with pytest.raises(InvalidInput, match="integers"):
        Ragged(np.arange(3), [1.5, 1.5])
    with pytest.raises(InvalidInput, match="0 or more"):
        Ragged(np.arange(1), [-1, 2])


def test_ragged_reads_as_a_sequence():
    ragged = Ragged.from_lists([[1, 2], [], [3]])
    assert [x.tolist() for x in ragged] == [[1, 2], [], [3]]
    assert ragged[-1].tolist() == [3]
    assert [x.tolist() for x in ragged[:2]] == [[1, 2], []]
    assert ragged.values.dtype == np.int32
    with pytest.raises(IndexError):
        ragged[3]
    assert Ragged.from_lists([[0.5], [1, 2]], "float32").values.tolist() == [0.5, 1, 2]


def test_a_huge_maxlen_needs_no_square_of_memory():
    assert pad_sequences([[1], [2]], maxlen=1_000_000)[:, -1].tolist() == [1, 2]


@pytest.mark.parametrize("value", [0, 7, -1, 0.0, 1.5, True], ids=repr)
@pytest.mark.parametrize("rows", [[[1, 2, 3], [4]], [np.arange(3), np.arange(1)], [[], [1]]], ids=str)
def test_without_a_dtype_the_value_decides_as_in_keras(rows, value):
    expected = keras_utils.pad_sequences(rows, dtype=None, value=value)
    stored = Ragged.from_lists(rows, "int64")
    for sequences in (rows, stored):
        got = pad_sequences(sequences, dtype=None, value=value)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "rows",
    [
        [[1.5, 2.0], [3.0]],
        [[], [2.5]],
        [[1, 2], [3, 4.5]],
        [[np.float32(1.5)]],
        [[[1.5, 2.0]]],
        [np.array([1.5])],
        np.ones((2, 3)),
        Ragged(np.ones(3), [1, 2]),
    ],
    ids=["lists", "an empty list first", "one late", "NumPy's numbers", "nested", "arrays", "an array", "ragged"],
)
def test_fractions_are_cut_off_with_a_warning_unless_a_dtype_is_chosen(rows):
    with pytest.warns(UserWarning, match="give dtype='float32' to keep them") as warned:
        cut = pad_sequences(rows)
    assert len(warned) == 1
    assert cut.dtype == np.int32
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(pad_sequences(rows, dtype="int32"), cut)
        assert pad_sequences(rows, dtype="float32").dtype == np.float32
        pad_sequences([[1, 2], [3]])
