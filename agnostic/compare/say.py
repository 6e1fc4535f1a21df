"""What was found, as a user reads it: one mistake at several places is one, with its places and its fix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agnostic.compare.edits import Edit
from agnostic.compare.explain import DifferenceSummary, in_common
from agnostic.compare.fixing import fix
from agnostic.compare.known import TOGETHER, operator_of
from agnostic.compare.lowering import kind
from agnostic.compare.naming import mistake, moved, together
from agnostic.compare.prove import Difference
from agnostic.compare.results import Divergence, Finding
from agnostic.compare.sides import Side
from agnostic.compare.wording import lacking, place, sentence, where
from agnostic.program.nodes import Value
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
    return [one for group in said.values() for one in _grouped(group)]


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
    alone = any({e.kind for e in d.edits} in ({"missing"}, {"extra"}) for d in (one, other))
    return alone and moved(found, one.edits, other.edits)


def _apart(found: DifferenceSummary, difference: Difference) -> list[Difference]:
    """The mistakes of one difference: edits of one line belong together, and those that are one mistake."""
    key, lead = mistake(found, difference)
    if key in TOGETHER or lead.kind in ("operand", "piece") or together(found, difference.edits) is not None:
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
    if own is not None and (own.line is not None or len(difference.edits) == 1):
        at = own.outputs[0] if own.line is None else (own.kind, own.file, own.line)  # a loop is one mistake
        return edit.kind, kind(own), at
    if edit.kind == "attribute" and len(difference.edits) == 1:
        return "attribute", operator_of(edit), edit.name, repr(edit.ours), repr(edit.theirs)
    if edit.kind in ("replaced", "number") and edit.b is not None and edit.b.line is not None:
        return edit.kind, edit.b.kind, edit.b.file, edit.b.line, repr(edit.ours), repr(edit.theirs)
    if edit.kind in ("leaf", "operand") and edit.b is not None and isinstance(edit.theirs, Value):
        where = edit.b.module if edit.b.line is None or edit.kind == "leaf" else edit.b.file
        return edit.kind, where, edit.b.line, said.findings[0].mistake
    return in_common(difference.edits)


def _grouped(group: Sequence[tuple[Divergence, Difference]]) -> list[Divergence]:
    """A group as one, with its places and fixes; as it is where these are several patches of one file."""
    first, places = group[0][0], list(dict.fromkeys(one.b for one, _ in group))
    fixes = list(dict.fromkeys(one.findings[0].fix for one, _ in group))
    patches = [fix for fix in fixes if fix.startswith("--- ")]
    if patches and all(fix in patches or fix.startswith("# ") for fix in fixes):
        fixes = patches  # one line, patched once, is right wherever it runs
    if len(fixes) > 1 and any(fix.startswith("--- ") for fix in fixes):
        return [one for one, _ in group]
    [best] = first.findings
    listed = ", ".join(map(repr, places[:4])) + (" ..." if len(places) > 4 else "")
    more = f" The same in {counted(len(places), 'layer')}: {listed}." if len(places) > 1 else ""
    return [replace(first, findings=(replace(best, sentence=best.sentence + more, fix="\n".join(fixes)),))]


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
