"""An elementwise update rule as a short list of PyTorch operations in place.

A rule is written once, as arithmetic that makes a new array at every sign. Run as it stands it takes two or three times
as many operations as torch.optim, which knows ``lerp``, ``addcmul`` and ``addcdiv`` and writes into what it reads. So
it is called once on symbols instead of arrays; what it does with them is translated into those operations, with the
arrays' own memory for the results wherever nothing later reads what was there. The numbers of a step are taped on the
way: the next step has the same operations with numbers of its own, as long as what was decided by a number stays so.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from agnostic.errors import InvalidInput
from agnostic.optimizers import rules
from agnostic.optimizers.specs import Spec

Tensor = torch.Tensor

# Elements of a block, for each thread that works on it. The temporaries of a rule then stay in the cache, and a step
# reads and writes main memory once an array, where torch.optim's in-place operations do so once an operation. Of 25
# million parameters Adam took 83 ms with 2^14 a thread, 66 with 2^14.5, 41 with 2^15, 35 with 2^16, 57 with 2^17.
_BLOCK = 2**16

# Fused updates that an optimizer keeps: one per rule, or one per step if a momentum follows a schedule.
_FORMS = 64


# Numbers --------------------------------------------------------------------------------------------------------------
@dataclass
class _Tape:
    """What was done with the numbers of a step, to do it again with those of another.

    Attributes:
        values: of this step: first its numbers, then constants and results as they came.
        steps: (function, place of its result, places of its operands).
        decisions: (comparison, places, what it said): the operations hold only while it says so.
    """

    values: list[float] = field(default_factory=list)
    steps: list[tuple[Callable[..., float], int, list[int]]] = field(default_factory=list)
    decisions: list[tuple[Callable[..., bool], list[int], bool]] = field(default_factory=list)

    def put(self, value: float) -> _Number:
        self.values.append(float(value))
        return _Number(self, len(self.values) - 1)

    def do(self, function: Callable[..., float], *operands: float | _Number) -> _Number:
        places = self._places(operands)
        result = self.put(function(*(self.values[x] for x in places)))
        self.steps.append((function, result.place, places))
        return result

    def decide(self, comparison: Callable[..., bool], *operands: float | _Number) -> bool:
        places = self._places(operands)
        said = comparison(*(self.values[x] for x in places))
        self.decisions.append((comparison, places, said))
        return said

    def again(self, numbers: Sequence[float]) -> list[float] | None:
        """The values with other numbers to begin with; None where a decision comes out differently."""
        values = [*numbers, *self.values[len(numbers) :]]
        for function, place, operands in self.steps:
            values[place] = function(*[values[x] for x in operands])
        for comparison, operands, said in self.decisions:
            if comparison(*[values[x] for x in operands]) != said:
                return None
        return values

    def _places(self, operands: Sequence[float | _Number]) -> list[int]:
        return [(x if isinstance(x, _Number) else self.put(x)).place for x in operands]


class _Number:
    """A number of a step. Not a float: what cannot be taped must fail, not go on with the number of one step."""

    __array_ufunc__ = None  # NumPy's numbers leave arithmetic with it to it

    def __init__(self, tape: _Tape, place: int) -> None:
        self.tape, self.place = tape, place

    def __hash__(self) -> int:
        # As of the float, which it may be equal to. Only what is equal is asked about, so only that is a decision.
        return hash(self.tape.values[self.place])


def _taped(function: Callable[..., float], *, swapped: bool = False) -> Callable[..., Any]:
    def method(self: _Number, *others: Any) -> Any:
        if not all(isinstance(x, int | float | _Number) for x in others):
            return NotImplemented
        return self.tape.do(function, *((*others, self) if swapped else (self, *others)))

    return method


def _decided(comparison: Callable[..., bool]) -> Callable[..., Any]:
    def method(self: _Number, other: Any) -> Any:
        return self.tape.decide(comparison, self, other) if isinstance(other, int | float | _Number) else NotImplemented

    return method


for _name in ("add", "sub", "mul", "truediv"):
    setattr(_Number, f"__{_name}__", _taped(getattr(operator, _name)))
    setattr(_Number, f"__r{_name}__", _taped(getattr(operator, _name), swapped=True))
for _name in ("neg", "abs"):
    setattr(_Number, f"__{_name}__", _taped(getattr(operator, _name)))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(_Number, f"__{_name}__", _decided(getattr(operator, _name)))


# Arrays ---------------------------------------------------------------------------------------------------------------
@dataclass(eq=False)
class _Node:
    """What one operation gives: of arrays (``inputs``) and numbers."""

    kind: str
    inputs: tuple[_Symbol, ...] = ()
    number: Any = 0.0  # a float or a _Number, whose operators are set above
    uses: int = 0

    def __post_init__(self) -> None:
        for x in self.inputs:
            x.node.uses += 1


@dataclass(frozen=True)
class _Symbol:
    """An array of the rule: a number times a node. Multiplying by a number takes no operation of its own."""

    node: _Node
    scale: Any = 1.0  # a float or a _Number

    def __mul__(self, other: Any) -> _Symbol:
        if isinstance(other, _Symbol):
            node = _Node("mul", (_Symbol(self.node), _Symbol(other.node)))
            return _Symbol(node, self.scale * other.scale)
        return _Symbol(self.node, self.scale * other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> _Symbol:
        if isinstance(other, _Symbol):
            node = _Node("div", (_Symbol(self.node), _Symbol(other.node)))
            return _Symbol(node, self.scale / other.scale)
        return _Symbol(self.node, self.scale / other)

    def __rtruediv__(self, number: Any) -> _Symbol:
        return _Symbol(_Node("reciprocal", (_Symbol(self.node),)), number / self.scale)

    def __add__(self, other: Any) -> _Symbol:
        if isinstance(other, _Symbol):
            return _Symbol(_Node("add", (self, other)))
        return _Symbol(_Node("add number", (self,), other))

    __radd__ = __add__

    def __neg__(self) -> _Symbol:
        return _Symbol(self.node, -self.scale)

    def __sub__(self, other: Any) -> _Symbol:
        return self.__add__(-other)

    def __rsub__(self, number: float | _Number) -> _Symbol:
        return -self + number


class _Symbols:
    """The operations of Ops that elementwise rules are written in, on symbols."""

    name = "symbols"

    def square(self, x: _Symbol) -> _Symbol:
        return x * x

    def sqrt(self, x: _Symbol) -> _Symbol:
        return _Symbol(_Node("sqrt", (x,)))

    def abs(self, x: _Symbol) -> _Symbol:
        return _Symbol(_Node("abs", (x,)))

    def sign(self, x: _Symbol) -> _Symbol:
        return _Symbol(_Node("sign", (x,)))

    def maximum(self, a: _Symbol, b: _Symbol | float) -> _Symbol:
        if isinstance(b, _Symbol):
            return _Symbol(_Node("maximum", (a, b)))
        return _Symbol(_Node("maximum of number", (a,), b))


@dataclass(frozen=True)
class _Step:
    """One operation: ``function(*inputs, **options)``; inputs are the numbers of values, or ``("number", x)``."""

    function: Callable[..., Tensor]
    inputs: tuple[Any, ...]
    options: Mapping[str, float | _Number]


@dataclass
class _Writer:
    """Operations in order; each makes the value whose number is its place after the leaves."""

    leaves: list[_Node]
    steps: list[_Step] = field(default_factory=list)
    known: dict[tuple[int, float], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.known = {(id(node), 1.0): i for i, node in enumerate(self.leaves)}

    def emit(self, function: Callable[..., Tensor], *inputs: Any, **options: float | _Number) -> int:
        self.steps.append(_Step(function, inputs, options))
        return len(self.leaves) + len(self.steps) - 1

    def value(self, x: _Symbol) -> int:
        """The number of the value of a symbol, its operations written if they are not yet."""
        key = (id(x.node), x.scale)
        if key not in self.known:
            if x.scale == 1.0:
                self.known[key] = self._node(x.node)
            else:
                self.known[key] = self.emit(torch.mul, self.value(_Symbol(x.node)), ("number", x.scale))
        return self.known[key]

    def _node(self, node: _Node) -> int:
        if node.kind == "add":
            return self._sum(*node.inputs)
        found = [self.value(x) for x in node.inputs]
        if node.kind == "add number":
            return self.emit(torch.add, *found, ("number", node.number))
        if node.kind == "maximum of number":
            return self.emit(torch.clamp_min, *found, ("number", node.number))
        return self.emit(_FUNCTIONS[node.kind], *found)

    def _sum(self, a: _Symbol, b: _Symbol) -> int:
        # A term that does not count at this step, such as half of RAdam, is not computed.
        if a.scale == 0.0 or b.scale == 0.0:
            return self.value(b if a.scale == 0.0 else a)
        for x, y in ((a, b), (b, a)):
            # A product or quotient that nothing else needs is added as it is made.
            if y.node.kind in _FUSED and y.node.uses == 1 and (id(y.node), 1.0) not in self.known:
                factors = [self.value(f) for f in y.node.inputs]
                return self.emit(_FUSED[y.node.kind], self.value(x), *factors, value=y.scale)
        if a.scale != 1.0 and abs(a.scale + b.scale - 1) < 1e-15 and 0 < b.scale < 1:
            return self.emit(torch.lerp, *map(self.value, (_Symbol(a.node), _Symbol(b.node))), ("number", b.scale))
        if a.scale != 1.0 and b.scale == 1.0:
            a, b = b, a
        return self.emit(torch.add, self.value(a), self.value(_Symbol(b.node)), alpha=b.scale)


_FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "mul": torch.mul, "div": torch.div, "reciprocal": torch.reciprocal,
    "sqrt": torch.sqrt, "abs": torch.abs, "sign": torch.sign, "maximum": torch.maximum,
}  # fmt: skip
_FUSED: Mapping[str, Callable[..., Tensor]] = {"mul": torch.addcmul, "div": torch.addcdiv}


class FusedUpdate:
    """One step of one elementwise rule, for parameters of any shape.

    Attributes:
        names: the slots of the state that it reads and writes.
        temporaries: how many arrays of the parameter's size it needs beside them.
        is_sums: whether it only adds multiples of arrays to others, as plain SGD: :meth:`apply_each` can run it.
    """

    def __init__(self, spec: Spec, now: Mapping[str, float], names: Sequence[str]) -> None:
        """Translate the rule.

        Args:
            now: the numbers of the step.
            names: the slots of the state, scalar ones left out.
        """
        if not rules.rule_of(spec).elementwise:
            raise InvalidInput(f"{type(spec).__name__} does not move each element by itself")
        self.names = tuple(names)
        leaves = {name: _Symbol(_Node("leaf")) for name in ("parameter", "gradient", *names)}
        state = {name: leaves[name] for name in names}
        ops: Any = _Symbols()
        self._tape = _Tape()
        numbers = {name: self._tape.put(value) for name, value in now.items()}
        moved, changed = rules.step(ops, spec, leaves["parameter"], leaves["gradient"], state, numbers)
        writer = _Writer([x.node for x in leaves.values()])
        for x in (moved, *changed.values()):
            x.node.uses += 1
        # The parameter first: what it is made of is then known to the state.
        order = list(leaves)
        results = {0: writer.value(moved), **{order.index(n): writer.value(x) for n, x in changed.items()}}
        self.temporaries, self._taped = _placed(writer, results)
        self._program = _numbered(self._taped, self._tape.values)
        self.is_sums = all(
            function is torch.add and inputs[0] == out and isinstance(inputs[1], int)
            for function, inputs, _, out in self._program
        )

    def at(self, now: Mapping[str, float]) -> FusedUpdate | None:
        """The program of another step of the same rule; None where other numbers ask for other operations."""
        values = self._tape.again(list(now.values()))
        if values is None:
            return None
        other = copy.copy(self)
        other._program = _numbered(self._taped, values)
        return other

    def __call__(self, parameter: Tensor, gradient: Tensor, *state: Tensor) -> None:
        """Move the parameter and change the state, in place; all of one shape and type."""
        places = [parameter, gradient, *state]
        places += [torch.empty_like(parameter) for _ in range(self.temporaries)]
        self.run(places)

    @torch.no_grad()
    def apply(
        self, parameter: Tensor, gradient: Tensor, state: Sequence[Tensor], scratch: dict[torch.dtype, list[Tensor]]
    ) -> None:
        """As :meth:`__call__`; in main memory piece by piece, so that the temporaries stay in the cache.

        Args:
            scratch: temporaries by type, which grow as they are needed and serve one parameter after the other.
        """
        if parameter.device.type != "cpu" or not self.temporaries:
            self(parameter, gradient, *state)
            return
        block = _BLOCK * torch.get_num_threads()
        held = scratch.setdefault(parameter.dtype, [])
        held += [torch.empty(block, dtype=parameter.dtype) for _ in range(self.temporaries - len(held))]
        temporaries = held[: self.temporaries]
        views, copied = _flat(parameter, gradient, *state)
        for pieces in zip(*(view.split(block) for view in views), strict=True):
            count = pieces[0].numel()
            self.run([*pieces, *(temporaries if count == block else [t[:count] for t in temporaries])])
        if copied:
            for original, view in zip((parameter, *state), (views[0], *views[2:]), strict=True):
                original.copy_(view.view(original.shape))

    @torch.no_grad()
    def apply_each(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], *state: Sequence[Tensor]) -> None:
        """As :meth:`__call__` for many parameters in one call an operation, where ``is_sums``."""
        places = [parameters, gradients, *state]
        for _, (_, added), options, out in self._program:
            torch._foreach_add_(places[out], places[added], **options)

    def run(self, places: Sequence[Tensor]) -> None:
        """As :meth:`__call__`, of (parameter, gradient, *state, *temporaries)."""
        for function, inputs, options, out in self._program:
            given = [x[1] if isinstance(x, tuple) else places[x] for x in inputs]
            function(*given, **options, out=places[out])


class FusedUpdates:
    """The rules of an optimizer translated, kept from step to step."""

    def __init__(self) -> None:
        self._known: dict[Any, FusedUpdate] = {}

    def of(self, spec: Spec, now: Mapping[str, float], names: Sequence[str]) -> FusedUpdate:
        """As :class:`FusedUpdate`; that of an earlier step, or another group, where only the numbers differ."""
        # A schedule of the rate changes the numbers of a rule, and not its operations.
        form = (type(spec), *(value for name, value in vars(spec).items() if name != "learning_rate"))
        known = self._known.get(form)
        program = known and known.at(now)
        if program is None:
            if len(self._known) >= _FORMS:
                self._known.clear()
            program = self._known[form] = FusedUpdate(spec, now, names)
        return program


def _numbered(program: Sequence[tuple[Any, ...]], values: Sequence[float]) -> list[tuple[Any, ...]]:
    """The operations with the numbers of one step."""

    def number(x: Any) -> Any:
        return values[x.place] if isinstance(x, _Number) else x

    return [
        (
            function,
            tuple((x[0], number(x[1])) if isinstance(x, tuple) else x for x in inputs),
            {name: number(x) for name, x in options.items()},
            out,
        )
        for function, inputs, options, out in program
    ]


def _flat(first: Tensor, *others: Tensor) -> tuple[list[Tensor], bool]:
    """Each tensor as one dimension, element for element; whether that took copies, which must be written back."""
    tensors = (first, *others)
    if all(t.is_contiguous() for t in tensors):
        return [t.view(-1) for t in tensors], False
    strides: Sequence[int] = first.stride()
    order = sorted(range(first.ndim), key=lambda d: (-strides[d], d))
    if all(t.permute(order).is_contiguous() for t in tensors):
        return [t.permute(order).view(-1) for t in tensors], False
    if first.permute(order).is_contiguous() and all(t.stride() == first.stride() for t in others[1:]):
        # Only the gradient has another layout, and it is not written to.
        g = torch.empty_like(first).copy_(others[0])
        return [t.permute(order).view(-1) for t in (first, g, *others[1:])], False
    return [t.contiguous().view(-1) for t in tensors], True


def _placed(writer: _Writer, results: Mapping[int, int]) -> tuple[int, list[tuple[Any, ...]]]:
    """(number of temporaries, operations with the places that they read and write).

    Args:
        results: leaf -> the value that it has in the end.
    """
    count = len(writer.leaves)
    last = dict.fromkeys(range(count + len(writer.steps)), -1)
    for index, step in enumerate(writer.steps):
        for x in step.inputs:
            if isinstance(x, int):
                last[x] = index
    wanted = {value: leaf for leaf, value in results.items() if value >= count}
    kept = set(results.values())
    place = {leaf: leaf for leaf in range(count)}
    free: list[int] = []
    # Leaf -> the value that was put there last.
    guests: dict[int, int] = {}

    def lent(leaf: int, index: int) -> bool:
        return results.get(leaf, leaf) != leaf and last[leaf] <= index and leaf not in kept and leaf not in guests

    size, program = count, []
    for index, step in enumerate(writer.steps):
        value = count + index
        inputs = tuple(place[x] if isinstance(x, int) else x for x in step.inputs)
        # Places whose values end here can take the result: every operation reads an element before it writes it.
        read = dict.fromkeys(x for x in step.inputs if isinstance(x, int) and x >= count)
        free += [place[x] for x in read if last[x] == index and x not in kept]
        leaf = wanted.get(value)
        if leaf is not None and last[leaf] <= index and leaf not in kept and last[guests.get(leaf, leaf)] <= index:
            place[value] = leaf
            free = [x for x in free if x != leaf]
        elif room := [x for x in free if x >= count or value not in kept]:
            # A result waits for its leaf in a temporary, not in another leaf, where another result may come.
            place[value] = room[-1]
            free.remove(room[-1])
        elif value not in kept and (ended := [x for x in step.inputs if isinstance(x, int) and lent(x, index)]):
            # What the leaf will hold in the end is not made yet: it has room for a value that is needed on the way.
            place[value] = ended[0]
        else:
            place[value], size = size, size + 1
        if place[value] < count:
            guests[place[value]] = value
        program.append((step.function, inputs, step.options, place[value]))
    program += [(_copy, (place[value],), {}, leaf) for leaf, value in results.items() if place[value] != leaf]
    return size - count, program


def _copy(x: Tensor, *, out: Tensor) -> Tensor:
    return out.copy_(x)
