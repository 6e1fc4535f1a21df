"""Each known mistake is made in recorded runs, as its entry says, and named by its key."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")

from agnostic.compare.direct import recorded
from agnostic.compare.judging import Recorded
from agnostic.compare.known import KNOWN, Mistake
from agnostic.compare.programs import compared
from agnostic.compare.replay import Values, outputs
from agnostic.errors import InvalidInput
from tests.compare import architectures

NETS = ("unet", "windows", "convnext", "squeeze", "causal", "video", "decoder")


@functools.cache
def _run(name: str) -> Recorded:
    found = recorded(*architectures.made(name)).program
    assert found is not None
    return found


def _faulty(mistake: Mistake) -> Iterator[tuple[str, Recorded, Recorded]]:
    """Networks by name, their runs, and copies of these in which one operator has the mistake."""
    assert mistake.made is not None
    for name in NETS:
        a = _run(name)
        nodes = a.run.program.nodes
        for k, node in enumerate(nodes):
            other = mistake.made(node)
            if other is None:
                continue
            program = replace(a.run.program, nodes=(*nodes[:k], other, *nodes[k + 1 :]))
            run = replace(a.run, program=program)
            try:
                run = replace(run, outputs=outputs(Values(run, a.evaluate)))
            except (InvalidInput, ValueError):
                continue  # what is made does not fit what follows
            if all(run.outputs[path].shape == x.shape for path, x in a.run.outputs.items()):
                yield name, a, Recorded(run, a.evaluate)


MADE = [x for x in KNOWN if x.made is not None]


@pytest.mark.parametrize("mistake", MADE, ids=lambda x: x.key)
def test_a_mistake_that_is_made_is_named(mistake: Mistake) -> None:
    keys: dict[str, Any] = {}  # one of each network
    for name, a, b in _faulty(mistake):
        if name not in keys and not (found := compared(a, b)).same:
            keys[name] = found.explained[0].findings[0].mistake
    assert keys, "no network has a place for it"
    assert set(keys.values()) == {mistake.key}


def test_every_entry_can_be_found_or_is_told_by_what_stands_around_it() -> None:
    told = {"dropout_on", "attention_scale", "flatten_order", "preprocessing_range", "activation_doubled",
            "optimizer_convention", "unexplained"}  # fmt: skip
    weights = {"statistics_missing", "mean_variance_swapped", "variance_convention", "gamma_beta_swapped",
               "kernel_transposed", "kernel_flipped", "gate_order", "weights_permuted", "weights_scaled",
               "weights_differ"}  # fmt: skip
    assert {x.key for x in KNOWN if not x.patterns} == told | weights
