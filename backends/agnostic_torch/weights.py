"""Weights of PyTorch models: read from files without executing code, taken out as NumPy, and put in."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from agnostic.errors import InvalidInput, InvalidWeights
from agnostic.files import atomic_path, safetensors_as_os_errors
from agnostic.models.weight_files import read_arrays
from agnostic.models.weights import check_types, fit
from agnostic_torch.layers import unwrap

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")

COUNTERS = ("num_batches_tracked",)
"""Entries that inference never reads, and that files older than PyTorch 0.4.1 lack."""


def read_weights(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """See :meth:`agnostic.contracts.weights.Weights.read_weights`."""
    return {name: np.array(x) for name, x in read_arrays(path, SUFFIXES, "PyTorch").items()}


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors in a weight file, by name, on the CPU, and not copied: they lie on a private mapping of the file.

    Args:
        path: ``.safetensors``, or what torch.save wrote (``.pth``, ``.pt``, ``.bin``, ``.ckpt``): a state dict, alone
            or under a key such as ``"state_dict"``. Its entries that are no tensors are left out.

    Raises:
        InvalidWeights: missing, damaged, of another format, or a pickle that needs code execution.
    """
    return {name: torch.from_numpy(x) for name, x in read_arrays(path, SUFFIXES, "PyTorch").items()}


def load_weights(model: nn.Module, path: Path, name: str) -> None:
    """See :meth:`agnostic.contracts.weights.Weights.load_weights`."""
    entries = read_weights(path)
    try:
        set_weights(model, entries)
    except InvalidWeights as error:
        raise InvalidWeights(f"{path} does not fit {name}: {error}") from None


def save(model: nn.Module, path: Path) -> None:
    """See :meth:`agnostic.contracts.weights.Weights.save`: the state dict, as ``.safetensors``, ``.pth`` or ``.pt``."""
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise InvalidInput(f"PyTorch writes weights as .safetensors, .pth or .pt, not as {path.name!r}")
    # Parameters that share their memory are written once each, since safetensors has no notion of sharing.
    state = {name: x.detach().cpu().clone().contiguous() for name, x in _entries(model).items()}
    with atomic_path(path) as temporary:
        if path.suffix == ".safetensors":
            from safetensors.torch import save_file

            with safetensors_as_os_errors():
                save_file(state, temporary)
        else:
            with open(temporary, "wb", buffering=0) as file:
                _save(state, file)


class _Kept:
    """A file that keeps its first error, and goes on as if it had been written to."""

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        total = len(rest)
        try:
            while self.error is None and rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.error = error
        return total

    def flush(self) -> None:
        """Nothing is buffered."""


def _save(state: Mapping[str, Tensor], file: io.RawIOBase) -> None:
    """torch.save; its C++ code tells of a full disk, or of an error in ``write``, by an error that does not say why."""
    kept = _Kept(file)
    torch.save(dict(state), cast("IO[bytes]", kept))
    if kept.error is not None:
        raise kept.error


def weights(model: nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    """See :meth:`agnostic.contracts.weights.Weights.weights`. The arrays are copies; bfloat16 comes as float32."""
    return {name: _numpy(tensor) for name, tensor in _entries(model).items()}


def set_weights(model: nn.Module, values: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """See :meth:`agnostic.contracts.weights.Weights.set_weights`. Nothing is set unless everything fits."""
    set_state(model, {name: torch.from_numpy(np.array(value)) for name, value in values.items()})


def set_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy tensors into a model, cast to its dtypes, on its device. Nothing is copied unless everything fits.

    Raises:
        InvalidWeights: entries are missing, unexpected or misshapen.
    """
    entries = _entries(model)
    pairs = fit(_shapes(entries), _shapes(state), optional=COUNTERS)
    check_types(
        {n for n, x in entries.items() if x.is_complex()}, {n for n, x in state.items() if x.is_complex()}, pairs
    )
    with torch.no_grad():
        for ours, theirs in pairs.items():
            entries[ours].copy_(state[theirs])


def _entries(model: nn.Module) -> dict[str, Tensor]:
    # A module may keep other things than tensors in its state dict (get_extra_state).
    return {name: x for name, x in unwrap(model).state_dict().items() if isinstance(x, Tensor)}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(x.shape) for name, x in tensors.items()}


def _numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    tensor = tensor.detach()
    array: np.ndarray[Any, Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()
    return array.copy()
