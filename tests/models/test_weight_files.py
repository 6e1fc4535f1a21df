"""Weight files of strangers: every type is read exactly or refused, and none takes more memory than its size allows."""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from agnostic.errors import InvalidInput, InvalidWeights
from agnostic.limits import VARIABLE, allowance
from agnostic.models.weight_files import read_arrays
from agnostic_torch.pth import read_checkpoint
from agnostic_torch.weights import read_state, set_weights, weights
from tests.waiting import HANG

SUFFIXES = (".safetensors", ".pth")
TYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool, torch.complex64, torch.float8_e4m3fn,
    torch.float8_e5m2,
]  # fmt: skip


def _bits(dtype: torch.dtype) -> torch.Tensor:
    """All 8-bit patterns, or some numbers of a type."""
    if dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        return torch.arange(256, dtype=torch.uint8).view(dtype)
    if dtype == torch.complex64:
        return torch.randn(6, 4, dtype=dtype)
    return (torch.arange(24).reshape(6, 4) * 3 % 7).to(dtype)


def _exact(x: torch.Tensor) -> np.ndarray[Any, Any]:
    return (x.float() if x.dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2) else x).numpy()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_type_is_read_exactly(suffix: str, tmp_path: Path) -> None:
    state = {str(dtype): _bits(dtype) for dtype in TYPES}
    path = tmp_path / f"a{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    read = read_arrays(path, SUFFIXES, "PyTorch")
    assert read.keys() == state.keys()
    for name, x in state.items():
        np.testing.assert_array_equal(read[name], _exact(x), err_msg=name)
    tensors = read_state(path)
    assert tensors["torch.complex64"].dtype == torch.complex64
    tensors["torch.float32"].zero_()  # on memory of its own
    assert read_state(path)["torch.float32"].sum() == state["torch.float32"].sum()


def test_views_of_a_storage_are_read_as_they_are(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "turned": base.T, "part": base[1:3, ::2], "expanded": base[:1].expand(5, 6), "empty": base[:0],
        "conj": torch.complex(base, base + 1).conj(), "neg": torch.complex(base, base + 1).conj().imag,
        "scalar": base[2, 3],
    }  # fmt: skip
    torch.save(state, tmp_path / "a.pth")
    read = read_checkpoint(tmp_path / "a.pth")
    for name, x in state.items():
        np.testing.assert_array_equal(read[name], x.resolve_conj().resolve_neg().numpy(), err_msg=name)


def _refused(path: Path) -> str:
    with pytest.raises(InvalidWeights) as caught:
        read_state(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_imaginary_part_is_kept_or_refused(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    before = weights(model)
    with pytest.raises(InvalidWeights, match="'weight' is complex and the model's is real"):
        set_weights(model, {"weight": np.ones((2, 2), np.complex64), "bias": np.ones(2, np.float32)})
    assert np.array_equal(weights(model)["bias"], before["bias"])
    kept = torch.nn.Linear(2, 2, dtype=torch.complex64)
    set_weights(kept, {"weight": np.full((2, 2), 1 + 2j), "bias": np.ones(2, np.float32)})
    assert kept.weight[0, 0].item() == 1 + 2j


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_tensors_that_are_no_plain_arrays_are_refused_by_what_they_are(tmp_path: Path) -> None:
    made = {
        "quantized": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.empty(3, device="meta"),
    }
    for kind, tensor in made.items():
        torch.save({"a": tensor}, tmp_path / "a.pth")
        assert f"holds a {kind} tensor" in _refused(tmp_path / "a.pth")
    for dtype in (torch.complex32, torch.float8_e4m3fnuz):
        torch.save({"a": torch.zeros(3, dtype=dtype)}, tmp_path / "a.pth")
        assert f"holds a tensor of type {str(dtype)[6:]}," in _refused(tmp_path / "a.pth")
    for code, shape, size in (("F4", [2], 1), ("F6_E2M3", [4], 3), ("F8_E8M0", [2], 2), ("X9", [1], 1)):
        _write(
            tmp_path / "a.safetensors", {"a": {"dtype": code, "shape": shape, "data_offsets": [0, size]}}, b"\0" * size
        )
        assert f"has the type {code}, and those that are read are F64" in _refused(tmp_path / "a.safetensors")


def _write(path: Path, header: Any, data: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": {"dtype": "F32", "shape": [2**61, 2], "data_offsets": [0, 4]}}, b"1234"),
        ({"a": {"dtype": "F32", "shape": [2**63], "data_offsets": [0, 4]}}, b"1234"),
        ({"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, b"1234"),
        ({"a": {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]}}, b"1234"),
        ({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, b"1234"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"12345678"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"12345"),
        ({x: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for x in "ab"}, b"1234"),
        (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", b""),
        (b"\xff\xfe{}", b""), (b"[]", b""), (b'{"__metadata__": 3}', b""),
    ],
)  # fmt: skip
def test_an_impossible_header_is_refused(header: Any, data: bytes, tmp_path: Path) -> None:
    _write(tmp_path / "a.safetensors", header, data)
    assert "is no whole safetensors file" in _refused(tmp_path / "a.safetensors")


# Memory --------------------------------------------------------------------------------------------------------------
LIMITED = """
import resource, sys, pathlib
from agnostic_torch.pth import read_checkpoint
from agnostic.errors import InvalidWeights
used = int(next(x for x in open("/proc/self/status") if x.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000,) * 2)
for path in sys.argv[1:]:
    try:
        sum(x.copy().nbytes for x in read_checkpoint(pathlib.Path(path)).values())
        print("read")
    except InvalidWeights as error:
        print(error)
"""


def _bombs(folder: Path) -> dict[str, str]:
    """Small files that ask for much, and what is said of each."""

    def zipped(name: str, pickled: bytes, data: bytes, compression: int) -> None:
        with zipfile.ZipFile(folder / name, "w", compression) as file:
            file.writestr("x/data.pkl", pickled)
            file.writestr("x/data/0", data)

    many = torch.zeros(1 << 16)
    torch.save({str(i): many for i in range(20_000)}, folder / "views.pth")
    torch.save({"a": torch.zeros(1).expand(1 << 31)}, folder / "expanded.pth")
    torch.save({"a": torch.zeros(1).to(torch.float8_e5m2).expand(1 << 27)}, folder / "small.pth")
    stored, numbers = io.BytesIO(), torch.zeros(25_000_000)
    torch.save({str(i): numbers[i : i + 1] for i in range(8)}, stored)
    with zipfile.ZipFile(stored) as file, zipfile.ZipFile(folder / "shared.pth", "w", zipfile.ZIP_DEFLATED) as other:
        for name in file.namelist():
            other.writestr(name, file.read(name))
    (folder / "memo.pth").write_bytes(b"\x80\x02Nr\xff\xff\xff\x7f.")
    (folder / "long.pth").write_bytes(b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"a.")
    (folder / "hash.pth").write_bytes(b"\x80\x02})" + b"0)" + b"2\x86" * 100 + b"Ns.")
    zipped("deflated.pth", b"\x80\x02}.", b"\0" * 300_000_000, zipfile.ZIP_DEFLATED)
    ordered = b"\x80\x02]q\0(" + b"X\x01\0\0\0aX\x01\0\0\0b\x86" * 20_000 + b"eq\x01"
    calls = b"ccollections\nOrderedDict\nh\x01\x85R" * 20_000
    zipped("copies.pth", ordered + b"(" + calls + b"l.", b"", zipfile.ZIP_STORED)
    return {
        "views.pth": "are allowed for its", "expanded.pth": "are allowed for its",
        "deflated.pth": "are allowed for its", "small.pth": "are allowed for its", "shared.pth": "read",
        "memo.pth": "another magic number", "long.pth": "no weight file of PyTorch", "hash.pth": "a key of type tuple",
        "copies.pth": "more values than the file's size allows",
    }  # fmt: skip


def test_a_small_file_takes_little_memory_whatever_it_claims(tmp_path: Path) -> None:
    bombs = _bombs(tmp_path)
    assert max((tmp_path / name).stat().st_size for name in bombs) < 4_000_000
    command = [sys.executable, "-c", LIMITED, *(str(tmp_path / name) for name in bombs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    for (name, said), line in zip(bombs.items(), done.stdout.splitlines(), strict=True):
        assert said in line, name


def test_the_limit_is_stated_and_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert allowance(10) == 1 << 28
    assert allowance(1 << 30) == 1 << 34
    torch.save({"a": torch.zeros(1).expand(1 << 27)}, tmp_path / "a.pth")
    assert "asks for 536.8 MB of memory, and 268.4 MB are allowed" in _refused(tmp_path / "a.pth")
    monkeypatch.setenv(VARIABLE, str(1 << 30))
    assert read_checkpoint(tmp_path / "a.pth")["a"].shape == (1 << 27,)
    monkeypatch.setenv(VARIABLE, "much")
    with pytest.raises(InvalidInput, match="is a number of bytes, not 'much'"):
        allowance(1)


def test_a_changed_bit_of_a_checkpoint_is_seen(tmp_path: Path) -> None:
    file = io.BytesIO()
    torch.save({"a": torch.arange(1000.0)}, file)
    content = bytearray(file.getvalue())
    content[content.index(np.arange(1000, dtype="<f4").tobytes()) + 100] ^= 1
    (tmp_path / "a.pth").write_bytes(content)
    assert "the checksum of 'archive/data/0' does not fit" in _refused(tmp_path / "a.pth")


def test_a_content_that_holds_itself_ends(tmp_path: Path) -> None:
    value: dict[str, Any] = {}
    value["state_dict"] = value
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as file:
        file.writestr("x/data.pkl", pickle.dumps(value, 2))
    assert "no tensors by name" in _refused(tmp_path / "a.pth")
