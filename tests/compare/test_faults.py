"""Injected faults are located and named; correct pairs raise no alarm. All of them: scripts/faults.py."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from tests.compare import faults
from tests.engines import call_on_engine

# One of each kind of fault: an entry, weights, a hook, a subclass, a wrapped layer, code, digits.
QUICK = (
    "first batch norm epsilon",
    "last batch norm train mode",
    "kernel flipped",
    "dense transposed",
    "groups interleaved",
    "SAME padding subclass",
    "GELU by its approximation",
    "activation in a hook",
    "max pool moved",
    "gates i f g o as f",
    "bfloat16 in one layer",
    "TF32",
    "BGR",
    "0..255",
    "residual missing late",
    "flattened HWC",
    "dropout in code",
    "softmax missing",
    "concatenated the other way late",
    "corners aligned in code",
    "corners aligned in a U-Net",
    "pixels' centres in a U-Net",
    "residual missing in a U-Net",
    "filtered before it shrinks in a U-Net",
    "attention without its scale",
    "weights of another training",
)


@pytest.mark.parametrize("name", QUICK)
def test_a_fault_is_located_and_named(name: str) -> None:
    case = next(c for c in faults.torch_cases() if name in c.name)
    found = faults.judged(case)
    assert found["located"], found
    assert found["named"], found


@pytest.mark.parametrize("case", faults.torch_pairs(), ids=lambda c: c.name)
def test_a_correct_pair_raises_no_alarm(case: faults.Case) -> None:
    found = faults.judged(case)
    assert found["same"], found


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["torch", "keras-torch", "keras-jax", "keras-tensorflow"])
def test_the_rates(pair: str) -> None:
    """95 of 100 faults at the exact layer, 85 named rightly, no false alarm."""
    if pair == "torch":
        results = faults.rated(pair)
    else:
        engine = pair.removeprefix("keras-")
        results = call_on_engine(engine, "tests.compare.faults:rated", pair, needs=("keras", "torch"))
    faulty = [r for r in results if r["faulty"]]
    assert len(faulty) >= 60
    assert sum(r["located"] for r in faulty) >= 0.95 * len(faulty), [r for r in faulty if not r["located"]]
    assert sum(r["named"] for r in faulty) >= 0.85 * len(faulty), [r for r in faulty if not r["named"]]
    assert not [r for r in results if not r["faulty"] and not r["same"]]
