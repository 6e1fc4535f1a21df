"""The verb that writes a model as source of another framework."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from agnostic import display
from agnostic.contracts.calls import CALLS
from agnostic.contracts.program import PROGRAM
from agnostic.contracts.writer import WRITER
from agnostic.errors import AgnosticError, InvalidInput
from agnostic.files import atomic_path
from agnostic.models.inputs import Size, examples
from agnostic.models.load import executed, executed_file
from agnostic.port.check import compared, trial
from agnostic.port.dialect import Dialect
from agnostic.port.folding import Folded
from agnostic.port.precision import ROUNDINGS
from agnostic.port.readings import Readings
from agnostic.port.report import PortReport
from agnostic.port.sample import Shape, Variation, arrays, sampled, variations
from agnostic.port.sizes import Differ
from agnostic.port.sources import Draft, drafted, file_name
from agnostic.port.stubs import Kept, kept
from agnostic.program import custom
from agnostic.program.custom import CustomOperator
from agnostic.program.nodes import Array, Program, Value
from agnostic.registry import Backend, Model, backend_of, engine_environment, get_backend
from agnostic.text import counted


@dataclass(frozen=True, repr=False)
class Ported:
    """A model in another framework.

    Attributes:
        name: of the source file, without its ending.
        to: the framework's backend.
        source: the text of the file.
        arrays: its weights, by the paths of the new model's variables.
        report: whether it computes the same, with notes for the user.
        stubs: recorded calls of the functions that are left to fill in, and a test of them; None: there are none.

    Example:
        >>> ported = ag.port(model, "keras", ag.prepare(model, images), check=False)
        >>> ported.save("ported").name
        'sequential.py'
    """

    name: str
    to: str
    source: str
    arrays: Mapping[str, Array]
    report: PortReport

    stubs: Kept | None = None

    def __repr__(self) -> str:
        return f"<Ported: {display.shortened(self.report.verdict, 300)} {counted(self.source.count(chr(10)), 'line')}>"

    def _repr_html_(self) -> str:
        return display.lines(self.report.verdict, self.source.split("\n"))

    def save(self, folder: str | Path) -> Path:
        """Write the source, the file of its weights and report.html into a folder; for stubs their test and calls too.

        Args:
            folder: is made where it is missing; files of those names are replaced.

        Returns:
            The path of the source.

        Raises:
            InvalidInput: a file cannot be written.
        """
        where = Path(folder)
        try:
            where.mkdir(parents=True, exist_ok=True)
            path = where / f"{self.name}.py"
            with atomic_path(path) as temporary:
                temporary.write_text(self.source, encoding="utf-8")
            get_backend(self.to)[WRITER].write_weights(self.arrays, where, self.name)
            with atomic_path(where / "report.html") as temporary:
                temporary.write_text(self.report.html(), encoding="utf-8")
            if self.stubs is not None:
                with atomic_path(where / f"test_{self.name}.py") as temporary:
                    temporary.write_text(self.stubs.test, encoding="utf-8")
                with atomic_path(where / f"{self.name}_calls.npz") as temporary, temporary.open("wb") as file:
                    np.savez(file, **self.stubs.arrays)  # type: ignore[arg-type]
        except OSError as error:
            raise InvalidInput(f"cannot write into {where}: {error.strerror or error}") from error
        return path

    @property
    def layers(self) -> Mapping[str, str]:
        """The source's name of each layer of the new model that stands for one; most have the same on both sides."""
        draft = self.report.draft
        return {name: source for name, source in draft.layers.items() if source in draft.program.modules}

    @property
    def weights(self) -> Mapping[str, str]:
        """The source's name of the weight that each of the new model's variables holds, by their paths."""
        draft = self.report.draft
        found = draft.written.weights.items()
        return {path: draft.names.get(leaf.name, leaf.name) for path, (leaf, _) in found if leaf.role != "constant"}

    @functools.cached_property
    def model(self) -> Model:
        """The new model, built in this process from the source; its framework is imported."""
        with tempfile.TemporaryDirectory(prefix="agnostic-port-") as name:
            path = Path(name) / f"{self.name}.py"
            path.write_text(self.source, encoding="utf-8")
            weights = get_backend(self.to)[WRITER].write_weights(self.arrays, path.parent, self.name)
            model: Model = executed(path).make_model(weights)
            return model


def port(
    model: Model,
    to: str,
    inputs: Any = None,
    *,
    size: Size | None = None,
    channels_in: int | None = None,
    channels_first: bool = False,
    check: bool = True,
    engine: str | None = None,
    operators: Sequence[CustomOperator] = (),
    stubs: bool = False,
) -> Ported:
    """Write a model as source of another framework, and compare the two by running them.

    The source is one file that needs nothing but that framework, with the model's own layers, names and hierarchy; it
    is built with ``make_model(weights=...)``. Batches of any size are taken, and images of any size where the source
    takes them and its operators do not change with it.

    Args:
        model: a native model in inference mode.
        to: the name of a backend that can write source, such as another than the model's own.
        inputs: what the model is called with, as in :func:`agnostic.capture`. None: see :func:`agnostic.program`.
        size: height and width of the images, one number or two; None: the model's own.
        channels_in: channels of the images, where the model does not tell.
        channels_first: images keep their channels before height and width.
        check: whether the written source is run, in a process of its own, and compared layer by layer.
        engine: what the target computes with there, if it has several engines; None: its own choice.
        operators: definitions of custom operators in the target: see :func:`agnostic.custom_operator`.
        stubs: whether an operator that cannot be ported becomes a function to fill in. Its inputs and outputs are
            recorded, and :meth:`Ported.save` writes a test; a source with such functions is not run.

    Returns:
        The source, its weights, the model and a report with the verdict.

    Raises:
        InvalidInput: operators cannot be read or written; says which, all of them, in which layers, on which lines.

    Example:
        >>> ported = ag.port(model, "keras", ag.prepare(model, images), check=False)
        >>> "def make_model" in ported.source
        True
    """
    backend, writer = backend_of(model), get_backend(to)[WRITER]
    dialect = writer.dialect(channels_first)
    if check:
        writer.check_engine(engine, channels_first)
    if backend[CALLS].is_training(model):
        raise InvalidInput(f"{type(model).__name__} is in training mode: {backend.facts.set_inference}")
    if inputs is None:
        inputs = examples(backend, model, size=size, channels=channels_in)
    elif size is not None or channels_in is not None:
        raise InvalidInput("inputs have a size and channels of their own: leave size and channels_in out")
    known = custom.known(to, operators)
    written = drafted_for(backend, model, inputs, dialect, known, stubs=stubs)
    draft, variation, values = written.draft, written.variation, written.arrays
    name = file_name(draft.program)
    report = PortReport(draft, to, variation.name if variation else "nothing", written.notes, ())
    left = calls_of(backend, model, written, dialect, known) if draft.stubs else None
    found = Ported(name, to, draft.written.text, values, report, left)
    if not check or draft.stubs:
        return found
    with tempfile.TemporaryDirectory(prefix="agnostic-port-") as folder:
        path = Path(folder) / f"{name}.py"
        path.write_text(found.source, encoding="utf-8")
        weights = writer.write_weights(values, path.parent, name)
        tried = trial(backend, model, draft, cases(backend, inputs, variation), to, path, weights, written.rounding)
        rows = compared(tried, engine_environment(engine))
    return Ported(name, to, found.source, values, PortReport(draft, to, report.free, report.notes, tuple(rows)))


def taught_in(path: Path) -> list[CustomOperator]:
    """The operators that a file of Python defines by :func:`agnostic.custom_operator`.

    Raises:
        InvalidInput: there is no such file, it fails, or it defines none.
    """
    if not path.is_file():
        raise InvalidInput(f"there is no file {path} with operators")
    found = [x for x in vars(executed_file(path)).values() if isinstance(x, CustomOperator)]
    if not found:
        raise InvalidInput(f"{path} defines no operator: make one by @agnostic.custom_operator(name, to=...)")
    return found


def _check_open(free: Draft, fixed: Draft) -> None:
    """Raise Differ where a source with freer sizes has more functions to fill in."""
    missing = {stub.function for stub in free.stubs} - {stub.function for stub in fixed.stubs}
    if missing:
        raise Differ(f"{', '.join(sorted(missing))} would have to be filled in")


def _freed(
    variation: Variation, readings: Readings, draft_of: Callable[[Sequence[Program]], Draft]
) -> tuple[Draft, Variation, Mapping[str, Array]]:
    """The source with lengths that change so, how they may, and arrays that were computed for it.

    Raises:
        Differ, AgnosticError: the model has not the same operators at each size, or does not take one.
    """
    try:
        return _tried(variation, draft_of, lambda all_shapes: [readings.at(shapes) for shapes in all_shapes])
    except Differ:
        readings.check_alike(variation.shapes)
    if any(readings.at(x, True).program != readings.at(x).program for x in variation.shapes):
        # Constants that are cut at another place at each size are one table, and a cut.
        with contextlib.suppress(Differ):
            return _tried(variation, draft_of, lambda all_shapes: [readings.at(shapes, True) for shapes in all_shapes])
    # Positions and masks are computed, as they are in the source.
    return _tried(variation, draft_of, readings.computed)


def _tried(
    variation: Variation,
    draft_of: Callable[[Sequence[Program]], Draft],
    read: Callable[[Sequence[tuple[Shape, ...]]], list[Folded]],
) -> tuple[Draft, Variation, Mapping[str, Array]]:
    """As :func:`_freed`; read at one more size where a formula fits those read, and perhaps no more, or where that one
    is larger than these, and perhaps refused.
    """
    found = read(variation.shapes)
    free = draft_of([x.program for x in found])
    if free.has_guesses or not variation.is_between:
        found = read((*variation.shapes, variation.checked))
        surer = draft_of([x.program for x in found])
        if free.has_guesses and surer.written.text != free.written.text:
            free, variation = surer, variation.surer
    return free, variation, found[0].arrays


@dataclass(frozen=True)
class Drafted:
    """A draft, the sizes that are free, the weights, and notes for the user."""

    draft: Draft
    variation: Variation | None
    arrays: Mapping[str, Array]
    notes: tuple[str, ...]
    inputs: Any
    weights: Mapping[str, Array]
    rounding: float = ROUNDINGS["float32"]


def drafted_for(
    backend: Backend,
    model: Model,
    inputs: Any,
    dialect: Dialect,
    operators: Mapping[str, CustomOperator] = MappingProxyType({}),
    *,
    stubs: bool = False,
) -> Drafted:
    """Write the source with as many free lengths as the model allows."""
    readings = Readings(backend, model, inputs, operators)
    first, dtype = readings.at(readings.given), readings.dtype
    notes = list(first.program.notes)
    if dtype != "float32":
        notes.append(f"The source computes in {dtype}, the port in float32.")

    def draft_of(programs: Sequence[Program]) -> Draft:
        return drafted(programs, dialect, stubs=stubs)

    # A program that cannot be written at one size cannot be written at all.
    fixed = draft_of([first.program]) if custom.unknown(first.program) else None
    draft, found, computed = fixed, None, dict(first.arrays)
    for variation in variations(first.program, inputs):
        try:
            free, variation, more = _freed(variation, readings, draft_of)
            if free.stubs:
                fixed = fixed or draft_of([first.program])
                _check_open(free, fixed)
            draft, found, computed = free, variation, computed | dict(more)
            break
        except (Differ, AgnosticError) as error:
            # The first of several operators is enough here; the error of a refused port names all.
            reason = str(error).partition(" | ")[0]
            notes.append(f"Not free: {variation.name} ({display.shortened(reason, 300)}).")
    draft = draft or draft_of([first.program])
    if first.arrays:
        notes.append(f"Computed once from the weights of the source: {', '.join(first.arrays)}.")
    own = {**readings.weights, **computed}
    used = inputs if found is None else sampled(backend, inputs, found.shapes[0])
    return Drafted(draft, found, draft.arrays(own), tuple(notes), used, own, ROUNDINGS[dtype])


def calls_of(
    backend: Backend, model: Model, written: Drafted, dialect: Dialect, operators: Mapping[str, CustomOperator]
) -> Kept:
    """Record the inputs and outputs of the functions to fill in."""
    calls, inputs = backend[CALLS], written.inputs
    nodes = [n for n in backend[PROGRAM].program(model, inputs, operators.keys()).nodes if n.operator == "custom"]
    recorded: dict[Value, Array] = {}
    if nodes:
        for node, (_, gave) in zip(nodes, backend[PROGRAM].recorded(model, inputs, operators.keys()), strict=True):
            recorded |= dict(zip(node.outputs, gave, strict=True))
    given = [x if isinstance(x, np.ndarray) else np.array(calls.numpy(x)) for x in arrays(inputs)]
    outputs = [np.array(calls.numpy(x)) for x in calls.returned(model, inputs)]
    return kept(written.draft, dialect.testing, given, outputs, written.weights, recorded)


def cases(backend: Backend, inputs: Any, variation: Variation | None) -> list[Any]:
    """The inputs of the comparison: the given ones, and inputs of another size."""
    shapes = [tuple(int(n) for n in x.shape) for x in arrays(inputs)]
    if variation is None:
        return [sampled(backend, inputs, shapes)]
    return [
        sampled(backend, inputs, found, seed) for seed, found in enumerate((variation.shapes[0], variation.checked))
    ]
