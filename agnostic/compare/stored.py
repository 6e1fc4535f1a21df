"""Records in trace files: what is written of them, and a record again from what was read. See docs/traces.md."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agnostic.compare import noise
from agnostic.compare.inputs import Inputs
from agnostic.compare.judging import Recorded
from agnostic.compare.layouts import Layout
from agnostic.compare.recording import Record, Returned
from agnostic.compare.traces import Trace, TraceWriter
from agnostic.contracts.recording import RECORDING
from agnostic.description import LayerDescription
from agnostic.errors import AgnosticError, InvalidInput
from agnostic.program.exact import evaluated
from agnostic.program.nodes import Array, Leaf, Node, Program, Value
from agnostic.program.runs import LayerRun, Run
from agnostic.program.vocabulary import operators, output_shape
from agnostic.registry import get_backend, registrations

LARGEST = 1 << 32
"""How many numbers a value may have that a stranger's program computes."""


# Writing -------------------------------------------------------------------------------------------------------------
def write(found: Record, writer: TraceWriter, *, weights: bool) -> dict[str, Any]:
    """What a trace says of a record; its arrays are added to the file.

    Args:
        weights: whether the layers' weights are written as descriptions have them, beside those of the program.
    """
    given = {key: writer.add(f"given/{key}", x) for key, x in found.inputs.arrays.items()}
    layers = {}
    for name, d in found.descriptions.items():
        kept = {k: writer.add(f"weights/{name}/{k}", x) for k, x in d.weights.items()} if weights else {}
        layers[name] = {"kind": d.kind, "config": _plain(d.config), "weights": kept}
    return {
        "model": found.model,
        "inputs": {
            "kind": found.inputs.kind, "form": found.inputs.form, "channels_first": found.inputs.channels_first,
            "given": given,
        },
        "fed": [writer.add(f"fed/{i}", x) for i, x in enumerate(found.fed)],
        "layers": layers,
        "program": None if found.program is None else _program(found.program, writer),
        "reason": found.reason,
        "returned": [_returned(x, f"returned/{i}", writer) for i, x in enumerate(found.returned)],
        "outputs": [_returned(x, f"output/{i}", writer) for i, x in enumerate(found.outputs)],
        "layouts": {name: [x.axes, list(x.inner)] for name, x in found.layouts.items()},
        "notes": found.notes,
    }  # fmt: skip


def _returned(x: Returned, name: str, writer: TraceWriter) -> dict[str, Any]:
    return {"name": x.name, "number": x.number, "tensor": writer.add(name, x.read()), "dtype": x.dtype}


def _program(found: Recorded, writer: TraceWriter) -> dict[str, Any]:
    run, program = found.run, found.run.program
    arrays = {value: writer.add(f"program/{value.id}", x) for value, x in run.arrays.items()}
    values = [leaf.value for leaf in program.leaves] + [v for node in program.nodes for v in node.outputs]
    known = set(values)
    outputs = [
        {
            "path": path, "value": value.id, "floor": found.floors[path],
            "tensor": writer.add(f"program/output/{k}", run.outputs[path]),
            "exact": writer.add(f"program/exact/{k}", found.exact[path]),
        }
        for k, (path, value) in enumerate(program.outputs)
    ]  # fmt: skip
    return {
        "name": program.name,
        "framework": program.framework,
        "modules": dict(program.modules),
        "values": [[v.id, list(v.shape), v.dtype] for v in dict.fromkeys((*values, *run.arrays))],
        "leaves": [[leaf.name, leaf.role, leaf.value.id] for leaf in program.leaves],
        "arrays": [[value.id, tensor] for value, tensor in arrays.items()],
        "nodes": [_node(k, node, writer) for k, node in enumerate(program.nodes)],
        "drawn": [value.id for value in sorted(run.drawn, key=lambda v: v.id)],
        "outputs": outputs,
        # What a layer returned besides may be no value of the program, such as the last state of a recurrent layer.
        "calls": [
            [x.name, x.number, [v.id for v in x.inputs if v in known], [v.id for v in x.outputs if v in known]]
            for x in run.calls
        ],
    }


def _node(number: int, node: Node, writer: TraceWriter) -> dict[str, Any]:
    return {
        "operator": node.operator,
        "operands": [_encoded(x) for x in node.operands],
        "attributes": {
            key: {"array": writer.add(f"program/node/{number}/{key}", x)} if isinstance(x, np.ndarray) else _encoded(x)
            for key, x in node.attributes.items()
        },
        "outputs": [v.id for v in node.outputs],
        "module": node.module,
        "kind": node.kind,
        "file": node.file,
        "line": node.line,
    }


def _encoded(x: Any) -> Any:
    """An operand or attribute as JSON can carry it."""
    if isinstance(x, Value):
        return {"value": x.id}
    if isinstance(x, tuple | list):
        return [_encoded(y) for y in x]
    if isinstance(x, np.generic):
        return _encoded(x.item())
    if isinstance(x, complex) or (isinstance(x, float) and not np.isfinite(x)):
        return {"number": repr(x)}
    return x if isinstance(x, str | bool | int | float | None) else {"lost": type(x).__name__}


def _plain(value: Any) -> Any:
    """What JSON can carry."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return repr(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


# Reading -------------------------------------------------------------------------------------------------------------
def opened(trace: Trace) -> Record:
    """The record in a trace."""
    about = trace.about
    given = about["inputs"]
    arrays = {key: trace.read(name) for key, name in given["given"].items()}
    layers = about["layers"].items()
    return Record(
        about["model"],
        Inputs(given["kind"], arrays, given["form"], given["channels_first"]),
        [trace.read(name) for name in about["fed"]],
        {name: LayerDescription(name, x["kind"], x["config"]) for name, x in layers},
        None if about["program"] is None else _recorded(trace, about["program"]),
        about["reason"],
        _listed(trace, about["returned"]),
        _listed(trace, about["outputs"]),
        list(about["notes"]),
        {name: Layout(axes, tuple(inner)) for name, (axes, inner) in about["layouts"].items()},
        trace,
    )


def _listed(trace: Trace, found: Sequence[Mapping[str, Any]]) -> list[Returned]:
    return [
        Returned(x["name"], x["number"], functools.partial(trace.read, x["tensor"]), x["dtype"]) for x in found
    ]  # fmt: skip


def _recorded(trace: Trace, about: Mapping[str, Any]) -> Recorded:
    values = {number: Value(number, tuple(shape), dtype) for number, shape, dtype in about["values"]}
    leaves = tuple(Leaf(name, role, values[number]) for name, role, number in about["leaves"])
    nodes = tuple(_read_node(x, values, trace) for x in about["nodes"])
    for number, node in enumerate(nodes):
        _check_fit(number, node, trace)
    outputs = tuple((x["path"], values[x["value"]]) for x in about["outputs"])
    program = Program(about["name"], about["framework"], leaves, nodes, outputs, about["modules"])
    calls = tuple(
        LayerRun(name, number, tuple(values[v] for v in given), tuple(values[v] for v in returned))
        for name, number, given, returned in about["calls"]
    )
    run = Run(
        program,
        _Arrays(trace, {values[number]: tensor for number, tensor in about["arrays"]}),
        frozenset(values[number] for number in about["drawn"]),
        {x["path"]: trace.read(x["tensor"]) for x in about["outputs"]},
        (),
        calls,
    )
    found = Recorded(run, _Evaluator(trace.about["model"]))
    found.exact = {x["path"]: trace.read(x["exact"]) for x in about["outputs"]}
    found.floors = {x["path"]: _floor(x["floor"], run.outputs[x["path"]], values[x["value"]]) for x in about["outputs"]}
    return found


def _check_fit(number: int, node: Node, trace: Trace) -> None:
    """Raise unless an operator of the vocabulary has operands and attributes that give arrays of its outputs' shapes.

    A stranger may have written the file, and no rule of shapes expects what no reader gives.
    """
    if node.operator not in operators() or node.operator == "custom":
        return
    try:
        found = output_shape(node)
    except (InvalidInput, LookupError, TypeError, ValueError, ArithmeticError, AttributeError, MemoryError):
        found = None
    shapes = [v.shape for v in node.outputs]
    if found not in (shapes[0] if len(shapes) == 1 else None, tuple(shapes), shapes):
        raise InvalidInput(
            f"the trace {trace.path} is damaged (operator {number}, {node.operator}, does not fit its operands): "
            "record it again"
        )


def _floor(stated: float, x: Array, value: Value) -> float:
    return max(stated, noise.least(noise.rms(x), value.dtype))


class _Arrays(Mapping[Value, Array]):
    """Arrays of a file, each read when it is asked for."""

    def __init__(self, trace: Trace, names: Mapping[Value, str]) -> None:
        self._trace, self._names = trace, names

    def __getitem__(self, value: Value) -> Array:
        return self._trace.read(self._names[value])

    def __iter__(self) -> Any:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _read_node(x: Mapping[str, Any], values: Mapping[int, Value], trace: Trace) -> Node:
    attributes = {
        key: trace.read(y["array"]) if isinstance(y, Mapping) and "array" in y else _decoded(y, values)
        for key, y in x["attributes"].items()
    }
    operands = tuple(_decoded(y, values) for y in x["operands"])
    outputs = tuple(values[number] for number in x["outputs"])
    return Node(x["operator"], operands, attributes, outputs, x["module"], x["kind"], x["file"], x["line"])


def _decoded(x: Any, values: Mapping[int, Value]) -> Any:
    if isinstance(x, list):
        return tuple(_decoded(y, values) for y in x)
    if not isinstance(x, Mapping):
        return x
    if "value" in x:
        return values[x["value"]]
    if "number" in x:
        number = complex(x["number"])
        return number.real if number.imag == 0 and "j" not in x["number"] else number
    return _Lost(x["lost"])


class _Lost:
    """An attribute that no file can hold."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


class _Evaluator:
    """Computes the operators of a trace: by the vocabulary's references, else by the framework where it is there.

    Args:
        model: what the trace says of its model.
    """

    def __init__(self, model: Mapping[str, Any]) -> None:
        self._model = model
        self._others: dict[str, Any] = {}

    def __call__(self, node: Node, operands: Sequence[Any]) -> tuple[Array, ...]:
        for x in node.attributes.values():
            if isinstance(x, _Lost):
                raise InvalidInput(f"a trace does not hold how {node.operator} is computed, which is the model's own")
        self._check_size(node)
        if node.operator in operators():
            return evaluated(node, operands)
        found: tuple[Array, ...] = self._backend(node.operator).evaluate(node, operands)
        return found

    def _check_size(self, node: Node) -> None:
        if any(int(np.prod(v.shape, dtype=float)) > LARGEST for v in node.outputs):
            raise InvalidInput(
                f"the trace computes {node.operator} of shape {node.outputs[0].shape}: that is too large"
            )

    def _backend(self, operator: str) -> Any:
        if operator not in self._others:
            self._others[operator] = self._search(operator)
        found = self._others[operator]
        if found is None:
            made = self._model["engine"] or self._model["backend"]
            raise InvalidInput(f"{operator} of this trace is computed by {made} alone, which is not installed or runs "
                               "on another engine here")  # fmt: skip
        return found

    def _search(self, operator: str) -> Any:
        for name in (self._model["engine"], self._model["backend"]):
            if name not in registrations():
                continue
            try:
                backend = get_backend(name)
                if RECORDING in backend and backend[RECORDING].evaluates(operator):
                    return backend[RECORDING]
            except (AgnosticError, ImportError):
                continue
        return None
