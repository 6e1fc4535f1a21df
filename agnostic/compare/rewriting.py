"""A fix of code as a patch of B's file where A is written in the words of another framework: B's expression is changed.

Each edit of the programs is one of the source: another name, argument or sign; an operand that stands elsewhere in the
function; a call around an expression, or none.
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from agnostic.compare.edits import JOINS, Edit
from agnostic.compare.explain import DifferenceSummary
from agnostic.compare.lowering import AXES, kind, settings
from agnostic.compare.replay import slots
from agnostic.compare.source_tree import SIGNS, SourceTree, called, constant, source_tree, texts_in
from agnostic.contracts.fixes import Fixes
from agnostic.files import shown_path
from agnostic.program.nodes import Node, Value
from agnostic.tables import filling

SourceChange = tuple[ast.expr, str]
"""An expression, and what is written instead."""

Padding = tuple[Node, Sequence[tuple[int, int]]]
"""A window of B, and what A has before and after each of its axes."""


def rewritten(found: DifferenceSummary, fixes: Fixes, edits: Sequence[Edit], paddings: Sequence[Padding | None]) -> str:
    """What makes B's expressions compute what A's do.

    Args:
        fixes: how B's framework is written.
        edits: the difference.
        paddings: for each edit, the padding that it is about.

    Returns:
        A unified diff of B's file; "" where an edit has no place in it that is certain.
    """
    files = {n.file for e in edits for n in (e.b, giver(found, e)) if n is not None and n.file}
    tree = source_tree(next(iter(files))) if len(files) == 1 else None
    if tree is None:
        return ""
    writer, changes = Writer(found, fixes, tree), list[SourceChange]()
    for edit, padding in zip(edits, paddings, strict=True):
        made = list(writer.padded(*padding) if padding is not None else writer.of(edit))
        if not made:
            return ""
        changes += made
    fixed = tree.changed(changes)
    if fixed is None:
        return ""
    path = shown_path(tree.path)
    before, after = (x.splitlines(keepends=True) for x in (tree.text, fixed))
    return "".join(difflib.unified_diff(before, after, path, path, n=1)).rstrip("\n")


def giver(found: DifferenceSummary, edit: Edit) -> Node | None:
    """What gives B's value, after which an operator is missing."""
    if edit.kind != "missing" or not isinstance(edit.theirs, Value):
        return None
    return found.b.made_by(found.b.root(edit.theirs))


class Writer:
    """Writes B's expressions as A's."""

    def __init__(self, found: DifferenceSummary, fixes: Fixes, tree: SourceTree) -> None:
        self.found, self.fixes, self.tree = found, fixes, tree

    def of(self, edit: Edit) -> Iterator[SourceChange]:
        """The changes that undo an edit; none where no text is certain to."""
        if edit.kind == "missing":
            yield from self.added(edit)
        elif edit.kind in WAYS and edit.b is not None:
            x = self.expression(edit.b, str(edit.theirs) if edit.kind == "replaced" else kind(edit.b))
            if x is not None:
                yield from WAYS[edit.kind](self, edit, edit.b, x)

    # Where it is -----------------------------------------------------------------------------------------------------
    def expression(self, node: Node | None, what: str) -> ast.expr | None:
        """The expression that computes a node: the one of its line that is written as its operator is."""
        if node is None or node.file != self.tree.path:
            return None
        found = [x for x in self.tree.at(node.line) if self._is(x, what)]
        place = node.file, node.line, kind(node), _scope(node)
        same = [n for n in self.found.b.nodes if (n.file, n.line, kind(n), _scope(n)) == place]
        if len(found) < 2 or len(same) % len(found) or node not in same:
            return found[0] if len(found) == 1 else None
        return found[same.index(node) % len(found)]

    def _is(self, x: ast.expr, what: str) -> bool:
        spelled = self.fixes.spelled(what)
        if isinstance(x, ast.BinOp):
            sign = SIGNS.get(type(x.op), "")
            return bool(sign) and sign in spelled.sign.split()
        if isinstance(x, ast.Subscript):
            return what in ("slice", "select")
        if not isinstance(x, ast.Call):
            return False
        maker = self.tree.maker(x)
        name, texts = called(maker), {a.value for a in texts_in(maker)}
        forms = spelled.layer if maker is not x else spelled.function
        return bool(_form(name, forms)) or (bool(spelled.text) and spelled.text in texts)

    def operand(self, x: ast.expr, slot: int) -> ast.expr | None:
        """The expression of an operand."""
        if isinstance(x, ast.BinOp):
            return (x.left, x.right)[slot] if slot < 2 else None
        if isinstance(x, ast.Subscript):
            return x.value
        if not isinstance(x, ast.Call):
            return None
        given = x.args[0].elts if x.args and isinstance(x.args[0], ast.List | ast.Tuple) else x.args
        return given[slot] if slot < len(given) else None

    def name(self, wanted: Value, line: int) -> str | None:
        """What B calls a value of A at a line: a name that was given it, or that another operator takes as it."""
        b, label = self.found.b, self.found.a.labels.get(wanted)
        values = [v for v, other in b.labels.items() if label is not None and other == label]
        for made in (b.made_by(value) for value in values):
            if made is not None and made.file == self.tree.path:
                place = made.file, made.line, made.module, kind(made)
                same = [n for n in b.nodes if (n.file, n.line, n.module, kind(n)) == place]
                if name := self.tree.given_at(made.line, line, same.index(made), len(same)):
                    return name
        for value in values:
            for node in b.readers.get(value, ()):
                window = next((n for n in b.readers.get(node.outputs[0], ()) if kind(node) == "pad"), node)
                x = self.expression(window, kind(window))
                own = None if x is None else self.operand(x, slots(node).index(value))
                if isinstance(own, ast.Name) and self.tree.holds(own, line):
                    return own.id
        return None

    # What is written -------------------------------------------------------------------------------------------------
    def ops(self, function: str) -> str:
        """How a function is called in the file."""
        return next((f"{x}.{function}" for x in self.fixes.packages() if x.partition(".")[0] in self.tree.names), "")

    def given(self, call: ast.Call, keyword: str) -> ast.expr | None:
        """The expression of an argument."""
        for k in call.keywords:
            if k.arg == keyword:
                return k.value
        names = self.fixes.parameters(called(call))
        place = names.index(keyword) if keyword in names else len(call.args)
        return call.args[place] if place < len(call.args) else None

    def argument(self, call: ast.Call, keyword: str, text: str) -> Iterator[SourceChange]:
        """An argument with another value, or one more."""
        own = self.given(call, keyword)
        if own is not None:
            yield own, text
        else:
            start = self.tree.of(call)[:-1].rstrip().rstrip(",")
            yield call, f"{start}{', ' if call.args or call.keywords else ''}{keyword}={text})"

    def added(self, edit: Edit) -> Iterator[SourceChange]:
        """An operator around what gives B's value, or around what reads it."""
        assert edit.a is not None
        what, value = kind(edit.a), edit.theirs
        spelled, places = self.fixes.spelled(what), list[tuple[ast.expr | None, int]]()
        gives = giver(self.found, edit)
        if gives is not None:
            places.append((self.expression(gives, kind(gives)), gives.line or 0))
        if edit.b is not None and value in slots(edit.b):
            reads = self.expression(edit.b, kind(edit.b))
            own = None if reads is None else self.operand(reads, slots(edit.b).index(value))
            shared = len(self.found.b.readers.get(value, ())) > 1
            places.insert(0 if shared and own is not None else len(places), (own, edit.b.line or 0))
        others = [x for x in slots(edit.a) if x != edit.ours and x is not None]
        for x, line in places:
            names = [self.name(o, line) if isinstance(o, Value) else repr(o) for o in others]
            if x is None or None in names:
                continue
            text, more = self.tree.of(x), [n for n in names if n is not None]
            if spelled.sign and len(more) == 1:
                yield x, f"({text} {spelled.sign.split()[0]} {more[0]})"
            elif spelled.unary and not more and (function := self._called(spelled.function)):
                yield x, f"{function[0]}({text}{function[1]})"
            elif what == "permute" and (function := self._called(spelled.function)):
                yield x, f"{function[0]}({text}, {tuple(edit.a.attributes['axes'])})"
            else:
                continue
            return

    def _called(self, forms: str) -> tuple[str, str] | None:
        """A function as it is called in the file, and its further arguments."""
        name, _, more = forms.split("|")[0].partition("(")
        whole = self.ops(name) if name else ""
        return (whole, f", {more.rstrip(')')}" if more else "") if whole else None

    def padded(self, node: Node, pairs: Sequence[tuple[int, int]]) -> Iterator[SourceChange]:
        """A window with A's padding: by a word that means it, or by an array that is padded before."""
        x = self.expression(node, kind(node))
        if not isinstance(x, ast.Call) or (maker := self.tree.maker(x)) is x or len(x.args) != 1:
            return
        written, widths = self.given(maker, "padding"), tuple((low, high) for low, high in pairs)
        before = self.tree.source(x.args[0])
        if constant(written, "valid") == "valid" and isinstance(before, ast.Call):
            pad = self.tree.maker(before)
            if self._is(before, "pad") and pad is not before and pad.args:
                yield pad.args[0], repr(widths)
            return
        if word := self.fixes.padding(called(maker), _window(node), node.attributes, widths):
            yield from self.argument(maker, "padding", repr(word))
        elif written is not None and not self.is_shared(node) and (function := self.ops("pad")):
            yield written, repr("valid")
            value = ", constant_values=float('-inf')" if kind(node) == "max_pool" else ""
            yield x.args[0], f"{function}({self.tree.of(x.args[0])}, {((0, 0), *widths, (0, 0))}{value})"

    def is_shared(self, node: Node) -> bool:
        """Whether several layers stand at the line of one, and not all with the same settings."""
        place = node.file, node.line, kind(node)
        same = [n for n in self.found.b.nodes if (n.file, n.line, kind(n)) == place]
        return len({(repr(sorted(settings(n).items())), tuple(_window(n))) for n in same}) > 1


def _window(node: Node) -> Sequence[int]:
    """The sizes of a window; empty for what has none."""
    weight = node.operands[1] if len(node.operands) > 1 else None
    found: Sequence[int] = weight.shape[2:] if isinstance(weight, Value) else node.attributes.get("kernel") or ()
    return found


def _scope(node: Node) -> str:
    """What called a layer, or runs an operator itself."""
    return node.module.rpartition(".")[0] if node.kind and node.module.count(".") else node.module


def _form(name: str, forms: str) -> str:
    """The form of a name among some; a class of layers has the number of its axes behind it."""
    stem = name[:-2] if name[-2:] in ("1D", "2D", "3D") else name
    return next((x for x in forms.split("|") if x and x.partition("(")[0] in (name, stem)), "")


Way = Callable[[Writer, Edit, Node, ast.expr], Iterator[SourceChange]]
WAYS: dict[str, Way] = {}
ways = filling(WAYS)
"""What an edit of a program is in the source."""


@ways("replaced")
def _replaced(w: Writer, edit: Edit, node: Node, x: ast.expr) -> Iterator[SourceChange]:
    ours, theirs = w.fixes.spelled(edit.ours), w.fixes.spelled(edit.theirs)
    if isinstance(x, ast.BinOp):
        left, right = w.tree.of(x.left), w.tree.of(x.right)
        function = w._called(ours.function)
        if ours.sign:
            yield x, f"{left} {ours.sign.split()[0]} {right}"
        elif function:
            yield x, f"{function[0]}({left}, {right})"
        return
    assert isinstance(x, ast.Call)
    maker = w.tree.maker(x)
    own = next((a for a in texts_in(maker) if theirs.text and a.value == theirs.text), None)
    if own is not None and ours.text:
        yield own, repr(ours.text)
        return
    mine, yours = (ours.layer, theirs.layer) if maker is not x else (ours.function, theirs.function)
    name, form = called(maker), _form(called(maker), yours)
    if form and mine:
        new, _, more = mine.split("|")[0].partition("(")
        new += name[-2:] if not more and name not in form else ""
        if not isinstance(maker.func, ast.Attribute) and new not in w.tree.names:
            return
        callee = w.tree.of(maker.func)[: -len(name)] + new
        if ours.unary:  # what its function is called with besides means nothing to another
            kept = [w.tree.of(maker.args[0])] if maker is x and maker.args else []
            yield maker, f"{callee}({', '.join([*kept, *filter(None, [more.rstrip(')')])])})"
        else:
            yield maker.func, callee
    elif ours.text and (keyword := w.fixes.keyword(edit.ours, "text")):
        yield from w.argument(maker, keyword, repr(ours.text))


@ways("attribute")
def _attribute(w: Writer, edit: Edit, node: Node, x: ast.expr) -> Iterator[SourceChange]:
    if isinstance(x, ast.Subscript):
        yield from _part(edit, node, x)
        return
    keyword, value = w.fixes.keyword(kind(node), edit.name), edit.ours
    if keyword is None or not isinstance(x, ast.Call):
        return
    maker = w.tree.maker(x)
    if maker is not x and w.is_shared(node):
        return
    if edit.name in AXES:
        value = _turned(constant(w.given(maker, keyword), -1), edit.theirs, value, node)
        if value is None:
            return
    infinite = isinstance(value, float) and math.isinf(value)
    yield from w.argument(maker, keyword, f"float('{value}')" if infinite else repr(value))


def _turned(written: Any, theirs: Any, ours: Any, node: Node) -> Any:
    """A's axes as B's source counts them: as it is, or with the channels last; None where it counts otherwise."""
    rank = max((len(v.shape) for v in slots(node)[:1] if isinstance(v, Value)), default=0)
    last = {0: 0, rank - 1: 1, **{k: k + 1 for k in range(1, rank - 1)}}
    given, mine, own = ([*x] if isinstance(x, tuple | list) else [x] for x in (written, theirs, ours))
    if not all(isinstance(k, int) for k in (*given, *mine, *own)) or not rank:
        return None
    for way in ({k: k for k in range(rank)}, last):
        if [way.get(k % rank) for k in given] == [k % rank for k in mine]:
            back = {there: here for here, there in way.items()}
            found = [back[k % rank] for k in own]
            return tuple(found) if isinstance(ours, tuple | list) else found[0]
    return None


def _part(edit: Edit, node: Node, x: ast.Subscript) -> Iterator[SourceChange]:
    """Another start, end or index in brackets."""
    parts = x.slice.elts if isinstance(x.slice, ast.Tuple) else [x.slice]
    cut = kind(node) == "slice"
    own = [
        p
        for p in parts
        if isinstance(p, ast.Slice) == cut and not (isinstance(p, ast.Slice) and not (p.lower or p.upper))
    ]
    if len(own) != 1 or edit.a is None or any(isinstance(p, ast.Constant) and p.value is None for p in parts):
        return
    if not cut:
        yield own[0], repr(edit.a.attributes["index"])
        return
    start, stop, step = (edit.a.attributes.get(k) for k in ("start", "stop", "step"))
    size = next(v.shape for v in slots(node) if isinstance(v, Value))[node.attributes["axis"]]
    yield own[0], f"{start or ''}:{'' if stop in (None, size) else stop}{'' if step in (None, 1) else f':{step}'}"


@ways("number")
def _number(w: Writer, edit: Edit, node: Node, x: ast.expr) -> Iterator[SourceChange]:
    if not isinstance(x, ast.BinOp) or not isinstance(edit.ours, int | float):
        return
    sides = [side for side in (x.right, x.left) if w.tree.is_number(side)]
    sign, value = SIGNS.get(type(x.op)), edit.ours
    if len(sides) != 1 or (sides[0] is x.left and sign in ("/", "-")):
        return
    value = (
        1 / value
        if sign == "/" and kind(node) == "multiply"
        else -value
        if sign == "-" and kind(node) == "add"
        else value
    )
    yield sides[0], repr(round(value) if abs(value) < 1e9 and abs(value - round(value)) < 1e-12 else value)


@ways("order")
def _order(w: Writer, edit: Edit, node: Node, x: ast.expr) -> Iterator[SourceChange]:
    own = x.args[0] if isinstance(x, ast.Call) and x.args else None
    if kind(node) in JOINS and isinstance(own, ast.List | ast.Tuple) and len(own.elts) == len(edit.ours):
        yield own, f"[{', '.join(w.tree.of(own.elts[k]) for k in edit.ours)}]"


@ways("operand")
def _operand(w: Writer, edit: Edit, node: Node, x: ast.expr) -> Iterator[SourceChange]:
    if not isinstance(edit.ours, Value) or edit.theirs not in slots(node):
        return
    own, name = w.operand(x, slots(node).index(edit.theirs)), w.name(edit.ours, node.line or 0)
    if own is not None and name is not None:
        yield own, name


@ways("extra")
def _extra(w: Writer, edit: Edit, node: Node, x: ast.expr) -> Iterator[SourceChange]:
    if edit.theirs not in slots(node):
        return
    kept = w.operand(x, slots(node).index(edit.theirs))
    if isinstance(x, ast.BinOp) and w.tree.is_number(x.left) != w.tree.is_number(x.right):
        kept = x.right if w.tree.is_number(x.left) else x.left
    if kept is not None:
        yield x, f"({w.tree.of(kept)})" if isinstance(kept, ast.BinOp) else w.tree.of(kept)
