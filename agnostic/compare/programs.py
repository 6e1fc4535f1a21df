"""Two models compared by the operators that run: the verdict is about their outputs, and what explains it is proven."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from agnostic.compare import noise
from agnostic.compare.edits import edits
from agnostic.compare.explain import DifferenceSummary, explain
from agnostic.compare.frontier import Parting, rejoined
from agnostic.compare.judging import Judged, Recorded, coarsest, exactly_alike, judged
from agnostic.compare.layerwise import LayerPairs
from agnostic.compare.naming import mistake
from agnostic.compare.prove import Difference
from agnostic.compare.replay import Patches, Values, outputs
from agnostic.compare.results import Divergence, Finding, Row, floors
from agnostic.compare.say import divergences
from agnostic.compare.sides import Side, second
from agnostic.compare.unrolled import alike
from agnostic.compare.wording import sentence
from agnostic.errors import InvalidInput
from agnostic.program.nodes import Value
from agnostic.text import counted

REMARKS = 6
"""How many inner differences are measured at the output."""


@dataclass(frozen=True, eq=False)
class ProgramPair:
    """What the programs of two models say.

    Attributes:
        outputs: each output of both.
        a, b: the records.
        theirs: B's values, with those of A's that they are equal to.
    """

    outputs: tuple[Judged, ...]
    a: Recorded
    b: Recorded
    theirs: Side

    @property
    def same(self) -> bool:
        """Whether arithmetic explains all that differs at the outputs."""
        return all(x.same for x in self.outputs)

    @functools.cached_property
    def explained(self) -> tuple[Divergence, ...]:
        """What makes the outputs differ."""
        if self.same:
            return ()
        worst = max(self.outputs, key=lambda x: x.floors)
        found = self._differences
        return found or (Divergence("output", "output", "code", "input", worst.floors, (self._unexplained,)),)

    @functools.cached_property
    def _differences(self) -> tuple[Divergence, ...]:
        found = explain(self.a, self.b, self.theirs)
        worst = max(self.outputs, key=lambda x: x.floors)
        after = found.left * worst.scale / worst.floor if worst.floor else 0.0
        return tuple(divergences(found, worst.floors, after))

    @property
    def _unexplained(self) -> Finding:
        error = max(x.floors for x in self.outputs)
        types = coarsest(self.a.run), coarsest(self.b.run)
        if types[0] != types[1] and exactly_alike(self.a, self.b):
            said = f"A computes in {types[0]}, B in {types[1]}; in float64, which rounds neither, both give the same."
            return Finding("precision", said, "", error, 0.0, proven=True)
        said = "The outputs differ, and there is no place from which both models go on alike."
        return Finding("unexplained", said, "", error, error)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The outputs as rows of the table."""
        return tuple(
            Row("output", "output", "output", x.shape, x.floors, x.error, x.floor, x.scale,
                "same" if x.same else "shows")
            for x in self.outputs
        )  # fmt: skip

    def remarks(self, layers: LayerPairs) -> tuple[str, ...]:
        """What differs inside of models whose outputs agree, each with its size at the output."""
        if not self.same:
            return ()
        ours = self.a.first[0]
        pairs = zip(self.a.run.program.outputs, self.theirs.run.program.outputs, strict=True)
        found = []
        if any(ours.labels[x] != self.theirs.labels[y] or self.theirs.apart.get(y) for (_, x), (_, y) in pairs):
            worst = max(self.outputs, key=lambda x: x.floors)
            found = [
                f"{x.findings[0].sentence} The outputs are {floors(worst.floors)} noise floors apart."
                for x in self._differences if x.findings
            ]  # fmt: skip
        return tuple(found or list(self._damped()) or self._inside(layers))

    def _damped(self) -> Iterator[str]:
        """What differs, and is made so small on its way that the outputs agree: each mistake once."""
        found = DifferenceSummary(self.a.first[0], self.theirs, (), proven=False, left=0.0)
        sizes = [x.error / x.scale for x in self.outputs if x.scale]
        said: dict[str, list[str]] = {}
        for ours, theirs, nodes in rejoined(found.a, found.b):
            script = edits(found.a, found.b, ours, theirs, nodes)
            if script and all(edit.kind != "piece" for edit in script):
                difference = Difference(Parting(ours, theirs, -1, 0, -1, "", 0), script, *nodes)
                key, _ = mistake(found, difference)
                text = " ".join(dict.fromkeys(sentence(found, e, difference) for e in script))
                said.setdefault(key, []).append(text)
        for texts in list(said.values())[:REMARKS]:
            more = f" The same in {counted(len(texts), 'place')}." if len(texts) > 1 else ""
            size = max(sizes, default=0.0)
            shown = f"are {size:.1e} of their size apart, which rounding explains" if size else "do not show it"
            yield f"{texts[0]}{more} The outputs {shown}."

    def _inside(self, layers: LayerPairs) -> Iterator[str]:
        """LayerPairs that return something else, of what both models have."""
        found = [
            j for j in layers.pairs if not layers.equal(j) and layers.fed_alike(j)
            and any(self.theirs.labels.get(x) is None for x in layers.calls_b[j].outputs[:1])  # else A has it elsewhere
        ]  # fmt: skip
        for j in found[:REMARKS]:
            one, two = layers.calls_a[layers.pairs[j]], layers.calls_b[j]
            size = self._size(one.outputs[0], two.outputs[0])
            end = "which the outputs do not show" if not size else f"which changes the outputs by {floors(size)}"
            unit = " noise floors" if size else ""
            yield f"Layer {two.label!r} returns something else than A's {one.label!r}, {end}{unit}."
        if len(found) > REMARKS:
            yield f"{len(found) - REMARKS} more layers return something else, which the outputs do not show."

    def _size(self, one: Value, two: Value) -> float | None:
        """How far B's outputs move with A's value in the place of its own, in noise floors; None where it fits not."""
        array = self.a.first[0].arrays[one]
        values, root = self.theirs.arrays, self.theirs.root(two)
        if array.size != values[root].size:
            return None
        patches = Patches({**values.patches.values, root: array.reshape(values[root].shape)}, values.patches.edges)
        try:
            moved = outputs(Values(self.b.run, self.b.evaluate, patches, values), values.patches)
        except (InvalidInput, ValueError):
            return None
        before = outputs(values, values.patches)
        return max(
            noise.difference(moved[path], before[path]) / judged.floor if judged.floor else 0.0
            for (path, _), judged in zip(self.b.run.program.outputs, self.outputs, strict=True)
        )


def compared(a: Recorded, b: Recorded) -> ProgramPair:
    """What two records say.

    Raises:
        InvalidInput: the models return other numbers of arrays, or a record cannot be run again.
    """
    one, two = alike(a.run, b.run)
    a = a if one is a.run else Recorded(one, a.evaluate)
    b = b if two is b.run else Recorded(two, b.evaluate)
    ours, table = a.first
    theirs = second(b.run, b.evaluate, ours, table)
    if "exact" not in vars(b) and not any(theirs.apart.values()):  # else B went on with A's numbers
        b.exact = b.checked({path: theirs.arrays[value] for path, value in b.run.program.outputs})
    return ProgramPair(tuple(judged(a, b)), a, b, theirs)
