"""The presets are what the installed frameworks have as defaults; test_keras.py runs this file."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import pytest
import torch

from agnostic.optimizers.groups import renamed
from agnostic.optimizers.specs import KINDS, Spec

# Arguments that say how, not what, is computed; and Keras' options of all optimizers, which are off.
OF_TORCH = {"params", "foreach", "maximize", "capturable", "differentiable", "fused"}
KERAS = {"initial_accumulator_value": "initial_accumulator", "ns_steps": "steps"}
ELSEWHERE = {
    # Of the Adam that moves what is no matrix, and which variables that is.
    "Muon": {
        "adam_beta_1", "adam_beta_2", "adam_weight_decay", "adam_lr_ratio", "epsilon",
        "exclude_layers", "exclude_embeddings",
    },
    # Without effect: the rate is at most 1 / sqrt(t) in any case.
    "Adafactor": {"relative_step"},
}  # fmt: skip


def defaults(cls: Any) -> dict[str, Any]:
    return {n: p.default for n, p in inspect.signature(cls).parameters.items() if p.kind is not p.VAR_KEYWORD}


@pytest.mark.parametrize("cls", [c for c in KINDS.values() if "torch" in c.natives])
def test_torch(cls: type[Spec]) -> None:
    known = defaults(getattr(torch.optim, cls.natives["torch"].name))
    own = renamed({n: v for n, v in known.items() if n not in OF_TORCH})
    spec = cls.torch()
    for name, value in own.items():
        # A decay of 0 is neither coupled nor decoupled; PyTorch's first choice of form is the specification's.
        assert getattr(spec, name) == value, name


@pytest.mark.parametrize("cls", [c for c in KINDS.values() if "keras" in c.natives])
def test_keras(cls: type[Spec]) -> None:
    known = defaults(getattr(keras.optimizers, cls.natives["keras"].name))
    shared = set(defaults(keras.optimizers.Optimizer)) - {"learning_rate", "weight_decay"} | {"name"}
    own = {KERAS.get(n, n): v for n, v in known.items() if n not in shared | ELSEWHERE.get(cls.__name__, set())}
    spec = cls.keras()
    if cls.__name__ == "Muon":
        assert spec.coefficients == tuple(own.pop(f"muon_{letter}") for letter in "abc")
        assert (own.pop("rms_rate"), spec.scale) == (0.2, "match_rms_adamw")
    for name, value in own.items():
        assert getattr(spec, name) == (value or 0.0 if name == "weight_decay" else value), name
    assert known.get("use_ema", False) is False
    assert known.get("gradient_accumulation_steps") is None


def test_the_thirteen() -> None:
    assert list(KINDS) == [
        "SGD", "RMSprop", "Adagrad", "Adadelta", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Lion", "Adafactor",
        "LAMB", "Muon",
    ]  # fmt: skip
