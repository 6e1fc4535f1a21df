"""What the tests of optimizers share: specifications off their defaults, and a run of a native PyTorch optimizer."""

from __future__ import annotations

from typing import Any

from agnostic.optimizers import specs

# Every kind with the options that change what it computes. Rates are given by the problem.
CASES: dict[str, tuple[type[specs.Spec], dict[str, Any]]] = {
    "SGD": (specs.SGD, {}),
    "SGD momentum": (specs.SGD, {"momentum": 0.9}),
    "SGD nesterov": (specs.SGD, {"momentum": 0.9, "nesterov": True}),
    "SGD decay": (specs.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    "RMSprop": (specs.RMSprop, {}),
    "RMSprop momentum": (specs.RMSprop, {"momentum": 0.9, "centered": True, "epsilon": 1e-3}),
    "Adagrad": (specs.Adagrad, {"initial_accumulator": 0.1}),
    "Adadelta": (specs.Adadelta, {}),
    "Adam": (specs.Adam, {}),
    "Adam epsilon": (specs.Adam, {"epsilon": 1e-3}),
    "Adam amsgrad": (specs.Adam, {"amsgrad": True, "beta_2": 0.9}),
    "Adam decay": (specs.Adam, {"weight_decay": 0.1}),
    "AdamW": (specs.AdamW, {"weight_decay": 0.1}),
    "Adamax": (specs.Adamax, {"epsilon": 1e-3}),
    "NAdam": (specs.NAdam, {}),
    "RAdam": (specs.RAdam, {"beta_2": 0.9}),  # rectified from step 6 on with 0.999, from 5 on with 0.9
    "Lion": (specs.Lion, {"weight_decay": 0.1}),
    "Adafactor": (specs.Adafactor, {"weight_decay": 0.1}),
    "LAMB": (specs.LAMB, {"weight_decay": 0.1}),
}
