"""One permutation over arrays, lists and what else has rows."""

import numpy as np
import pytest

from agnostic.data import Permuted, Ragged, shuffle
from agnostic.errors import InvalidInput


def test_rows_stay_together_and_all_are_there():
    x = np.arange(100).reshape(50, 2)
    names = [f"name {i}" for i in range(50)]
    a, b, c = shuffle(x, names, tuple(range(50)), seed=1)
    assert isinstance(a, np.ndarray)
    assert isinstance(b, Permuted)
    assert list(b) == [f"name {row[0] // 2}" for row in a]
    assert sorted(c) == list(range(50))
    assert list(c) != list(range(50))


def test_golden_order():
    # numpy.random.default_rng(0).permutation(5), NumPy 2.4.6: an order that changes would break saved positions.
    assert shuffle(np.arange(5), seed=0).tolist() == [2, 4, 3, 0, 1]


def test_seed_decides_and_global_state_does_not_matter():
    a = shuffle(np.arange(30), seed=5)
    np.random.random()
    np.testing.assert_array_equal(a, shuffle(np.arange(30), seed=5))
    assert a.tolist() != shuffle(np.arange(30), seed=6).tolist()


def test_global_state_is_not_changed():
    before = np.random.get_state()[1].tolist()
    shuffle(list(range(9)), seed=0)
    assert np.random.get_state()[1].tolist() == before


def test_views_are_lazy(tmp_path):
    class Counting(list):
        reads = 0

        def __getitem__(self, index):
            Counting.reads += 1
            return super().__getitem__(index)

    view = shuffle(Counting(range(1000)), seed=0)
    assert Counting.reads == 0
    assert view[3] == view[3:5][0]
    assert view[-1] == list(view)[-1]
    path = tmp_path / "x.npy"
    np.save(path, np.arange(12).reshape(6, 2))
    mapped = np.load(path, mmap_mode="r")
    rows, plain = shuffle(mapped, np.arange(6), seed=2)
    assert isinstance(rows, Permuted)
    assert rows[0].tolist() == [2 * plain[0], 2 * plain[0] + 1]
    assert shuffle(Ragged.from_lists([[1], [2, 3]]), seed=0)[0].tolist() in ([1], [2, 3])


@pytest.mark.parametrize(
    ("arrays", "seed", "message"),
    [
        ((), 0, "nothing to shuffle"),
        (([1, 2], [1]), 0, "lengths 2, 1"),
        (([1], 5), 0, "position 1"),
        ((iter([1]),), 0, "iterator"),
        (({1: 2},), 0, "dict"),
        (("abc",), 0, "str"),
        ((np.array(3),), 0, "position 0"),
        (([1],), None, "seed"),
        (([1],), -1, "seed"),
        (([1],), True, "seed"),
    ],
)
def test_errors(arrays, seed, message):
    with pytest.raises(InvalidInput, match=message):
        shuffle(*arrays, seed=seed)
