"""Constructor arguments of blocks of which some lack parts."""

from __future__ import annotations

from typing import Any

from agnostic.port.arguments import chosen
from agnostic.port.code import Apply, Infix, Name
from agnostic.port.templates import MISSING, Group, Mark, Template
from agnostic.port.writer import Statement


def arguments(**columns: list[Any]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """What is written at each place, and the arguments, of blocks with these numbers at the places."""
    marks = {name: Mark(place, f"{name}.size", "size") for place, name in enumerate(columns)}
    call = Apply(Name("f"), tuple(marks.values()))
    rows = [dict(zip(marks.values(), row, strict=True)) for row in zip(*columns.values(), strict=True)]
    group = Group(Template([], [Statement((), call)], [], []), [], rows)
    given = chosen(group, [1] * len(rows), ())
    return {name: given[mark] for name, mark in marks.items()}, group.parameters


def test_numbers_that_a_block_lacks_follow_from_those_that_it_has() -> None:
    written, given = arguments(image=[56, 28, 7], rows=[8, 4, MISSING], all_rows=[64, 16, MISSING])
    [name] = given
    assert given[name] == [8, 4, 1]
    assert written == {"rows": Name(name), "image": Infix("*", 7, Name(name)),
                       "all_rows": Infix("*", Name(name), Name(name))}  # fmt: skip


def test_no_number_follows_from_one_that_its_block_lacks() -> None:
    written, given = arguments(before=[49, MISSING, 16], after=[49, 36, MISSING])
    assert sorted(map(repr, given.values())) == sorted(map(repr, ([49, MISSING, 16], [49, 36, MISSING])))
    assert written["before"] != written["after"]
