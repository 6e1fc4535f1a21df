"""A flat model as a graph of its layers: what may be a block of it."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from agnostic.program.nodes import Node, Value


@dataclass
class Unit:
    """A call of a layer, or an operator, of a flat model.

    Attributes:
        name: of the layer within the model, ``""`` of an operator.
        nodes: in order.
        has_weights: whether it reads any.
        given: whether the framework gave the name.
        base: the path of the model.
        is_shared: whether the layer is called elsewhere too, and belongs to no single block.
    """

    name: str
    nodes: list[Node]
    has_weights: bool
    given: bool
    base: str = ""
    is_shared: bool = False

    @property
    def is_free(self) -> bool:
        """Whether it may belong to any block that is around it."""
        return not self.has_weights and not self.is_shared and (self.given or not self.name)

    @property
    def parts(self) -> list[str]:
        """Of the name, where the model's author gave it."""
        return [] if self.given or self.is_shared or not self.name else self.name.split("_")


@dataclass
class FoundBlock:
    """A block that was found.

    Attributes:
        name: within the block around it.
        items: in order.
        is_chain: whether it is a product with its norm and activation, whose names are of no use.
    """

    name: str
    items: list[Unit | FoundBlock]
    is_chain: bool = False

    @property
    def nodes(self) -> list[Node]:
        """All inside, in order."""
        return [node for item in self.items for node in item.nodes]

    @property
    def units(self) -> list[Unit]:
        """All inside, in order."""
        return [unit for item in self.items for unit in ([item] if isinstance(item, Unit) else item.units)]


Item = Unit | FoundBlock


class Graph:
    """The units of one call of a flat model, by their places, and which read what others give.

    Args:
        units: in order.
        outside: values that are read elsewhere.
        weights: values of the model's weights.
    """

    def __init__(self, units: list[Unit], outside: set[Value], weights: set[Value]) -> None:
        self.units = units
        self.weights = weights
        self.outside = outside
        giver = {value: n for n, unit in enumerate(units) for node in unit.nodes for value in node.outputs}
        self.before: list[set[int]] = [set() for _ in units]
        self.after: list[set[int]] = [set() for _ in units]
        for n, unit in enumerate(units):
            for value in (v for node in unit.nodes for v in node.reads):
                if value in giver and giver[value] != n:
                    self.before[n].add(giver[value])
                    self.after[giver[value]].add(n)
        self.leaves = {n for n, unit in enumerate(units) if any(v in outside for x in unit.nodes for v in x.outputs)}

    def closed(self, members: set[int], room: set[int]) -> set[int] | None:
        """With what lies between them, and what only joins their result to what they took; None: they are no block."""
        found = set(members)
        while True:
            between = self._reached(found, self.after) & self._reached(found, self.before)
            if not between:
                break
            if not between <= room or not all(self.units[place].is_free for place in between):
                return None
            found |= between
        found = self._with_tail(found, room)
        ends = [n for n in found if n in self.leaves or self.after[n] - found]
        return found if len(ends) == 1 else None

    def _with_tail(self, found: set[int], room: set[int]) -> set[int]:
        """With a sum or product of the block's result and what the block took, and an activation of that."""
        taken = {n for place in found for n in self.before[place]} - found
        ends = [n for n in found if n in self.leaves or self.after[n] - found]
        if len(ends) != 1 or ends[0] in self.leaves or len(self.after[ends[0]] - found) != 1:
            return found
        [tail] = self.after[ends[0]] - found
        unit, others = self.units[tail], self.before[tail] - found
        if tail not in room or not unit.is_free or not others or not others <= taken:
            return found
        found = found | {tail}
        [*after] = self.after[tail]
        if len(after) == 1 and tail not in self.leaves and after[0] in room:
            last = self.units[after[0]]
            if last.is_free and [node.operator for node in last.nodes] == ["activation"]:
                found = found | {after[0]}
        return found

    def _reached(self, start: set[int], steps: list[set[int]]) -> set[int]:
        """What can be reached from outside of a set of units without passing through it."""
        waiting = [n for place in start for n in steps[place] if n not in start]
        found: set[int] = set()
        while waiting:
            place = waiting.pop()
            if place not in found:
                found.add(place)
                waiting += [n for n in steps[place] if n not in start]
        return found

    def order(self, places: Sequence[int], groups: Sequence[set[int]]) -> list[int] | None:
        """First places of groups and of single units, in an order in which each can run at once."""
        home = {place: min(group) for group in groups for place in group}
        inside = set(places)
        before: dict[int, set[int]] = defaultdict(set)
        after: dict[int, list[int]] = defaultdict(list)
        for place in places:
            here = home.get(place, place)
            before[here] |= {home.get(n, n) for n in self.before[place] if n in inside} - {here}
        for place, others in before.items():
            for n in others:
                after[n].append(place)
        left = {place: len(others) for place, others in before.items()}
        ready = [place for place, count in left.items() if not count]
        heapq.heapify(ready)
        done: list[int] = []
        while ready:
            done.append(heapq.heappop(ready))
            for place in after[done[-1]]:
                left[place] -= 1
                if not left[place]:
                    heapq.heappush(ready, place)
        return done if len(done) == len(before) else None
