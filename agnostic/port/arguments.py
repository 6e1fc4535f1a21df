"""Choose the constructor arguments of a class: the values that differ between equal blocks, and their names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agnostic.port.code import Code, If, Infix, Name, identifier
from agnostic.port.templates import MISSING, ROLES, Group, Mark, marks
from agnostic.program.nodes import Value

LARGEST_RATIO = 16
"""Numbers of channels are written as multiples of others up to so many times."""


@dataclass
class Column:
    """The values of all blocks at marks that always hold equal values.

    Attributes:
        values: one per block.
        marks: the places of these values in the template.
        code: the parameter, or an expression of parameters, that gives the value.
    """

    values: list[Any]
    marks: list[Mark] = field(default_factory=list)
    code: Code = None

    @property
    def role(self) -> str:
        """The role of the numbers: ``"heads"``, ``"channels"`` or ``"size"``; ``""`` where no mark states one."""
        roles = [mark.role for mark in self.marks]
        return next((role for role in ("heads", "channels", "size", "weight") if role in roles), "")

    @property
    def is_partial(self) -> bool:
        """Whether some blocks lack the part that contains these marks."""
        return any(value is MISSING for value in self.values)

    @property
    def is_counting(self) -> bool:
        """Whether all values are lengths, so that other values may be multiples of them."""
        return self.role != "" and all(type(v) is int and v > 0 for v in self.values if v is not MISSING)


def chosen(group: Group, widths: Sequence[int], reserved: Collection[str]) -> dict[Mark, Code]:
    """Return the code of each mark: a literal, or an expression of parameters. Fills ``group.parameters``.

    Args:
        group: the blocks.
        widths: the number of channels that each block returns.
        reserved: names that parameters must not have.
    """
    found: dict[Mark, Code] = {}
    columns: list[Column] = []
    for mark in marks(group.template):
        values = [column[mark] for column in group.columns]
        given = [value for value in values if value is not MISSING]
        if not given or all(same(value, given[0]) for value in given):
            found[mark] = given[0] if given else MISSING
            continue
        column = next((c for c in columns if all(same(a, b) for a, b in zip(c.values, values, strict=True))), None)
        if column is None:
            column = Column(values)
            columns.append(column)
        column.marks.append(mark)
    for column in columns:
        _fill(column, columns)
    options = [(m, code) for m, code in group.template.members if isinstance(code, If) and m.leaf is None]
    optional = {code.condition: m.name for m, code in options}
    taken = set(reserved) | {member.name for member, _ in group.template.members}
    known: list[Column] = []
    for column in sorted(columns, key=_order(widths)):
        column.code = _following(column, known)
        if column.code is None:
            name = _name(column, widths, optional, taken, group.parameters)
            group.parameters[name] = column.values
            column.code = Name(name)
            known.append(column)
    for column in columns:
        found |= dict.fromkeys(column.marks, column.code)
    return {mark: found[mark] for mark in marks(group.template)}


def _fill(column: Column, columns: Sequence[Column]) -> None:
    """Give numbers to the blocks that lack a part, where the others have a fixed fraction of another column's.

    Blocks of one window have the rows of windows too, namely one.
    """
    if not column.is_partial or not column.is_counting or column.role != "size":
        return
    for whole in columns:
        if whole.is_partial or not whole.is_counting or whole.role != "size":
            continue
        pairs = [(a, b) for a, b in zip(whole.values, column.values, strict=True) if b is not MISSING]
        ratios = {a / b for a, b in pairs}
        ratio = max(ratios)
        if len(ratios) == 1 < len({b for _, b in pairs}) and all(a % ratio == 0 for a in whole.values):
            column.values = [a // int(ratio) for a in whole.values]
            return


def _order(widths: Sequence[int]) -> Callable[[Column], tuple[Any, ...]]:
    """The order in which columns become parameters; later ones are derived: channels by use, then small sizes."""

    def key(column: Column) -> tuple[Any, ...]:
        if column.is_partial:
            return (3, column.marks[0].number)
        if not column.is_counting:
            return (2, column.marks[0].number)
        if column.role == "channels":
            uses = len(column.marks)
            return (0, -min(uses, 2), uses == 1 and column.values != list(widths), min(column.values))
        return (1, min(column.values))

    return key


def _following(column: Column, known: Sequence[Column]) -> Code:
    """The numbers as a multiple or fraction of a parameter, or as a product of two; None where no parameter fits."""
    if column.is_partial:
        for other in known:
            pairs = zip(column.values, other.values, strict=True)
            if all(a is MISSING or same(a, b) for a, b in pairs):
                return other.code
    if all(isinstance(value, float) and value > 0 for value in column.values):
        for other in known:
            if other.is_counting and column.values == [v if v is MISSING else v**-0.5 for v in other.values]:
                return Infix("**", other.code, -0.5)
    if not column.is_counting:
        return None
    alike = [other for other in known if other.is_counting and _are_alike(column, other)]
    for other in alike:
        given = [(a, b) for a, b in zip(column.values, other.values, strict=True) if a is not MISSING]
        if any(b is MISSING for _, b in given):
            continue
        ratios = {a / b for a, b in given}
        if len(ratios) > 1:
            continue
        ratio = ratios.pop()
        if ratio == int(ratio) and ratio <= LARGEST_RATIO:
            return Infix("*", int(ratio), other.code)
        if 1 / ratio == int(1 / ratio) and 1 / ratio <= LARGEST_RATIO and column.role == "channels":
            return Infix("//", other.code, int(1 / ratio))
    for n, one in enumerate(alike):
        for two in alike[n:]:
            if column.role != "size" or one.is_partial or two.is_partial:
                continue
            products = [a * b for a, b in zip(one.values, two.values, strict=True)]
            if all(a is MISSING or a == b for a, b in zip(column.values, products, strict=True)):
                return Infix("*", one.code, two.code)
    return None


def _are_alike(column: Column, other: Column) -> bool:
    roles = {column.role, other.role} - {"weight"}
    return len(roles) < 2


def _name(
    column: Column, widths: Sequence[int], optional: Mapping[Any, str], taken: set[str], given: Mapping[str, Any]
) -> str:
    used = taken | set(given)
    for mark in column.marks:
        if mark in optional and optional[mark] not in given:
            return optional[mark]
    if column.role == "heads":
        return identifier("heads", used)
    if column.role == "channels" and column.values == list(widths) and "channels" not in used:
        return "channels"
    hints = sorted((mark.hint for mark in column.marks), key=lambda hint: hint.rpartition(".")[2] not in ROLES)
    owner, _, word = hints[0].rpartition(".")
    if column.role == "channels" and word in used:
        word = f"{owner}_{word}" if owner and not owner[0].isdigit() else "hidden"
    elif word in used and owner:
        word = f"{owner}_{word}"
    return identifier(word or "size", used)


def default(name: str, values: Sequence[Any]) -> Any:
    """The default of an argument: its most frequent value; ``...`` where it has no default, such as a size."""
    if any(value is MISSING for value in values):
        return None
    best = max(values, key=lambda value: (sum(same(value, v) for v in values), value in (False, 1)))
    if type(best) is int and best > 1:
        return ...
    return best if 2 * sum(same(best, v) for v in values) > len(values) or isinstance(best, bool) else ...


def same(a: Any, b: Any) -> bool:
    """Whether two literals are equal and have the same type."""
    return type(a) is type(b) and (a == b or (a != a and b != b))


def width(value: Value, channels: int) -> int:
    """The number of channels of a value."""
    if not value.shape:
        return 1
    return int(value.shape[channels if len(value.shape) > 3 else -1])
