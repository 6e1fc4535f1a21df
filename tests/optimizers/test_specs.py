"""Hyperparameters that cannot work are refused, for every specification, with the range that can."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from agnostic import optimizers as ago
from agnostic.errors import InvalidInput
from agnostic.optimizers.specs import KINDS, Spec
from agnostic.reference import optimizers as reference

FIELDS = [(cls, field.name) for cls in KINDS.values() for field in dataclasses.fields(cls)]


def made(cls: type[Spec], name: str, value: Any) -> Spec:
    return cls(**{"learning_rate": 0.1, **({"ema_momentum": 0.9} if name == "ema_overwrite" else {}), name: value})


@pytest.mark.parametrize(("cls", "name"), FIELDS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_no_field_takes_what_is_no_number_of_it(cls: type[Spec], name: str) -> None:
    for wrong in (
        "0.5",
        float("nan"),
        float("inf"),
        -float("inf"),
        [0.1],
        -0.2 if name != "beta_2_decay" else 0.2,
        object(),
    ):
        with pytest.raises(InvalidInput, match=f"{cls.__name__}: {name} (must be|is|are) "):
            made(cls, name, wrong)


@pytest.mark.parametrize(
    ("cls", "options", "match"),
    [
        *[(cls, {name: 1.0}, rf"{name} must be a number in \[0, 1\), not 1.0")
          for cls, name in FIELDS if name in ("beta_1", "beta_2", "rho")],
        (ago.NAdam, {"momentum_decay": -0.2}, "momentum_decay must be a finite number of at least 0"),
        (ago.Adadelta, {"epsilon": 0.0}, "epsilon must be a finite number greater than 0"),
        (ago.SGD, {"momentum": 1.1}, r"momentum must be a number in \[0, 1\]"),
        (ago.SGD, {"nesterov": 1}, "nesterov is True or False, not 1"),
        (ago.SGD, {"clip_norm": 0}, "clip_norm must be a finite number greater than 0, or None, not 0"),
        (ago.SGD, {"accumulate": 1.5}, "accumulate must be a finite whole number of at least 1"),
        (ago.SGD, {"accumulate": True}, "accumulate must be"),
        (ago.SGD, {"ema_momentum": 0.9, "ema_overwrite": 0}, "ema_overwrite must be"),
        (ago.SGD, {"weight_decay": None}, "weight_decay must be"),
        (ago.SGD, {"learning_rate": None}, "learning_rate must be a finite number of at least 0, or a schedule"),
        (ago.Adafactor, {"clip_threshold": 0.0}, "clip_threshold must be"),
        (ago.Adafactor, {"beta_2_decay": 0.1}, "beta_2_decay must be a finite number of at most 0"),
        (ago.Muon, {"steps": 0}, r"steps must be a whole number in \[1, 99\]"),
        (ago.Muon, {"coefficients": (1.0, 2.0)}, "three finite numbers"),
        (ago.Muon, {"momentum": 1.0}, r"in \[0, 1\)"),
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_refused_with_the_range(cls: type[Spec], options: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        cls(**{"learning_rate": 0.1, **options})


@pytest.mark.parametrize("cls", KINDS.values(), ids=lambda cls: cls.__name__)
def test_the_ends_of_the_ranges_work(cls: type[Spec]) -> None:
    both, gradient, rates = reference.standard_problem()
    start, used = (both[:1], lambda p: gradient([*p, both[1]])[:1]) if cls is ago.Muon else (both, gradient)
    names = {field.name for field in dataclasses.fields(cls)}
    for value in (0.0, 1 - 2.0**-20):
        options = {name: value for name in ("beta_1", "beta_2", "rho", "momentum") if name in names}
        end = reference.run(cls(0.1, **options), start, used, rates)[-1]
        assert all(np.isfinite(p).all() for p in end)
        assert any(not np.array_equal(p, q) for p, q in zip(end, start, strict=True))


def test_numpys_numbers_are_numbers() -> None:
    spec = ago.SGD(np.float32(0.5), np.float64(0.9), np.bool_(True), accumulate=np.int64(2))
    assert spec == ago.SGD(0.5, 0.9, True, accumulate=2)
    assert [type(x) for x in (spec.learning_rate, spec.momentum, spec.nesterov, spec.accumulate)] == [
        float,
        float,
        bool,
        int,
    ]
