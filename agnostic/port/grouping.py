"""Blocks among the layers of a flat model: by the beginnings of their names, or by what repeats in the graph."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from agnostic.port.flat import FoundBlock, Graph, Item, Unit
from agnostic.port.kinds import NORMS, PRODUCTS, kind_of
from agnostic.program.nodes import Node, Value

LONGEST = 8
"""A block that repeats has at most so many pieces one after the other."""

SEVERAL = 3
"""So many equal pieces without names of their own are blocks."""


def grouped(graph: Graph, title: str) -> list[Item]:
    """The blocks of a flat model, and the units that are in none.

    Args:
        graph: its layers.
        title: the model's name, which is no block's.
    """
    named = ByNames(graph, title).items()
    return ByGraph(graph).items(named)


class ByNames:
    """Finds blocks of layers whose names begin alike."""

    def __init__(self, graph: Graph, title: str) -> None:
        self.graph = graph
        self.title = title

    def items(self) -> list[Item]:
        """The blocks, and the units that are in none."""
        return self._named(list(range(len(self.graph.units))), [])

    def _named(self, places: list[int], prefix: list[str]) -> list[Item]:
        """The units at some places, whose names begin alike, with those that begin with more alike as blocks."""
        by_part: dict[str, list[int]] = defaultdict(list)
        for place in places:
            parts = self.graph.units[place].parts
            if parts[: len(prefix)] == prefix and len(parts) > len(prefix):
                by_part[parts[len(prefix)]].append(place)
        groups: list[tuple[set[int], list[str]]] = []
        for part, members in by_part.items():
            groups += self._candidates(members, [*prefix, part], set(places))
        kept: list[tuple[set[int], list[str]]] = []
        for chosen, deeper in sorted(groups, key=lambda group: min(group[0])):
            if not any(chosen & other for other, _ in kept) and self._is_acyclic(
                places, [*(k for k, _ in kept), chosen]
            ):
                kept.append((chosen, deeper))
        return self._ordered(places, kept, prefix)

    def _candidates(
        self, members: list[int], prefix: list[str], room: set[int]
    ) -> Iterator[tuple[set[int], list[str]]]:
        """Blocks among units whose names begin alike: all of them, or those that begin with more alike."""
        prefix = self._longest(members, prefix)
        whole = self.graph.closed(set(members), room)
        if whole is not None and self._is_block(whole, room, prefix, members):
            yield whole, prefix
            return
        by_part: dict[str, list[int]] = defaultdict(list)
        for place in members:
            parts = self.graph.units[place].parts
            if len(parts) > len(prefix):
                by_part[parts[len(prefix)]].append(place)
        for part, inner in by_part.items():
            if len(inner) > 1:
                yield from self._candidates(inner, [*prefix, part], room)

    def _longest(self, members: list[int], prefix: list[str]) -> list[str]:
        names = [self.graph.units[place].parts for place in members]
        while all(len(parts) > len(prefix) + 1 for parts in names):
            nexts = {parts[len(prefix)] for parts in names}
            if len(nexts) > 1:
                break
            prefix = [*prefix, nexts.pop()]
        return prefix

    def _is_block(self, whole: set[int], room: set[int], prefix: list[str], members: list[int]) -> bool:
        products = [node for place in whole for node in self.graph.units[place].nodes if node.operator in PRODUCTS]
        if len(members) < 2 or len(products) < 2 or "_".join(prefix).lower() == self.title.lower():
            return False
        if any(len(self.graph.units[place].parts) == len(prefix) for place in members):
            return False  # a layer has the name of the block
        return any(self.graph.units[place].has_weights for place in room - whole)

    def _is_acyclic(self, places: Sequence[int], groups: Sequence[set[int]]) -> bool:
        return self.graph.order(places, groups) is not None

    def _ordered(
        self, places: list[int], groups: Sequence[tuple[set[int], list[str]]], prefix: list[str]
    ) -> list[Item]:
        by_first = {min(chosen): (chosen, deeper) for chosen, deeper in groups}
        order = self.graph.order(places, [chosen for chosen, _ in groups]) or places
        found: list[Item] = []
        for place in order:
            if place in by_first:
                chosen, deeper = by_first[place]
                found.append(FoundBlock("_".join(deeper[len(prefix) :]), self._named(sorted(chosen), deeper)))
            else:
                found.append(self.graph.units[place])
        return found


class ByGraph:
    """Finds blocks among layers whose names the framework gave."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def items(self, items: list[Item]) -> list[Item]:
        """Blocks among the units whose names say nothing: what repeats, and pieces with several ways through them."""
        items = self._with_norms(items)
        segments = self._segments(items)
        signs = [self._sign(segment) for segment in segments]
        counts = Counter(signs)
        found: list[Item] = []
        place = number = 0
        while place < len(segments):
            length, times = self._repeats(segments, signs, place)
            pieces = [
                [item for segment in segments[place + i * length : place + (i + 1) * length] for item in segment]
                for i in range(times)
            ]
            if times > 1:
                found.append(FoundBlock("blocks", [FoundBlock(str(n), piece) for n, piece in enumerate(pieces)]))
            elif self._is_piece(pieces[0]) and counts[signs[place]] > 1:
                number += 1
                found.append(FoundBlock(f"block_{number}", pieces[0]))
            else:
                found += pieces[0]
            place += length * times
        return found

    def _repeats(self, segments: Sequence[list[Item]], signs: Sequence[str], start: int) -> tuple[int, int]:
        """How many segments repeat from a place on, and how often: as much as possible; (1, 1) where none do."""
        best = (1, 1)
        for length in range(1, LONGEST + 1):
            times = 1
            period = signs[start : start + length]
            while period == signs[start + times * length : start + (times + 1) * length]:
                times += 1
            fits = self._is_piece([item for segment in segments[start : start + length] for item in segment])
            if fits and times > 1 and length * times > best[0] * best[1]:
                best = (length, times)
        return best

    def _sign(self, segment: Sequence[Item]) -> str:
        """What two pieces share if they may be one class: their operators, or what several ways through them are."""
        nodes = [node for item in segment for node in item.nodes if not self._moves_weights(node)]
        if len(segment) == 1:
            return ",".join(node.operator for node in nodes)
        return kind_of(nodes, self.graph.weights)

    def _moves_weights(self, node: Node) -> bool:
        return node.operator in ("permute", "reshape") and node.operands[0] in self.graph.weights

    def _is_piece(self, segment: Sequence[Item]) -> bool:
        units = [unit for item in segment for unit in ([item] if isinstance(item, Unit) else item.units)]
        weighty = [unit for unit in units if unit.has_weights]
        fit = len(segment) > 1 and len(weighty) > 1 and all(unit.given for unit in weighty)
        return fit and not any(unit.is_shared for unit in units)

    def _with_norms(self, items: list[Item]) -> list[Item]:
        """Products with their norms and activations as blocks, if there are several."""
        place = {id(unit): n for n, unit in enumerate(self.graph.units)}
        at = {id(item): n for n, item in enumerate(items)}
        chains = []
        for item in items:
            if not isinstance(item, Unit) or not item.given or item.is_shared or self._runs(item) not in PRODUCTS:
                continue
            chain = [item]
            while len(chain) < 3:
                after = self.graph.after[place[id(chain[-1])]]
                following = self.graph.units[next(iter(after))] if len(after) == 1 else None
                if following is None or place[id(chain[-1])] in self.graph.leaves or id(following) not in at:
                    break
                if len(self.graph.before[place[id(following)]]) != 1 or not following.given or following.is_shared:
                    break
                if self._runs(following) not in (NORMS if len(chain) == 1 else {"activation"}):
                    break
                chain.append(following)
            if len(chain) > 1:
                chains.append(chain)
        if len(chains) < SEVERAL:
            return items
        gone = {id(unit) for chain in chains for unit in chain}
        begins = {id(chain[0]): chain for chain in chains}
        found: list[Item] = []
        for item in items:
            if id(item) in begins:
                found.append(FoundBlock(item.name, [*begins[id(item)]], is_chain=True))
            elif id(item) not in gone:
                found.append(item)
        return found

    def _runs(self, unit: Unit) -> str:
        """The one operator that a unit runs, ``""`` if there are several."""
        operators = [node.operator for node in unit.nodes if not self._moves_weights(node)]
        return operators[0] if len(operators) == 1 else ""

    def _segments(self, items: list[Item]) -> list[list[Item]]:
        """The items cut where one value alone passes on."""
        last: dict[Value, int] = {}
        for n, item in enumerate(items):
            for node in item.nodes:
                last |= {value: n for value in node.reads if value not in self.graph.weights}
        last |= dict.fromkeys(self.graph.outside & {v for i in items for x in i.nodes for v in x.outputs}, len(items))
        segments: list[list[Item]] = [[]]
        alive: set[Value] = set()
        taken = {v for item in items for node in item.nodes for v in node.reads} - self.graph.weights
        alive |= taken - {v for item in items for node in item.nodes for v in node.outputs}
        for n, item in enumerate(items):
            segments[-1].append(item)
            alive |= {v for node in item.nodes for v in node.outputs}
            alive = {v for v in alive if last.get(v, -1) > n}
            if len(alive) < 2:
                segments.append([])
        return [segment for segment in segments if segment]
