"""Read a pickle without executing it: a machine of its own that knows how to build plain values, and calls nothing.

Python's own unpickler calls whatever it is told to, and one that refuses names still allocates by what the pickle
claims: nine bytes make it reserve four gigabytes. Here memory is in proportion to the number of instructions.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import Any

BYTES = 128
"""What one instruction may cost in memory, at most about."""

_CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_DICT": dict, "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple, "EMPTY_SET": set,
}  # fmt: skip
_VALUES = frozenset({
    "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINUNICODE", "UNICODE", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "STRING", "BINSTRING", "SHORT_BINSTRING",
})  # fmt: skip
_IGNORED = frozenset({"PROTO", "FRAME"})
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Forbidden(Exception):
    """The pickle names something that no plain value needs; its text is that name."""


class Damaged(Exception):
    """It is no pickle, or one that is cut off."""


class _Mark:
    """Where the instruction MARK was."""


def read(
    stream: Any, known: Mapping[tuple[str, str], Any], persistent: Callable[[Any], Any] | None, instructions: int
) -> Any:
    """The value of one pickle.

    Args:
        stream: open for reading at its start; ``read(n)`` must not reserve more than what there is. It is left behind
            the pickle's end.
        known: what the names that the pickle may contain stand for, by (module, name): a function, which is called if
            the pickle says so, or a value.
        persistent: makes a value of a reference; None where there are none.
        instructions: how many there may be.

    Raises:
        Forbidden: the pickle names something else.
        Damaged: it is no whole pickle, has too many instructions, or does what no plain value needs.
    """
    machine = _Machine(known, persistent)
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(stream)):
            if count > instructions:
                raise Damaged("more instructions than the file's size allows")
            if operation.name == "STOP":
                return machine.pop()
            machine.step(operation.name, argument)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        # From pickletools, on what is no instruction; from an empty stack; from values of another kind than due.
        raise Damaged(f"{type(error).__name__}: {error}") from None
    raise Damaged("no end")


class _Machine:
    """A stack, and what was memorized."""

    def __init__(self, known: Mapping[tuple[str, str], Any], persistent: Callable[[Any], Any] | None) -> None:
        self._known, self._persistent = known, persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        value = self._stack.pop()
        if isinstance(value, _Mark):
            raise Damaged("a mark instead of a value")
        return value

    def _marked(self) -> list[Any]:
        """What was pushed since the last mark."""
        found: list[Any] = []
        while not isinstance(self._stack[-1], _Mark):
            found.append(self._stack.pop())
        self._stack.pop()
        return found[::-1]

    def step(self, name: str, argument: Any) -> None:
        """Execute one instruction."""
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _VALUES:
            self._stack.append(argument)
        elif name in _TUPLES:
            values = tuple(self.pop() for _ in range(_TUPLES[name]))
            self._stack.append(values[::-1])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[int(argument)] = self._stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[int(argument)])
        elif name not in _IGNORED:
            self._compound(name, argument)

    def _compound(self, name: str, argument: Any) -> None:
        match name:
            case "MARK":
                self._stack.append(_Mark())
            case "TUPLE":
                self._stack.append(tuple(self._marked()))
            case "LIST":
                self._stack.append(self._marked())
            case "DICT":
                self._stack.append(_filled({}, self._marked()))
            case "APPEND":
                value = self.pop()
                _of(self._stack[-1], list).append(value)
            case "APPENDS":
                values = self._marked()
                _of(self._stack[-1], list).extend(values)
            case "ADDITEMS":
                values = self._marked()
                _of(self._stack[-1], set).update(map(_key, values))
            case "FROZENSET":
                self._stack.append(frozenset(map(_key, self._marked())))
            case "SETITEM":
                value, key = self.pop(), self.pop()
                _filled(_of(self._stack[-1], dict), [key, value])
            case "SETITEMS":
                pairs = self._marked()
                _filled(_of(self._stack[-1], dict), pairs)
            case "POP":
                self._stack.pop()
            case "POP_MARK":
                self._marked()
            case "DUP":
                self._stack.append(self._stack[-1])
            case _:
                self._named(name, argument)

    def _named(self, name: str, argument: Any) -> None:
        match name:
            case "GLOBAL":
                module, _, attribute = argument.partition(" ")
                self._stack.append(self._find(module, attribute))
            case "STACK_GLOBAL":
                attribute, module = self.pop(), self.pop()
                self._stack.append(self._find(module, attribute))
            case "INST":
                module, _, attribute = argument.partition(" ")
                self._find(module, attribute)
                raise Forbidden(f"{module}.{attribute}")
            case "BINPERSID" if self._persistent is not None:
                self._stack.append(self._persistent(self.pop()))
            case "REDUCE":
                arguments, function = self.pop(), self.pop()
                if not callable(function) or not isinstance(arguments, tuple):
                    raise Damaged("a call of what is no function")
                self._stack.append(function(*arguments))
            case "BUILD":
                # torch.save keeps the versions of modules as an attribute of the dict; nothing else has any.
                self.pop()
                _of(self._stack[-1], dict)
            case _:
                raise Damaged(f"the instruction {name}")

    def _find(self, module: Any, name: Any) -> Any:
        if (module, name) not in self._known:
            raise Forbidden(f"{module}.{name}")
        return self._known[module, name]


def _of(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise Damaged(f"a {type(value).__name__} where a {kind.__name__} is due")
    return value


def _filled(found: dict[Any, Any], pairs: list[Any]) -> dict[Any, Any]:
    if len(pairs) % 2:
        raise Damaged("a key without a value")
    found.update(zip(map(_key, pairs[::2]), pairs[1::2], strict=True))
    return found


def _key(value: Any) -> Any:
    """A value that is quick to hash: tuples of tuples, each twice the one before, would take for ever."""
    parts = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(x, str | int | float | bytes | None) for x in parts):
        raise Damaged(f"a key of type {type(value).__name__}")
    return value
