"""An optimizer in one line of text, as on a command line: ``Adam``, ``Adam(1e-3)``, ``SGD.torch(momentum=0.9)``."""

from __future__ import annotations

import ast
from typing import Any

from agnostic.errors import InvalidInput, UnknownName, nearest
from agnostic.optimizers.specs import KINDS, Spec, make
from agnostic.text import counted

_FRAMEWORKS = ("torch", "keras")


def specification(text: str, framework: str = "torch") -> Spec:
    """The specification that a text names.

    Args:
        text: ``"Adam"`` is the framework's own with its defaults. ``"Adam(1e-3, epsilon=1e-7)"`` is written as in
            Python, and ``"Adam.torch(epsilon=1e-7)"``, ``"Adam.keras()"`` too. Nothing is executed: the values are
            numbers, texts, True, False, None and tuples of them.
        framework: whose ``"Adam"`` is meant: ``"torch"`` or ``"keras"``.

    Raises:
        UnknownName: no such optimizer, or it has no such field.
        InvalidInput: it is written otherwise, or its numbers do not go together.
    """
    kind, preset, positional, options = _parsed(text)
    if kind not in KINDS:
        raise UnknownName(f"no optimizer {kind!r}: there are {', '.join(KINDS)}{nearest(kind, KINDS)}")
    cls = KINDS[kind]
    fields = [name for name, field in cls.__dataclass_fields__.items() if not field.kw_only]
    if len(positional) > len(fields):
        raise InvalidInput(
            f"{kind} has {counted(len(fields), 'field')} without a name ({', '.join(fields)}), and {text!r} has more"
        )
    given = {**dict(zip(fields, positional, strict=False)), **options}
    if text.strip() == kind:
        if framework not in cls.natives:
            raise InvalidInput(f"{framework} has no {kind}: write it with its learning rate, such as {kind}(1e-3)")
        preset = framework
    if preset:
        found: Spec = getattr(cls, preset)(**given)
        return found
    if "learning_rate" not in given:
        raise InvalidInput(
            f"{text!r} has no learning rate: write {kind}(1e-3), or {kind}.torch() for PyTorch's default"
        )
    return make(cls, given)


def _parsed(text: str) -> tuple[str, str, list[Any], dict[str, Any]]:
    """(kind, preset or "", values by position, values by name)."""
    wrong = InvalidInput(f"an optimizer is written as Adam, Adam(1e-3) or SGD.torch(momentum=0.9), not {text!r}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        call = tree if isinstance(tree, ast.Call) else ast.Call(tree, [], [])
        positional = [ast.literal_eval(x) for x in call.args]
        options = {str(x.arg): ast.literal_eval(x.value) for x in call.keywords if x.arg is not None}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise wrong from None
    if len(options) != len(call.keywords):
        raise wrong
    name = call.func
    if isinstance(name, ast.Name):
        return name.id, "", positional, options
    if isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name) and name.attr in _FRAMEWORKS:
        return name.value.id, name.attr, positional, options
    raise wrong


def check(text: str) -> None:
    """Find what is wrong with a text before it is known which framework it is for.

    Raises:
        UnknownName, InvalidInput: as :func:`specification`, for every framework.
    """
    try:
        specification(text, "torch")
    except InvalidInput:
        specification(text, "keras")
