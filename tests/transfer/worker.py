"""All pairs with Keras on the engine of this process, which tests/engines.py starts."""

from __future__ import annotations

import traceback
from typing import Any

import keras
import numpy as np
import pytest
import torch

import agnostic as ag
from agnostic.contracts.weights import WEIGHTS
from agnostic.registry import backend_of
from tests.transfer.checks import CHECKS
from tests.transfer.pairs import PAIRS, randomized

TWINS = ("resnet18",)
ELSEWHERE = (
    "conv2d_with_norm_and_fused_activations", "separable", "transposed", "flatten", "embedding_and_lstm", "gru",
    "attention", "tied_embedding", "bare_parameters", "branches",
)  # fmt: skip
"""The pairs on other engines than torch: programs are read alike on all; what differs is the run and the writing."""


def inputs(shape: Any) -> Any:
    """Of PyTorch: channels first."""
    rng = np.random.default_rng(0)
    if isinstance(shape, int):
        return torch.from_numpy(rng.integers(1, 50, (2, shape)))
    return torch.from_numpy(rng.standard_normal((2, *shape)).astype(np.float32))


def both_ways(name: str) -> dict[str, Any]:
    """To Keras, and back into a PyTorch model of other weights."""
    make_torch, make_keras, shape = PAIRS[name]
    torch.manual_seed(0)
    source = randomized(make_torch())
    other = randomized(make_torch(), seed=1)
    target = make_keras()
    x = inputs(shape)
    convolves = "1d" in name or (not isinstance(shape, int) and len(shape) > 2)
    native = x.movedim(-1, 1) if convolves else x
    there = ag.transfer(source, target, inputs=native)
    back = ag.transfer(target, other, inputs=x.numpy())
    before, after = backend_of(source)[WEIGHTS].weights(source), backend_of(other)[WEIGHTS].weights(other)
    same = [k for k in before if np.array_equal(before[k], after[k])]
    return {
        "there": there.json(), "back": back.json(), "text": str(there), "back_text": str(back),
        "equal": len(same), "arrays": len(before), "unequal": [k for k in before if k not in same],
    }  # fmt: skip


def twin(name: str) -> dict[str, Any]:
    source = randomized(ag.load(f"torchvision:{name}", weights="random"))
    target = ag.load(name, backend="keras", weights="random")
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    report = ag.transfer(source, target, inputs=x)
    return {"there": report.json(), "text": str(report)}


def checked(name: str) -> dict[str, Any]:
    try:
        CHECKS[name]()
    except (Exception, pytest.fail.Exception):  # noqa: BLE001 - the test says which
        return {"error": traceback.format_exc(limit=4)}
    return {}


def results() -> dict[str, Any]:
    """What each pair, check and twin gave, by name."""
    found: dict[str, Any] = {}
    here = keras.config.backend() == "torch"
    for name in PAIRS if here else ELSEWHERE:
        try:
            found[name] = both_ways(name)
        except Exception as error:  # noqa: BLE001 - the test says which
            found[name] = {"error": f"{type(error).__name__}: {error}"}
    for name in CHECKS if here else ():
        found[f"check {name}"] = checked(name)
    for name in TWINS if here else ():
        found[f"twin {name}"] = twin(name)
    return found
