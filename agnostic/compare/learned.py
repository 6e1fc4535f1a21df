"""What two traces hold of learning, against each other: gradients, and the weights after some steps of an optimizer.

A gradient is the sum over all paths behind a layer, so an error in one layer's code shows in the gradients of all
layers before it: the last layer that differs is the first place. An update is judged alone, by A's rule on B's own
gradients (:mod:`agnostic.compare.learning`), so that neither other outputs nor other gradients are blamed on the
optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agnostic.compare import noise
from agnostic.compare.conventions import Change, Observed, RuleSteps, explain
from agnostic.compare.layouts import Layout
from agnostic.compare.learning import followed, rule_of
from agnostic.compare.noise import THRESHOLD
from agnostic.compare.recording import Record
from agnostic.compare.results import Divergence, Finding, Row
from agnostic.optimizers.specs import as_dict
from agnostic.text import counted

Array = np.ndarray[Any, Any]

GRADIENT, UPDATE = "gradient", "update"


@dataclass(frozen=True)
class Learned:
    """The rows of gradients and updates, and what is to be said of them.

    Attributes:
        rows: the worst entry of each layer: of its gradients, and of its weights after the update.
        divergences: the first place of either kind; of gradients only where nothing before differs.
        notes: sentences on what was not compared.
    """

    rows: tuple[Row, ...] = ()
    divergences: tuple[Divergence, ...] = ()
    notes: tuple[str, ...] = ()


def compare(a: Record, b: Record, pairs: Mapping[str, str], *, different: bool) -> Learned:
    """Compare what both traces hold of learning.

    Args:
        pairs: B's layer by A's, in the order in which they run.
        different: whether the models' outputs part already.
    """
    ours, theirs = _learning(a), _learning(b)
    notes = [
        f"only {which}'s trace holds {what}: not compared"
        for key, what in (("gradients", "gradients"), ("updated", "the weights after an update"))
        for which, has, lacks in (("A", ours, theirs), ("B", theirs, ours))
        if key in has and key not in lacks
    ]
    gradients = [x for name, other in pairs.items() if (x := _gradient_row(a, b, name, other)) is not None]
    found = _first_gradient(gradients) if not different else []
    updates: list[Row] = []
    if "updated" in ours and "updated" in theirs:
        steps = ours["update"]["steps"], theirs["update"]["steps"]
        if steps[0] != steps[1]:
            notes.append(f"the weights after {counted(steps[0], 'step')} of A and {steps[1]} of B are not compared")
        else:
            shared = _parts(ours, theirs, pairs)
            notes += [*shared, *_other_shapes(a, b, pairs)]
            updates = [
                x
                for name, other in pairs.items()
                if (x := _update_row(a, b, name, other, alone_only=bool(shared) and steps[0] > 1)) is not None
            ]
            found += _first_update(a, b, updates, different=different or bool(found))
    return Learned((*gradients, *updates), tuple(found), tuple(notes))


def _learning(record: Record) -> dict[str, Any]:
    assert record.trace is not None
    found: dict[str, Any] = record.trace.about.get("learning", {})
    return found


def _parts(ours: Mapping[str, Any], theirs: Mapping[str, Any], pairs: Mapping[str, str]) -> list[str]:
    """A sentence on each entry that one model keeps as several weights, each of which learns, or in part only."""
    found = []
    for name, other in pairs.items():
        for entry, x in ours["updated"].get(name, {}).items():
            y = theirs["updated"].get(other, {}).get(entry, {})
            one, two = x.get("parts", 1), y.get("parts", 1)
            if one and two and one != two:
                which, layer = ("A", name) if one > two else ("B", other)
                found.append(
                    f"{which} keeps the {entry} of layer {layer!r} as the sum of {max(one, two)} weights, which all "
                    f"learn: it moves {max(one, two) / min(one, two):g} times as far"
                )
            if y and ("learns" in x) != ("learns" in y):
                which, layer = ("A", name) if "learns" in y else ("B", other)
                found.append(
                    f"{which} trains the whole {entry} of layer {layer!r}, and the other keeps a part of it at 0"
                )
    return found


def _other_shapes(a: Record, b: Record, pairs: Mapping[str, str]) -> list[str]:
    """A sentence on each entry that is of another shape in the other model, and so not compared."""
    found = []
    for name, other in pairs.items():
        ours, theirs = _sides(a, b, "updated", name, other)
        found += [
            f"the {entry} of {other} has another shape than A's: what it learns is not compared"
            for entry in ours.about
            if entry in theirs.about and ours.weight(entry).shape != theirs.weight(entry).shape
        ]
    return found


# Rows ----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Side:
    """One layer of one model, and what its trace says of its entries."""

    record: Record
    layer: str
    about: Mapping[str, Any]

    def read(self, tensor: str) -> Array:
        """An array in the shape of a weight; of a layer on flattened inputs, in their canonical order."""
        assert self.record.trace is not None
        x, layout = self.record.trace.read(tensor), self.record.layouts.get(self.layer)
        return x if layout is None else _reordered(self.record.descriptions[self.layer].kind, x, layout)

    def weight(self, entry: str) -> Array:
        """The weight that learns."""
        return self.read(_tensors(self.record, self.layer)[entry])


def _tensors(record: Record, layer: str) -> Mapping[str, str]:
    """The names of a layer's weights in the file."""
    assert record.trace is not None
    found: Mapping[str, str] = record.trace.about["layers"][layer]["weights"]
    return found


def _reordered(kind: str, x: Array, layout: Layout) -> Array:
    """One array of the weights of a layer on flattened inputs, or of their gradients, in the order channels last."""
    size = int(np.prod(layout.inner))
    if not layout.inner or kind not in ("dense", "batch_norm", "layer_norm", "rms_norm", "scale", "normalization"):
        return x
    if not x.ndim or x.shape[0] != size or (x.ndim == 1 and kind == "dense"):
        return x
    rows = layout.to_canonical(np.ascontiguousarray(x.reshape(size, -1).T)).T
    return np.ascontiguousarray(rows).reshape(x.shape)


def _sides(a: Record, b: Record, what: str, name: str, other: str) -> tuple[_Side, _Side]:
    one, two = (_Side(r, n, _learning(r).get(what, {}).get(n, {})) for r, n in ((a, name), (b, other)))
    return one, two


def _apart(a: _Side, b: _Side, entry: str) -> tuple[float, tuple[int, ...]] | None:
    """How far an entry is apart, as a root mean square, and its shape; None where the weights are not each other's."""
    one, two = a.weight(entry), b.weight(entry)
    if one.shape != two.shape or noise.difference(one, two) > 0.1 * noise.rms(one):
        return None
    x, y = a.read(a.about[entry]["tensor"]), b.read(b.about[entry]["tensor"])
    for side in (a, b):
        if "learns" in side.about[entry]:
            learns = side.read(side.about[entry]["learns"])
            x, y = x * learns, y * learns
    return noise.difference(y, x), x.shape


def _gradient_row(a: Record, b: Record, name: str, other: str) -> Row | None:
    ours, theirs = _sides(a, b, "gradients", name, other)
    rows = []
    for entry in ours.about:
        if entry in theirs.about and (apart := _apart(ours, theirs, entry)) is not None:
            floor = max(x.about[entry]["floor"] for x in (ours, theirs))
            kind, scale = f"{GRADIENT}: {entry}", ours.about[entry]["rms"]
            far = apart[0] / floor
            verdict = "shows" if far > THRESHOLD else "same"
            rows.append(Row(name, other, kind, apart[1], far, apart[0], floor, scale, verdict))
    return max(rows, key=lambda row: row.distance or 0.0, default=None)


def _update_row(a: Record, b: Record, name: str, other: str, *, alone_only: bool) -> Row | None:
    """The worst entry of one layer.

    Args:
        alone_only: the weights of both after the last step are apart for a reason that is no mistake.
    """
    ours, theirs = _sides(a, b, "updated", name, other)
    rows = []
    for entry in ours.about:
        if entry not in theirs.about or (apart := _apart(ours, theirs, entry)) is None:
            continue
        floor = max(x.about[entry].get("propagated", x.about[entry]["floor"]) for x in (ours, theirs))
        shared = ours.about[entry].get("parts", 1) == theirs.about[entry].get("parts", 1)
        far = apart[0] / floor if shared and not alone_only else None
        alone, kind = _alone(a, b, other, entry), f"{UPDATE}: {entry}"
        verdict = "layer" if (alone or 0.0) > THRESHOLD else "shows" if (far or 0.0) > THRESHOLD else "same"
        scale = ours.about[entry]["rms"]
        rows.append(Row(name, other, kind, apart[1], far, apart[0], floor, scale, verdict, alone))
    return max(rows, key=lambda row: (row.alone or 0.0, row.distance or 0.0), default=None)


def _alone(a: Record, b: Record, layer: str, entry: str) -> float | None:
    """How far B's weights are from what A's rule makes of B's gradients, in noise floors of the update alone."""
    about = _learning(b)["updated"][layer][entry]
    if not about.get("parts") or about.get("floor") is None or "steps" not in _learning(b):
        return None
    assert b.trace is not None
    rule, learning = _rule(a), _learning(b)
    start, used = b.trace.read(_tensors(b, layer)[entry]), [b.trace.read(s[layer][entry]) for s in learning["steps"]]
    made = followed(rule.spec, rule.rates, learning["update"]["norms"], start, used, about["parts"])
    if made is None:
        return None
    return noise.difference(made, b.trace.read(about["tensor"])) / float(about["floor"])


def _rule(record: Record) -> RuleSteps:
    update = _learning(record)["update"]
    spec = rule_of(update["spec"])
    return RuleSteps(spec, tuple(update.get("rates", [spec.learning_rate] * update["steps"])))


# Divergences ---------------------------------------------------------------------------------------------------------
def _first_gradient(rows: Sequence[Row]) -> list[Divergence]:
    for row in reversed(rows):
        if row.distance is not None and row.distance > THRESHOLD:
            return [Divergence(row.a, row.b, GRADIENT, "", row.distance)]
    return []


def _first_update(a: Record, b: Record, rows: Sequence[Row], *, different: bool) -> list[Divergence]:
    alone = [x for x in rows if x.alone is not None and x.alone > THRESHOLD]
    for row in alone[:1]:
        why = convention(a, b, row, (len(alone), len(rows)))
        return [Divergence(row.a, row.b, UPDATE, "", row.alone or 0.0, (why,))]
    if different or any(x.alone is not None for x in rows):
        return []
    for row in rows:
        if row.distance is not None and row.distance > THRESHOLD:
            return [Divergence(row.a, row.b, UPDATE, "", row.distance)]
    return []


def convention(a: Record, b: Record, row: Row, layers: tuple[int, int]) -> Finding:
    """Which convention of the optimizer leads to B's weights of one layer, where A's leads elsewhere.

    Args:
        row: of a layer whose update was judged alone.
        layers: in how many layers the updates differ, and of how many.
    """
    learning, entry = _learning(b), row.kind.removeprefix(f"{UPDATE}: ")
    assert b.trace is not None
    about, read = learning["updated"][row.b][entry], b.trace.read
    seen = Observed(
        [read(_tensors(b, row.b)[entry])],
        [[read(step[row.b][entry])] for step in learning["steps"]],
        [read(about["tensor"])],
        learning["update"]["norms"],
        about["parts"],
    )
    ours = _rule(a)
    before = row.alone or 0.0
    found = explain(ours, seen, b=_rule(b), enough=THRESHOLD * about["floor"])
    left = found.error / about["floor"]
    if not found.changes or left > max(before / 3, THRESHOLD):
        sentence = f"After the update, layer {row.b!r} has other weights, and no known convention explains them."
        return Finding("unexplained", sentence, "Compare how the two optimizers are built.", before, before)
    where = "" if layers[0] == layers[1] else f" (in {layers[0]} of {layers[1]} layers)"
    return Finding("optimizer_convention", f"{_said(found.changes)}{where}.", _fix(ours, found.changes), before, left)


def _said(changes: Sequence[Change]) -> str:
    return "The optimizers differ in " + "; and in ".join(
        f"{x.meaning}: {_value(x.b)} where A has {_value(x.a)}" for x in changes
    )


def _value(x: object) -> str:
    if isinstance(x, list):  # the learning rates of the steps
        return f"{x[0]:g}" if len(set(x)) == 1 else ", ".join(f"{v:g}" for v in x)
    return f"{x:g}" if isinstance(x, float) else str(x)


def _fix(ours: RuleSteps, changes: Sequence[Change]) -> str:
    known = as_dict(ours.spec)
    kept = [x for x in changes if x.term in known and x.term != "learning_rate"]
    rate = _value(list(ours.rates)) if len(set(ours.rates)) == 1 else "..."
    fields = "".join(f", {x.term}={x.a!r}" for x in kept)
    return f"Build it by agnostic.optimizers.build({type(ours.spec).__name__}({rate}{fields}, ...), model)."
