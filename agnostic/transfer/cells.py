"""Recurrent cells that run step by step, as one use: what one side unrolls, the other may run as a whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from agnostic.program.nodes import Array
from agnostic.transfer.layouts import GATES
from agnostic.transfer.use import Use
from agnostic.transfer.weights import ProgramWeights, WeightPart

CELLS: Mapping[str, str] = {
    "LSTMCell": "lstm", "GRUCell": "gru", "RNNCell": "rnn", "SimpleRNNCell": "rnn", "LSTM": "lstm", "GRU": "gru",
    "RNN": "rnn",
}  # fmt: skip
"""The kinds of the frameworks' cells, by class; and of layers, which a record of what ran has step by step."""

_PLACE = re.compile(r"^(weight_ih|weight_hh|bias_ih|bias_hh)(_l\d+(?:_reverse)?)$")
"""The array, and which layer of a stack."""

_ROLES: Mapping[str, tuple[str, bool]] = {
    "weight_ih": ("kernel", False), "weight_hh": ("recurrent", False), "bias_ih": ("bias", False),
    "bias_hh": ("second_bias", False), "kernel": ("kernel", True), "recurrent_kernel": ("recurrent", True),
    "bias": ("bias", True),
}  # fmt: skip
"""What a cell's arrays are, and whether they have their features first, with the gates in the other order."""


def gathered(uses: list[Use], weights: ProgramWeights) -> list[Use]:
    """The uses, those of one cell as one, in the place of its first step."""
    found: list[Use] = []
    cells: dict[tuple[str, str], Use] = {}
    for use in uses:
        kind = CELLS.get(weights.program.modules.get(use.layer, ""))
        names = use.names(weights)
        if kind is None or kind == use.kind or not names:
            found.append(use)
            continue
        layer, _, name = names[0].rpartition(".")
        place = _PLACE.match(name)
        key = layer, "" if place is None else place[2]
        if key in cells:
            cells[key].nodes += use.nodes
            cells[key].outputs += use.outputs
        else:
            cells[key] = _cell(use, kind, key, weights)
            found.append(cells[key])
    return found


def _cell(first: Use, kind: str, key: tuple[str, str], weights: ProgramWeights) -> Use:
    parts: dict[str, WeightPart] = {}
    for leaf in weights.program.of_role("parameter", "buffer"):
        layer, _, name = leaf.name.rpartition(".")
        if layer != key[0] or name.removesuffix(key[1]) not in _ROLES:
            continue
        role, turned = _ROLES[name.removesuffix(key[1])]
        if len(leaf.value.shape) == 2 and role == "bias":
            for k, each in enumerate(("bias", "second_bias")):
                parts[each] = WeightPart(leaf.value, _gates(kind, turned, k))
        else:
            parts[role] = WeightPart(leaf.value, _gates(kind, turned, None))
    sizes = [weights.numbers(parts[role]).shape for role in ("kernel", "recurrent")]
    return Use(kind, (*sizes[0], *sizes[1]), parts, list(first.nodes), first.data, first.outputs, first.rows)


def _gates(kind: str, turned: bool, row: int | None) -> Callable[[Array], Array]:
    """To the layout of the vocabulary: (gates, features), the gates in its order."""

    def form(x: Array) -> Array:
        x = x if row is None else x[row]
        if not turned:
            return x
        gates = np.split(x.T, len(GATES[kind]))
        return np.concatenate([gates[k] for k in GATES[kind]])

    return form
