"""Which call of one model corresponds to which of the other.

The calls of both models stand in the order in which they ran. Two are alike by what they are (kind, shapes, the numbers
in their weights) and by what came out (mean, root mean square, extremes of the first sample, the same in any layout).
The order is kept where it can be: the best monotone alignment is found by dynamic programming, as of two texts. What it
leaves is matched by weights, then by data: branches that one model runs in another order.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agnostic.compare.recording import Record, Step
from agnostic.errors import UnknownName, nearest
from agnostic.text import counted

_FAMILIES = (
    {"conv", "depthwise_conv", "separable_conv"},
    {"dense", "einsum_dense", "conv"},
    {"batch_norm", "scale", "normalization", "rescaling"},
    {"layer_norm", "rms_norm", "group_norm", "batch_norm"},
    {"average_pool", "global_average_pool", "adaptive_pool"},
    {"max_pool", "global_max_pool", "adaptive_pool"},
    {"flatten", "reshape"},
    {"padding", "crop"},
    {"resize", "conv_transpose"},
    {"lstm", "gru", "rnn"},
    {"other", "attention"},
)
"""Kinds that may stand for each other."""

_SCORE_NEEDED = 3.0

_LIGHT = ("batch_norm", "scale", "activation", "dropout", "stochastic_depth", "noise", "identity", "other")
"""Kinds that another framework's layer may have inside, or that do nothing: one without a partner needs none."""

_MOVING = ("padding", "crop", "flatten", "reshape", "permute")


@dataclass(frozen=True)
class Alignment:
    """Pairs of calls.

    Attributes:
        pairs: the call of A for each call of B that has one, both by index.
        unmatched_a, unmatched_b: the calls without a partner.
    """

    pairs: Mapping[int, int]
    unmatched_a: tuple[int, ...]
    unmatched_b: tuple[int, ...]


def align(a: Record, b: Record, chosen: Mapping[str, str] | None = None) -> Alignment:
    """Match the calls of two models.

    Args:
        chosen: B's layer for layers of A, which the user knows better.

    Raises:
        UnknownName: a chosen layer does not exist, or did not run.
    """
    fixed = _fixed(a, b, chosen or {})
    free_a = [i for i in range(len(a.steps)) if i not in set(fixed.values())]
    free_b = [j for j in range(len(b.steps)) if j not in fixed]
    scores = _scores(a, b, free_a, free_b)
    pairs = dict(fixed)
    for row, column in _monotone(scores):
        pairs[free_b[column]] = free_a[row]
    taken = set(pairs.values())
    # What is left has changed its place: the most alike first.
    left = [
        (scores[row, column], -abs(i - j), i, j)
        for row, i in enumerate(free_a)
        if i not in taken
        for column, j in enumerate(free_b)
        if j not in pairs and scores[row, column] >= 2 * _SCORE_NEEDED
    ]
    for _, _, i, j in sorted(left, reverse=True):
        if j not in pairs and i not in taken and _alike(a, b, i, j):
            pairs[j] = i
            taken.add(i)
    pairs.update(_exchanged(a, b, pairs))
    pairs = _separated(a, b, pairs, set(fixed))
    taken = set(pairs.values())
    return Alignment(
        dict(sorted(pairs.items())),
        tuple(i for i in range(len(a.steps)) if i not in taken),
        tuple(j for j in range(len(b.steps)) if j not in pairs),
    )


def _exchanged(a: Record, b: Record, pairs: Mapping[int, int]) -> dict[int, int]:
    """Calls left over between the same matched neighbours, by position: a layer that was put in another's place.

    They take and give arrays of the same shapes, whatever their kinds. What a neighbour may have inside stays alone.
    """
    found: dict[int, int] = {}
    ordered = [(-1, -1), *sorted((i, j) for j, i in pairs.items()), (len(a.steps), len(b.steps))]
    taken = set(pairs.values())
    for (i, j), (i_end, j_end) in itertools.pairwise(ordered):
        ours = [k for k in range(i + 1, i_end) if k not in taken and _heavy(a.steps[k])]
        theirs = [k for k in range(j + 1, j_end) if k not in pairs and _heavy(b.steps[k])]
        for one in ours:
            partner = next((k for k in theirs if _shapes(b.steps[k]) == _shapes(a.steps[one])), None)
            if partner is not None:
                found[partner] = one
                theirs = [k for k in theirs if k > partner]
    return found


def _separated(a: Record, b: Record, pairs: Mapping[int, int], fixed: Container[int]) -> dict[int, int]:
    """A separable convolution stands for two layers, whose second gives its shape: it is matched with the first."""
    taken, found = set(pairs.values()), {}
    for j, i in pairs.items():
        kinds = a.steps[i].kind, b.steps[j].kind
        if j not in fixed and kinds == ("conv", "separable_conv") and (k := _depthwise(a, i)) not in taken:
            i = i if k is None else k
        if j not in fixed and kinds == ("separable_conv", "conv") and (k := _depthwise(b, j)) not in pairs:
            j = j if k is None else k
        found[j] = i
    return found


def _depthwise(record: Record, pointwise: int) -> int | None:
    """The depthwise convolution whose very output a call receives."""
    inputs = record.steps[pointwise].inputs
    source = inputs[0].source if len(inputs) == 1 else None
    return source[0] if source is not None and record.steps[source[0]].kind == "depthwise_conv" else None


def _heavy(step: Step) -> bool:
    return step.kind not in _LIGHT and step.kind not in _MOVING and bool(step.inputs) and bool(step.outputs)


def _shapes(step: Step) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(s for s in step.inputs[0].canonical_shape if s != 1), _shape(step)


def _fixed(a: Record, b: Record, chosen: Mapping[str, str]) -> dict[int, int]:
    fixed: dict[int, int] = {}
    for ours, theirs in chosen.items():
        found = []
        for record, name, which in ((a, ours, "A"), (b, theirs, "B")):
            calls = [i for i, x in enumerate(record.steps) if name in (x.name, x.label)]
            if not calls:
                known = list(dict.fromkeys(x.name for x in record.steps))
                raise UnknownName(
                    f"no layer {name!r} runs in {which} ({counted(len(known), 'layer')}){nearest(name, known)}"
                )
            found.append(calls)
        fixed.update(zip(found[1], found[0], strict=False))
    return fixed


def _alike(a: Record, b: Record, i: int, j: int) -> bool:
    """Whether two calls match beyond their place: by weights, or by what came out."""
    digests = _digests(a, a.steps[i]), _digests(b, b.steps[j])
    origins = _origin(a, a.steps[i]), _origin(b, b.steps[j])
    if digests[0] and digests[1]:
        return digests[0] == digests[1]
    if origins[0] and origins[0] == origins[1]:
        return True
    return _same_sketch(a.steps[i].sketch, b.steps[j].sketch, 1e-3)


def _digests(record: Record, step: Step) -> tuple[str, ...]:
    return tuple(sorted(record.digests.get(step.name, {}).values()))


def _origin(record: Record, step: Step) -> tuple[str, ...]:
    """The weights of the nearest layer with weights whose very output a call goes back to."""
    for _ in range(8):
        if not step.inputs or (source := step.inputs[0].source) is None:
            return ()
        step = record.steps[source[0]]
        if found := _digests(record, step):
            return found
    return ()


def _weight_shapes(record: Record, step: Step) -> tuple[tuple[int, ...], ...]:
    if record.trace is not None:
        return tuple(sorted(record.trace.shape(t) for t in record.tensors(step.name).values()))
    return tuple(sorted(tuple(x.shape) for x in record.descriptions[step.name].weights.values()))


def _same_sketch(x: Sequence[float], y: Sequence[float], tolerance: float) -> bool:
    if not x or not y:
        return False
    p, q = np.asarray(x), np.asarray(y)
    if not (np.isfinite(p).all() and np.isfinite(q).all()):
        return False
    scale = max(float(np.abs(p).max()), float(np.abs(q).max()))
    return scale > 0 and float(np.abs(p - q).max()) <= tolerance * scale


def _shape(step: Step) -> tuple[int, ...]:
    return tuple(s for s in step.outputs[0].canonical_shape if s != 1) if step.outputs else ()


def _scores(a: Record, b: Record, rows: Sequence[int], columns: Sequence[int]) -> Any:
    """How much each call of A is like each call of B; negative where they cannot be the same."""
    facts = [
        [
            (x.kind, _shape(x), _digests(r, x), _weight_shapes(r, x), x.sketch, x.name, x.number, _origin(r, x))
            for x in chosen
        ]
        for r, chosen in ((a, [a.steps[i] for i in rows]), (b, [b.steps[j] for j in columns]))
    ]
    # What has a partner of equal weights is no other's partner.
    known = {x[2] for x in facts[0]} & {x[2] for x in facts[1]} - {()}
    families: dict[tuple[str, str], float] = {}
    names: dict[tuple[str, str], float] = {}
    scores = np.full((len(rows), len(columns)), -1.0)
    for r, (kind, shape, digests, sizes, sketch, name, number, origin) in enumerate(facts[0]):
        for c, (kind2, shape2, digests2, sizes2, sketch2, name2, number2, origin2) in enumerate(facts[1]):
            key = kind, kind2
            if key not in families:
                families[key] = _kinship(*key)
            score = families[key]
            if score <= 0 or (digests != digests2 and (digests in known or digests2 in known)):
                continue
            if origin and origin == origin2:
                score += 3.0
            elif origin in known and origin2 in known:
                score -= 4.0
            if bool(digests) != bool(digests2):
                score -= 1.0
            elif digests:
                if digests == digests2:
                    score += 6.0
                elif sizes == sizes2:
                    score += 2.0
                else:
                    score += 0.5 if sizes and sizes2 and set(sizes) & set(sizes2) else -2.0
            if shape == shape2:
                score += 2.0
            elif np.prod(shape) == np.prod(shape2):
                score += 0.5
            else:
                score -= 3.0
            if score <= 0:
                continue
            if shape == shape2 and _same_sketch(sketch, sketch2, 1e-2):
                score += 2.0
            if (name, name2) not in names:
                names[name, name2] = _namesakes(name, name2)
            score += names[name, name2]
            score += 0.25 if number == number2 else 0.0
            scores[r, c] = score
    return scores


def _kinship(kind: str, other: str) -> float:
    if kind == other:
        return 3.0
    return 1.5 if any({kind, other} <= family for family in _FAMILIES) else -1.0


def _namesakes(name: str, other: str) -> float:
    """Up to 1 for equal names, whatever separates their parts."""
    x, y = (n.lower().replace("_", ".").replace("/", ".") for n in (name, other))
    if x == y:
        return 1.0
    return 0.3 if x.rpartition(".")[2] == y.rpartition(".")[2] else 0.0


def _monotone(scores: Any) -> list[tuple[int, int]]:
    """The pairs, increasing in both, of the largest total score."""
    rows, columns = scores.shape
    gain = np.where(scores >= _SCORE_NEEDED, scores, 0.0)
    best = np.zeros((rows + 1, columns + 1))
    for r in range(rows):
        diagonal = best[r, :-1] + gain[r]
        best[r + 1, 1:] = np.maximum.accumulate(np.maximum(best[r, 1:], diagonal))
    pairs = []
    r, c = rows, columns
    while r > 0 and c > 0:
        if best[r, c] == best[r - 1, c]:
            r -= 1
        elif best[r, c] == best[r, c - 1]:
            c -= 1
        else:
            pairs.append((r - 1, c - 1))
            r, c = r - 1, c - 1
    return pairs[::-1]
