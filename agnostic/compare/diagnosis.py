"""Why a layer of one model computes something else than its counterpart, and the fix."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from agnostic.compare.mistakes.attention import attended, attentions_apart
from agnostic.compare.mistakes.glue import branches, explained, functions_of, joined, nearest, told_apart
from agnostic.compare.mistakes.relations import ACTIVATIONS, Relation, evident, exchanged, flattenings, relations
from agnostic.compare.mistakes.segments import parts, separated
from agnostic.compare.mistakes.strays import Stray, replays
from agnostic.compare.mistakes.trials import Trial, corrected, described_output, spoiling
from agnostic.compare.mistakes.words import CATALOGUE, fix_for
from agnostic.description import Array, LayerDescription
from agnostic.errors import InvalidInput
from agnostic.reference.activations import VECTOR, activate
from agnostic.reference.layers import chain
from agnostic.reference.rounding import DIGITS, fits, rounded
from agnostic.text import counted


@dataclass(frozen=True)
class Culprit:
    """All that is known about the place where two models part. Arrays are channels-last NumPy.

    Attributes:
        a: descriptions of A's layers at that place, in order.
        b: descriptions of B's layers at that place, in order. Where the place is "glue", this is the layer that B's own
            code handed something else to; empty at the end of the model.
        place: ``"layer"``: the layers themselves differ, fed the same. ``"glue"``: the code of B that runs before them.
        inputs: what A's first layer received, by position.
        truth: A's output in float64. For "glue": what A's layer received at the position that differs, ``inputs[i]``.
        output: B's output for ``inputs``. For "glue": what B's code handed on instead, from the same sources.
        floor: the root mean square of what arithmetic alone does to ``truth``; positive.
        sources: what ran before, by A's layer name, oldest first: the arrays that B's code had at hand, which were A's.
            Needed for glue alone.
        again: B's output for ``inputs`` a second time, if it was run twice: tells randomness.
        strays_a, strays_b: the calls right before, of layers that the other side has none for. Needed for glue alone.
        facts: of the models as wholes. ``a_framework``, ``b_framework``, ``a_dtype``, ``b_dtype``, ``a_preprocessing``,
            ``b_preprocessing`` (mappings with mean, std, scale, channel_order), ``first``: whether nothing ran before.
    """

    a: Sequence[LayerDescription]
    b: Sequence[LayerDescription]
    place: Literal["layer", "glue"]
    inputs: Sequence[Array]
    truth: Array
    output: Array
    floor: float
    sources: Mapping[str, Array] = field(default_factory=dict)
    again: Array | None = None
    strays_a: Sequence[Stray] = ()
    strays_b: Sequence[Stray] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def error(self, output: Array, truth: Array | None = None) -> float:
        """How far an output is from the truth, in units of the floor; infinite where the shapes differ.

        The floor of what is greater than A's output is greater by as much.
        """
        right = np.asarray(self.truth if truth is None else truth, np.float64)
        if output.shape != right.shape:
            return float("inf")
        if not right.size:
            return 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            error = _rms(np.asarray(output, np.float64) - right)
        if truth is not None and (own := _rms(self.truth)) > 0:
            error /= max(1.0, _rms(right) / own)
        return error / self.floor if error == error else float("inf")


def _rms(x: Array) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(x, np.float64)))))


@dataclass(frozen=True)
class Finding:
    """A mistake that was tried at the culprit.

    Attributes:
        mistake: a stable key, such as ``"batch_norm_epsilon"``; ``"unexplained"`` where nothing removes the error.
        sentence: what is wrong, with the numbers of both sides.
        fix: what to write, in B's framework.
        before: the error as it is, in units of the noise floor.
        after: the error that is left when the mistake is taken out, in the same units.
        tried: for "unexplained": the mistakes that were tried and do not remove the error.
        layer: which side's which layer has it (``("b", name)``), where that is another one than the place's.
        entering: whether it is what that layer is given.
        proven: whether B was run without it, operator by operator, and gave A's outputs.
        place_a, place_b: file and line of both sides; "" where Python does not know them.
    """

    mistake: str
    sentence: str
    fix: str
    before: float
    after: float
    tried: tuple[str, ...] = ()
    layer: tuple[str, str] | None = None
    entering: bool = False
    proven: bool = False
    place_a: str = ""
    place_b: str = ""

    def __str__(self) -> str:
        return f"{self.sentence} {self.fix}".strip()


# The diagnosis --------------------------------------------------------------------------------------------------------
EXPLAINED = 30.0
"""Noise floors within which an error counts as removed: three times what a healthy layer may have, since a description
rounds an epsilon, and both the float32 truth and B's own arithmetic stand between the two arrays."""

_OF_A = "it is A that computes so"

PART = 2_000_000
"""Numbers of input and output together, beyond which fewer images are looked at: enough to tell any mistake."""


def diagnose(culprit: Culprit) -> list[Finding]:
    """The mistake that explains the difference at a place, or what was tried in vain.

    A mistake is named only if it was computed: B's layer without it gives what A's does, or A's with it gives what B's
    does, to within :data:`EXPLAINED` noise floors and to less than a third of the error.

    Returns:
        One finding; ``"unexplained"`` where nothing that is known removes the error.
    """
    if culprit.error(culprit.output) == 0:
        return []
    return [_Diagnosis(culprit).find()]


class _Diagnosis:
    """One culprit, and what was tried at it."""

    def __init__(self, culprit: Culprit) -> None:
        self.whole = culprit
        self.culprit = _part(culprit)
        self.before = culprit.error(culprit.output)
        both = [_last_step(parts(x), culprit.truth.ndim) for x in (culprit.a, culprit.b)]
        if {"separable_conv", "depthwise_conv"} <= {x.kind for side in both for x in side}:
            both = [separated(x) for x in both]
        self.a, self.b = both
        self.truth = np.asarray(self.culprit.truth, np.float64)
        self.output = np.asarray(self.culprit.output, np.float64)
        self.tried: dict[str, float] = {}
        framework = culprit.facts.get("b_framework") or next((x.framework for x in culprit.b), "")
        self.framework = str(framework)
        self.layer = culprit.b[0].name if culprit.b else "the model's output"

    def find(self) -> Finding:
        for step in (self._random, self._not_finite, self._layers if self.culprit.place == "layer" else self._glue):
            found = step()
            if found is not None:
                return found
        return self._unexplained()

    # Text ------------------------------------------------------------------------------------------------------------
    def _finding(self, mistake: str, values: Mapping[str, Any], note: str, after: float, layer: str = "") -> Finding:
        name = layer or self.layer
        subject = f"layer {name!r}" if layer or self.culprit.b else name
        shown = {"a": "A's", "b": "B's", "layer": subject, **values}
        shown["place"] = ("after " if self.culprit.place == "layer" else "before ") + str(shown["layer"])
        what = CATALOGUE[mistake]
        for key, value in shown.items():
            what = what.replace("{" + key + "}", str(value))
        place = f"At {shown['layer']}" if self.culprit.place == "layer" else f"Before {subject}"
        sentence = f"{place} {what}" + (f" ({note})." if note else ".")
        fix = str(values["fix"]) if "fix" in values else fix_for(mistake, self.framework, **shown)
        return Finding(mistake, sentence, fix, self.before, after)

    def _unexplained(self) -> Finding:
        tried = tuple(dict.fromkeys(self.tried))
        note = f"{counted(len(tried), 'mistake')} were tried"
        nearest = min(self.tried.items(), key=lambda x: x[1], default=None)
        if nearest is not None and nearest[1] < self.before / 10:
            note += f"; {nearest[0].replace('_', ' ')} is the nearest, and leaves {nearest[1]:.3g} noise floors"
        found = self._finding("unexplained", {}, note, self.before)
        return dataclasses.replace(found, tried=tried)

    # Tests -----------------------------------------------------------------------------------------------------------
    def _removed(self, after: float) -> bool:
        return after <= EXPLAINED and after < self.before / 3

    def _close(self, made: Array, wanted: Array) -> bool:
        return made.shape == wanted.shape and self.culprit.error(made, wanted) <= EXPLAINED

    def _try(self, mistake: str, made: Array, wanted: Array) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            after = self.culprit.error(made, wanted)
        self.tried[mistake] = min(after, self.tried.get(mistake, float("inf")))
        return after

    def _computed(self, layers: Sequence[LayerDescription]) -> Array | None:
        try:
            return chain(layers, list(self.culprit.inputs))
        except (InvalidInput, ValueError, KeyError, IndexError, ZeroDivisionError):
            return None  # such layers do not fit the input: no explanation

    # Steps -----------------------------------------------------------------------------------------------------------
    def _random(self) -> Finding | None:
        again = self.whole.again
        if again is None or again.shape != self.whole.output.shape:
            return None
        if self.whole.error(again, self.whole.output) <= EXPLAINED:
            return None
        kinds = {x.kind for x in self.whole.b} & {"dropout", "stochastic_depth", "noise"}
        rates = any(x.config.get("rate") for x in self.whole.b)
        zeros = [x for x in relations(self.truth, self.output) if x.mistake == "dropout_on"]
        if kinds or rates or zeros:
            return self._finding("dropout_on", {}, "two runs differ", 0.0)
        return self._finding("random", {}, "", 0.0)

    def _not_finite(self) -> Finding | None:
        if np.isfinite(self.output).all() or not np.isfinite(self.truth).all():
            return None
        share = 1 - float(np.isfinite(self.output).mean())
        return self._finding("not_finite", {}, f"{share:.0%} of the numbers", 0.0)

    def _layers(self) -> Finding | None:
        made = self._computed(self.b)
        truthful = made is not None and self._near(made, self.output)
        if (turned := self._turned()) is not None:
            return turned
        if truthful:
            found = self._first(corrected(self.a, self.b))
            if found is not None:
                return found
        known = self._computed(self.a)
        if known is not None and self._near(known, self.truth):
            found = (
                self._first(spoiling(self.a, "output"))
                or self._digits(self.a, self.output, self.truth, "")
                or self._applied(known)
            )
            if found is not None:
                return found
        elif truthful:
            found = self._first(spoiling(self.b, "truth")) or self._digits(self.b, self.truth, self.output, _OF_A)
            if found is not None:
                return found
        return self._related(self._after())

    def _turned(self) -> Finding | None:
        """The inputs of one layer in another order."""
        if len(self.culprit.inputs) < 2 or len(self.a) != 1:
            return None
        kind = self.a[0].kind
        mistake = "concatenation_order" if kind == "concatenate" else "layer_order"
        if kind not in ("concatenate", "subtract"):
            return None
        for order in itertools.islice(itertools.permutations(self.culprit.inputs), 1, 24):
            try:
                made = chain(self.a, list(order))
            except (InvalidInput, ValueError, IndexError):
                continue
            after = self._try(mistake, made, self.output)
            if self._removed(after):
                return self._finding(mistake, {"a": "A's order"}, "", after)
        return None

    def _near(self, made: Array, wanted: Array) -> bool:
        """Whether a description is true: what it computes is what came out, or nearer to it than A is by far."""
        return made.shape == wanted.shape and self.culprit.error(made, wanted) <= max(EXPLAINED, self.before / 1000)

    def _after(self) -> str | None:
        return described_output(self.a)

    def _first(self, trials: Iterator[Trial]) -> Finding | None:
        for trial in trials:
            made = self._computed(trial.layers)
            if made is None:
                continue
            wanted = self.truth if trial.against == "truth" else self.output
            after = self._try(trial.mistake, made, wanted)
            if self._removed(after):
                return self._finding(trial.mistake, trial.values, trial.note, after, trial.layer)
        return None

    def _digits(self, layers: Sequence[LayerDescription], wanted: Array, other: Array, whose: str) -> Finding | None:
        """Inputs and weights read with fewer digits, TF32, bfloat16, float16, by the side whose array is wanted."""
        own = self.culprit.b if whose == "" else self.culprit.a
        types = {x.config.get("dtype") for x in own} & {"bfloat16", "float16"}
        for dtype in ("tf32", "bfloat16", "float16"):
            # A TF32 product reads kernels with fewer digits, and adds the bias in float32.
            least = 2 if dtype == "tf32" else 1
            fewer = [
                x.replace(weights={n: rounded(w, dtype) for n, w in x.weights.items() if w.ndim >= least})
                for x in layers
            ]
            inputs = [rounded(x, dtype) if x.dtype.kind == "f" else x for x in self.culprit.inputs]
            try:
                made = chain(fewer, inputs)
            except (InvalidInput, ValueError, KeyError, IndexError):
                return None
            after = self._try("dtype", made, wanted)
            if self._removed(after) or (after < self.before / 20 and dtype == "tf32"):
                return self._finding("dtype", {"b": dtype}, whose, after)
            if dtype in types or fits(wanted, dtype):
                # Each rounding of a sum on the way is another one: the size of the error tells, and the type itself.
                unit = 2.0 ** -DIGITS[dtype]
                scale, error = _rms(other), _rms(wanted - other)
                if error <= 32 * unit * scale:
                    note = f"{whose}; the error is {error / scale:.1e}".removeprefix("; ")
                    return self._finding("dtype", {"b": dtype}, note, 0.0)
        return None

    def _applied(self, known: Array) -> Finding | None:
        """Not at all, or twice."""
        first = np.asarray(self.culprit.inputs[0], np.float64)
        if self._removed(self._try("layer_skipped", first, self.output)):
            return self._finding("layer_skipped", {}, "", self.tried["layer_skipped"])
        try:
            twice = chain(self.a, [known])
        except (InvalidInput, ValueError, KeyError, IndexError):
            return None
        if self._removed(self._try("layer_doubled", twice, self.output)):
            return self._finding("layer_doubled", {}, "", self.tried["layer_doubled"])
        return None

    def _related(self, after: str | None, *, first: bool = False) -> Finding | None:
        if self.truth.shape != self.output.shape:
            return None
        both = relations(self.truth, self.output, after=after, first=first), exchanged(self.truth, self.output)
        for relation in itertools.chain(*both):
            found = self._holds(relation)
            if found is not None:
                return found
        return None

    def _holds(self, relation: Relation) -> Finding | None:
        wanted = self.truth if relation.fixed else self.output
        left = self._try(relation.mistake, relation.made, wanted)
        return self._finding(relation.mistake, relation.values, relation.note, left) if self._removed(left) else None

    # Between layers --------------------------------------------------------------------------------------------------
    def _glue(self) -> Finding | None:
        sources = {name: np.asarray(x, np.float64) for name, x in self.culprit.sources.items() if x.dtype.kind == "f"}
        n = len(self.truth)
        sources = {name: x[:n] for name, x in sources.items() if x.ndim and len(x) >= n}
        first = bool(self.culprit.facts.get("first"))
        if first:
            found = self._related(None, first=True)
            if found is not None:
                return found
        sizes = self.culprit.facts.get("flattened")
        if sizes and self.truth.ndim == 2 and int(np.prod(sizes)) == self.truth.shape[1]:
            for made in flattenings(self.truth, tuple(sizes)):
                left = self._try("flatten_order", made, self.output)
                if self._removed(left):
                    return self._finding("flatten_order", {}, "", left)
            # What is before the flattening has height and width still.
            self.truth, self.output = (x.reshape(len(x), *sizes) for x in (self.truth, self.output))
        for search in (self._strays, self._expressions, self._joined, self._attended):
            found = search(sources)
            if found is not None:
                return found
        if self.truth.shape == self.output.shape:
            for relation in branches(self.truth, self.output, sources):
                found = self._holds(relation)
                if found is not None:
                    return found
        found = self._functions(sources) or self._related(self._last_activation(sources))
        return found or self._unflattened(sources)

    def _unflattened(self, sources: Mapping[str, Array]) -> Finding | None:
        """What code pooled and flattened, with height and width again: those of the last image, divided alike."""
        image = next((x for x in reversed(list(sources.values())) if x.ndim == 4), None)
        truth, output = self.truth, self.output
        if image is None or truth.ndim != 2 or truth.shape != output.shape or truth.shape[1] % image.shape[-1]:
            return None
        height, width, c = image.shape[1:]
        step = (height * width * c / truth.shape[1]) ** 0.5
        size = round(height / step), round(width / step)
        if size[0] * size[1] * c != truth.shape[1] or size == (1, 1):
            return None
        for order in ((c, *size), (*size, c)):
            self.truth, self.output = (
                np.moveaxis(x.reshape(len(x), *order), order.index(c) + 1, -1) for x in (truth, output)
            )
            found = self._expressions(sources) or self._functions(sources)
            if found is not None:
                return found
        self.truth, self.output = truth, output
        return None

    def _expressions(self, sources: Mapping[str, Array]) -> Finding | None:
        self.tried.setdefault("residual_missing", self.before)
        theirs = explained(self.output, sources, self._close)
        ours = None if theirs is None else explained(self.truth, sources, self._close)
        if ours is None or theirs is None:
            return None
        # What a layer of A returned, and B has no such layer, says less than what that layer was given.
        if ours.activation == "linear" and len(ours.parts) == 1:
            others = {name: x for name, x in sources.items() if name != ours.parts[0].source}
            deeper = explained(self.truth, others, self._close)
            if deeper is not None and deeper.names >= theirs.names:
                ours = deeper
        found = told_apart(ours, theirs)
        if found is None:
            return None
        mistake, values, note = found
        if mistake == "activation_extra" and self._doubles(theirs.activation):
            mistake = "activation_doubled"
        return self._finding(mistake, values, note, self.culprit.error(ours.compute(sources), self.truth))

    def _strays(self, sources: Mapping[str, Array]) -> Finding | None:
        """A layer that one side alone has, where the other writes code."""
        for side, strays, wanted in (
            ("b", self.culprit.strays_b, self.truth),
            ("a", self.culprit.strays_a, self.output),
        ):
            end = self.culprit.output if side == "b" else self.culprit.truth
            for x in replays(strays, end, "b" if side == "b" else "a", sources, self._close):
                made = x.made.reshape(wanted.shape) if x.made.size == wanted.size else x.made
                after = self._try(x.mistake, made, wanted)
                if self._removed(after):
                    found = self._finding(x.mistake, x.values, x.note, after, x.layer)
                    return dataclasses.replace(found, layer=(side, x.layer), entering=x.before)
        return None

    def _doubles(self, activation: str) -> bool:
        return evident(activation, self.truth)

    def _joined(self, sources: Mapping[str, Array]) -> Finding | None:
        """Parts that are put together, each of them explained by itself."""
        theirs = joined(self.output, sources, self._close)
        ours = None if theirs is None else joined(self.truth, sources, self._close)
        found = None if ours is None or theirs is None else told_apart(ours, theirs)
        return None if found is None else self._finding(*found, 0.0)

    def _attended(self, sources: Mapping[str, Array]) -> Finding | None:
        """Attention that both sides write as code."""
        theirs = attended(self.output, sources, self._close)
        ours = None if theirs is None else attended(self.truth, sources, self._close)
        found = None if ours is None or theirs is None else attentions_apart(ours, theirs)
        return None if found is None else self._finding(*found, 0.0)

    def _last_activation(self, sources: Mapping[str, Array]) -> str | None:
        """The activation that A's array is the result of, as far as the sources or its range tell."""
        for name, options in ACTIVATIONS:
            for x in list(sources.values())[:-4:-1]:
                if x.shape == self.truth.shape and name not in VECTOR:
                    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                        made = activate(name, x, options)
                    if self._close(made, self.truth):
                        return name
        return next((name for name in ("softmax", "sigmoid", "tanh", "gelu", "silu") if self._doubles(name)), None)

    def _functions(self, sources: Mapping[str, Array]) -> Finding | None:
        """A pool, a resizing, a softmax: what A's and B's code call between two layers, with an activation before."""
        others = {n: x for n, x in sources.items() if x.size != self.truth.size or not self._same_numbers(x)}
        theirs = functions_of(self.output, others, self._close)
        ours = functions_of(self.truth, others, self._close) if theirs else []
        both = nearest(ours, theirs)
        found = None if both is None else told_apart(*both)
        return None if found is None else self._finding(*found, 0.0)

    def _same_numbers(self, x: Array) -> bool:
        return self._close(x.reshape(self.truth.shape), self.truth)


def _last_step(layers: list[LayerDescription], ndim: int) -> list[LayerDescription]:
    """Recurrent layers that return every step, where the last alone was compared, and the other way round."""
    if not layers or layers[-1].kind not in ("lstm", "gru", "rnn"):
        return layers
    return [*layers[:-1], layers[-1].replace(return_sequences=ndim == 3)]


def _part(culprit: Culprit) -> Culprit:
    """Fewer images, where there are many numbers and each image is computed by itself."""
    if any(x.kind == "batch_norm" for x in (*culprit.a, *culprit.b)) or culprit.truth.shape != culprit.output.shape:
        return culprit
    size = culprit.truth.size + sum(x.size for x in culprit.inputs)
    n = len(culprit.truth) if culprit.truth.ndim else 1
    keep = max(1, int(n * PART / max(size, 1)))
    if keep >= n or any(not x.ndim or len(x) != n for x in culprit.inputs):
        return culprit

    def cut(x: Array) -> Array:
        return np.array(x[:keep]) if x.ndim and len(x) == n else x

    return dataclasses.replace(
        culprit,
        inputs=[x[:keep] for x in culprit.inputs],
        truth=culprit.truth[:keep],
        output=culprit.output[:keep],
        sources={name: cut(x) for name, x in culprit.sources.items()},
        strays_a=[Stray(x.layer, tuple(map(cut, x.inputs)), cut(x.output)) for x in culprit.strays_a],
        strays_b=[Stray(x.layer, tuple(map(cut, x.inputs)), cut(x.output)) for x in culprit.strays_b],
    )
