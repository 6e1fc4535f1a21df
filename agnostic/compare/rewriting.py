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
from agnostic.compare.lowering import AXES, kind
from agnostic.compare.replay import slots
from agnostic.compare.sides import Side
from agnostic.compare.source_tree import SIGNS, SourceTree, called, constant, is_number, is_plain, source_tree, texts_in
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
        made = list(writer.padded(edit, *padding) if padding is not None else writer.of(edit))
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
            if x is not None and self.is_wrong(edit, edit.b, x):
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
            sign, signs = SIGNS.get(type(x.op), ""), spelled.sign.split()
            numbers = [constant(side, None) for side in (x.left, x.right)]
            return sign in signs[:1] or (sign in signs and numbers != [None, None])
        if isinstance(x, ast.Subscript):
            return what in ("slice", "select")
        if not isinstance(x, ast.Call):
            return False
        maker = self.tree.maker(x)
        name, texts = called(maker), {a.value for a in texts_in(maker)}
        forms = spelled.layer if maker is not x else spelled.function
        return bool(_form(name, forms)) or (bool(spelled.text) and spelled.text in texts)

    def is_wrong(self, edit: Edit, node: Node, x: ast.expr) -> bool:
        """Whether an expression is wrong as an edit says wherever it computes a node, as in each turn of a loop."""
        said, wrong = _said(edit), set[int]()
        for one in (one for difference in self.found.differences for one in difference.edits if _said(one) == said):
            nodes = [one.b, giver(self.found, one)]
            if one.b is not None and kind(one.b) == "pad":
                nodes += self.found.b.readers.get(one.b.outputs[0], ())
            wrong |= {id(n) for n in nodes}
        places = (node.file, node.line), (None, None)  # what is written nowhere may be written here
        same = [n for n in self.found.b.nodes if (n.file, n.line) in places and kind(n) == kind(node)]
        what = str(edit.theirs) if edit.kind == "replaced" else kind(node)
        return all(id(n) in wrong for n in same if self.expression(n, what) in (x, None))

    def is_within(self, x: ast.expr, value: Any) -> bool:
        """Whether an expression calls a layer that both makes a value and reads it, as before its activation."""
        if not isinstance(x, ast.Call) or self.tree.maker(x) is x or not isinstance(value, Value):
            return False
        made = self.found.b.made_by(self.found.b.root(value))
        return made is not None and any(n.module == made.module for n in self.found.b.readers.get(value, ()))

    def number(self, x: ast.BinOp, node: Node) -> ast.expr | None:
        """The one side of an operator that is a number."""
        other = [n for n in self.found.b.nodes if (n.file, n.line) == (node.file, node.line) and n is not node]
        computed = {id(self.expression(n, kind(n))) for n in other}
        sides = [side for side in (x.left, x.right) if is_number(side)
                 and not any(id(part) in computed for part in ast.walk(side))]  # fmt: skip
        return sides[0] if len(sides) == 1 else None

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
            if made is not None and made.file == self.tree.path and not _is_part(self.found.b, made):
                place = made.file, made.line, made.module, kind(made)
                same = [n for n in b.nodes if (n.file, n.line, n.module, kind(n)) == place]
                if name := self.tree.given_at(made.line, line, same.index(made), len(same)):
                    return name
        for value in values:
            for node in b.readers.get(value, ()):
                window = next((n for n in b.readers.get(node.outputs[0], ()) if kind(node) == "pad"), node)
                x = self.expression(window, kind(window))
                own = None if x is None or self.is_within(x, value) else self.operand(x, slots(node).index(value))
                if isinstance(own, ast.Name) and self.tree.holds(own, line):
                    return own.id
        return None

    # What is written -------------------------------------------------------------------------------------------------
    def ops(self, function: str) -> str:
        """How a function is called in the file."""
        packages = map(self.tree.alias, self.fixes.packages())
        return next((f"{x}.{function}" for x in packages if x is not None), "")

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
        elif len(call.args) <= len(self.fixes.parameters(called(call))) and is_plain(call):
            start = self.tree.of(call)[:-1].rstrip().rstrip(",")
            yield call, f"{start}{', ' if call.args or call.keywords else ''}{keyword}={text})"

    def added(self, edit: Edit) -> Iterator[SourceChange]:
        """An operator around what gives B's value, or around what reads it."""
        assert edit.a is not None
        what, value = kind(edit.a), edit.theirs
        spelled, places = self.fixes.spelled(what), list[tuple[ast.expr | None, int]]()
        gives = giver(self.found, edit)
        if gives is not None and _is_missed(self.found, edit):
            x = self.expression(gives, kind(gives))
            if x is not None and not self.is_within(x, value) and self.is_wrong(edit, gives, x):
                places.append((x, gives.line or 0))
        if edit.b is not None and value in slots(edit.b):
            x = self.expression(edit.b, kind(edit.b))
            if x is not None and not self.is_within(x, value) and self.is_wrong(edit, edit.b, x):
                places.append((self.operand(x, slots(edit.b).index(value)), edit.b.line or 0))
        given = [x for x in slots(edit.a) if x is not None]
        others = [x for x in given if x != edit.ours]
        for x, line in places:
            names = [self.name(o, line) if isinstance(o, Value) else _number_text(o) for o in others]
            if x is None or None in names:
                continue
            text, more = self.tree.of(x), [n for n in names if n is not None]
            if spelled.sign and len(more) == 1:
                pair = [self.tree.operand(x), more[0]][:: 1 if given[0] == edit.ours else -1]
                yield x, self.tree.in_place(x, f" {spelled.sign.split()[0]} ".join(pair))
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

    def padded(self, edit: Edit, node: Node, pairs: Sequence[tuple[int, int]]) -> Iterator[SourceChange]:
        """A window with A's padding: by a word that means it, or by an array that is padded before."""
        x = self.expression(node, kind(node))
        if not isinstance(x, ast.Call) or (maker := self.tree.maker(x)) is x or len(x.args) != 1:
            return
        if not self.is_wrong(edit, node, x):
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
        elif written is not None and kind(node) != "average_pool" and (function := self.ops("pad")):
            yield written, repr("valid")
            value = ", constant_values=float('-inf')" if kind(node) == "max_pool" else ""
            yield x.args[0], f"{function}({self.tree.of(x.args[0])}, {((0, 0), *widths, (0, 0))}{value})"


def _window(node: Node) -> Sequence[int]:
    """The sizes of a window; empty for what has none."""
    weight = node.operands[1] if len(node.operands) > 1 else None
    found: Sequence[int] = weight.shape[2:] if isinstance(weight, Value) else node.attributes.get("kernel") or ()
    return found


def _is_missed(found: DifferenceSummary, edit: Edit) -> bool:
    """Whether all that reads a value lacks the operator that is missing after it."""
    said, value = _said(edit), edit.theirs
    alike = [e for d in found.differences for e in d.edits if e.theirs == value and _said(e) == said]
    readers: list[Node | None] = [*found.b.readers.get(value, ())]
    if value in [returned for _, returned in found.b.run.program.outputs]:
        readers.append(None)
    return {id(n) for n in readers} <= {id(e.b) for e in alike}


def _is_part(b: Side, node: Node) -> bool:
    """Whether what a node gives is a part of what its line computes."""
    return any((n.file, n.line) == (node.file, node.line) for n in b.readers.get(node.outputs[0], ()))


def _said(edit: Edit) -> tuple[Any, ...]:
    """What an edit says, without where."""
    values = isinstance(edit.ours, Value), isinstance(edit.theirs, Value)
    made = None if edit.a is None else kind(edit.a)
    return edit.kind, made, edit.name, values, None if any(values) else repr(edit.ours)


def _number_text(x: Any) -> str:
    return f"({x!r})" if isinstance(x, int | float) and x < 0 else repr(x)


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
        function = w._called(ours.function)
        if SIGNS.get(type(x.op)) not in theirs.sign.split()[:1]:
            return  # a number with another meaning, as in a division that is a product
        if ours.sign:
            yield x, w.tree.in_place(x, f"{w.tree.operand(x.left)} {ours.sign.split()[0]} {w.tree.operand(x.right)}")
        elif function:
            yield x, f"{function[0]}({w.tree.of(x.left)}, {w.tree.of(x.right)})"
        return
    assert isinstance(x, ast.Call)
    maker = w.tree.maker(x)
    own = next((a for a in texts_in(maker) if theirs.text and a.value == theirs.text), None)
    if own is not None and ours.text:
        yield own, repr(ours.text)
        return
    mine, yours = (ours.layer, theirs.layer) if maker is not x else (ours.function, theirs.function)
    name, form = called(maker), _form(called(maker), yours)
    if maker is x and not x.args:
        return
    if form and mine:
        new, _, more = mine.split("|")[0].partition("(")
        new += name[-2:] if not more and name not in form else ""
        callee = w.tree.of(maker.func)[: -len(name)] + new
        if maker is x and callee != w.ops(new):
            callee = w.ops(new)
        elif not isinstance(maker.func, ast.Attribute) and new not in w.tree.names:
            return
        if not callee:
            return
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
        if edit.name not in AXES:
            yield from _part(edit, node, x)
        return
    keyword, value = w.fixes.keyword(kind(node), edit.name), edit.ours
    if keyword is None or not isinstance(x, ast.Call):
        return
    maker = w.tree.maker(x)
    if maker is not x and not _form(called(maker), w.fixes.spelled(kind(node)).layer):
        return  # a layer that is only given the function's name
    if edit.name == "kernel" and w.given(maker, w.fixes.keyword(kind(node), "stride") or "") is None:
        return  # the strides would be others as well, which are the window's size where they are not written
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
    side, sign, value = w.number(x, node), SIGNS.get(type(x.op)), edit.ours
    if side is None:
        return
    value = (
        1 / value
        if sign == "/" and kind(node) == "multiply"
        else -value
        if sign == "-" and kind(node) == "add"
        else value
    )
    yield side, repr(round(value) if abs(value) < 1e9 and abs(value - round(value)) < 1e-12 else value)


@ways("order")
def _order(w: Writer, edit: Edit, node: Node, x: ast.expr) -> Iterator[SourceChange]:
    own = x.args[0] if isinstance(x, ast.Call) and x.args else None
    if kind(node) in JOINS and isinstance(own, ast.List | ast.Tuple) and len(own.elts) == len(edit.ours):
        yield own, f"[{', '.join(w.tree.of(own.elts[k]) for k in edit.ours)}]"


@ways("operand")
def _operand(w: Writer, edit: Edit, node: Node, x: ast.expr) -> Iterator[SourceChange]:
    if not isinstance(edit.ours, Value) or edit.theirs not in slots(node) or w.is_within(x, edit.theirs):
        return
    own, name = w.operand(x, slots(node).index(edit.theirs)), w.name(edit.ours, node.line or 0)
    if own is not None and name is not None:
        yield own, name


@ways("extra")
def _extra(w: Writer, edit: Edit, node: Node, x: ast.expr) -> Iterator[SourceChange]:
    if edit.theirs not in slots(node):
        return
    if w.is_within(x, edit.theirs):
        assert isinstance(x, ast.Call)
        text = w.fixes.spelled(kind(node)).text
        yield from ((a, "None") for a in texts_in(w.tree.maker(x)) if text and a.value == text)
        return
    if any(w.is_within(x, value) for value in node.outputs):
        return
    kept = w.operand(x, slots(node).index(edit.theirs))
    if isinstance(x, ast.BinOp) and (number := w.number(x, node)) is not None:
        kept = x.right if number is x.left else x.left
    if kept is not None:
        yield x, w.tree.operand(kept)
