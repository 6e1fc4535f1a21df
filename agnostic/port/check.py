"""Check a port by running it: compare all outputs, and every layer that has a counterpart in the source.

The written source runs in a separate process, since two frameworks may not share one. The source in float64 is the
reference. Its error in float32 is the noise floor of the model. The port sums in another order, so its error may be a
few times that floor.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agnostic.contracts.calls import CALLS
from agnostic.contracts.layers import LAYERS
from agnostic.contracts.ported import PORTED, first_outputs
from agnostic.errors import InvalidInput
from agnostic.models.load import executed
from agnostic.port.precision import ROUNDINGS
from agnostic.port.sample import arrays, with_arrays
from agnostic.port.sources import Draft
from agnostic.processes import started
from agnostic.program.nodes import Array
from agnostic.registry import Backend, Model, get_backend

TIMES_FLOOR = 16.0
"""How many times the source's own float32 error a port may be off: sums in another order, at most a few times."""

FEW = 64
"""So many roundings, of the largest number, are those of a few operations, however lucky the source's own are."""


@dataclass(frozen=True)
class Found:
    """The error of one array of the port against the source in float64, relative to the largest number of the array.

    Attributes:
        name: of the layer in the port; ``""`` for an output.
        partner: the name of the layer in the source, or the path of the output.
        case: the number of the inputs: 0 for those of the port, 1 for another size.
        error: of the port; infinity where shapes differ, or where only the port has numbers that are not finite.
        floor: the error of the source in float32.
        rounding: the unit roundoff of the type that the source computes in.
    """

    name: str
    partner: str
    case: int
    error: float
    floor: float
    rounding: float = ROUNDINGS["float32"]

    @property
    def is_same(self) -> bool:
        """Whether the error is within the floor."""
        return self.error <= max(TIMES_FLOOR * self.floor, FEW * self.rounding)


@dataclass(frozen=True)
class Partner:
    """A layer of the port and one of the source that return the same value.

    Attributes:
        name: of the layer in the port.
        source: name of the layer in the source.
        places: for each axis of the port's array, the axis of the source's array.
        shape: of the source's array, according to the program.
    """

    name: str
    source: str
    places: tuple[int, ...]
    shape: tuple[int, ...]


def partners(draft: Draft, known: Sequence[str]) -> list[Partner]:
    """Find the pairs of layers that return the same value.

    Args:
        draft: the written port.
        known: the layers of the source.
    """
    last: dict[str, Any] = {}
    for node in draft.program.nodes:
        # A layer returns the result of the last operator of its first call, nested layers included. Later calls
        # have other names.
        for name in node.calls or (node.module,):
            last[name] = node.outputs[0] if len(node.outputs) == 1 or node.operator == "loop_end" else None
    held: dict[Any, list[tuple[Any, tuple[int, ...]]]] = {}
    for value, (new, places) in draft.laid.places.items():
        held.setdefault(new, []).append((value, places))
    found = []
    names = {name: name for name in known}
    for name, new in draft.written.layers.items():
        source = names.get(draft.layers.get(name, name))
        if source is None:
            continue
        for value, places in held.get(new, ()):
            if last.get(source) == value:
                found.append(Partner(name, source, places, value.shape))
    return found


@dataclass(frozen=True)
class Reference:
    """What a source computes.

    Attributes:
        outputs, layers: in float64, where the framework supports it.
        output_floors, layer_floors: the errors of its own type.
    """

    outputs: list[Array]
    layers: Mapping[str, Array]
    output_floors: list[float]
    layer_floors: Mapping[str, float]


def reference(
    backend: Backend, model: Model, inputs: Any, layers: Sequence[str], rounded: Sequence[str] = ()
) -> Reference:
    """Outputs and layers of the source in float64, and the errors of its own type.

    Where the framework has no float64: its own type, and again with inputs and layers rounded in another way.

    Args:
        backend, model, inputs: what is run.
        layers: the names of those to return.
        rounded: the names of those that are rounded so too, since whole numbers that go in cannot be.
    """
    calls = backend[CALLS]

    def changed(x: Any, change: Callable[[Array], Array]) -> Any:
        array = x if isinstance(x, np.ndarray) else calls.numpy(x)
        if array.dtype.kind not in "fc":
            return x
        new = change(array)
        return new if isinstance(x, np.ndarray) else calls.native(new, x, str(new.dtype))

    right_layers, floors = LayerFiles(layers), dict[str, float]()
    with calls.in_float64(model) as exact:
        given = with_arrays(inputs, lambda x: changed(x, _double)) if exact else inputs
        right = _run(backend, model, given, layers, right_layers.keep)

    def compare(name: str, x: Array) -> None:
        if name in right_layers:
            floors[name] = distance(x, right_layers[name])

    if exact:
        rough = _run(backend, model, inputs, layers, compare)
    else:
        given = with_arrays(inputs, lambda x: changed(x, _rounded))
        rough = _run(backend, model, given, rounded, compare, lambda x: changed(x, _rounded))
    return Reference(right, right_layers, list(map(distance, rough, right)), floors)


def _double(x: Array) -> Array:
    return x.astype(np.float64 if x.dtype.kind == "f" else np.complex128)


def _rounded(x: Array) -> Array:
    """Each number one rounding of its type away at most."""
    unit = np.finfo(x.dtype).eps / 2
    moved = x.astype(np.result_type(x, np.float64)) * (1 + unit * np.random.default_rng(0).uniform(-2, 2, x.shape))
    return np.asarray(moved.astype(x.dtype))


def _run(
    backend: Backend, model: Model, inputs: Any, layers: Sequence[str], keep: Callable[[str, Array], None],
    change: Callable[[Any], Any] | None = None,
) -> list[Array]:  # fmt: skip
    """The outputs of a model.

    Args:
        backend, model, inputs: what is run.
        layers: the names of those whose first output is handed on.
        keep: is called with it.
        change: of each array that these layers return, before it is handed on and used.
    """
    calls = backend[CALLS]
    first = first_outputs(lambda name, x: keep(name, np.asarray(calls.numpy(x))), change)
    with calls.intercept(model, layers, first):
        return [np.array(calls.numpy(x)) for x in calls.returned(model, inputs)]


class LayerFiles(Mapping[str, Array]):
    """Arrays of layers in files, each read when it is asked for: all together may take more memory than the model.

    Args:
        names: of all that may be kept.
        folder: where; None: a temporary one, which ends with this object.
    """

    def __init__(self, names: Sequence[str], folder: Path | None = None) -> None:
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="agnostic-port-")
            folder = Path(self._temporary.name)
        self._folder = folder
        self._numbers = {name: number for number, name in enumerate(names)}

    def _path(self, name: str) -> Path:
        return self._folder / f"layer_{self._numbers[name]}.npy"

    def keep(self, name: str, array: Array) -> None:
        """Write an array down."""
        np.save(self._path(name), array)

    def __getitem__(self, name: str) -> Array:
        if name not in self:
            raise KeyError(name)
        found: Array = np.load(self._path(name))
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._numbers and self._path(str(name)).exists()

    def __iter__(self) -> Iterator[str]:
        return filter(self.__contains__, self._numbers)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True)
class Job:
    """A written source to be run.

    Attributes:
        to: the backend's name.
        source, weights: the files.
        cases: lists of inputs, each in the order of the call.
        layers: names of the layers whose outputs are recorded for the first case.
    """

    to: str
    source: Path
    weights: Path
    cases: Sequence[Sequence[Array]]
    layers: Sequence[str]


Outcome = Sequence[tuple[list[Array], Mapping[str, Array]]] | str
"""Outputs and layers of each case, or the error of the run."""


def run_in_process(jobs: Sequence[Job], environment: Mapping[str, str] | None = None) -> list[Outcome]:
    """Run written sources one after the other in a separate process.

    Args:
        jobs: the sources to run.
        environment: variables of the process, such as the one that chooses an engine.

    Raises:
        InvalidInput: the process ended; the message has its last lines.
    """
    with _running(jobs, environment) as outcomes:
        found = outcomes()
        return [x if isinstance(x, str) else [(outputs, dict(layers)) for outputs, layers in x] for x in found]


@contextlib.contextmanager
def _running(
    jobs: Sequence[Job], environment: Mapping[str, str] | None = None
) -> Iterator[Callable[[], list[Outcome]]]:
    """As :func:`run_in_process`, beside what the block does; if the block fails, the process ends.

    It yields a function that waits for the outcomes. Each layer is read from a file when it is asked for, in the block.
    """
    with tempfile.TemporaryDirectory(prefix="agnostic-port-") as name:
        folder = Path(name)
        _prepare(folder, jobs)
        log = folder / "log.txt"
        code = "import sys; from agnostic.port.check import main; main(sys.argv[1])"
        with (
            log.open("w") as stream,
            started(code, [str(folder)], environment=environment, stdout=stream, stderr=stream) as process,
        ):

            def outcomes() -> list[Outcome]:
                if process.wait():
                    lines = log.read_text(errors="replace").strip().splitlines()
                    raise InvalidInput(f"the process that runs the port ended: {' | '.join(lines[-3:])[:1500]}")
                return [_outcome(folder / str(place), job) for place, job in enumerate(jobs)]

            yield outcomes


def _prepare(folder: Path, jobs: Sequence[Job]) -> None:
    """Write what :func:`main` reads."""
    plan = []
    for place, job in enumerate(jobs):
        (folder / str(place)).mkdir(exist_ok=True)
        for number, case in enumerate(job.cases):
            np.savez(folder / str(place) / f"in_{number}.npz", *case)
        plan.append(
            {"to": job.to, "source": str(job.source), "weights": str(job.weights), "cases": len(job.cases),
             "layers": list(job.layers)}
        )  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))


def _outcome(folder: Path, job: Job) -> Outcome:
    failure = folder / "error.txt"
    if failure.exists():
        return failure.read_text(errors="replace")
    outputs = []
    for number in range(len(job.cases)):
        with np.load(folder / f"out_{number}.npz") as file:
            outputs.append([file[key] for key in file.files])
    return [(found, {} if number else LayerFiles(job.layers, folder)) for number, found in enumerate(outputs)]


def main(name: str) -> None:
    """Entry point of the separate process; see :func:`run_in_process`."""
    for place, plan in enumerate(json.loads((Path(name) / "plan.json").read_text())):
        folder, layers = Path(name) / str(place), list(plan["layers"])
        backend = get_backend(plan["to"])[PORTED]
        try:
            model = executed(Path(plan["source"])).make_model(Path(plan["weights"]))
            for number in range(plan["cases"]):
                with np.load(folder / f"in_{number}.npz") as file:
                    case = [file[key] for key in file.files]
                outputs = backend.run(model, case, [] if number else layers, LayerFiles(layers, folder).keep)
                np.savez(folder / f"out_{number}.npz", *outputs)
        except Exception as error:  # noqa: BLE001 (every error of the written source is reported)
            last = traceback.extract_tb(error.__traceback__)
            lines = [f"line {frame.lineno}: {frame.line}" for frame in last if frame.filename == plan["source"]]
            where = f" ({lines[-1]})" if lines else ""
            (folder / "error.txt").write_text(f"{type(error).__name__}: {str(error)[:1000]}{where}")


@dataclass(frozen=True)
class PortTrial:
    """A port to be compared with its source.

    Attributes:
        backend: of the source.
        model: the source.
        draft: the written port.
        inputs: of the source, at one or more sizes.
        job: the port, and its inputs.
        partners: the pairs of layers that are compared.
        rounding: the unit roundoff of the source's type.
    """

    backend: Backend
    model: Model
    draft: Draft
    inputs: Sequence[Any]
    job: Job
    partners: Sequence[Partner]
    rounding: float


def trial(
    backend: Backend, model: Model, draft: Draft, inputs: Sequence[Any], to: str, source: Path, weights: Path,
    rounding: float = ROUNDINGS["float32"],
) -> PortTrial:  # fmt: skip
    """Prepare a comparison: see :class:`PortTrial`."""
    found = partners(draft, [x.name for x in backend[LAYERS].tree(model)])
    orders = list(draft.laid.inputs.values())
    cases = []
    for given in inputs:
        natives = [x if isinstance(x, np.ndarray) else backend[CALLS].numpy(x) for x in arrays(given)]
        narrow = {"f": np.float32, "c": np.complex64}
        natives = [x.astype(narrow.get(x.dtype.kind, x.dtype)) for x in natives]
        cases.append([x.transpose(order) for x, order in zip(natives, orders, strict=True)])
    job = Job(to, source, weights, cases, [p.name for p in found])
    return PortTrial(backend, model, draft, inputs, job, found, rounding)


def references(found: PortTrial) -> list[Reference]:
    """Results of the source at each size; its layers at the first size only."""
    names = [p.source for p in found.partners]
    return [
        reference(found.backend, found.model, given, [] if case else names, names)
        for case, given in enumerate(found.inputs)
    ]


def compared(found: PortTrial, environment: Mapping[str, str] | None = None) -> list[Found]:
    """Run the port in a separate process and, at the same time, the source in this one; see :func:`judged`."""
    with _running([found.job], environment) as outcomes:
        right = references(found)
        return judged(found, outcomes()[0], right)


def judged(found: PortTrial, outcome: Outcome, right_ones: Sequence[Reference] = ()) -> list[Found]:
    """Compare every output at each size, and every pair of layers at the first size.

    Args:
        found: the trial that was run.
        outcome: the result of the port.
        right_ones: the results of the source from :func:`references`; () computes them here.

    Raises:
        InvalidInput: the port did not run.
    """
    if isinstance(outcome, str):
        raise InvalidInput(f"the ported source of {found.draft.program.name} does not run: {outcome}")
    rows: list[Found] = []
    draft = found.draft
    paths = [(path, draft.laid.outputs[path]) for path, _ in draft.program.outputs]
    for case, (right_one, (outputs, layers)) in enumerate(zip(right_ones or references(found), outcome, strict=True)):
        for p in found.partners if case == 0 else ():
            if p.name in layers and p.source in right_one.layers:
                right = right_one.layers[p.source]
                # A layer that runs once per time step is one operator over all steps in the program.
                if right.shape == p.shape:
                    error = distance(layers[p.name], right.transpose(p.places))
                    rows.append(Found(p.name, p.source, case, error, right_one.layer_floors[p.source], found.rounding))
        floors = right_one.output_floors
        for (path, order), mine, right, floor in zip(paths, outputs, right_one.outputs, floors, strict=True):
            error = distance(mine, right.transpose(order))
            rows.append(Found("", path, case, error, floor, found.rounding))
    return rows


def distance(x: Array, right: Array) -> float:
    """The largest difference, relative to the reference's largest number; infinity where NaNs or infinities differ."""
    if x.shape != right.shape:
        return float("inf")
    if x.size == 0:
        return 0.0
    finite = np.isfinite(right)
    if not finite.all() or not np.isfinite(x).all():
        if not np.array_equal(np.where(finite, 0, right), np.where(np.isfinite(x), 0, x), equal_nan=True):
            return float("inf")
        x, right = x[finite], right[finite]
    wide = np.complex128 if np.iscomplexobj(x) or np.iscomplexobj(right) else np.float64
    with np.errstate(over="ignore"):
        # Whole numbers are made real before: the absolute value of the smallest int8 is no int8.
        gap, scale = (float(np.abs(np.subtract(y, right, dtype=wide)).max(initial=0)) for y in (x, 0))
    return gap / scale if scale else gap
