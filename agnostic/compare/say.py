"""What was found, as text: the sentence, the places of both sides, and the fix as code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agnostic.compare.edits import Edit
from agnostic.compare.explain import Difference, DifferenceSummary
from agnostic.compare.known import ACTIVATIONS, PADS, RANK, TOGETHER, mistake_of, operator_of
from agnostic.compare.leaf_relations import LeafRelation, relation
from agnostic.compare.lowering import MOVES, PARTS, kind
from agnostic.compare.replay import slots
from agnostic.compare.results import Divergence, Finding
from agnostic.compare.sides import Side
from agnostic.contracts.fixes import FIXES, Fixes
from agnostic.program.nodes import Leaf, Node, Value
from agnostic.registry import get_backend
from agnostic.text import counted

SHOWN = 8
"""How many operators of a piece are printed."""


def divergences(found: DifferenceSummary, before: float, after: float) -> list[Divergence]:
    """The differences as a user reads them; one mistake at several places is one.

    Args:
        before: the error of B's outputs, in noise floors.
        after: what is left of it with the differences undone.
    """
    said: dict[Any, list[tuple[Divergence, Difference]]] = {}
    parts = [part for difference in found.differences for part in _apart(found, difference)]
    for difference in sorted(parts, key=lambda d: _order(found.b, d)):
        one = _divergence(found, difference, before, after)
        said.setdefault(_group(difference, one), []).append((one, difference))
    return [_grouped(group) for group in said.values()]


def _apart(found: DifferenceSummary, difference: Difference) -> list[Difference]:
    """The mistakes of one difference: edits of one line belong together, and those that are one mistake."""
    key, lead = _Teller(found).mistake(difference)
    if key in TOGETHER or lead.kind in ("operand", "piece"):
        return [difference]
    lines: dict[Any, list[Edit]] = {}
    for edit in difference.edits:
        node = edit.b if edit.b is not None else edit.a
        lines.setdefault(None if node is None else (node.module, node.file, node.line), []).append(edit)
    return [replace(difference, edits=tuple(edits)) for edits in lines.values()]


def _order(b: Side, difference: Difference) -> int:
    made = [b.producer[v][0] for e in difference.edits if e.b is not None for v in e.b.outputs[:1] if v in b.producer]
    return min(made, default=len(b.nodes))


def _group(difference: Difference, said: Divergence) -> Any:
    """What makes two differences one mistake: A's operator is missing for several readers, or one setting repeats."""
    edit = difference.edits[0]
    if edit.kind == "missing" and edit.a is not None:
        return "missing", edit.a.outputs[0]
    if edit.kind == "extra" and edit.b is not None:
        return "extra", edit.b.outputs[0]
    if edit.kind == "attribute" and len(difference.edits) == 1:
        return "attribute", operator_of(edit), edit.name, repr(edit.ours), repr(edit.theirs)
    if edit.kind in ("replaced", "number") and edit.b is not None and edit.b.line is not None:
        return edit.kind, edit.b.module, edit.b.file, edit.b.line, repr(edit.ours), repr(edit.theirs)
    if edit.kind in ("leaf", "operand") and edit.b is not None and isinstance(edit.theirs, Value):
        return edit.kind, edit.b.module, edit.b.line, said.findings[0].mistake
    return id(difference)


def _grouped(group: Sequence[tuple[Divergence, Difference]]) -> Divergence:
    first = group[0][0]
    places = list(dict.fromkeys(one.b for one, _ in group))
    if len(places) < 2 or group[0][1].edits[0].kind != "attribute":
        return first
    best = first.findings[0]
    listed = ", ".join(map(repr, places[:4])) + (" ..." if len(places) > 4 else "")
    more = f" The same in {counted(len(places), 'layer')}: {listed}."
    fix = "\n".join(dict.fromkeys(one.findings[0].fix for one, _ in group))
    finding = Finding(best.mistake, best.sentence + more, fix, best.before, best.after, proven=best.proven,
                      place_a=best.place_a, place_b=best.place_b)  # fmt: skip
    return Divergence(first.a, first.b, first.kind, first.after, first.error, (finding,))


# One difference ------------------------------------------------------------------------------------------------------
def _divergence(found: DifferenceSummary, difference: Difference, before: float, after: float) -> Divergence:
    teller = _Teller(found)
    edits = difference.edits
    mistake, lead = teller.mistake(difference)
    where = teller.where(lead, difference)
    sentences = list(dict.fromkeys(teller.sentence(e, difference) for e in edits))
    named = all(e.kind != "piece" for e in edits) and found.proven
    finding = Finding(
        mistake, " ".join(sentences), "\n".join(dict.fromkeys(filter(None, map(teller.fix, edits)))), before,
        after if found.proven else before, proven=named, place_a=_place(lead.a), place_b=_place(lead.b),
    )  # fmt: skip
    return Divergence(*where, before, (finding,))


_ARITHMETIC = {"multiply", "add", "subtract", "divide"}
_TOLD = ("axes", "axis", "widths", "value", "index", "start", "stop")
"""Attributes that an operator is told by."""


class _Teller:
    def __init__(self, found: DifferenceSummary) -> None:
        self.a, self.b, self.proven = found.a, found.b, found.proven
        backend = get_backend(found.b.run.program.framework)
        self._fixes: Fixes | None = None
        if FIXES in backend:
            self._fixes = backend[FIXES]
        self.leaves = [{leaf.value: leaf for leaf in side.run.program.leaves} for side in (self.a, self.b)]

    # The key ---------------------------------------------------------------------------------------------------------
    def mistake(self, difference: Difference) -> tuple[str, Edit]:
        """The key of a difference, and the edit that gave it."""
        edits = sorted(difference.edits, key=lambda e: self._index(e.b))
        keys = [(self._key(edit), edit) for edit in edits]
        if (drawn := next((e for e in edits if self._is_drawn(e)), None)) is not None:
            return "dropout_on", drawn
        norms = self._swapped(edits)
        if norms:
            return norms, edits[0]
        kinds = {operator_of(e) for e in edits}
        if (
            len(edits) > 1
            and all(e.kind == "extra" for e in edits)
            and kinds <= {"multiply", "add", "subtract", "divide"}
        ):
            return "preprocessing_range", edits[0]
        for wanted in RANK:
            for key, edit in keys:
                if key == wanted:
                    return key, edit
        return keys[0]

    def _key(self, edit: Edit) -> str:
        if edit.kind == "leaf":
            found = self.related(edit)
            if found.mistake == "gate_order" and edit.b is not None and edit.b.kind not in ("LSTM", "GRU", "RNN"):
                return "weights_permuted"
            return found.mistake
        if edit.kind == "operand" and isinstance(edit.ours, Value) and isinstance(edit.theirs, Value):
            zero = self.b.arrays[edit.theirs]
            if self._role(1, edit.theirs) == "parameter" and not zero.any() and zero.ndim == 1:
                return "bias_missing"
            if all(self._role(k, v) in ("parameter", "buffer") for k, v in ((0, edit.ours), (1, edit.theirs))):
                return self.related(edit).mistake if not zero.any() else "weights_permuted"
            if self.a.of_weights(edit.ours) and self.b.of_weights(edit.theirs):
                return "weights_permuted"
        if edit.kind in ("extra", "missing") and operator_of(edit) in ACTIVATIONS and self._repeats(edit):
            return "activation_doubled"
        if edit.kind in ("extra", "missing") and operator_of(edit) == "permute":
            node = edit.b if edit.kind == "extra" else edit.a
            user = edit.a if edit.kind == "extra" else edit.b
            source = None if node is None else slots(node)[0]
            if user is not None and kind(user) == "linear" and isinstance(source, Value) and node is not None:
                if len(source.shape) == 4 and node.outputs[0].shape[1] != source.shape[2]:
                    return "flatten_order"
                if len(source.shape) == 4 and tuple(node.attributes["axes"]) == (0, 2, 3, 1):
                    return "flatten_order"
        if operator_of(edit) in _ARITHMETIC and self._prepares(edit):
            return "preprocessing_range"
        if edit.kind in ("extra", "missing") and operator_of(edit) == "add" and self._feeds_softmax(edit):
            return "attention_mask"
        if operator_of(edit) in ("multiply", "divide") and self._scores(edit):
            return "attention_scale"
        if edit.kind == "replaced" and {edit.ours, edit.theirs} <= PADS and self._pooled(edit):
            return "average_pool_padding"
        return mistake_of(edit)

    def _swapped(self, edits: Sequence[Edit]) -> str:
        norm = [e for e in edits if operator_of(e) in ("batch_norm", "layer_norm", "group_norm")
                and e.kind in ("operand", "leaf") and isinstance(e.theirs, Value)]  # fmt: skip
        labels = [{self.a.labels.get(e.ours) for e in norm}, {self.b.labels.get(e.theirs) for e in norm}]
        if len(norm) < 2 or not labels[0] & labels[1]:
            return ""
        names = {self.leaves[0][e.ours].name.rpartition(".")[2] for e in norm if e.ours in self.leaves[0]}
        return "mean_variance_swapped" if any("running" in n or "moving" in n for n in names) else "gamma_beta_swapped"

    def _is_drawn(self, edit: Edit) -> bool:
        if edit.b is None or edit.kind not in ("extra", "replaced"):
            return False
        drawn, seen, todo = self.b.run.drawn, set[Value](), list(slots(edit.b))
        while todo:
            v = todo.pop()
            if not isinstance(v, Value) or v in seen:
                continue
            if v in drawn:
                return True
            seen.add(v)
            made = self.b.made_by(v)
            if made is not None and self.b.labels.get(v) is None:
                todo += slots(made)
        return False

    def _repeats(self, edit: Edit) -> bool:
        side, node = (self.b, edit.b) if edit.kind == "extra" else (self.a, edit.a)
        source = None if node is None else slots(node)[0]
        made = side.made_by(side.root(source)) if isinstance(source, Value) else None
        return node is not None and made is not None and kind(made) == kind(node)

    def _prepares(self, edit: Edit) -> bool:
        """Whether numbers are added to an input, or multiplied with it."""
        node = edit.b if edit.b is not None and edit.kind != "missing" else edit.a
        if node is None or edit.kind not in ("extra", "missing", "number"):
            return False
        side = 0 if node is edit.a else 1
        given = [x for x in slots(node) if isinstance(x, Value)]
        found = [self.leaf(side, x) for x in given]
        inputs = [leaf for leaf in found if leaf is not None and leaf.role == "input"]
        return len(inputs) == 1 and all(leaf is not None and leaf.role in ("input", "constant") for leaf in found)

    def _feeds_softmax(self, edit: Edit) -> bool:
        return any(n is not None and kind(n) == "softmax" for n in (edit.a, edit.b))

    def _scores(self, edit: Edit) -> bool:
        """Whether a number multiplies the scores of an attention: a product of matrices, and then a softmax."""
        side, node = (self.a, edit.a) if edit.kind == "missing" else (self.b, edit.b)
        if node is None or edit.kind not in ("attribute", "number", "missing", "extra"):
            return False
        if any(isinstance(x, Value) and len(x.shape) < 2 for x in slots(node)):
            return False
        index = side.producer[node.outputs[0]][0]
        near = [kind(n) for n in side.nodes[max(index - 3, 0) : index + 14]]
        return "softmax" in near and "matmul" in near

    def _pooled(self, edit: Edit) -> bool:
        """Whether what is padded is averaged."""
        padded = set() if edit.b is None else set(edit.b.outputs)
        return any(kind(n) == "average_pool" and padded.intersection(slots(n)[:1]) for n in self.b.nodes)

    def _role(self, side: int, value: Value) -> str:
        leaf = self.leaves[side].get(value)
        return "" if leaf is None else leaf.role

    # Places ----------------------------------------------------------------------------------------------------------
    def where(self, lead: Edit, difference: Difference) -> tuple[str, str, str, str]:
        """A's and B's layer, ``"layer"`` or ``"code"``, and B's layer before."""
        own = lead.a if lead.kind == "missing" else lead.b
        side = self.a if lead.kind == "missing" else self.b
        if own is not None and _is_layer(side, own) and lead.kind not in ("missing",):
            ours = lead.a.module if lead.a is not None and _is_layer(self.a, lead.a) else own.module
            return ours, own.module, "layer", ""
        index = self._index(own if lead.kind == "extra" else difference.b if difference.b is not None else own)
        user = next((n.module for n in self.b.nodes[index:] if _is_layer(self.b, n)), "")
        before = [n.module for n in self.b.nodes[:index] if _is_layer(self.b, n)]
        after = before[-1] if before else "input"
        if before and lead.a is not None and self._fused(lead):
            return lead.a.module, after, "layer", ""
        ours = lead.a.module if lead.a is not None and _is_layer(self.a, lead.a) else user or "output"
        if difference.parting.node < 0:
            user = ""
        return ours, user or after, "code", after

    def _fused(self, edit: Edit) -> bool:
        """Whether A's layer itself computes the operator that B lacks, as an activation of its own."""
        if edit.kind != "missing" or edit.a is None or not _is_layer(self.a, edit.a):
            return False
        made = self.a.made_by(self.a.root(edit.ours)) if isinstance(edit.ours, Value) else None
        return made is not None and made.module == edit.a.module

    def _index(self, node: Node | None) -> int:
        if node is None or not node.outputs or node.outputs[0] not in self.b.producer:
            return len(self.b.nodes)
        return self.b.producer[node.outputs[0]][0]

    # Sentences -------------------------------------------------------------------------------------------------------
    def sentence(self, edit: Edit, difference: Difference) -> str:
        """What B does, and what A does."""
        at = self._at(edit)
        what = operator_of(edit)
        match edit.kind:
            case "attribute":
                return f"{at} {what} has {edit.name}={edit.theirs!r}, A's has {edit.ours!r}."
            case "number":
                return f"{at} {what} by {edit.theirs!r} stands where A has {edit.ours!r}."
            case "shape":
                return f"{at} {what} runs over the same numbers in shape {edit.theirs}, A's in {edit.ours}."
            case "part":
                return f"{at} part {edit.theirs} of {what} is used, A uses part {edit.ours}."
            case "operand":
                return f"{at} {what} takes {self.named(1, edit.theirs)}, A's takes {self.named(0, edit.ours)}."
            case "order":
                return f"{at} {what} joins the parts in another order: A's are B's {edit.ours}."
            case "leaf":
                return f"{at} {self.named(1, edit.theirs)} {self.related(edit).words}."
            case "missing" if edit.a is not None and self._fused(edit):
                _, layer, _, _ = self.where(edit, difference)
                return f"Layer {layer!r} lacks {what}, which A's layer {edit.a.module!r} computes{_seen(edit.a)}."
            case "missing":
                return f"{at} {what}{self._others(0, edit.a, edit.ours)} is missing, which A has{_seen(edit.a)}."
            case "extra":
                return f"{at} {what}{self._others(1, edit.b, edit.theirs)} is computed{_seen(edit.b)}, A does not."
            case "replaced":
                return f"{at} {edit.theirs} stands where A has {edit.ours}."
        ours, theirs = self._listed(0, difference.parting.a), self._listed(1, difference.parting.b)
        return f"{at} B computes {theirs}; A computes {ours}. The pieces were exchanged as a whole."

    def _at(self, edit: Edit) -> str:
        node = edit.b if edit.b is not None else edit.a
        layer = "" if node is None else node.module
        place = _place(node)
        if edit.b is None:
            return "At the output"
        return (
            f"At layer {layer!r}{f' ({place})' if place else ''}"
            if layer
            else f"At {place}"
            if place
            else "In the model"
        )

    def _others(self, side: int, node: Node | None, kept: Any) -> str:
        """The operands of an operator beside the one that goes through it."""
        if node is None:
            return ""
        given = [x for x in slots(node) if x != kept and x is not None and not isinstance(x, bool)]
        told = [self.named(side, x) for x in given[:3]]
        said = [f"{k}={v!r}" for k, v in node.attributes.items() if k in _TOLD]
        return f" ({', '.join((*told, *said))})" if told or said else ""

    def named(self, side: int, value: Any) -> str:
        """A value as text: the name of a leaf, or the operator that computes it."""
        if not isinstance(value, Value):
            return repr(value)
        one = (self.a, self.b)[side]
        root, part = _source(one, value)
        leaf: Leaf | None = self.leaves[side].get(root)
        if leaf is not None:
            return part + (leaf.name if leaf.role != "constant" else f"a constant of shape {value.shape}")
        if one.of_weights(value) and (names := _weights_of(one, value)):
            return " and ".join(names)
        made = one.made_by(root)
        assert made is not None
        where = f" of layer {made.module!r}" if made.module else ""
        return f"{part}the {kind(made)}{where}{_seen(made)}"

    def _listed(self, side: int, value: Value) -> str:
        """The operators that compute a value, back to what both sides have."""
        one, other = (self.a, self.b) if side == 0 else (self.b, self.a)
        present = {label for label in other.labels.values() if label is not None}
        steps: list[int] = []
        sources: dict[str, None] = {}
        todo = [value]
        while todo:
            v = todo.pop()
            made = one.producer.get(v)
            if made is None or one.labels.get(v) in present:
                sources[self.named(side, v)] = None
            elif made[0] not in steps:
                steps.append(made[0])
                todo += [x for x in slots(one.nodes[made[0]]) if isinstance(x, Value)]
        steps = [k for k in sorted(steps) if any(one.root(v) == v for v in one.nodes[k].outputs)]
        shown = [kind(one.nodes[k]) for k in steps[-SHOWN:]]
        lines = [_place(one.nodes[k]) for k in steps]
        where = f" at {next(filter(None, reversed(lines)))}" if any(lines) else ""
        more = "... " if len(steps) > SHOWN else ""
        return f"{more}{', '.join(shown) or 'nothing'}{where} from {', '.join(list(sources)[:4]) or 'constants'}"

    def related(self, edit: Edit) -> LeafRelation:
        """What B's leaf is to A's."""
        leaf = self.leaf(1, edit.theirs)
        name = "" if leaf is None else leaf.name
        x, y = self.a.arrays[edit.ours], self.b.arrays[edit.theirs]
        if x.shape != y.shape and x.size == y.size and (leaf is None or leaf.value != edit.theirs):
            y = y.reshape(x.shape)  # how a framework stores it is no mistake
        return relation(x, y, name)

    # Fixes -----------------------------------------------------------------------------------------------------------
    def fix(self, edit: Edit) -> str:
        """Code that takes an edit out of B, where ``model`` is B and ``other`` is A."""
        if edit.kind == "leaf":
            return self._leaf_fix(edit)
        if edit.kind == "operand" and all(isinstance(x, Value) for x in (edit.ours, edit.theirs)):
            pair = self.leaves[0].get(self.a.root(edit.ours)), self.leaves[1].get(self.b.root(edit.theirs))
            if pair[0] is not None and pair[1] is not None and pair[1].role in ("parameter", "buffer"):
                return self._copied(pair[0], pair[1])
        found = self._setting(edit)
        if found is not None and _is_layer(self.b, found[0]) and self._fixes is not None:
            code = self._fixes.setting(found[0].module, *found[1:])
            if code:
                return code
        return self._written(edit)

    def _setting(self, edit: Edit) -> tuple[Node, str, str, Any] | None:
        """B's node, its operator, and the name and A's value of the setting that an edit is about."""
        node = edit.b
        if node is None:
            return None
        if edit.kind == "replaced" and {edit.ours, edit.theirs} == {"batch_norm", "batch_norm_training"}:
            return node, "batch_norm", "training", edit.ours == "batch_norm_training"
        if edit.kind == "replaced" and {edit.ours, edit.theirs} == {"gelu", "gelu_tanh"}:
            return node, "gelu", "approximate", "tanh" if edit.ours == "gelu_tanh" else "none"
        if (
            edit.kind in ("extra", "missing", "attribute")
            and operator_of(edit) == "pad"
            and edit.name in ("", "widths")
        ):
            return self._padding(edit, node)
        return (node, kind(node), edit.name, edit.ours) if edit.kind == "attribute" else None

    def _padding(self, edit: Edit, node: Node) -> tuple[Node, str, str, Any] | None:
        """The window of B that pads by itself, and what A has before and after each of its axes."""
        window = node if edit.kind == "missing" else next(
            (n for n in self.b.nodes if n.module == node.module and node.outputs[0] in slots(n)), None
        )  # fmt: skip
        if window is None or kind(window) not in ("convolution", "max_pool", "average_pool"):
            return None
        channels = window.attributes.get("channel_axis", 1) % len(window.outputs[0].shape)
        none = ((0, 0),) * len(window.outputs[0].shape)
        ours = edit.ours if edit.kind == "attribute" else none
        if edit.kind == "missing":
            ours = none if edit.a is None else edit.a.attributes["widths"]
        return window, kind(window), "padding", tuple(x for k, x in enumerate(ours) if k not in (0, channels))

    def leaf(self, side: int, value: Value) -> Leaf | None:
        """The leaf whose numbers a value holds, perhaps in another order; None for any other."""
        root, part = _source((self.a, self.b)[side], value)
        return None if part else self.leaves[side].get(root)

    def _leaf_fix(self, edit: Edit) -> str:
        ours, theirs = self.leaf(0, edit.ours), self.leaf(1, edit.theirs)
        if not self.b.of_weights(edit.theirs):
            return ""
        if ours is None or theirs is None:
            return "ag.transfer(other, model)"
        undo = self.related(edit).undo if theirs.value == edit.theirs else ""
        code = self._fixes.weight(theirs.role, theirs.name, undo) if undo and self._fixes is not None else None
        return code or self._copied(ours, theirs)

    def _copied(self, ours: Leaf, theirs: Leaf) -> str:
        alike = self.a.run.program.framework == self.b.run.program.framework
        names = (theirs.role, theirs.name), (ours.role, ours.name)
        code = self._fixes.copied(*names) if alike and self._fixes is not None else None
        return code or "ag.transfer(other, model)"

    def _written(self, edit: Edit) -> str:
        """What to write at a line of B's source."""
        place = _place(edit.b)
        line = f"# {place}\n" if place else ""
        match edit.kind:
            case "attribute":
                return f"{line}# {operator_of(edit)}(..., {edit.name}={edit.ours!r})"
            case "number":
                return f"{line}# {operator_of(edit)} by {edit.ours!r}"
            case "missing":
                where = _place(edit.a)
                return f"{line}# compute {operator_of(edit)}{self._others(0, edit.a, edit.ours)}" + (
                    f", as A does at {where}" if where else ""
                )
            case "extra":
                return f"{line}# leave {operator_of(edit)} out"
            case "replaced":
                return f"{line}# {edit.ours} instead of {edit.theirs}"
            case "operand":
                return f"{line}# give it {self.named(0, edit.ours)} instead of {self.named(1, edit.theirs)}"
        return ""


def _source(side: Side, value: Value) -> tuple[Value, str]:
    """What a value was before it was only moved, and which part of it it is."""
    part = ""
    while (made := side.made_by(value)) is not None and kind(made) in MOVES and isinstance(slots(made)[0], Value):
        if kind(made) in PARTS:
            number = made.attributes.get("index", made.attributes.get("start", side.producer[value][1]))
            part = f"part {number} of "
        value = slots(made)[0]
    return value, part


def _weights_of(side: Side, value: Value) -> list[str]:
    """The names of the weights that a value is computed of."""
    names = {leaf.value: leaf.name for leaf in side.run.program.leaves}
    found: dict[str, None] = {}
    todo = [value]
    while todo:
        one = todo.pop()
        made = side.made_by(one)
        if made is None:
            found[names[one]] = None
        else:
            todo += [x for x in reversed(slots(made)) if isinstance(x, Value)]
    return list(found)[:3]


def _is_layer(side: Side, node: Node) -> bool:
    """Whether a layer without layers inside ran the node, or one whose inner layers are its own business."""
    name = node.module
    if not name:
        return False
    if node.kind == "MultiheadAttention":
        return True
    return not any(other.startswith(f"{name}.") for other in side.run.program.modules)


def _place(node: Node | None) -> str:
    """File and line, the file relative to the working folder if it is below it."""
    if node is None or node.file is None:
        return ""
    path = os.path.relpath(node.file)
    return f"{node.file if path.startswith('..') else path}:{node.line}"


def _seen(node: Node | None) -> str:
    place = _place(node)
    return f" at {place}" if place else ""
