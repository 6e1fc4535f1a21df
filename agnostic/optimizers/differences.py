"""The field guide as data: what PyTorch and Keras compute under one name, and how far their results differ.

Every number is measured when it is asked for, by the NumPy float64 rules on the standard problem of
:mod:`agnostic.reference.optimizers`; the tests hold those rules against both frameworks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agnostic.optimizers.groups import SHARED
from agnostic.optimizers.specs import KINDS, TERMS, Spec, as_dict, obstacles, replace, without_effect


@dataclass(frozen=True)
class DifferingSetting:
    """One convention in which the two differ.

    Attributes:
        name: the field of the specification.
        torch, keras: its value in each.
        size: the greatest difference of a parameter after 5 steps if only this differs; None where NumPy cannot tell.
    """

    name: str
    torch: Any
    keras: Any
    size: float | None

    @property
    def meaning(self) -> str:
        """The convention as text."""
        return TERMS.get(self.name, self.name)


@dataclass(frozen=True)
class Pair:
    """One kind of optimizer in both frameworks.

    Attributes:
        kind: the specification's name.
        options: what is not PyTorch's default here, because a difference shows only with it.
        torch, keras: the framework's class, or None where it has none and ours is built.
        defaults: hyperparameters of other defaults: (PyTorch's, Keras').
        terms: conventions that differ at the same hyperparameters.
        size: the difference of all terms together.
    """

    kind: str
    options: Mapping[str, Any]
    torch: str | None
    keras: str | None
    defaults: Mapping[str, tuple[Any, Any]]
    terms: tuple[DifferingSetting, ...]
    size: float | None

    @property
    def exact_in_keras(self) -> str:
        """What computes PyTorch's optimizer exactly in Keras: ``"native"``, ``"ours"``, or why nothing does."""
        if self.kind == "Muon":
            return "none: bfloat16"
        if self.kind == "Adafactor":
            return "ours; none for convolutions"
        return "native" if self.keras is not None and not self.terms else "ours"

    @property
    def exact_in_torch(self) -> str:
        """What computes Keras' optimizer exactly in PyTorch."""
        if self.kind == "Adafactor":
            return "ours; none for convolutions"
        return "native" if self.torch is not None and not self.terms else "ours"


_CASES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "weight_decay": 0.1}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9}),
    ("Adagrad", {}),
    ("Adadelta", {}),
    ("Adam", {}),
    ("Adam", {"epsilon": 1e-3}),
    ("Adam", {"weight_decay": 0.1}),
    *((kind, {}) for kind in KINDS if kind not in ("SGD", "RMSprop", "Adagrad", "Adadelta", "Adam")),
)


def pairs() -> list[Pair]:
    """Every kind, and every setting of it that brings out a difference of its own."""
    return [_pair(KINDS[kind], options) for kind, options in _CASES]


def _pair(cls: type[Spec], options: Mapping[str, Any]) -> Pair:
    native = {name: cls.natives[name].name if name in cls.natives else None for name in ("torch", "keras")}
    if None in native.values():
        return Pair(cls.__name__, options, native["torch"], native["keras"], {}, (), None)
    theirs, other = cls.torch(**options), cls.keras(**options)
    conventions = {name for framework in cls.natives.values() for name in framework.fixed}
    idle = without_effect(theirs)
    one, two = as_dict(theirs), as_dict(other)
    defaults = {
        name: (one[name], two[name])
        for name in one
        if one[name] != two[name] and name not in conventions and name not in SHARED and name not in options
    }
    differing = [name for name in obstacles(theirs, "keras") if name in conventions and name not in idle]
    terms = [DifferingSetting(name, one[name], two[name], _size(theirs, {name: two[name]})) for name in differing]
    together = _size(theirs, {name: two[name] for name in differing})
    return Pair(cls.__name__, options, native["torch"], native["keras"], defaults, tuple(terms), together)


def _size(spec: Spec, changes: Mapping[str, Any]) -> float | None:
    from agnostic.reference.optimizers import difference

    if "iteration_dtype" in changes or getattr(spec, "iteration_dtype", None) == "bfloat16":
        # NumPy has no bfloat16; the other terms are measured in float64.
        changes = {**changes, "iteration_dtype": "parameter"}
        spec = replace(spec, {"iteration_dtype": "parameter"})
        if set(changes) == {"iteration_dtype"}:
            return None
    return difference(spec, replace(spec, changes))


def markdown() -> str:
    """The table of docs/differences/optimizers.md."""
    columns = ("optimizer", "setting", "differs in", "by", "together", "torch in Keras", "Keras in torch")
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for pair in pairs():
        setting = ", ".join(f"{k}={v}" for k, v in pair.options.items())
        if pair.torch is None or pair.keras is None:
            missing = "PyTorch" if pair.torch is None else "Keras"
            here = [("ours" if pair.keras is None else "-"), ("ours" if pair.torch is None else "-")]
            lines.append(f"| {pair.kind} | {setting} | {missing} has none | | | {here[0]} | {here[1]} |")
            continue
        terms = "; ".join(f"{t.name}: {t.torch} / {t.keras}" for t in pair.terms) or "nothing"
        sizes = "; ".join(_number(t.size) for t in pair.terms)
        total = _number(pair.size) if pair.terms else "0"
        lines.append(
            f"| {pair.kind} | {setting} | {terms} | {sizes} | {total} | {pair.exact_in_keras} | {pair.exact_in_torch} |"
        )
    return "\n".join(lines) + "\n"


def _number(size: float | None) -> str:
    # One digit: the last ones depend on the order of additions.
    return "bfloat16" if size is None else f"{size:.0e}"
