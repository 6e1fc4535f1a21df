"""Merge equal blocks into one class; the values that differ become arguments of its constructor.

Two blocks are equal if their members and statements are equal apart from numbers, strings and None. Innermost blocks
are compared first, since the class of a nested block takes part in the comparison of the outer one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agnostic.port.arguments import chosen, default, same, width
from agnostic.port.body import Lines, lines_of
from agnostic.port.code import Apply, Code, Each, If, Infix, Name, class_name, identifier, parts, replaced
from agnostic.port.dialect import Attribute, Class, Dialect
from agnostic.port.lists import loops, taken_apart
from agnostic.port.templates import MISSING, Group, Mark, Template, marked, marks, names, skeleton
from agnostic.port.variants import merged
from agnostic.port.writer import Blocks, Body, Member
from agnostic.program.nodes import givers_of

CONTAINERS = frozenset({"Sequential", "ModuleList", "ModuleDict", "Module", "Functional", "Model", "Layer"})
"""Class names that do not say what a block is; its own name in the model does."""

OVERHEAD = 9
"""Lines of a class beside the layers that it stacks."""


class Classes:
    """Makes the classes of a model.

    Args:
        blocks: the writer of the bodies.
        root: the body of the model.
    """

    def __init__(self, blocks: Blocks, root: Body) -> None:
        self.blocks = blocks
        self.dialect: Dialect = blocks.dialect
        self.root = root
        self.constructors: dict[str, Code] = {}
        self.classes: list[Class] = []
        self.givers = givers_of(blocks.program.nodes)
        self._defaults: dict[str, dict[str, Any]] = {}

    def all(self) -> list[Class]:
        """All classes; a class comes before those that use it, the model comes last."""
        bodies = {body.path: body for body in self.root.bodies}
        heights = _heights(bodies)
        for height in sorted(set(heights.values())):
            level = [body for path, body in bodies.items() if heights[path] == height]
            kinds: dict[str, list[Body]] = {}
            for body in level:
                kinds.setdefault(body.kind if body.path else "", []).append(body)
            for found in kinds.values():
                self._kind(found)
        return inlined(self.classes)

    def _kind(self, bodies: Sequence[Body]) -> None:
        """Make the classes of all blocks of one kind."""
        plain = [self._template(body) for body in bodies]
        groups = merged(_grouped(bodies, plain))
        chains = [group for group in groups if all(body.is_chain for body in group.bodies)]
        written = [group for group in groups if not any(group is chain for chain in chains)]
        stacked = [body for group in chains for body in group.bodies]
        runs = [Template([], [], [], [], self._stack(body, least=1)) for body in stacked]
        counted = {b.path: t.stack for b, t in zip(stacked, runs, strict=True)}
        for group in _grouped(stacked, runs):
            if _counts_differ(group) and _pays(group, counted):
                written.append(group)
                stacked = [body for body in stacked if body not in group.bodies]
        stacks = [Template([], [], [], [], self._stack(body)) for body in stacked]
        by_path = {body.path: template.stack for body, template in zip(stacked, stacks, strict=True)}
        for group in _grouped(stacked, stacks):
            if _pays(group, by_path):
                written.append(group)
            else:
                self.constructors |= {body.path: by_path[body.path] for body in group.bodies}
        self._name(written)
        for group in written:
            self._finish(group)

    def _template(self, body: Body) -> Template:
        members = [(m, self._member_code(m)) for m in body.members]
        statements = taken_apart(body.statements, self.dialect)
        if self.dialect.lists and not body.is_chain:
            members, statements = loops(members, statements, body.outputs, self.dialect.named)
        return Template(members, statements, body.inputs, body.outputs)

    # Members ----------------------------------------------------------------------------------------------------------
    def _member_code(self, member: Member) -> Code:
        if member.body is not None:
            return self.constructors[member.body.path]
        if member.leaf is not None:
            return tuple(member.leaf.value.shape)
        return member.constructor

    def _stack(self, body: Body, least: int = 2) -> Code:
        """A stack of the members that the block calls; a run of equal layers becomes a loop."""
        by_name = {f"self.{m.name}": (m.layer, self._member_code(m)) for m in body.members}
        found: list[tuple[str, Code]] = []
        for statement in body.statements:
            function = statement.code.function
            called = function.text if isinstance(function, Name) else ""
            if called in by_name:
                found.append(by_name[called])
            else:
                node = self.givers[statement.targets[0]]
                relative = node.module.removeprefix(f"{body.path}.") if node.module != body.path else node.operator
                taken = {member.layer for member in body.members} | {known for known, _ in found}
                name = identifier(f"n{relative}")[1:]
                # A transpose that prepares the input of a layer has the path of that layer.
                name = identifier(node.operator, taken) if name in taken else name
                found.append((name, self.dialect.as_layer(node)))
        return self.dialect.stacked(self._runs(found, least))

    def _runs(self, found: Sequence[tuple[str, Code]], least: int) -> list[Code]:
        """Layers with their names; a run of layers that differ only by a number in the name becomes one expression."""
        runs: list[Code] = []
        taken = {name for name, _ in found}
        place = 0
        while place < len(found):
            name, code = found[place]
            prefix = name.rstrip("0123456789")
            end = place + 1
            if name != prefix:
                first = int(name[len(prefix) :])
                while end < len(found) and found[end][0] == f"{prefix}{first + end - place}":
                    end += 1
                end = place + _alike([code for _, code in found[place:end]])
                code = _counted([code for _, code in found[place:end]], first)
            alike = place and _makers(found[place - 1][1])[:1] == _makers(code)[:1]
            if name != prefix and (end - place > 1 or (least == 1 and alike and f"{prefix}0" in taken)):
                each = Name("str(i)") if not prefix else Name(f'f"{prefix}{{i}}"')
                stop: Code = first + end - place
                if first and f"{prefix}0" not in taken:
                    stop = Infix("+", end - place, first)
                runs.append(Each(self.dialect.named(code, each), "i", first, stop))
            else:
                runs.append(self.dialect.named(code, name))
                end = place + 1
            place = end
        return runs

    # Classes ----------------------------------------------------------------------------------------------------------
    def _finish(self, group: Group) -> None:
        """Choose the parameters, make the class, and set the constructor call of each body."""
        first, template = group.bodies[0], group.template
        widths = [width(body.outputs[0], self.dialect.channels) for body in group.bodies]
        given = chosen(group, widths, self.dialect.reserved)
        kept: dict[str, None] = {}

        def in_call(piece: Code) -> Code:
            if not isinstance(piece, Mark):
                return piece
            kept.update(dict.fromkeys(names(given[piece])))
            return replaced(given[piece], lambda c: Name(f"self.{c.text}") if isinstance(c, Name) else c)

        def in_constructor(piece: Code) -> Code:
            return given[piece] if isinstance(piece, Mark) else piece

        # Weights are made when the layer is built, where an argument is available as an attribute of the layer.
        attributes = [
            Attribute(m.name, m.layer, self._plain(replaced(code, in_call if m.leaf else in_constructor)), m.leaf)
            for m, code in template.members
        ]
        shown = [replace(s, code=self._plain(replaced(s.code, in_call))) for s in template.statements]
        stack = None if template.stack is None else self._plain(replaced(template.stack, in_constructor))
        lines = Lines([], [])
        if stack is None:
            body = replace(first, inputs=template.inputs, outputs=template.outputs)
            lines = lines_of(body, shown, self.blocks, self.dialect.modules, root=not first.path)
        keep = [Attribute(name, "", Name(name)) for name in group.parameters if name in kept]
        defaults = {name: default(name, values) for name, values in group.parameters.items()}
        self._defaults[group.name] = defaults
        order = sorted(group.parameters, key=lambda name: defaults[name] is not ...)
        self.classes.append(
            Class(
                group.name, _doc(group), [(name, defaults[name]) for name in order], [*keep, *attributes],
                lines.inputs, lines.body, root=not first.path, stack=stack,
            )
        )  # fmt: skip
        for place, body in enumerate(group.bodies):
            # All arguments are kept, so that calls can be compared; defaults are left out when the call is written.
            values = tuple((name, group.parameters[name][place]) for name in order)
            self.constructors[body.path] = Apply(Name(group.name), (), values)

    def _plain(self, code: Code) -> Code:
        """The code to write: known conditions are resolved, and arguments equal to their default are left out."""

        def simpler(piece: Code) -> Code:
            if isinstance(piece, If) and isinstance(piece.condition, bool):
                return self._plain(piece.then if piece.condition else piece.otherwise)
            if isinstance(piece, Infix) and type(piece.left) is type(piece.right) is int and piece.operator == "+":
                return piece.left + piece.right
            if isinstance(piece, Apply) and isinstance(piece.function, Name) and piece.function.text in self._defaults:
                defaults = self._defaults[piece.function.text]
                needed = tuple(
                    (name, self._plain(value))
                    for name, value in piece.keywords
                    if value is not MISSING and not (name in defaults and same(value, defaults[name]))
                )
                return Apply(piece.function, piece.args, needed)
            return piece

        return replaced(code, simpler)

    def _name(self, groups: Sequence[Group]) -> None:
        """Name the classes of one kind: by the kind, and by the parts that only one of them has."""
        makers = [_makers([code for _, code in g.template.members]) + _makers(g.template.stack) for g in groups]
        for group, own in zip(groups, makers, strict=True):
            taken = {known.name for known in self.classes} | {known.name for known in groups}
            taken |= {*self.dialect.helpers, *self.dialect.modules}
            name = _kind_of(group.bodies[0])
            others = [set(theirs) for theirs in makers if theirs is not own]
            special = next((word for word in own if others and all(word not in theirs for theirs in others)), "")
            word = "".join(re.findall("[A-Z][a-z]*", special)[:1])
            if word and (word not in name or name in taken):
                name = class_name(word + name, set())
            group.name = identifier(name, taken)


def _alike(codes: Sequence[Code]) -> int:
    """How many pieces of code at the beginning are equal, or three and more but for numbers that grow evenly."""
    equal = next((n for n, code in enumerate(codes) if code != codes[0]), len(codes))
    if equal > 1 or len(codes) < 3:
        return equal
    steps = _steps(codes[0], codes[1])
    count = 2
    while steps and count < len(codes) and _steps(codes[count - 1], codes[count]) == steps:
        count += 1
    return count if count > 2 else 1


def _steps(one: Code, other: Code) -> tuple[int, ...] | None:
    """By how much numbers of channels are larger in another piece of code; None where it differs in more."""
    first, second = NumbersTaken([]), NumbersTaken([])
    if replaced(one, first) != replaced(other, second):
        return None
    found = tuple(b - a for a, b in zip(first.numbers, second.numbers, strict=True))
    return found if any(found) and all(step >= 0 for step in found) else None


def _counted(codes: Sequence[Code], first: int) -> Code:
    """One piece of code for several, with numbers that grow evenly said by the loop's variable."""
    if len(codes) < 2 or codes[0] == codes[1]:
        return codes[0]
    steps = iter(_steps(codes[0], codes[1]) or ())

    def said(piece: Code) -> Code:
        if type(piece) is not int or isinstance(piece, bool):
            return piece
        step = next(steps)
        if not step:
            return piece
        start = piece - step * first
        return Infix("+", start, Infix("*", step, Name("i"))) if start else Infix("*", step, Name("i"))

    return replaced(codes[0], said)


class NumbersTaken:
    """Takes the numbers out of code, in order."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers

    def __call__(self, piece: Code) -> Code:
        """A mark in the place of a number."""
        if type(piece) is not int:
            return piece
        self.numbers.append(piece)
        return Name("#")


def _kind_of(body: Body) -> str:
    """The kind of a block as a class name; for a container, its attribute name in the model."""
    kind = body.kind
    if body.path and (kind in CONTAINERS or not kind):
        words = [word for word in body.path.split(".") if not word.isdigit()]
        kind = words[-1].rstrip("0123456789_") if words else ""
        kind = "Stage" if kind in ("layer", "layers", "block", "blocks") else kind
    return class_name(kind or "Stage", set())


def _makers(code: Code) -> list[str]:
    """The classes of the layers that a piece of code constructs."""
    if isinstance(code, list):
        return [word for part in code for word in _makers(part)]
    is_call = isinstance(code, Apply) and isinstance(code.function, Name)
    found = [code.function.text.rpartition(".")[2]] if is_call else []
    return found + [word for part in parts(code) for word in _makers(part)]


def _grouped(bodies: Sequence[Body], templates: Sequence[Template]) -> list[Group]:
    """Group the bodies that are equal apart from literals."""
    groups: dict[str, Group] = {}
    for body, template in zip(bodies, templates, strict=True):
        found, column = marked(template)
        group = groups.setdefault(skeleton(found), Group(found))
        # Equal skeletons number their marks in the same way.
        own = sorted(marks(group.template), key=lambda mark: mark.number)
        group.columns.append(dict(zip(own, column.values(), strict=True)))
        group.bodies.append(body)
    return list(groups.values())


def _counts_differ(group: Group) -> bool:
    return any(
        mark.hint == "count" and len({repr(column[mark]) for column in group.columns}) > 1
        for mark in marks(group.template)
    )


def _pays(group: Group, stacks: Mapping[str, Code]) -> bool:
    """Whether one class for several stacks is shorter than writing the stacks, counted in layers."""
    sizes = Counter(len(_makers(stacks[body.path])) for body in group.bodies)
    size = max(sizes) - 1
    several = len({repr(stacks[body.path]) for body in group.bodies})
    uses = len(group.bodies) if several > 1 else 1
    return size > 1 and uses > 1 and uses * (size + 1) > OVERHEAD + size


def _heights(bodies: Mapping[str, Body]) -> dict[str, int]:
    """The nesting depth of each block; equal for all blocks of a kind, so that they are compared together."""
    heights: dict[str, int] = dict.fromkeys(bodies, 1)
    nested = _nested_kinds(list(bodies.values()))
    while True:
        before = dict(heights)
        for path, body in bodies.items():
            inside = [heights[m.body.path] for m in body.members if m.body is not None]
            heights[path] = max([heights[path], *(1 + height for height in inside)])
        kinds: dict[str, int] = {}
        for path, body in bodies.items():
            if body.path:
                kinds[body.kind] = max(kinds.get(body.kind, 1), heights[path])
        for path, body in bodies.items():
            if body.path and body.kind not in nested:
                heights[path] = kinds[body.kind]
        if heights == before:
            return heights


def _nested_kinds(bodies: Collection[Body]) -> set[str]:
    """The kinds whose blocks are at several depths, since they hold blocks of their own kind, also through others."""
    nested = {body.kind for body in bodies if any(inner.kind == body.kind for inner in _inside(body))}
    while True:
        # Blocks of a nested kind count one by one: what they hold is held by what they lie in.
        holds: dict[str, set[str]] = {body.kind: set() for body in bodies}
        for body in bodies:
            if body.kind not in nested:
                holds[body.kind].update(inner.kind for inner in _inside(body, nested))
        more = {kind for kind in holds if kind in _reached(kind, holds)}
        if not more:
            return nested
        nested |= more


def _inside(body: Body, passed: Collection[str] | None = None) -> Iterator[Body]:
    """The blocks in a block, at any depth; with ``passed`` those that nothing but blocks of these kinds lies before."""
    for member in body.members:
        if member.body is not None:
            yield member.body
            if passed is None or member.body.kind in passed:
                yield from _inside(member.body, passed)


def _reached(kind: str, holds: Mapping[str, set[str]]) -> set[str]:
    found, waiting = set[str](), [kind]
    while waiting:
        more = holds[waiting.pop()] - found
        found |= more
        waiting += more
    return found


def _doc(group: Group) -> str:
    """The docstring of a class: its place in the model. Names of the model that could be code are left out."""
    paths = sorted((body.path for body in group.bodies), key=_natural)
    if not all(re.fullmatch(r"[A-Za-z0-9_.]{1,60}", path) for path in (paths[0], paths[-1])):
        return ""
    if len(paths) == 1:
        return paths[0]
    found = f"{paths[0]} to {paths[-1]}"
    return found if len(found) < 60 else f"{paths[0]} and {len(paths) - 1} more"


def _natural(path: str) -> list[tuple[int, str]]:
    """A sort key that orders numbers in names by value."""
    return [(int(word), "") if word.isdigit() else (-1, word) for word in re.split(r"(\d+)", path)]


def inlined(classes: Sequence[Class]) -> list[Class]:
    """Inline classes that only stack layers and are used in one place."""
    counts = Counter(word for c in classes for word in _makers([a.code for a in c.attributes]) + _makers(c.stack))
    gone = {c.name: c for c in classes if c.stack is not None and counts[c.name] == 1 and not c.root}

    def instead(piece: Code) -> Code:
        if not isinstance(piece, Apply) or not isinstance(piece.function, Name) or piece.function.text not in gone:
            return piece
        inner = gone[piece.function.text]
        given = {name: value for name, value in inner.parameters if value is not ...} | dict(piece.keywords)
        code = replaced(inner.stack, lambda c: given.get(c.text, c) if isinstance(c, Name) else c)
        if "name" in given:
            code = replace(code, keywords=(*code.keywords, ("name", given["name"])))
        return replaced(code, instead)

    return [
        replace(c, attributes=[replace(a, code=replaced(a.code, instead)) for a in c.attributes],
                stack=replaced(c.stack, instead))
        for c in classes
        if c.name not in gone
    ]  # fmt: skip
