"""``trace`` and ``compare``: record a run of a model, and compare two models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agnostic.compare import learning
from agnostic.compare.alignment import Alignment, align
from agnostic.compare.context import reordered
from agnostic.compare.diagnosis import Culprit, Finding
from agnostic.compare.explain import Recorded
from agnostic.compare.forcing import Forced, Place
from agnostic.compare.inputs import Inputs, collect
from agnostic.compare.learned import Learned
from agnostic.compare.learning import Update
from agnostic.compare.noise import THRESHOLD, difference
from agnostic.compare.programs import ProgramPair, compared, recorded
from agnostic.compare.recording import Live, Record, Step, digest, listing, opened, record
from agnostic.compare.report import Comparison, Divergence, Pictures, Row
from agnostic.compare.settings import unseen
from agnostic.compare.traces import SUFFIX, Trace, is_trace, writing
from agnostic.errors import InvalidInput
from agnostic.registry import Model, backend_of
from agnostic.temporary import temporary_folder
from agnostic.text import counted

if TYPE_CHECKING:
    from agnostic.compare.offline import Offline
    from agnostic.optimizers.specs import Spec


def trace(
    model: Model,
    inputs: Any,
    path: str | os.PathLike[str],
    *,
    gradients: bool = False,
    update: tuple[Spec, int | Sequence[float]] | None = None,
) -> Path:
    """Record a run of a model in a file: the inputs and outputs of its layers.

    Args:
        model: a native model; its mode (train, eval) is not changed.
        inputs: as in :func:`compare`.
        path: of the file; its name ends in ``.trace``.
        gradients: record the gradients of a loss as well: half the mean square of each output, added up.
        update: (a specification of an optimizer, a number of steps or the learning rate of each): record the weights
            after those steps on that loss, and the gradients of each step.

    Returns:
        The path.

    Raises:
        InvalidInput: the inputs do not fit or are not finite, the model is random, or the file cannot be written.

    Example:
        >>> path = ag.trace(model, images, "model.trace")
        >>> ag.compare(path, model).same
        True
    """
    return trace_model(model, inputs, path, gradients=gradients, update=update)


def trace_model(
    model: Model,
    inputs: Any,
    path: str | os.PathLike[str],
    *,
    spec: str | None = None,
    gradients: bool = False,
    update: tuple[Spec, int | Sequence[float]] | None = None,
) -> Path:
    """See :func:`trace`.

    Args:
        spec: the specification of the model.
    """
    live = Live(model, collect(backend_of(model), model, inputs), spec)
    steps = None if update is None else Update(*update)
    if not is_trace(path):
        raise InvalidInput(f"the name of a trace ends in {SUFFIX}, and {str(path)!r} does not")
    with writing(path, len(live.names)) as (writer, about):
        record(live, writer, about)
        about["learning"] = learning.write(live, writer, gradients=gradients, update=steps)
    return Path(path)


def compare(a: Any, b: Any, inputs: Any = None, *, map: Mapping[str, str] | None = None) -> Comparison:
    """Find the first layer where B, a version of A, computes something else, and why.

    Args:
        a, b: native models, specifications for :func:`agnostic.load`, or trace files.
        inputs: the inputs of both models: images (N, H, W, C), uint8 or in [0, 1], which go through each model's own
            preprocessing; or an array, tuple or dict as A takes them. None if A is a trace: the inputs of the trace.
        map: B's layer for layers of A that the alignment should not find by itself.

    Returns:
        The table of layers, ``same``, ``first_divergence`` and ``diagnosis``; ``print`` shows all, ``html(path)``
        writes a page.

    Raises:
        InvalidInput: the inputs do not fit, or two runs of A differ.

    Example:
        >>> import copy
        >>> other = copy.deepcopy(model)
        >>> other.norm.eps = 0.1
        >>> found = ag.compare(model, other, images)
        >>> found.same, str(found.first_divergence), found.diagnosis.mistake
        (False, 'norm', 'batch_norm_epsilon')
    """
    from agnostic.compare.processes import is_elsewhere

    if is_elsewhere(a) or is_elsewhere(b):
        from agnostic.compare.processes import compare_elsewhere

        return compare_elsewhere(a, b, inputs, map=map)
    if isinstance(a, str | os.PathLike):
        first = opened(Trace(a))
        if isinstance(b, str | os.PathLike):
            from agnostic.compare.offline import compare_records

            return compare_records(first, opened(Trace(b)), map)
        return against(first, b, inputs, map=map)
    if inputs is None:
        raise InvalidInput("no inputs are given to compare the models on: give inputs")
    with temporary_folder() as folder:
        path = trace(a, inputs, folder / "a.trace")
        if isinstance(b, str | os.PathLike):
            from agnostic.compare.offline import compare_records

            return compare_records(opened(Trace(path)), opened(Trace(b)), map)
        return against(opened(Trace(path)), b, None, map=map, live=a)


def against(
    a: Record, model: Model, inputs: Any = None, *, map: Mapping[str, str] | None = None, spec: str | None = None,
    live: Model = None,
) -> Comparison:  # fmt: skip
    """Compare a live model with a trace: the latter is A.

    Args:
        inputs: None: those of the trace.
        spec: the specification of the model.
        live: the model that the trace was written of, where it is at hand: then both programs are recorded.
    """
    backend = backend_of(model)
    given: Inputs = a.inputs if inputs is None else collect(backend, model, inputs)
    other = Live(model, given, spec)
    b = listing(other)
    programs, reason = _programs(a, live, model, given)
    if not b.steps and programs is None:
        raise InvalidInput(
            f"{other.title} has {counted(len(other.names), 'layer')} and called none: there is nothing to compare"
        )
    alignment = align(a, b, map)
    forced = Forced(a, other, b, alignment)
    forced.run()
    notes = [*a.notes, *b.notes]
    if a.trace is not None and a.trace.about.get("learning"):
        notes.append("gradients and updates are compared only between two traces: record B with agnostic trace as well")
    notes += reason
    return comparison(a, b, alignment, forced, notes, list(_pictures(forced)), programs=programs)


def _programs(a: Record, live: Model, model: Model, given: Inputs) -> tuple[ProgramPair | None, list[str]]:
    """What the programs say, or why they say nothing."""
    if live is None:
        return None, []
    try:
        first = recorded(live, given)
        _check_of(a, first)
        return compared(first, recorded(model, given)), []
    except InvalidInput as error:
        return None, [f"compared by what the layers return, not by the operators that run: {error}"]


def _check_of(a: Record, live: Recorded) -> None:
    """Refuse a model that does not give what the trace holds: one that is loaded again with other random weights."""
    for slot, (path, _) in zip(a.outputs, live.run.program.outputs, strict=False):
        now = live.run.outputs[path]
        if tuple(slot.shape) != now.shape or difference(a.read(slot), now) > THRESHOLD * live.floors[path]:
            raise InvalidInput("A, loaded again, gives something else than before")


def comparison(
    a: Record,
    b: Record,
    alignment: Alignment,
    found: Forced | Offline,
    notes: Sequence[str],
    pictures: Sequence[Pictures],
    *,
    isolated: bool = True,
    learned: Learned | None = None,
    programs: ProgramPair | None = None,
) -> Comparison:
    """What was found, in the form that users see.

    Args:
        programs: what the operators say, which is the verdict where they could be recorded.
    """
    used = {i for x in found.places for i in x.a}, {j for x in found.places for j in x.b}
    learned = learned or Learned()
    return Comparison(
        a=a.model,
        b=b.model,
        table=tuple(_row(a, b, x) for x in found.places),
        divergences=(*_found(a, b, found, programs), *learned.divergences),
        unmatched_a=tuple(a.steps[i].label for i in alignment.unmatched_a if i not in used[0]),
        unmatched_b=tuple(b.steps[j].label for j in alignment.unmatched_b if j not in used[1]),
        output=(
            *((_output_row(a, x, k) for k, x in enumerate(found.output)) if programs is None else programs.rows),
            *learned.rows,
        ),
        weights=_weights(a, b, found.places),
        notes=(*notes, *learned.notes, *unseen(a, b, found.places)),
        remarks=_remarks(b, found) if programs is not None and programs.same else (),
        pictures=tuple(pictures),
        isolated=isolated,
    )


def _weights(a: Record, b: Record, places: list[Place]) -> tuple[int, int]:
    pairs: dict[Any, tuple[list[str], list[str]]] = {}
    for place in places:
        key = tuple(a.steps[i].name for i in place.a), tuple(b.steps[j].name for j in place.b)
        if key not in pairs:
            pairs[key] = _numbers(a, [a.steps[i] for i in place.a]), _numbers(b, [b.steps[j] for j in place.b])
    both = [(x, y) for x, y in pairs.values() if x and y]
    return len(both), sum(x != y for x, y in both)


def _numbers(record: Record, steps: Sequence[Step]) -> list[str]:
    """What tells the weights of layers in a row from others, in canonical order."""
    found: list[str] = []
    for step in steps:
        layout = step.inputs[0].layout if step.inputs else None
        if layout is None or not layout.inner:
            found += record.digests.get(step.name, {}).values()
        elif step.name in record.digests:
            found += [digest(x) for x in reordered(record.description(step.name), layout).weights.values()]
    return sorted(found)


def _row(a: Record, b: Record, place: Place) -> Row:
    first, last = a.steps[place.a[0]], a.steps[place.a[-1]]
    slot = last.outputs[0] if last.outputs else None
    return Row(
        a=" + ".join(a.steps[i].label for i in place.a),
        b=" + ".join(b.steps[j].label for j in place.b),
        kind=first.kind,
        shape=slot.canonical_shape if slot else (),
        glue=place.glue,
        isolated=place.isolated,
        propagated=place.propagated,
        error=place.error,
        floor=slot.floor if slot else 0.0,
        scale=slot.rms if slot else 0.0,
    )


def _output_row(a: Record, place: Place, number: int) -> Row:
    slot = a.outputs[min(number, len(a.outputs) - 1)]
    return Row(
        "output", "output", "output", slot.canonical_shape, place.glue, None, place.propagated, place.error, slot.floor,
        slot.rms,
    )  # fmt: skip


def _found(a: Record, b: Record, found: Forced | Offline, programs: ProgramPair | None) -> Sequence[Divergence]:
    """What differs: as the programs prove it, else as the layers show it."""
    if programs is None:
        return _divergences(a, b, found)
    if programs.same:
        return ()
    if programs.explained[1]:
        return programs.explained[0]
    # Where no proof was found, layers may say more.
    return _divergences(a, b, found) or programs.explained[0]


def _remarks(b: Record, found: Forced | Offline) -> tuple[str, ...]:
    """What differs inside of models whose outputs agree."""
    apart = [x for x in found.places if (x.isolated or 0.0) > THRESHOLD or (x.glue or 0.0) > THRESHOLD]
    return tuple(
        f"at {b.steps[x.b[0]].label} B computes something else, by {max(x.isolated or 0.0, x.glue or 0.0):.3g} noise "
        "floors there, which the outputs do not show"
        for x in apart
    )


def _divergences(a: Record, b: Record, found: Forced | Offline) -> list[Divergence]:
    apart = []
    for x in found.places:
        names = a.steps[x.a[0]].label, b.steps[x.b[0]].label
        if x.glue is not None and x.glue > THRESHOLD:
            apart.append(_glue(a, b, x, *names, x.b[0]))
        if x.isolated is not None and x.isolated > THRESHOLD:
            apart.append(Divergence(*names, "layer", "", x.isolated, _findings(x.culprit)))
    last = (x for x in found.output if x.glue is not None and x.glue > THRESHOLD)
    end = b.steps[-1].label if b.steps else "output"  # the code behind the last layer, or what that should have inside
    return [*apart, *(_glue(a, b, x, "output", end, len(b.steps)) for x in last)]


def _glue(a: Record, b: Record, place: Place, ours: str, theirs: str, before: int) -> Divergence:
    """The code before a layer; or a layer that stands there and has no partner, if that made the difference."""
    assert place.glue is not None
    found = _findings(place.glue_culprit)
    after = b.steps[before - 1].label if before else "input"
    if found and found[0].layer is not None:
        side, name = found[0].layer
        one = name if side == "a" else place.missing or ""
        two = name if side == "b" else theirs
        if side == "b" and found[0].entering:
            index = max(k for k in range(before) if b.steps[k].name == name)
            after = b.steps[index - 1].label if index else "input"
            return Divergence(place.missing or ours, two, "glue", after, place.glue, found)
        return Divergence(one, two, "layer" if side == "b" else "glue", after, place.glue, found)
    if place.extra is not None:
        return Divergence(place.missing or "", b.steps[place.extra].label, "layer", "", place.glue, found)
    return Divergence(place.missing or ours, theirs, "glue", after, place.glue, found)


def _findings(culprit: Culprit | None) -> tuple[Finding, ...]:
    from agnostic.compare import diagnosis

    diagnose = getattr(diagnosis, "diagnose", None)
    if culprit is None or diagnose is None:
        return ()
    return tuple(diagnose(culprit))


PICTURED = 6
"""How many layers are shown beside the culprits."""


def pictured(found: Forced | Offline) -> tuple[set[int], list[int]]:
    """The places that are shown, and the culprits, by index."""
    spatial = [
        n for n, x in enumerate(found.places)
        if x.a and (s := found.a.steps[x.a[-1]].outputs) and len(s[0].canonical_shape) == 4
        and min(s[0].canonical_shape[1:3]) > 1
    ]  # fmt: skip
    wanted = {spatial[round(k * (len(spatial) - 1) / (PICTURED - 1))] for k in range(PICTURED)} if spatial else set()
    culprits = [n for n, x in enumerate(found.places) if x.culprit is not None or x.glue_culprit is not None]
    return wanted | set(culprits[:1]), culprits


def _pictures(forced: Forced) -> list[Pictures]:
    """Of the first culprits on A's inputs, and of layers through the depth as both models run."""
    wanted, culprits = pictured(forced)
    found = []
    for n in culprits:
        place = forced.places[n]
        for culprit in (place.glue_culprit, place.culprit):
            if culprit is not None:
                label = forced.b.steps[place.b[0]].label
                one = picture(label, culprit.truth[:1], culprit.output[:1], isolated=True)
                found += [one] if one else []
    for place, ours, theirs in forced.propagate(wanted):
        one = picture(forced.b.steps[place.b[-1]].label, ours, theirs, isolated=False)
        found += [one] if one else []
    return found


CHANNELS = 4


def picture(layer: str, a: Any, b: Any, *, isolated: bool) -> Pictures | None:
    """The channels in which two activations (1, H, W, C) differ most; None for what has no height and width."""
    if a.ndim != 4 or a.shape != b.shape or min(a.shape[1:3]) < 2:
        return None
    with np.errstate(all="ignore"):
        delta = np.nan_to_num(np.square(np.asarray(a[0], np.float64) - b[0]).mean((0, 1)))
    chosen = tuple(int(c) for c in np.argsort(-delta, kind="stable")[:CHANNELS])
    step = max(1, -(-max(a.shape[1:3]) // 128))
    first, second = (
        np.ascontiguousarray(np.moveaxis(x[0, ::step, ::step][..., list(chosen)], -1, 0), np.float32) for x in (a, b)
    )
    return Pictures(layer, chosen, first, second, isolated)
