"""What is changed while a context is open: any number of contexts at once, in any thread, ended in any order.

Whoever saves a method, sets another and puts the saved one back, loses it when two contexts overlap: the first to end
takes the other's away, and the last to end puts back what the first had set. Here the method is replaced once, by a
function that looks up who is interested, and is put back when nobody is. A setting is changed by the first context and
put back by the last.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

Replacement = Callable[..., Any]
"""Called as ``replacement(original, *args, **kwargs)`` in place of the method, whose first argument is ``self`` if a
class is patched. ``original`` is the method itself, or the replacement of a context that was entered before."""

_lock = threading.Lock()
_patches: dict[tuple[int, str], _Patch] = {}
_MISSING = object()
_held: dict[Hashable, tuple[int, AbstractContextManager[Any]]] = {}


class _Patch:
    """One method of one object or class, and the replacements in force."""

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name = owner, name
        self.before = vars(owner).get(name, _MISSING)
        self.replacements: list[tuple[object, int, Replacement]] = []
        original = getattr(owner, name)

        @functools.wraps(original)  # whoever reads the signature sees the method's own
        def call(*args: Any, **kwargs: Any) -> Any:
            thread, found = threading.get_ident(), original
            for _, owner_thread, replacement in tuple(self.replacements):
                if owner_thread == thread:
                    found = functools.partial(replacement, found)
            return found(*args, **kwargs)

        self._set(call)

    def _set(self, value: Any) -> None:
        if isinstance(self.owner, type):
            setattr(self.owner, self.name, value)
        else:
            # Past a __setattr__ of the object's own, which might track the function as a part of it.
            vars(self.owner)[self.name] = value

    def undo(self) -> None:
        if self.before is not _MISSING:
            self._set(self.before)
        elif isinstance(self.owner, type):
            delattr(self.owner, self.name)
        else:
            vars(self.owner).pop(self.name, None)


@contextmanager
def patched(patches: Sequence[tuple[Any, str, Replacement]]) -> Iterator[None]:
    """Inside, calls from this thread of the named methods go to the replacements.

    Args:
        patches: (object or class, name of the method, replacement).
    """
    token = object()
    try:
        for owner, name, replacement in patches:
            with _lock:
                key = (id(owner), name)
                if key not in _patches:
                    _patches[key] = _Patch(owner, name)
                _patches[key].replacements.append((token, threading.get_ident(), replacement))
        yield
    finally:
        with _lock:
            for owner, name, _ in patches:
                if (patch := _patches.get((id(owner), name))) is None:
                    continue
                patch.replacements[:] = [x for x in patch.replacements if x[0] is not token]
                if not patch.replacements:
                    patch.undo()
                    del _patches[(id(owner), name)]


@contextmanager
def held(setting: Hashable, change: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """Inside, a setting is changed: by the first of the contexts that overlap, and put back by the last to end.

    Args:
        setting: what names it; with the thread's identifier where each thread has its own.
        change: returns the context manager that changes it and puts it back.
    """
    with _lock:
        number, context = _held.get(setting) or (0, change())
        if not number:
            context.__enter__()
        _held[setting] = number + 1, context
    try:
        yield
    finally:
        with _lock:
            number, context = _held.pop(setting)
            if number > 1:
                _held[setting] = number - 1, context
            else:
                context.__exit__(None, None, None)
