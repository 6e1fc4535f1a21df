"""``agnostic.transfer``: copy the weights of one model into another: match, write, compare."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agnostic.compare.comparing import compare_records
from agnostic.compare.feeding import stated
from agnostic.compare.inputs import Inputs, as_given
from agnostic.compare.live import Live
from agnostic.compare.noise import THRESHOLD
from agnostic.compare.recording import Record, record
from agnostic.compare.stored import opened
from agnostic.compare.traces import Trace
from agnostic.contracts.inputs import INPUTS
from agnostic.contracts.transfer import TRANSFER
from agnostic.contracts.weights import WEIGHTS
from agnostic.errors import InvalidInput, InvalidWeights
from agnostic.models.attached import attach, card_of
from agnostic.models.cards import ModelCard
from agnostic.program.nodes import Array
from agnostic.registry import Backend, Model, model_backend
from agnostic.text import counted
from agnostic.transfer.common import uses_of_both
from agnostic.transfer.matching import matched
from agnostic.transfer.preparation import InputScaling, preparation, prepares
from agnostic.transfer.report import TransferReport, TransferRow
from agnostic.transfer.sides import ModelReading, as_run, made, name_of, read, read_alike
from agnostic.transfer.use import Use
from agnostic.transfer.uses import Uses, is_fixed, uses_of
from agnostic.transfer.weights import check_held
from agnostic.transfer.writing import planned, written


def transfer(source: Model, target: Model, *, inputs: Any = None) -> TransferReport:
    """Copy the weights of one model into another of the same architecture, and compare the two.

    It works in both directions between PyTorch and Keras, and within each. Where all names and shapes agree, weights
    go by name. Otherwise the programs of both models are read and aligned by structure, from the inputs and from the
    outputs; what looks alike is told apart by what becomes of it. Finally both run, and the verdict is that of
    :func:`agnostic.compare`, since equal shapes prove nothing.

    Args:
        source: a native model.
        target: a native model, built. Its weights are replaced. Its card is replaced by the source's, if that has one,
            since the preparation of images belongs to the weights.
        inputs: the inputs of the source, in its own layout: an array, native or NumPy, or a tuple or dict of them.
            None: random inputs with a batch of two, from a fixed seed, of the size that the models declare, or 224.

    Returns:
        A report with the matches and the comparison. It prints as a table; ``report.verified`` is the verdict.

    Raises:
        InvalidWeights: layers have no counterpart, or two places could be one; the message names them. The target is
            unchanged.
        InvalidInput: the models do not take the inputs, or cannot run in one process.

    Example:
        >>> target = copy.deepcopy(model)
        >>> nn.init.zeros_(target.head.weight)
        Parameter containing:
        ...
        >>> report = ag.transfer(model, target, inputs=ag.prepare(model, images))
        >>> report.verified
        True
    """
    there, here = model_backend(source), model_backend(target)
    if inputs is None:
        found = made(there, source, None, 0, stated(here, target))
    else:
        found = as_given(there, inputs)
        names = here[INPUTS].input_names(target)
        if found.form == "dict" and set(names) == set(found.arrays):
            found = replace(found, arrays={name: found.arrays[name] for name in names})
    return into(here, target, described(there, source, found, name_of(source)), name_of(target))


@dataclass(frozen=True, eq=False)
class TransferSource:
    """What a transfer needs of its source.

    Attributes:
        read: its program and weights.
        record: what it did on its inputs.
        card: of the model, which belongs to the weights.
    """

    read: ModelReading
    record: Record
    card: ModelCard | None


def described(backend: Backend, model: Model, inputs: Inputs, name: str) -> TransferSource:
    """Read and run the source."""
    with backend[TRANSFER].inference(model):
        found = record(Live(model, inputs), first=True)
        return TransferSource(as_run(read(backend, model, inputs, name), found), found, card_of(model))


def of_trace(path: str | os.PathLike[str]) -> TransferSource:
    """A source that ran before, from its trace.

    Raises:
        InvalidInput: the file is no whole trace, or holds no program.
    """
    found = opened(Trace(path))
    if found.program is None:
        raise InvalidInput(f"{os.fspath(path)!r} holds no program, and so no weights ({found.reason}): give the model")
    run = found.program.run
    names = {leaf.value: leaf.name for leaf in run.program.of_role("parameter", "buffer")}
    arrays = {name: np.asarray(run.arrays[value]) for value, name in names.items()}
    return TransferSource(as_run(ModelReading(found.title, found.model["backend"], arrays, None), found), found, None)


def into(backend: Backend, model: Model, source: TransferSource, name: str) -> TransferReport:
    """The second half of :func:`transfer`: match, write, compare.

    Args:
        backend: the target's.
        model: the target.
        source: what :func:`described` gave, perhaps in another process.
        name: of the target, for messages.
    """
    transfers = backend[TRANSFER]
    with transfers.inference(model):
        mine, inputs = read_alike(backend, model, source.read, source.record.inputs, name)
        if not mine.is_whole:
            mine = as_run(mine, record(Live(model, inputs), first=False))
        before = dict(mine.arrays)
        job = _TransferJob(source.read, mine)
        values = job.values(transfers.computed(model))
        prepared = job.preparation(values)
        if prepared is not None:
            inputs = replace(inputs, arrays={k: prepared.turned(x) for k, x in inputs.arrays.items()})
        try:
            transfers.assign(model, values)
            _check_shared(values, backend[WEIGHTS].weights(model))
            found = record(Live(model, inputs), first=False)
            report = _judged(source, found, job, prepared)
        except BaseException:
            backend[WEIGHTS].set_weights(model, before)
            raise
    _hand_over_card(model, source.card, prepared, name)
    return report


class _TransferJob:
    """The match of two models, and what it gives."""

    def __init__(self, source: ModelReading, target: ModelReading) -> None:
        self.read, self.mine = source, target
        self.rows: list[TransferRow] = []
        self.notes: list[str] = []
        self.source: Uses | None = None
        self.target: Uses | None = None

    def values(self, computed: Mapping[str, str]) -> dict[str, Array]:
        """The numbers of the target's weights, by name.

        Raises:
            InvalidWeights: weights have no counterpart.
            InvalidInput: a program cannot be read, and names do not agree.
        """
        if self.read.framework == self.mine.framework and _named_alike(self.read.arrays, self.mine.arrays):
            return self._by_name()
        for side in (self.read, self.mine):
            if side.program is None:
                raise InvalidInput(
                    f"weights are matched by the programs of both models, and that of {side.name} cannot be read "
                    f"({side.reason}); weights go by name alone where all names and shapes agree"
                )
        assert self.read.program is not None
        assert self.mine.program is not None
        both = (self.read.program, self.read.arrays), (self.mine.program, self.mine.arrays)
        self.source, self.target = uses_of_both(*both)
        pairs = matched(self.source, self.target)
        self._check_complete([p.source for p in pairs], [p.target for p in pairs])
        plans = planned(pairs, self.source, self.target, (self.read.name, self.mine.name))
        found = written(plans, self.source, self.target, computed)
        rows = [
            _row(plan.pair.target, plan.pair.source, plan.pair.how, plan.notes, self.source, self.target)
            for plan in plans
        ]
        self.rows = _by_layer(rows)
        self._idle(found)
        return found

    def preparation(self, values: Mapping[str, Array]) -> InputScaling | None:
        """How the two prepare their inputs differently, the target with its new weights."""
        if self.read.program is None or self.mine.program is None:
            return None
        source = self.source or uses_of(self.read.program, self.read.arrays)
        return preparation(source, uses_of(self.mine.program, {**self.mine.arrays, **values}))

    def _by_name(self) -> dict[str, Array]:
        groups: dict[str, list[str]] = {}
        for name in self.mine.arrays:
            groups.setdefault(name.rpartition(".")[0], []).append(name.rpartition(".")[2])
        kinds = {} if self.mine.program is None else self.mine.program.modules
        self.rows = [
            TransferRow(layer or names[0], layer or names[0], kinds.get(layer, "parameter"), tuple(names), "name")
            for layer, names in groups.items()
        ]
        return {name: self.read.arrays[name] for name in self.mine.arrays}

    def _check_complete(self, taken: Sequence[Use], given: Sequence[Use]) -> None:
        assert self.source is not None
        assert self.target is not None
        over = _left(self.source, taken)
        missing = _left(self.target, given)
        if missing or over:
            raise InvalidWeights(_misfit(missing, over, self.source, self.target, self.read.name, self.mine.name))

    def _idle(self, found: dict[str, Array]) -> None:
        """Weights that feed nothing, such as the heads of training alone: by name, or left as they are."""
        assert self.source is not None
        assert self.target is not None
        used = [{name for use in side.uses for name in use.names(side.weights)} for side in (self.source, self.target)]
        idle = [name for name in self.mine.arrays if name not in used[1] and not _counts(name, self.mine)]
        for name in idle:
            other = self.read.arrays.get(name)
            if other is not None and name not in used[0] and other.shape == self.mine.arrays[name].shape:
                found[name] = other
        left = [name for name in idle if name not in found]
        if left:
            self.notes.append(
                f"{counted(len(left), 'array')} of {self.mine.name} feed nothing and stay as they are, "
                f"such as {left[0]!r}"
            )


def _check_shared(values: Mapping[str, Array], now: Mapping[str, Array]) -> None:
    """Whether each array has its numbers, rounded to its type; not if another one that got others is the same array.

    Raises:
        InvalidWeights: one has not; names both. Or its type does not hold them.
    """
    for name, x in values.items():
        held = now.get(name)
        if held is None or held.dtype.kind != "f" or np.allclose(held.reshape(-1), x.reshape(-1), 1e-2, 1e-6, True):
            continue
        check_held(name, held, x)
        twin = next((n for n, y in values.items() if n != name and np.array_equal(now.get(n, 0), held)), None)
        beside = "" if twin is None else f" shares its array with {twin!r}, which"
        raise InvalidWeights(
            f"{name!r} of the target{beside} gets other numbers from the source: make the target with an array for "
            "each, or give both the same weights in the source; no weight was changed"
        )


def _counts(name: str, side: ModelReading) -> bool:
    return bool(side.arrays[name].dtype.kind != "f")


def _named_alike(source: Mapping[str, Array], target: Mapping[str, Array]) -> bool:
    return all(name in source and source[name].shape == x.shape for name, x in target.items())


def _left(found: Uses, taken: Sequence[Use]) -> list[Use]:
    """The uses without a partner that need one: not those of constants that a model keeps in buffers."""
    done = {id(use) for use in taken}
    held = {name for use in taken for name in use.names(found.weights)}
    inner = prepares(found)
    left = []
    for use in found.uses:
        names = use.names(found.weights)
        if (
            id(use) not in done
            and not is_fixed(use, found.weights)
            and not set(names) <= held
            and use.outputs[0] not in inner
        ):
            left.append(use)
    return left


KINDS: Mapping[str, str] = {
    "linear": "dense", "matmul": "dense", "einsum": "dense", "convolution": "conv",
    "transposed_convolution": "conv_transpose", "take": "embedding", "add": "parameter", "multiply": "parameter",
    "subtract": "parameter", "divide": "parameter", "concatenate": "parameter",
}  # fmt: skip
"""What an operator with weights is called in the report."""


def _kind(use: Use) -> str:
    if use.kind == "norm" and len(use.nodes) > 1:
        return "norm"
    return KINDS.get(use.nodes[0].operator, use.nodes[0].operator)


def _named(use: Use, found: Uses) -> str:
    return use.layer or ", ".join(use.names(found.weights))


def _row(target: Use, source: Use, how: Any, notes: Sequence[str], there: Uses, here: Uses) -> TransferRow:
    names = [name.rpartition(".")[2] for name in target.names(here.weights)]
    return TransferRow(_named(target, here), _named(source, there), _kind(target), tuple(names), how, tuple(notes))


def _by_layer(rows: Sequence[TransferRow]) -> list[TransferRow]:
    """One row for each pair of layers, whatever number of operators they run."""
    found: dict[tuple[str, str, str], TransferRow] = {}
    for row in rows:
        key = row.target, row.source, row.matched
        before = found.get(key)
        if before is None:
            found[key] = row
        else:
            arrays, notes = ((*before.arrays, *row.arrays), (*before.notes, *row.notes))
            found[key] = replace(before, arrays=tuple(dict.fromkeys(arrays)), notes=tuple(dict.fromkeys(notes)))
    return list(found.values())


def _misfit(
    missing: Sequence[Use], over: Sequence[Use], source: Uses, target: Uses, theirs: str, mine: str
) -> str:  # fmt: skip
    """What has no counterpart, layers of one kind and size together, and what to do about each."""
    said, do = [], []
    if missing:
        near = next((use for use in over if use.kind == missing[0].kind), None)
        beside = "" if near is None else f", where {_named(near, source)!r} of {theirs} has {_shapes(near, source)}"
        said.append(
            f"{len(missing)} of the {counted(len(target.uses), 'layer')} of {mine} have no counterpart, such as "
            f"{_listed(missing, target)}{beside}"
        )
        if near is not None:
            do.append(f"make {_named(missing[0], target)!r} with the sizes of {_named(near, source)!r}")
        elif missing[0].kind == "norm" and "variance" in missing[0].parts:
            do.append(f"leave {_named(missing[0], target)!r} out of the target; the source may have it in its weights")
        else:
            do.append(f"leave {_named(missing[0], target)!r} out of the target, or give the source such a layer")
    if over:
        said.append(
            f"{len(over)} of the {counted(len(source.uses), 'layer')} of {theirs} are left over, such as "
            f"{_listed(over, source)}"
        )
        if not missing:
            do.append(f"give the target a layer for {_named(over[0], source)!r}")
    return f"{' and '.join(said)}: {', '.join(do)}; no weight was changed"


def _listed(uses: Sequence[Use], found: Uses) -> str:
    """Layers with their arrays, those of one kind and size as one."""
    groups: dict[tuple[str, str], list[str]] = {}
    for use in uses:
        groups.setdefault((_kind(use), _shapes(use, found).partition(" ")[2]), []).append(
            f"{_named(use, found)!r} ({_kind(use)}, {_shapes(use, found)})"
        )
    lines = [x[0] + (f" and {len(x) - 1} of its size" if len(x) > 1 else "") for x in groups.values()]
    return ", ".join(lines[:3]) + (f" and {len(lines) - 3} other sizes" if len(lines) > 3 else "")


def _shapes(use: Use, found: Uses) -> str:
    return ", ".join(f"{n.rpartition('.')[2]} {found.weights.arrays[n].shape}" for n in use.names(found.weights))


def _hand_over_card(model: Model, card: ModelCard | None, prepared: InputScaling | None, name: str) -> None:
    """The preparation of images and the class names belong to the weights."""
    own = card_of(model)
    if card is None:
        return
    preprocessing = card.preprocessing
    if prepared is not None:
        gain, offset = prepared.gain, prepared.offset
        if (gain <= 0).any() or gain.size not in (1, len(preprocessing.std)):
            return
        mean = np.asarray(preprocessing.mean) + offset * preprocessing.std
        std = gain * preprocessing.std
        preprocessing = replace(preprocessing, mean=tuple(mean.tolist()), std=tuple(std.tolist()))
    size = card.size
    forms = stated(model_backend(model), model)
    if forms is not None and forms[0].is_image and forms[0].size is not None:
        size = forms[0].size
    spec, aliases = (name, {}) if own is None else (own.spec, own.aliases)
    attach(model, replace(card, spec=spec, preprocessing=preprocessing, size=size, aliases=aliases))


def _judged(source: TransferSource, found: Record, job: _TransferJob, prepared: InputScaling | None) -> TransferReport:
    """What compare says of the two."""
    inputs = ", ".join(" x ".join(map(str, x.shape)) for x in found.fed)
    notes = list(job.notes)
    if prepared is not None:
        notes.append(prepared.said(source.read.name, job.mine.name))
        found.inputs = source.record.inputs  # what becomes of them inside is the same
    said = compare_records(source.record, found)
    if source.record.program is not None:
        outputs = source.record.program.run.outputs.values()
        if all(len(x) > 1 and (x == x[:1]).all() for x in outputs):
            notes.append(
                f"{source.read.name} returns the same for all inputs (is its last layer all zeros?), so its outputs "
                "prove nothing"
            )
    worst = max(said.output, key=lambda row: row.distance or 0.0)
    scale = worst.scale or 1.0
    places = {d.b for d in said.divergences}
    known = all(d.findings and d.findings[0].proven for d in said.divergences)
    return TransferReport(
        source.read.name, job.mine.name,
        tuple(replace(row, differs=row.target in places) for row in job.rows),
        (worst.error or 0.0) / scale, worst.floor / scale, THRESHOLD * worst.floor / scale,
        said.same, said.same or known,
        tuple(f"{d.where}: {d.findings[0].sentence}" if d.findings else d.where for d in said.divergences),
        (*notes, *(note for note in said.notes if not note.startswith("A is fed")), *said.remarks), inputs,
    )  # fmt: skip
