"""Tensors in, tensors out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agnostic.data import Ragged, pad_sequences, shuffle
from agnostic.errors import InvalidInput

torch = pytest.importorskip("torch")
sides = st.sampled_from(["pre", "post"])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.integers(-5, 300), max_size=9), min_size=1, max_size=9),
    st.none() | st.integers(1, 9),
    st.sampled_from(["int32", "int64", "float32", "bool"]),
    sides,
    sides,
    st.sampled_from([0.0, 3, 2.5]),
    st.booleans(),
)
def test_as_the_arrays(sequences, maxlen, dtype, padding, truncating, value, ragged):
    arrays = [np.array(s, np.int64) for s in sequences]
    expected = pad_sequences(arrays, maxlen, dtype, padding, truncating, value)
    given = [torch.from_numpy(a) for a in arrays]
    if ragged:
        given = Ragged(torch.cat(given), [len(a) for a in arrays])
    got = pad_sequences(given, maxlen, dtype, padding, truncating, value)
    assert isinstance(got, torch.Tensor)
    assert str(got.dtype) == f"torch.{dtype}"
    np.testing.assert_array_equal(got.numpy(), expected)


@settings(max_examples=200, deadline=None)
@given(
    # bfloat16 holds integers up to 256, and NumPy has no bfloat16: here torch itself does the moving.
    st.lists(st.lists(st.integers(-5, 256), max_size=9), min_size=1, max_size=9),
    st.none() | st.integers(1, 9),
    st.sampled_from(["int32", "float32"]),
    sides,
    sides,
    st.sampled_from([0.0, 3, 2.5]),
    st.booleans(),
)
def test_what_numpy_lacks_as_the_arrays(sequences, maxlen, dtype, padding, truncating, value, ragged):
    expected = pad_sequences([np.array(s, np.int64) for s in sequences], maxlen, dtype, padding, truncating, value)
    given = [torch.tensor(s, dtype=torch.bfloat16) for s in sequences]
    if ragged:
        given = Ragged(torch.cat(given), [len(s) for s in sequences])
    got = pad_sequences(given, maxlen, dtype, padding, truncating, value)
    assert str(got.dtype) == f"torch.{dtype}"
    np.testing.assert_array_equal(got.numpy(), expected)


def test_elements_with_a_shape_and_dtypes_that_numpy_lacks():
    rows = [torch.ones(2, 3, dtype=torch.bfloat16), torch.empty(0), torch.ones(1, 3, dtype=torch.bfloat16)]
    got = pad_sequences(rows, dtype=torch.bfloat16)
    assert got.dtype == torch.bfloat16
    assert got[:, :, 0].tolist() == [[1, 1], [0, 0], [0, 1]]
    assert pad_sequences(rows, dtype=np.float32).dtype == torch.float32
    assert pad_sequences(torch.arange(6).reshape(2, 3), 2).tolist() == [[1, 2], [4, 5]]


def test_gradients_pass():
    row = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    pad_sequences([row, row[:1]], 2, dtype="float32").sum().backward()
    assert row.grad.tolist() == [1, 1, 1]


def test_errors():
    with pytest.raises(InvalidInput, match="position 1"):
        pad_sequences([torch.ones(2, 3), torch.ones(2, 2)])
    with pytest.raises(InvalidInput, match="position 1"):
        pad_sequences([torch.ones(2), torch.tensor(1)])
    with pytest.raises(InvalidInput, match="number"):
        pad_sequences([torch.ones(2)], value="x")
    with pytest.raises(InvalidInput, match="none of torch's"):
        pad_sequences([torch.ones(2)], dtype="U3")
    with pytest.raises(InvalidInput, match="padding is one of pre, post"):
        pad_sequences([torch.ones(2)], padding="no")


def test_shuffle_gives_tensors_the_order_of_arrays():
    x = np.arange(20).reshape(10, 2)
    a, b = shuffle(x, torch.from_numpy(x), seed=3)
    assert isinstance(b, torch.Tensor)
    np.testing.assert_array_equal(a, b.numpy())


def test_a_gradient_that_ends_at_the_default_dtype_is_warned_of():
    row = torch.tensor([1.5, 2.0], requires_grad=True)
    for sequences in ([row], Ragged(row, [2])):
        with pytest.warns(UserWarning, match="gradients end here; give dtype='float32'"):
            assert pad_sequences(sequences).tolist() == [[1, 2]]
    with pytest.warns(UserWarning, match="fractions"):
        pad_sequences([torch.ones(2, dtype=torch.bfloat16)])


@pytest.mark.parametrize(("value", "kind"), [(0, torch.int64), (0.0, torch.float64), (True, torch.bool)])
def test_without_a_dtype_the_value_decides(value, kind):
    rows = [torch.arange(3), torch.arange(2)]
    assert pad_sequences(rows, dtype=None, value=value).dtype == kind
    assert pad_sequences(Ragged(torch.arange(5), [3, 2]), dtype=None, value=value).dtype == kind
