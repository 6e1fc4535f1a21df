"""Arrays and pickles from strangers: read where they are whole, refused before they take the memory they ask for."""

from __future__ import annotations

import io
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agnostic.compare.processes import read_inputs
from agnostic.data import load_imdb
from agnostic.errors import InvalidInput
from agnostic.npy import read_arrays
from agnostic.pickles import check_pickle

MIB = 1 << 20


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def archive(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def imdb(path: Path, x_train: bytes, shape: tuple[int, ...] = (1,), method: int = zipfile.ZIP_DEFLATED) -> Path:
    labels = io.BytesIO()
    np.save(labels, np.zeros(1, np.int64))
    y = labels.getvalue()
    members = {"x_train.npy": header(shape, "|O") + x_train, "y_train.npy": y, "x_test.npy": y, "y_test.npy": y}
    return archive(path, members, method)


def array_pickle(items: bytes) -> bytes:
    """The pickle of an object array with these elements, by the instructions that make them."""
    start = b"cnumpy.core.multiarray\n_reconstruct\n)R"
    return b"\x80\x02" + start + b"(K\x01K\x01\x85cnumpy\ndtype\n)R\x89](" + items + b"etb."


def peak(function: Callable[[], object]) -> int:
    """Bytes that a function had allocated at most, by NumPy's and Python's count."""
    tracemalloc.start()
    try:
        function()
    finally:
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return size


def refusal(function: Callable[[], object]) -> str:
    with pytest.raises(InvalidInput) as caught:
        function()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_whole_files_are_read(tmp_path: Path) -> None:
    x, y = np.arange(12, dtype=">i2").reshape(3, 4), np.asfortranarray(np.eye(3) * 1j)
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "b.npz", x=x, y=y)
    np.savez_compressed(tmp_path / "c.npz", x=x, y=y)
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.npy"), x)
    for name in ("b.npz", "c.npz"):
        found = read_inputs(tmp_path / name)
        assert list(found) == ["x", "y"]
        np.testing.assert_array_equal(found["x"], x)
        np.testing.assert_array_equal(found["y"], y)


HUGE = (1 << 40, 1 << 30)
FILES: dict[str, Callable[[Path], object]] = {
    "npy, huge shape": lambda path: path.write_bytes(header(HUGE) + bytes(64)),
    "npy, product beyond 64 bits": lambda path: path.write_bytes(header((1 << 62, 4)) + bytes(64)),
    "npy, negative": lambda path: path.write_bytes(header((-1, -4)) + bytes(64)),
    "npy, nothing of a huge side": lambda path: path.write_bytes(header((0, 1 << 70)) + bytes(64)),
    "npy, a side that is True": lambda path: path.write_bytes(header((True,)) + bytes(64)),
    "npy, long header": lambda path: path.write_bytes(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}"),
    "npy, a later format": lambda path: path.write_bytes(b"\x93NUMPY\x09\x00" + header((4,))[8:] + bytes(64)),
    "npy, objects": lambda path: path.write_bytes(header((1,), "|O") + pickle.dumps(1)),
    "npy, elements of no size": lambda path: path.write_bytes(header((1 << 50,), "|V0")),
    "npy, no expression": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x08\x00{'a': ((("),
    "npy, deep expression": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x00\x20" + b"(" * 8192),
    "npz, huge shape": lambda path: archive(path, {"x.npy": header(HUGE)}),
    "npz, damaged": lambda path: path.write_bytes(
        archive(path, {"x.npy": header((9,)) + bytes(range(36))}).read_bytes()[:-30]
    ),
    "neither": lambda path: path.write_text("def make_model(): ..."),
    "empty": lambda path: path.touch(),
    "a named pipe": os.mkfifo,
    "a folder": os.mkdir,
}


@pytest.mark.parametrize("kind", FILES)
def test_arrays_that_are_none_are_one_sentence_and_take_no_memory(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    FILES[kind](path)
    said = []
    assert peak(lambda: said.append(refusal(lambda: read_inputs(path)))) < 4 * MIB
    assert "x.npz" in said[0]
    assert "pickle" not in said[0]  # NumPy's advice is to load it unsafely


def test_what_an_archive_unpacks_to_is_limited_and_the_limit_can_be_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zeros = np.zeros(4 * MIB, np.uint8)
    np.savez_compressed(tmp_path / "a.npz", x=zeros, y=zeros)
    path = tmp_path / "a.npz"
    assert path.stat().st_size < MIB // 8
    said = []
    assert peak(lambda: said.append(refusal(lambda: read_arrays(path, limit=MIB)))) < 6 * MIB
    assert "unpacks to more than 1048576 bytes; if you trust it, give a higher limit" in said[0]
    assert "unpacks to more" in refusal(lambda: read_arrays(path, limit=5 * MIB))  # together, not each
    assert len(read_arrays(path, limit=9 * MIB)["y"]) == 4 * MIB
    monkeypatch.setenv("AGNOSTIC_FILE_MEMORY", str(5 * MIB))
    assert "set the environment variable AGNOSTIC_FILE_MEMORY higher" in refusal(lambda: read_arrays(path))
    monkeypatch.setenv("AGNOSTIC_FILE_MEMORY", str(9 * MIB))
    assert len(read_arrays(path)) == 2
    np.savez(path, x=zeros)  # stored as it is, it is bounded by its own size
    assert len(read_arrays(path, limit=1)["x"]) == 4 * MIB
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):  # a million times smaller than what they hold
        archive(path, {"x.npy": header((4 * MIB,), "|u1") + zeros.tobytes()}, method)
        assert "another method" in refusal(lambda: read_arrays(path))


BOMBS = {
    "an entry of the memo": b"\x80\x02Nr\xff\xff\xff\x3f.",
    "an entry of the memo, in text": b"Np1000000000\n.",
    "a count of 8 bytes": b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b"a.",
    "a frame": b"\x80\x04\x95" + (1 << 40).to_bytes(8, "little") + b"N.",
    "a list in a list, a thousand times each": array_pickle(b"](" + b"K\x01" * 1000 + b"eq\x01" + b"h\x01" * 1000),
    "empty lists": array_pickle(b"]" * MIB),
    "empty sets": array_pickle(b"\x8f" * MIB),
    "no end": b"\x80\x02]",
    "unknown": b"\x80\x02\xff.",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_dataset_that_would_fill_the_memory_is_refused(kind: str, tmp_path: Path) -> None:
    shape = {"empty lists": (MIB,), "empty sets": (MIB,)}.get(kind, (1001,))
    path = imdb(tmp_path / "imdb.npz", BOMBS[kind], shape)
    said = []
    # Read whole, in one piece more, and the lists.
    assert peak(lambda: said.append(refusal(lambda: load_imdb(path)))) < 6 * MIB
    assert "is refused" in said[0]


def test_the_limit_of_a_dataset_can_be_raised(tmp_path: Path) -> None:
    rows = np.empty(2, object)
    rows[:] = [[1] * 9000, [2] * 9000]
    np.savez_compressed(tmp_path / "imdb.npz", x_train=rows, y_train=np.arange(2), x_test=rows, y_test=np.arange(2))
    assert "unpacks to more than 20000 bytes" in refusal(lambda: load_imdb(tmp_path / "imdb.npz", limit=20_000))
    np.savez_compressed(
        tmp_path / "zeros.npz", **dict.fromkeys(("x_train", "y_train", "x_test", "y_test"), np.zeros(9 * MIB, np.uint8))
    )
    assert "unpacks to more than 16777216 bytes" in refusal(lambda: load_imdb(tmp_path / "zeros.npz"))
    (x, _), _ = load_imdb(tmp_path / "imdb.npz", num_words=5)
    assert sorted(map(len, x)) == [9001, 9001]


@pytest.mark.parametrize("make", ["pipe", "folder"])
def test_a_dataset_is_a_regular_file(make: str, tmp_path: Path) -> None:
    path = tmp_path / "imdb.npz"
    os.mkfifo(path) if make == "pipe" else path.mkdir()
    assert "a regular file is expected" in refusal(lambda: load_imdb(path))


def test_a_dataset_without_permission_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:  # permission bits do not stop root
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert "permission denied" in refusal(lambda: load_imdb(tmp_path / "imdb.npz"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=300),
    lambda x: (
        st.lists(x, max_size=4)
        | st.dictionaries(st.text(), x, max_size=3)
        | st.tuples(x, x)
        | st.frozensets(st.integers())
    ),
    max_leaves=20,
)


@given(VALUES, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_whatever_a_pickler_writes_passes(value: object, protocol: int) -> None:
    data = pickle.dumps([value, [value], range(3), bytearray(b"abc")], protocol)
    assert check_pickle(data) == len(data)
    assert check_pickle(b"??" + data + b"more", 2) == len(data) + 2
