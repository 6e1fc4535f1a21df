"""The key of a difference: what its edits are called together, by what stands around them."""

from __future__ import annotations

from collections.abc import Sequence

from agnostic.compare.edits import Edit
from agnostic.compare.explain import DifferenceSummary
from agnostic.compare.known import ACTIVATIONS, PADS, RANK, mistake_of, operator_of
from agnostic.compare.lowering import MOVES, PARTS, PRODUCTS, kind
from agnostic.compare.prove import Difference
from agnostic.compare.replay import slots
from agnostic.compare.sides import Side
from agnostic.compare.wording import index_of, leaf_of, related
from agnostic.program.nodes import Node, Value

_ARITHMETIC = frozenset({"multiply", "add", "subtract", "divide"})
STEPS = 12
"""How many operators a layer of code has, at most, that is told as one."""

_ROOTS = frozenset({"sqrt", "rsqrt", "power"})


def mistake(found: DifferenceSummary, difference: Difference) -> tuple[str, Edit]:
    """The key of a difference, and the edit that gave it."""
    edits = sorted(difference.edits, key=lambda e: index_of(found, e.b))
    if (drawn := next((e for e in edits if _is_drawn(found, e)), None)) is not None:
        return "dropout_on", drawn
    if norms := _swapped(found, edits):
        return norms, edits[0]
    if len(edits) > 1 and (together := _together(found, edits)):
        return together
    keys = [(_key(found, edit), edit) for edit in edits]
    for wanted in RANK:
        for key, edit in keys:
            if key == wanted:
                return key, edit
    # What is added or multiplied besides belongs to another function.
    return next((x for x in keys if x[1].kind == "replaced"), keys[0])


def _together(found: DifferenceSummary, edits: Sequence[Edit]) -> tuple[str, Edit] | None:
    """What several edits are, if they are one thought."""
    extra, missing = ([e for e in edits if e.kind == k] for k in ("extra", "missing"))
    kinds = [{operator_of(e) for e in some} for some in (missing, extra)]
    if len(extra) == len(edits) and kinds[1] <= _ARITHMETIC and _prepares(found, extra[0]):
        return "preprocessing_range", edits[0]
    if len(missing) == len(edits) and len(layers := {(e.a.module, e.a.calls) for e in edits if e.a is not None}) == 1:
        (name, _), used = layers.pop(), {e.b.module for e in edits if e.b is not None}
        if name and name not in used:
            return "layer_missing", edits[0]
    if len(extra) + len(missing) < len(edits) or not extra or not missing:
        return None
    if kinds[0] | kinds[1] <= PARTS:
        return "wrong_part", edits[0]
    if kinds[0] | kinds[1] <= MOVES | {"expand"}:
        return "features_permuted", edits[0]
    working = [some - MOVES for some in kinds]
    if both := working[0] & working[1]:
        ones, others = ([e for e in some if operator_of(e) in both] for some in (missing, extra))
        parts = any(_are_parts(found, x.ours, y.theirs) for x in ones for y in others)
        return "wrong_part" if parts else "layer_order", ones[0]
    functions = [[e for e in some if operator_of(e) in ACTIVATIONS] for some in (missing, extra)]
    if functions[0] and working[1] <= ACTIVATIONS | _ARITHMETIC | {"power", "erf"}:
        return "activation_differs", functions[0][0]
    if functions[1] and working[0] <= ACTIVATIONS | _ARITHMETIC | {"power", "erf"}:
        return "activation_differs", functions[1][0]
    return None


def _key(found: DifferenceSummary, edit: Edit) -> str:
    if edit.kind == "leaf" and edit.theirs.dtype == "bool":
        return "attention_mask"
    if edit.kind == "leaf":
        name = related(found, edit).mistake
        # A gate's order is told of recurrent layers alone.
        gated = edit.b is not None and edit.b.kind in ("LSTM", "GRU", "RNN")
        return "weights_permuted" if name == "gate_order" and not gated else name
    if edit.kind in ("operand", "shape") and _is_mask(edit):
        return "attention_mask"
    values = isinstance(edit.ours, Value) and isinstance(edit.theirs, Value)
    if edit.kind == "operand" and values:
        name = _of_weights(found, edit) or (
            "wrong_part" if _are_parts(found, edit.ours, edit.theirs) else _skipped(found, edit)
        )
        if name:
            return name
    if edit.kind in ("extra", "missing", "number") and (name := _alone(found, edit)):
        return name
    if operator_of(edit) in _ARITHMETIC and _prepares(found, edit):
        return "preprocessing_range"
    if operator_of(edit) in ("multiply", "divide") and _scores(found, edit):
        return "attention_scale"
    if edit.kind == "replaced" and {edit.ours, edit.theirs} <= PADS and _pooled(found.b, edit):
        return "average_pool_padding"
    return mistake_of(edit)


def _is_mask(edit: Edit) -> bool:
    """Whether an edit is about what is hidden."""
    if edit.b is None or kind(edit.b) != "where":
        return False
    given = slots(edit.b)[0]
    if edit.kind == "operand":
        return isinstance(edit.theirs, Value) and edit.theirs.dtype == "bool"
    return isinstance(given, Value) and given.dtype == "bool"


def _of_weights(found: DifferenceSummary, edit: Edit) -> str:
    """The key where one weight stands for another."""
    zero = found.b.arrays[edit.theirs]
    roles = [found.a.role_of(edit.ours), found.b.role_of(edit.theirs)]
    if roles[1] == "parameter" and not zero.any() and zero.ndim == 1:
        return "bias_missing"
    if all(role in ("parameter", "buffer") for role in roles):
        return related(found, edit).mistake if not zero.any() else "weights_permuted"
    made = found.a.made_by(edit.ours), found.b.made_by(edit.theirs)
    if all(n is not None and kind(n) == "full" for n in made):
        return "constant_differs"
    return "weights_permuted" if found.a.of_weights(edit.ours) and found.b.of_weights(edit.theirs) else ""


def _are_parts(found: DifferenceSummary, ours: Value, theirs: Value) -> bool:
    """Whether one value is another part of what the other is a part of."""
    made = found.a.made_by(ours), found.b.made_by(theirs)
    if any(n is None or kind(n) not in PARTS for n in made):
        return False
    labels = [side.labels.get(slots(n)[0]) for side, n in zip((found.a, found.b), made, strict=True) if n is not None]
    return labels[0] is not None and labels[0] == labels[1]


def _skipped(found: DifferenceSummary, edit: Edit) -> str:
    """The key where one value is computed of the other in a few steps: a layer is left out, or comes in."""
    ours, theirs = found.a.labels.get(edit.ours), found.b.labels.get(edit.theirs)
    if ours not in found.b.labels.values() and _comes_from(found.a, edit.ours, theirs):
        return "layer_missing"
    return "layer_extra" if theirs is None and _comes_from(found.b, edit.theirs, ours) else ""


def _comes_from(side: Side, value: Value, label: int | None) -> bool:
    """Whether a value is computed of one with a label, by no product."""
    todo, seen = [value], set[Value]()
    while todo and label is not None and len(seen) < STEPS:
        one = todo.pop()
        made = side.made_by(one)
        if one != value and side.labels.get(one) == label:
            return True
        if made is not None and kind(made) not in PRODUCTS and one not in seen:
            seen.add(one)
            todo += [x for x in slots(made) if isinstance(x, Value)]
    return False


def _alone(found: DifferenceSummary, edit: Edit) -> str:
    """The key of an operator that one side has alone, by what it is applied to and what reads it."""
    what, node = operator_of(edit), edit.a if edit.kind == "missing" else edit.b
    side = found.a if edit.kind == "missing" else found.b
    if node is None:
        return ""
    if what in ACTIVATIONS and edit.kind != "number" and _repeats(side, node):
        return "activation_doubled"
    if what == "flip" and side.of_weights(node.outputs[0]):
        return "kernel_flipped"
    if node.outputs[0].dtype == "bool":
        return "attention_mask"
    if what in ("multiply", "divide") and edit.kind == "missing" and _normalizes(side, node, edit.ours):
        return "layer_missing"
    if what == "permute" and _flattens(edit, node):
        return "flatten_order"
    if (
        what == "add"
        and edit.kind != "number"
        and any(n is not None and kind(n) == "softmax" for n in (edit.a, edit.b))
    ):
        return "attention_mask"
    if what in ("add", "subtract") and not all(isinstance(x, Value) for x in slots(node)[:2]):
        return "norm_epsilon" if _is_rooted(side, node) else "constant_offset"
    return ""


def _normalizes(side: Side, node: Node, kept: Value) -> bool:
    """Whether an array is multiplied by numbers that are computed of itself alone."""
    todo, seen, itself = [x for x in slots(node) if isinstance(x, Value) and x != kept], set[Value](), False
    while todo:
        value = todo.pop()
        made = side.made_by(value)
        if value == kept or side.root(value) == side.root(kept):
            itself = True
        elif made is None or kind(made) in PRODUCTS or len(seen) > STEPS:
            return False
        elif value not in seen:
            seen.add(value)
            todo += [x for x in slots(made) if isinstance(x, Value)]
    return itself


def _is_rooted(side: Side, node: Node) -> bool:
    """Whether a root is taken of what an operator gives, or was of what it is applied to."""
    giver = next((side.made_by(x) for x in slots(node) if isinstance(x, Value)), None)
    if giver is not None and kind(giver) in _ROOTS:
        return True
    return any(kind(n) in _ROOTS and node.outputs[0] in slots(n) for n in side.nodes)


def _flattens(edit: Edit, node: Node) -> bool:
    """Whether the axes of an image are turned before a dense layer."""
    user, source = edit.a if edit.kind == "extra" else edit.b, slots(node)[0]
    if user is None or kind(user) != "linear" or not isinstance(source, Value) or len(source.shape) != 4:
        return False
    return node.outputs[0].shape[1] != source.shape[2] or tuple(node.attributes["axes"]) == (0, 2, 3, 1)


def _swapped(found: DifferenceSummary, edits: Sequence[Edit]) -> str:
    norm = [e for e in edits if operator_of(e) in ("batch_norm", "layer_norm", "group_norm")
            and e.kind in ("operand", "leaf") and isinstance(e.theirs, Value)]  # fmt: skip
    ours = [(e.b, found.a.labels.get(e.ours)) for e in norm]
    theirs = [(e.b, found.b.labels.get(e.theirs)) for e in norm]
    if not any(x is not None and x == y and node is other for node, x in theirs for other, y in ours):
        return ""
    leaves = found.a.leaves
    names = {leaves[e.ours].name.rpartition(".")[2] for e in norm if e.ours in leaves}
    return "mean_variance_swapped" if any("running" in n or "moving" in n for n in names) else "gamma_beta_swapped"


def _is_drawn(found: DifferenceSummary, edit: Edit) -> bool:
    """Whether B draws numbers for what it has otherwise."""
    if edit.b is None or edit.kind not in ("extra", "replaced"):
        return False
    seen, todo = set[Value](), list(slots(edit.b))
    while todo:
        v = todo.pop()
        if not isinstance(v, Value) or v in seen:
            continue
        if v in found.b.run.drawn:
            return True
        seen.add(v)
        made = found.b.made_by(v)
        if made is not None and found.b.labels.get(v) is None:
            todo += slots(made)
    return False


def _repeats(side: Side, node: Node) -> bool:
    source = slots(node)[0]
    made = side.made_by(side.root(source)) if isinstance(source, Value) else None
    return made is not None and kind(made) == kind(node)


def _prepares(found: DifferenceSummary, edit: Edit) -> bool:
    """Whether numbers are added to an input, or multiplied with it."""
    node = edit.b if edit.b is not None and edit.kind != "missing" else edit.a
    if node is None or edit.kind not in ("extra", "missing", "number"):
        return False
    side = 0 if node is edit.a else 1
    leaves = [leaf_of(found, side, x) for x in slots(node) if isinstance(x, Value)]
    inputs = [leaf for leaf in leaves if leaf is not None and leaf.role == "input"]
    return len(inputs) == 1 and all(leaf is not None and leaf.role in ("input", "constant") for leaf in leaves)


def _scores(found: DifferenceSummary, edit: Edit) -> bool:
    """Whether a number multiplies the scores of an attention: a product of matrices, and then a softmax."""
    side, node = (found.a, edit.a) if edit.kind == "missing" else (found.b, edit.b)
    if node is None or edit.kind not in ("attribute", "number", "missing", "extra"):
        return False
    if any(isinstance(x, Value) and len(x.shape) < 2 for x in slots(node)):
        return False
    index = side.producer[node.outputs[0]][0]
    near = [kind(n) for n in side.nodes[max(index - 3, 0) : index + 14]]
    return "softmax" in near and "matmul" in near


def _pooled(side: Side, edit: Edit) -> bool:
    """Whether what is padded is averaged."""
    padded = set() if edit.b is None else set(edit.b.outputs)
    return any(kind(n) == "average_pool" and padded.intersection(slots(n)[:1]) for n in side.nodes)
