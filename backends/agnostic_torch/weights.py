"""Weights of PyTorch models: read from files without executing code, taken out as NumPy, and put in."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agnostic.errors import InvalidInput, InvalidWeights, nearest
from agnostic.files import atomic_path
from agnostic.models.weights import fit

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")

NESTED = ("state_dict", "model_state_dict", "model", "weights")
"""Keys under which training scripts keep the state dict, beside the epoch and the optimizer."""

COUNTERS = ("num_batches_tracked",)
"""Entries that inference never reads, and that files older than PyTorch 0.4.1 lack."""


def read_weights(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """See :meth:`agnostic.backend.Backend.read_weights`."""
    return {name: _numpy(tensor) for name, tensor in read_state(path).items()}


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors in a weight file, by name, on the CPU.

    Args:
        path: ``.safetensors``, or what torch.save wrote (``.pth``, ``.pt``, ``.bin``, ``.ckpt``): a state dict, alone
            or under one of the keys of :data:`NESTED`. Its entries that are no tensors are left out.

    Raises:
        InvalidWeights: missing, damaged, of another format, or a pickle that needs code execution.
    """
    if not path.is_file():
        what = "it is a folder" if path.is_dir() else "there is no such file"
        beside = [p.name for p in path.parent.glob("*") if p.suffix in SUFFIXES] if path.parent.is_dir() else []
        raise InvalidWeights(f"cannot read weights from {path}: {what}{nearest(path.name, beside)}")
    if path.suffix not in SUFFIXES:
        raise InvalidWeights(f"{path} is no weight file of PyTorch, whose names end in {', '.join(SUFFIXES)}")
    _refuse_what_is_no_weights(path)
    return _safetensors(path) if path.suffix == ".safetensors" else _state_dict(_unpickled(path), path)


def _refuse_what_is_no_weights(path: Path) -> None:
    """Failed downloads have weights' names too."""
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip().lower()
    except OSError as error:
        raise InvalidWeights(f"cannot read weights from {path}: {error.strerror}") from None
    if not start:
        raise InvalidWeights(f"{path} is empty: download or copy it again")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InvalidWeights(
            f"{path} is a web page, not weights: open it to see what the server said, and download again"
        )
    if start.startswith(b"version https://git-lfs"):
        raise InvalidWeights(f"{path} is only Git LFS's pointer to the weights: run 'git lfs pull'")


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InvalidWeights(f"{path} is no whole safetensors file ({error}): download or copy it again") from None


def _unpickled(path: Path) -> Any:
    try:
        # Only the zip format of PyTorch 1.6 and later can be mapped into memory instead of being copied.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # noqa: BLE001 - a damaged pickle can raise anything at all
        said = str(error)
    if code := re.search(r"GLOBAL (\S+)", said):
        raise InvalidWeights(
            f"reading {path} would execute code ({code[1]}), which agnostic never does: ask its author for a "
            ".safetensors file, or for what torch.save(model.state_dict(), file) writes"
        )
    if "TorchScript" in said:
        raise InvalidWeights(
            f"{path} is a TorchScript program, not weights: save its state_dict() from where you trust and run it"
        )
    raise InvalidWeights(f"{path} is damaged, cut off, or no weight file of PyTorch: download or copy it again")


def _state_dict(loaded: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(loaded, Mapping):
        for key in NESTED:
            if isinstance(loaded.get(key), Mapping):
                return _state_dict(loaded[key], path)
        if tensors := {name: x for name, x in loaded.items() if isinstance(name, str) and isinstance(x, Tensor)}:
            return tensors
    holds = (
        f"a dict of {', '.join(map(repr, list(loaded)[:5]))}" if isinstance(loaded, Mapping) else type(loaded).__name__
    )
    raise InvalidWeights(f"{path} holds {holds or 'nothing'}, and no tensors by name as model.state_dict() has them")


def save(model: nn.Module, path: Path) -> None:
    """See :meth:`agnostic.backend.Backend.save`: the state dict, as ``.safetensors``, ``.pth`` or ``.pt``."""
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise InvalidInput(f"PyTorch writes weights as .safetensors, .pth or .pt, not as {path.name!r}")
    # Parameters that share their memory are written once each, since safetensors has no notion of sharing.
    state = {name: x.detach().cpu().clone().contiguous() for name, x in _entries(model).items()}
    with atomic_path(path) as temporary:
        if path.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(state, temporary)
        else:
            torch.save(state, temporary)


def weights(model: nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    """See :meth:`agnostic.backend.Backend.weights`. The arrays are copies; bfloat16 comes as float32."""
    return {name: _numpy(tensor) for name, tensor in _entries(model).items()}


def set_weights(model: nn.Module, values: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """See :meth:`agnostic.backend.Backend.set_weights`. Nothing is set unless everything fits."""
    set_state(model, {name: torch.from_numpy(np.array(value)) for name, value in values.items()})


def set_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy tensors into a model, cast to its dtypes, on its device. Nothing is copied unless everything fits.

    Raises:
        InvalidWeights: entries are missing, unexpected or misshapen.
    """
    entries = _entries(model)
    pairs = fit(_shapes(entries), _shapes(state), optional=COUNTERS)
    with torch.no_grad():
        for ours, theirs in pairs.items():
            entries[ours].copy_(state[theirs])


def _entries(model: nn.Module) -> dict[str, Tensor]:
    # A module may keep other things than tensors in its state dict (get_extra_state).
    return {name: x for name, x in model.state_dict().items() if isinstance(x, Tensor)}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(x.shape) for name, x in tensors.items()}


def _numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    tensor = tensor.detach()
    array: np.ndarray[Any, Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()
    return array.copy()
