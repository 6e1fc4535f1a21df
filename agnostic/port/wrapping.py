"""Break long lines of source at their brackets, as a formatter does."""

from __future__ import annotations

import re

WIDTH = 119
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'')


def wrapped(source: str) -> str:
    """Break lines longer than :data:`WIDTH` characters, where brackets allow it."""
    return "\n".join(part for line in source.split("\n") for part in _broken(line))


def _broken(line: str) -> list[str]:
    if len(line) <= WIDTH or line.lstrip().startswith(("#", '"""')):
        return [line]
    # Brackets inside strings do not count.
    bare = _STRING.sub(lambda found: "_" * len(found[0]), line)
    spans = _outermost(bare)
    if not spans:
        return [line]
    found = _conditional(line, bare, spans)
    if found is not None:
        head, then, condition, otherwise = found
        inner = " " * (len(line) - len(line.lstrip()) + 4)
        return [f"{head}(", *_broken(inner + then), f"{inner}if {condition}", *_broken(f"{inner}else {otherwise}"),
                f"{inner[4:]})"]  # fmt: skip
    start, end = max(spans, key=lambda span: span[1] - span[0])
    indent = " " * (len(line) - len(line.lstrip()))
    head, inner, tail = line[: start + 1], line[start + 1 : end], line[end:]
    inside = _parts(inner, bare[start + 1 : end])
    if re.search(r"\bfor \w+ in ", bare[start + 1 : end]) and len(inside) == 1:
        return [head, *_broken(f"{indent}    {inner.strip()}"), indent + tail]
    is_call = bool(re.search(r"[\w\])]$", head[:-1])) and not re.search(r"\b(if|else|and|or|not|in|return)$", head[:-1])
    if not is_call and line[start] == "(" and len(inside) == 1 and not inner.rstrip().endswith(","):
        # Parentheses around one expression: a trailing comma would make it a tuple.
        return [head, *_broken(f"{indent}    {inner.strip()}"), *_broken(indent + tail)]
    whole = f"{indent}    {inner.strip()}"
    if len(whole) <= WIDTH and len(inside) > 1:
        return [head, whole, *_broken(indent + tail)]
    lines = [head]
    for part in inside:
        lines += _broken(f"{indent}    {part},")
    return [*lines, *_broken(indent + tail)]


def _conditional(line: str, bare: str, spans: list[tuple[int, int]]) -> tuple[str, str, str, str] | None:
    """The parts of ``head then if condition else otherwise``; None for another statement."""
    for start, end in spans:
        bare = bare[: start + 1] + "_" * (end - start - 1) + bare[end:]
    found = re.fullmatch(r"(\s*(?:[\w., ]+ = |return ))(.+) if (.+) else (.+)", bare)
    if found is None:
        return None
    head, then, condition, otherwise = (line[slice(*found.span(n))] for n in range(1, 5))
    return head, then, condition, otherwise


def _outermost(bare: str) -> list[tuple[int, int]]:
    spans, depth, start = [], 0, 0
    for place, letter in enumerate(bare):
        if letter in "([{":
            if not depth:
                start = place
            depth += 1
        elif letter in ")]}":
            depth -= 1
            if not depth and place > start + 1:
                spans.append((start, place))
    return spans


def _parts(inner: str, bare: str) -> list[str]:
    """The parts between the commas of one level."""
    found, depth, start = [], 0, 0
    for place, letter in enumerate(bare):
        if letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == "," and not depth:
            found.append(inner[start:place].strip())
            start = place + 1
    found.append(inner[start:].strip())
    return [part for part in found if part]
