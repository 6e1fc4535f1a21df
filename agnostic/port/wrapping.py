"""Long lines of source broken at their brackets, as a formatter would."""

from __future__ import annotations

import re

WIDTH = 119
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'')


def wrapped(source: str) -> str:
    """The source with each line of at most :data:`WIDTH` characters, where brackets allow it."""
    return "\n".join(part for line in source.split("\n") for part in _broken(line))


def _broken(line: str) -> list[str]:
    if len(line) <= WIDTH or line.lstrip().startswith(("#", '"""')):
        return [line]
    # Brackets inside of strings do not count.
    bare = _STRING.sub(lambda found: "_" * len(found[0]), line)
    spans = _outermost(bare)
    if not spans:
        return [line]
    start, end = max(spans, key=lambda span: span[1] - span[0])
    indent = " " * (len(line) - len(line.lstrip()))
    head, inner, tail = line[: start + 1], line[start + 1 : end], line[end:]
    inside = _parts(inner, bare[start + 1 : end])
    if re.search(r"\bfor \w+ in ", bare[start + 1 : end]) and len(inside) == 1:
        return [head, *_broken(f"{indent}    {inner.strip()}"), indent + tail]
    whole = f"{indent}    {inner.strip()}"
    if len(whole) <= WIDTH and len(inside) > 1:
        return [head, whole, *_broken(indent + tail)]
    lines = [head]
    for part in inside:
        lines += _broken(f"{indent}    {part},")
    return [*lines, *_broken(indent + tail)]


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
    """What stands between the commas of one level."""
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
