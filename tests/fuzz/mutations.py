"""Ways to damage bytes and JSON values."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

from tests.fuzz import hostile

NUMBERS = (
    0, 1, -1, 2, 3, 7, 1 << 16, 1 << 31, -(1 << 31), 1 << 48, 1 << 63, 10**40, 0.5, -0.0, 1e-320, 1e308, True, False,
)  # fmt: skip


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Some bits flipped, or a part cut out, put in, repeated, cleared."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        if not found:
            break
        start = rng.randrange(len(found))
        end = min(len(found), start + rng.choice((1, 2, 8, 64, 1000)))
        match rng.randrange(8):
            case 0:
                del found[start:]
            case 1:
                del found[start:end]
            case 2:
                found[start:start] = found[start:end]
            case 3:
                found[start:end] = bytes(end - start)
            case 4:
                found[start:end] = rng.randbytes(end - start)
            case _:
                found[start] ^= 1 << rng.randrange(8)
    return bytes(found)


def flipped(rng: random.Random, data: bytes) -> bytes:
    """One bit."""
    found = bytearray(data)
    found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def value(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON value."""
    match rng.randrange(8 if depth < 3 else 5):
        case 0:
            return None
        case 1 | 2:
            return rng.choice(NUMBERS)
        case 3 | 4:
            return hostile.text(rng)
        case 5:
            return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
        case 6:
            return {hostile.text(rng): value(rng, depth + 1) for _ in range(rng.randrange(3))}
        case _:
            nested: Any = 0
            for _ in range(rng.choice((5, 20, 100))):
                nested = [nested]
            return nested


def mutated(rng: random.Random, found: Any, times: int = 1) -> Any:
    """A JSON value in which some entries are others, missing, doubled or exchanged."""
    found = copy.deepcopy(found)
    for _ in range(times):
        parents: list[tuple[Any, Any]] = []
        _walk(found, parents)
        if not parents:
            break
        parent, key = rng.choice(parents)
        match rng.randrange(6):
            case 0:
                del parent[key]
            case 1 | 2:
                parent[key] = _alike(rng, parent[key])
            case 3:
                other, where = rng.choice(parents)
                parent[key] = copy.deepcopy(other[where]) if _size(other[where]) < 1000 else 0
            case 4 if isinstance(parent, list):
                parent.insert(key, copy.deepcopy(parent[key]))
            case _:
                parent[key] = value(rng)
    return found


def _alike(rng: random.Random, old: Any) -> Any:
    """Another value of the same type."""
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return rng.choice((old + 1, old - 1, -old, 2 * old, 0, 1 << 20, 3))
    if isinstance(old, float):
        return rng.choice((-old, old * 1e30, 0.0, 1e308))
    if isinstance(old, str):
        return rng.choice((hostile.text(rng), old + "x", old[1:], old[::-1]))
    return [] if isinstance(old, list) else {} if isinstance(old, dict) else value(rng)


def _walk(found: Any, parents: list[tuple[Any, Any]]) -> None:
    entries: Sequence[Any] = (
        list(found) if isinstance(found, dict) else range(len(found)) if isinstance(found, list) else ()
    )
    for key in entries:
        parents.append((found, key))
        _walk(found[key], parents)


def _size(found: Any) -> int:
    parents: list[tuple[Any, Any]] = []
    _walk(found, parents)
    return len(parents)
