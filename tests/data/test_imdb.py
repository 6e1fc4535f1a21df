"""load_imdb against keras.datasets.imdb on files of the real one's form, and against files that mean harm."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import io
import pickle
import zipfile

import numpy as np
import pytest

from agnostic.data import load_imdb
from agnostic.errors import InvalidInput


def write(path, x_train, x_test, protocol=None):
    """An imdb.npz of these reviews; ``protocol`` is that of the pickles within."""

    def objects(rows):
        out = np.empty(len(rows), object)
        out[:] = rows
        return out

    arrays = {"x_train": objects(x_train), "x_test": objects(x_test)}
    labels = {f"y_{k}": np.arange(len(v), dtype=np.int64) % 2 for k, v in (("train", x_train), ("test", x_test))}
    if protocol is None:
        np.savez(path, **arrays, **labels)
        return path
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", member(pickle.dumps(array, protocol), len(array)))
        for name, array in labels.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{name}.npy", buffer.getvalue())
    return path


def member(stream, length):
    """A .npy of an object array whose pickle is ``stream``."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": (length,)})
    return buffer.getvalue() + stream


@pytest.fixture
def reviews():
    rng = np.random.default_rng(0)
    return [[rng.integers(1, 90, rng.integers(1, 40)).tolist() for _ in range(n)] for n in (60, 41)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_words": 50},
        {"num_words": 50, "skip_top": 7},
        {"num_words": 40, "oov_char": None},
        {"maxlen": 20},
        {"seed": 4, "start_char": None},
        {"start_char": None, "index_from": 0, "oov_char": 9, "num_words": 30},
        {"start_char": None, "index_from": None, "num_words": 30},
        {"start_char": 70, "index_from": -1, "num_words": 60, "skip_top": 2, "maxlen": 30},
        {"num_words": 12, "oov_char": None},
    ],
    ids=str,
)
def test_as_keras(tmp_path, monkeypatch, reviews, options):
    imdb = pytest.importorskip("keras.datasets.imdb")
    monkeypatch.setattr("keras.src.datasets.imdb.get_file", lambda fname, **_: fname)
    path = str(write(tmp_path / "imdb.npz", *reviews))
    expected = imdb.load_data(path=path, **options)
    got = load_imdb(path, **options)
    for (x, y), (x_expected, y_expected) in zip(got, expected, strict=False):
        assert x.dtype == object
        assert x.shape == x_expected.shape
        assert list(x) == list(x_expected)
        assert all(type(word) is int for review in x for word in review)
        np.testing.assert_array_equal(y, y_expected)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol(tmp_path, reviews, protocol):
    # At protocol 2 Python 3 writes bytes as a call of _codecs.encode, which no file made by Python 2 has.
    if protocol == 2:
        with pytest.raises(InvalidInput, match=r"_codecs\.encode"):
            load_imdb(write(tmp_path / "imdb.npz", *reviews, protocol))
        return
    (x, _), _ = load_imdb(write(tmp_path / "imdb.npz", *reviews, protocol))
    assert sorted(map(len, x)) == sorted(len(r) + 1 for r in reviews[0])


def test_a_stream_as_python_2_wrote_it(tmp_path):
    # Protocol 2 with byte strings (SHORT_BINSTRING), and numpy.core, as in the published file.
    stream = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03"
        b"(K\x01K\x02\x85cnumpy\ndtype\nq\x04U\x02O8K\x00K\x01\x87Rq\x05(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb"
        b"\x89](](K\x05K\x06e](K\x07ee" + b"tb."
    )
    assert pickle.loads(stream, encoding="latin1").tolist() == [[5, 6], [7]]
    path = write(tmp_path / "imdb.npz", [[1]], [[2]], 4)
    rewrite(path, "x_train", member(stream, 2))
    rewrite(path, "y_train", npy(np.array([0, 1])))
    (x, _y), _ = load_imdb(path, start_char=None, index_from=0, num_words=100)
    assert sorted(x.tolist()) == [[5, 6], [7]]


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def rewrite(path, name, data):
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    members[f"{name}.npy"] = data
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for n, content in members.items():
            archive.writestr(n, content)


class Touch:
    """Unpickled by pickle, it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("where", ["instead", "element", "label"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_in_a_file_runs(tmp_path, where, protocol):
    trap = tmp_path / "trap"
    path = write(tmp_path / "imdb.npz", [[1], [2]], [[3]])
    array = np.empty(2, object)
    array[:] = [[1], [Touch(trap)]] if where != "instead" else [[1], [2]]
    harm = pickle.dumps(Touch(trap) if where == "instead" else array, protocol)
    pickle.loads(harm)
    assert trap.exists(), "the file does no harm: the test shows nothing"
    trap.unlink()
    rewrite(path, "y_train" if where == "label" else "x_train", member(harm, 2))
    with pytest.raises(InvalidInput, match="refused"):
        load_imdb(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    "stream",
    [
        b"cos\nsystem\n(S'exit 3'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"(S'exit 3'\nios\nsystem\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x06exit 3\x85R.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy\nndarray.tofile\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0cdtype.__init__\x93.",
        b"\x82\x01.",
        b"Pname\n.",
        b"",
        b"garbage",
        b"(l.",
        b"N.",
        b"cnumpy\nndarray\n.",
        b"\x80\x02cnumpy\nndarray\n)\x81.",
        b"cnumpy\nndarray\n(I1000000000\ntR.",
        b"cnumpy\nndarray\n)R}S'items'\nI5\nsb.",
        b"cnumpy\nndarray\n)R(I1\n(I1\ntNI0\nS'raw bytes'\ntb.",
    ],
)
def test_odd_streams_are_refused(tmp_path, stream):
    path = write(tmp_path / "imdb.npz", [[1]], [[3]])
    rewrite(path, "x_train", member(stream, 1))
    with pytest.raises(InvalidInput):
        load_imdb(path)


@pytest.mark.parametrize("row", [["a"], [1.5], [True], [2**70], [[1]], (1,), 5, None, np.array([1])], ids=str)
def test_reviews_are_lists_of_integers(tmp_path, row):
    path = write(tmp_path / "imdb.npz", [[1], row], [[3]])
    with pytest.raises(InvalidInput):
        load_imdb(path)


def test_errors(tmp_path):
    with pytest.raises(InvalidInput, match="there is no such file"):
        load_imdb(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(InvalidInput, match="no readable"):
        load_imdb(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", x=np.arange(3))
    with pytest.raises(InvalidInput, match="no array x_train"):
        load_imdb(tmp_path / "other.npz")
    path = write(tmp_path / "imdb.npz", [[1], [2]], [[3]])
    with pytest.raises(InvalidInput, match="maxlen 1"):
        load_imdb(path, maxlen=1)
    rewrite(path, "y_train", npy(np.arange(5)))
    with pytest.raises(InvalidInput, match="one integer per review"):
        load_imdb(path)


def test_global_random_state_is_left_alone(tmp_path):
    path = write(tmp_path / "imdb.npz", [[1], [2]], [[3]])
    before = np.random.get_state()[1].tolist()
    load_imdb(path)
    assert np.random.get_state()[1].tolist() == before


@pytest.mark.parametrize(
    "options",
    [{"num_words": "a"}, {"maxlen": 1.5}, {"skip_top": "a"}, {"seed": 1.5}, {"oov_char": "a"}, {"start_char": 2**70}],
    ids=str,
)
def test_settings_are_integers(tmp_path, options):
    path = write(tmp_path / "imdb.npz", [[1]], [[3]])
    with pytest.raises(InvalidInput, match=next(iter(options))):
        load_imdb(path, **options)
