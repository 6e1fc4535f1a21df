"""Functions that the user fills in: their recorded inputs and outputs, and a file that tests them.

Inputs of an operator that only the source's framework can compute are recorded there. The operators around it, and
those that only the target lacks, are computed by the vocabulary's NumPy reference in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agnostic.port.code import Dim, literal
from agnostic.port.dialect import Testing
from agnostic.port.functions import Stub
from agnostic.port.sources import Draft, file_name
from agnostic.program.evaluate import leaves, walk
from agnostic.program.nodes import Array, Value, values_in

MOST = 3
"""Calls of one function that are kept, each otherwise than those before."""


@dataclass(frozen=True)
class Kept:
    """Recorded calls, and the test of the functions.

    Attributes:
        arrays: by name: ``"twist_1_x"`` is the input x of the first call of ``twist``, ``"twist_1_result_0"`` its
            output; ``"input_0"`` and ``"output_0"`` are those of the model.
        test: the text of a test file.
    """

    arrays: Mapping[str, Array]
    test: str


def kept(
    draft: Draft,
    testing: Testing,
    inputs: Sequence[Array],
    outputs: Sequence[Array],
    weights: Mapping[str, Array],
    recorded: Mapping[Value, Array],
) -> Kept:
    """Compute inputs and outputs of each function, and write the test.

    Args:
        draft: a port with functions to fill in.
        testing: pieces of a test in the target's framework.
        inputs, outputs: of the source model, in order, at the size of the draft's program.
        weights: of the source model, by name.
        recorded: results of custom operators in a run of the source, by the values of its program.
    """
    values = _values(draft, inputs, weights, recorded)
    arrays: dict[str, Array] = {}
    tests: list[str] = []
    for name, stub in _chosen(draft.stubs):
        given = [
            _argument(f"{name}_{parameter}", operand, values, arrays)
            for parameter, operand in zip(stub.parameters, stub.operands, strict=True)
        ]
        results = [f"{name}_result_{place}" for place in range(len(stub.node.outputs))]
        for key, value in zip(results, stub.node.outputs, strict=True):
            arrays[key] = _single(values[value])
        call = f"ported.{stub.function}({', '.join(given)})"
        tests += [f"def test_{name}():", f"    assert_same({call}, {_listed(results)})", "", ""]
    for place, (x, order) in enumerate(zip(inputs, draft.laid.inputs.values(), strict=True)):
        arrays[f"input_{place}"] = np.ascontiguousarray(x.transpose(order))
    for place, (x, (path, _)) in enumerate(zip(outputs, draft.program.outputs, strict=True)):
        arrays[f"output_{place}"] = np.ascontiguousarray(x.transpose(draft.laid.outputs[path]))
    return Kept(arrays, _file(draft, testing, tests, len(inputs), len(outputs)))


def _chosen(stubs: Sequence[Stub]) -> Iterator[tuple[str, Stub]]:
    """The calls that are kept, each with a name."""
    seen: dict[str, list[Any]] = {}
    for stub in stubs:
        known = seen.setdefault(stub.function, [])
        like = [o.shape if isinstance(o, Value) else repr(o) for o in stub.operands]
        if like not in known and len(known) < MOST:
            known.append(like)
            yield f"{stub.function}_{len(known)}", stub


def _values(
    draft: Draft, inputs: Sequence[Array], weights: Mapping[str, Array], recorded: Mapping[Value, Array]
) -> dict[Value, Array]:
    """The inputs and outputs of stubs, with the axes of the target."""
    laid = draft.laid
    wanted = {v for stub in draft.stubs for o in (*stub.operands, stub.node.outputs) for v in values_in(o)}
    known = {laid.places[value][0]: array for value, array in recorded.items() if value in laid.places}
    given = {name: x.transpose(order) for (name, order), x in zip(laid.inputs.items(), inputs, strict=True)}
    moved = {name: laid.weights[name](x) if name in laid.weights else x for name, x in weights.items()}
    found: dict[Value, Array] = {}
    found.update((v, x) for v, x in leaves(laid.program, given, moved).items() if v in wanted)
    for node, results in walk(laid.program, given, moved, given_values=known):
        found.update((v, x) for v, x in zip(node.outputs, results, strict=True) if v in wanted)
    return found


def _single(x: Array) -> Array:
    x = np.asarray(x)
    return x.astype(np.float32) if x.dtype.kind == "f" else x


def _argument(name: str, operand: Any, values: Mapping[Value, Array], arrays: dict[str, Array]) -> str:
    """The code of an argument; arrays are kept under names that begin with its own."""
    if isinstance(operand, Value):
        arrays[name] = _single(values[operand])
        return f'array("{name}")'
    if isinstance(operand, tuple | list):
        parts = [_argument(f"{name}_{place}", part, values, arrays) for place, part in enumerate(operand)]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
    return literal(int(operand) if isinstance(operand, Dim) else operand)


def _listed(names: Sequence[str]) -> str:
    return f"[{', '.join(literal(name) for name in names)}]"


def _file(draft: Draft, testing: Testing, tests: Sequence[str], inputs: int, outputs: int) -> str:
    name = file_name(draft.program)
    lines = [
        f'"""Tests of the functions of {name}.py that are to be filled in: they fail until then, and pass after."""',
        "",
        "import sys",
        "from pathlib import Path",
        "",
        "import numpy as np",
        testing.imports,
        "",
        "HERE = Path(__file__).parent",
        "sys.path.insert(0, str(HERE))",
        f"import {name} as ported  # noqa: E402",
        "",
        f'CALLS = np.load(HERE / "{name}_calls.npz")',
        "TOLERANCE = 1e-4  # of the largest number: float32 rounds each operation to 6e-8, and the source did so too",
        "",
        "",
        "def array(name):",
        '    """What was recorded, in the framework of the model."""',
        f"    return {testing.native.format('CALLS[name]')}",
        "",
        "",
        "def leaves(x):",
        '    """The arrays in tuples, lists and dicts, in order."""',
        "    x = list(x.values()) if isinstance(x, dict) else x",
        "    return [leaf for part in x for leaf in leaves(part)] if isinstance(x, (list, tuple)) else [x]",
        "",
        "",
        "def assert_same(found, names):",
        '    """What was computed is what was recorded."""',
        "    found = leaves(found)",
        "    assert len(found) == len(names)",
        "    for x, name in zip(found, names):",
        f"        x, right = np.asarray({testing.numpy.format('x')}), CALLS[name]",
        "        assert x.shape == right.shape, (name, x.shape, right.shape)",
        "        largest = np.abs(right[np.isfinite(right)]).max(initial=0.0)",
        "        np.testing.assert_allclose(x, right, rtol=0, atol=TOLERANCE * largest, err_msg=name)",
        "",
        "",
        *tests,
        "def test_the_model():",
        f"    inputs = [array(name) for name in {_listed([f'input_{n}' for n in range(inputs)])}]",
        f'    model = ported.make_model(next(path for path in HERE.glob("{name}.*") if path.suffix != ".py"))',
        f"    assert_same({testing.call}, {_listed([f'output_{n}' for n in range(outputs)])})",
    ]
    return "\n".join(lines) + "\n"
