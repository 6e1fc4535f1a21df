"""What was found, as a user reads it: one mistake at several places is one, with its places and its fix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agnostic.compare.edits import Edit
from agnostic.compare.explain import DifferenceSummary
from agnostic.compare.fixing import fix
from agnostic.compare.known import TOGETHER, operator_of
from agnostic.compare.lowering import kind
from agnostic.compare.naming import mistake
from agnostic.compare.prove import Difference
from agnostic.compare.replay import slots
from agnostic.compare.results import Divergence, Finding
from agnostic.compare.sides import Side
from agnostic.compare.wording import lacking, place, sentence, where
from agnostic.program.nodes import Node, Value
from agnostic.text import counted


def divergences(found: DifferenceSummary, before: float, after: float) -> list[Divergence]:
    """The differences as a user reads them; one mistake at several places is one.

    Args:
        before: the error of B's outputs, in noise floors.
        after: what is left of it with the differences undone.
    """
    said: dict[Any, list[tuple[Divergence, Difference]]] = {}
    whole = _moved(found, found.differences)
    parts = [part for difference in whole for part in _apart(found, difference)]
    for difference in sorted(parts, key=lambda d: _order(found.b, d)):
        one = _divergence(found, difference, before, after)
        said.setdefault(_group(difference, one), []).append((one, difference))
    return [_grouped(group) for group in said.values()]


def _moved(found: DifferenceSummary, differences: Sequence[Difference]) -> list[Difference]:
    """The differences, with one whose operators B lacks and one that has them elsewhere as one."""
    left, said = list(differences), list[Difference]()
    while left:
        one = left.pop(0)
        other = next((d for d in left if _is_moved(found, one, d)), None)
        if other is not None:
            left.remove(other)
            one = replace(one, edits=(*one.edits, *other.edits))
        said.append(one)
    return said


def _is_moved(found: DifferenceSummary, one: Difference, other: Difference) -> bool:
    kinds = [{e.kind for e in d.edits} for d in (one, other)]
    if {frozenset(k) for k in kinds} != {frozenset(["missing"]), frozenset(["extra"])}:
        return False
    told = [
        sorted((kind(n), *_layers_of(side, n)) for e in d.edits for side, n in ((found.a, e.a), (found.b, e.b))
               if n is not None and (side is found.a) == (e.kind == "missing"))
        for d in (one, other)
    ]  # fmt: skip
    return told[0] == told[1]


def _layers_of(side: Side, node: Node) -> list[str]:
    """The weights of an operator; else the layers that give what it is applied to."""
    weights = [side.leaves[x].name for x in slots(node) if isinstance(x, Value) and x in side.leaves]
    if weights:
        return weights
    made = [side.made_by(side.root(x)) for x in slots(node) if isinstance(x, Value)]
    return [n.module for n in made if n is not None and n.kind][-1:]


def _apart(found: DifferenceSummary, difference: Difference) -> list[Difference]:
    """The mistakes of one difference: edits of one line belong together, and those that are one mistake."""
    key, lead = mistake(found, difference)
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
    own = edit.a if edit.kind == "missing" else edit.b if edit.kind == "extra" else None
    if own is not None:
        at = own.outputs[0] if own.line is None else (own.module, own.file, own.line)  # a loop is one mistake
        return edit.kind, kind(own), at
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
    fixes = "\n".join(dict.fromkeys(one.findings[0].fix for one, _ in group))
    return replace(first, findings=(replace(best, sentence=best.sentence + more, fix=fixes),))


# One difference ------------------------------------------------------------------------------------------------------
def _divergence(found: DifferenceSummary, difference: Difference, before: float, after: float) -> Divergence:
    edits = difference.edits
    key, lead = mistake(found, difference)
    sentences = list(dict.fromkeys(sentence(found, edit, difference) for edit in edits))
    named = all(edit.kind != "piece" for edit in edits) and found.proven
    finding = Finding(
        key, " ".join(sentences), fix(found, edits), before, after if found.proven else before, proven=named,
        place_a=place(lead.a), place_b=place(lacking(found, lead)) or place(lead.b),
    )  # fmt: skip
    return Divergence(*where(found, lead, difference), before, (finding,))
