"""The fix of a difference, as code: ``model`` is B and ``other`` is A; or a patch of B's source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from agnostic.compare.edits import Edit
from agnostic.compare.explain import DifferenceSummary
from agnostic.compare.judging import of_one_framework
from agnostic.compare.known import ACTIVATIONS, operator_of
from agnostic.compare.lowering import kind
from agnostic.compare.replay import slots
from agnostic.compare.rewriting import Padding, rewritten
from agnostic.compare.sides import Side
from agnostic.compare.source_patch import source_patch
from agnostic.compare.weight_code import carried
from agnostic.compare.wording import is_layer, lacking, leaf_of, named, others_of, place, related
from agnostic.contracts.fixes import FIXES, Fixes
from agnostic.program.nodes import Leaf, Node, Value
from agnostic.registry import get_backend


def fix(found: DifferenceSummary, edits: Sequence[Edit]) -> str:
    """Code that takes some edits out of B; comments that say what to write where there is none."""
    backend = get_backend(found.b.run.program.framework)
    fixes: Fixes | None = None
    if FIXES in backend:
        fixes = backend[FIXES]
    codes = [_code(found, fixes, edit) for edit in edits]
    if not all(codes):
        patch = _patched(found, edits) or _rewritten(found, fixes, edits)
        layers = "" if patch or fixes is None else _layers(found, fixes, edits)
        if patch or layers:
            return patch or layers
        codes = [code or _set(found, fixes, edit) or _comment(found, edit)
                 for code, edit in zip(codes, edits, strict=True)]  # fmt: skip
    return "\n".join(dict.fromkeys(filter(None, codes)))


def _code(found: DifferenceSummary, fixes: Fixes | None, edit: Edit) -> str:
    """Code that takes one edit out."""
    if whole := _whole(found, fixes, edit):
        return whole
    if edit.kind == "leaf":
        return _leaf(found, fixes, edit)
    if edit.kind == "operand" and all(isinstance(x, Value) for x in (edit.ours, edit.theirs)):
        pair = found.a.leaves.get(found.a.root(edit.ours)), found.b.leaves.get(found.b.root(edit.theirs))
        if pair[0] is not None and pair[1] is not None and pair[1].role in ("parameter", "buffer"):
            return "" if _holds(found, pair[0]) else _copied(found, fixes, edit, pair[0], pair[1])
        if found.a.of_weights(edit.ours) and found.b.of_weights(edit.theirs):
            return _carried(found, fixes, edit)
    return _set(found, fixes, edit) if edit.b is not None and _of_framework(edit.b) else ""


def _whole(found: DifferenceSummary, fixes: Fixes | None, edit: Edit) -> str:
    """Code that puts A's layer in the place of B's, which has no room for A's weight."""
    if fixes is None or edit.a is None or edit.b is None or not isinstance(edit.ours, Value):
        return ""
    ours = found.a.leaves.get(found.a.root(edit.ours))
    theirs = found.b.leaves.get(found.b.root(edit.theirs)) if isinstance(edit.theirs, Value) else None
    own = all(map(_of_framework, (edit.a, edit.b))) and of_one_framework(found.a.run, found.b.run)
    if ours is None or ours.role != "parameter" or not own:
        return ""
    if edit.theirs is not None and (theirs is None or theirs.value.shape == ours.value.shape):
        return ""
    return fixes.layer(edit.b.module, edit.a.module) or ""


def _set(found: DifferenceSummary, fixes: Fixes | None, edit: Edit) -> str:
    """Code that gives a layer A's setting. What a class of the user's calls it, is a guess."""
    setting = _setting(found, edit)
    if setting is None or fixes is None or not is_layer(found.b, setting[0]):
        return ""
    node, *what = setting
    return fixes.setting(node.module, node.kind, *what, line=node.line is not None) or ""


def _of_framework(node: Node) -> bool:
    """Whether a layer of the framework computes it, and no line of the user's."""
    return node.line is None


def _holds(found: DifferenceSummary, ours: Leaf) -> bool:
    """Whether B has A's weight under its name: then another layer is called, and no weight is wrong."""
    own = [leaf for leaf in found.b.leaves.values() if leaf.name == ours.name]
    return any(found.b.labels.get(leaf.value) == found.a.labels[ours.value] for leaf in own)


# Settings ------------------------------------------------------------------------------------------------------------
def _setting(found: DifferenceSummary, edit: Edit) -> tuple[Node, str, str, Any] | None:
    """B's node, its operator, and the name and A's value of the setting that an edit is about."""
    node = edit.b
    if operator_of(edit) in ACTIVATIONS and (lacks := lacking(found, edit)) is not None:
        return lacks, "activation", "function", operator_of(edit)
    if node is None:
        return None
    if edit.kind == "replaced" and {edit.ours, edit.theirs} == {"batch_norm", "batch_norm_training"}:
        return node, "batch_norm", "training", edit.ours == "batch_norm_training"
    if edit.kind == "replaced" and {edit.ours, edit.theirs} == {"gelu", "gelu_tanh"}:
        return node, "gelu", "approximate", "tanh" if edit.ours == "gelu_tanh" else "none"
    if edit.kind in ("replaced", "extra") and operator_of(edit) in ACTIVATIONS:
        return node, "activation", "function", edit.ours or "linear"
    if edit.kind in ("extra", "missing", "attribute") and operator_of(edit) == "pad" and edit.name in ("pad", "widths"):
        return _padding(found.b, edit, node)
    return (node, kind(node), edit.name, edit.ours) if edit.kind == "attribute" else None


def _padding(side: Side, edit: Edit, node: Node) -> tuple[Node, str, str, Any] | None:
    """The window of B that pads by itself, and what A has before and after each of its axes."""
    window = node if edit.kind == "missing" else next(
        (n for n in side.nodes if n.module == node.module and node.outputs[0] in slots(n)), None
    )  # fmt: skip
    if window is None or kind(window) not in ("convolution", "max_pool", "average_pool"):
        return None
    channels = window.attributes.get("channel_axis", 1) % len(window.outputs[0].shape)
    none = ((0, 0),) * len(window.outputs[0].shape)
    ours = edit.ours if edit.kind == "attribute" else none
    if edit.kind == "missing":
        ours = none if edit.a is None else edit.a.attributes["widths"]
    return window, kind(window), "padding", tuple(x for k, x in enumerate(ours) if k not in (0, channels))


# Weights -------------------------------------------------------------------------------------------------------------
def _leaf(found: DifferenceSummary, fixes: Fixes | None, edit: Edit) -> str:
    ours, theirs = leaf_of(found, 0, edit.ours), leaf_of(found, 1, edit.theirs)
    if not found.b.of_weights(edit.theirs):
        return ""
    if ours is None or theirs is None:
        return _carried(found, fixes, edit) or "ag.transfer(other, model)"
    if theirs.value != edit.theirs and _holds(found, ours):
        return ""  # what B does with the weight is wrong, not the weight
    undo = related(found, edit).undo if theirs.value == edit.theirs else ""
    code = fixes.weight(theirs.role, theirs.name, undo) if undo and fixes is not None else None
    return code or _copied(found, fixes, edit, ours, theirs)


def _copied(found: DifferenceSummary, fixes: Fixes | None, edit: Edit, ours: Leaf, theirs: Leaf) -> str:
    names = (theirs.role, theirs.name), (ours.role, ours.name)
    code = fixes.copied(*names) if of_one_framework(found.a.run, found.b.run) and fixes is not None else None
    return code or _carried(found, fixes, edit) or "ag.transfer(other, model)"


def _carried(found: DifferenceSummary, fixes: Fixes | None, edit: Edit) -> str:
    """A's numbers for B's weight, each in its framework's order."""
    theirs, backend = fixes, get_backend(found.a.run.program.framework)
    if theirs is None or FIXES not in backend:
        return ""
    return carried((found.a, found.b), (backend[FIXES], theirs), edit.ours, edit.theirs)


# Code ----------------------------------------------------------------------------------------------------------------
def _patched(found: DifferenceSummary, edits: Sequence[Edit]) -> str:
    """A patch of B's file."""
    if not of_one_framework(found.a.run, found.b.run):
        return ""
    ours, theirs = [e.a for e in edits], [e.b for e in edits]
    for edit in edits:
        ours += _around(found.a, edit.ours)
        theirs += _around(found.b, edit.theirs)
    for side, nodes in ((found.a, ours), (found.b, theirs)):
        if not any(n is not None and n.line for n in nodes):
            nodes += _callers(side, nodes)
    return source_patch(ours, theirs)


def _rewritten(found: DifferenceSummary, fixes: Fixes | None, edits: Sequence[Edit]) -> str:
    """A patch of B's file where A's is in the words of another framework."""
    if fixes is None:
        return ""
    paddings: list[Padding | None] = []
    for edit in edits:
        setting = _setting(found, edit)
        paddings.append((setting[0], setting[3]) if setting is not None and setting[2] == "padding" else None)
    return rewritten(found, fixes, edits, paddings)


def _callers(side: Side, nodes: Sequence[Node | None]) -> list[Node]:
    """Operators of the code that calls the layers of others."""
    names = [n.module for n in nodes if n is not None]
    while any(names):
        names = [name.rpartition(".")[0] for name in names]
        found = [n for n in side.nodes if n.module in names and n.line]
        if found:
            return found
    return [n for n in side.nodes if n.line]


def _around(side: Side, value: Any) -> list[Node | None]:
    """What gives a value, if code does."""
    return [side.made_by(side.root(value)), side.made_by(value)] if isinstance(value, Value) else []


def _layers(found: DifferenceSummary, fixes: Fixes, edits: Sequence[Edit]) -> str:
    """Code that makes B's layers A's, where layers of the framework or their settings differ."""
    if not of_one_framework(found.a.run, found.b.run):
        return ""
    codes = list(dict.fromkeys(_layer(found, fixes, edit) for edit in edits))
    return "\n".join(codes) if all(codes) else ""


def _layer(found: DifferenceSummary, fixes: Fixes, edit: Edit) -> str:
    modules = [side.run.program.modules for side in (found.a, found.b)]
    ours, theirs = ("" if n is None else n.module for n in (edit.a, edit.b))
    if edit.kind == "extra" and edit.b is not None and _is_alone(found.b, edit.b):
        return fixes.layer(theirs, None) or ""
    if edit.kind == "missing" and edit.a is not None and ours in modules[1] and _is_alone(found.a, edit.a):
        return fixes.layer(ours, ours) or ""  # B has something else in its place, which does nothing
    if edit.kind in ("extra", "missing", "leaf", "piece", "order") or edit.a is None or edit.b is None:
        return ""
    if modules[0].get(ours) == modules[1].get(theirs) and edit.kind != "operand":
        return fixes.settings(theirs, ours) or ""
    if ours and theirs and all(map(_of_framework, (edit.a, edit.b))):
        weighted = [any(True for _ in _weights(side, name)) for side, name in ((found.a, ours), (found.b, theirs))]
        return "" if all(weighted) else fixes.layer(theirs, ours) or ""
    return ""


def _is_alone(side: Side, node: Node) -> bool:
    """Whether a layer of the framework computes this, and nothing else."""
    if not _of_framework(node) or not is_layer(side, node):
        return False
    return sum(n.module == node.module for n in side.nodes) == 1 and not any(_weights(side, node.module))


def _weights(side: Side, module: str) -> Iterator[Leaf]:
    return (leaf for leaf in side.leaves.values() if leaf.name.startswith(f"{module}.") and leaf.role == "parameter")


def _comment(found: DifferenceSummary, edit: Edit) -> str:
    """What to write at a line of B's source."""
    at = place(edit.b)
    line = f"# {at}\n" if at else ""
    match edit.kind:
        case "attribute":
            return f"{line}# {operator_of(edit)}(..., {edit.name}={edit.ours!r})"
        case "number":
            return f"{line}# {operator_of(edit)} by {edit.ours!r}"
        case "missing":
            seen = place(edit.a)
            told = f"{line}# compute {operator_of(edit)}{others_of(found, 0, edit.a, edit.ours)}"
            return f"{told}, as A does at {seen}" if seen else told
        case "extra":
            return f"{line}# leave {operator_of(edit)} out"
        case "replaced":
            return f"{line}# {edit.ours} instead of {edit.theirs}"
        case "order":
            return f"{line}# {operator_of(edit)} the parts in the order {edit.ours}"
        case "leaf":
            return f"{line}# use the numbers of {named(found, 0, edit.ours)}"
        case "operand":
            return f"{line}# give it {named(found, 0, edit.ours)} instead of {named(found, 1, edit.theirs)}"
    return ""
