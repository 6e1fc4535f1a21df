"""The vocabulary, the passes and the text of programs, without any framework."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest

import agnostic as ag
from agnostic.program.builder import Builder, NodeOrigin
from agnostic.program.evaluate import run
from agnostic.program.loops import unrolled
from agnostic.program.nodes import Program
from agnostic.program.passes import simplified
from agnostic.program.text import data
from agnostic.program.views import read, steps_between, written
from agnostic.program.vocabulary import get, none, operators


def test_each_operator_says_what_it_computes_and_has_its_attributes_by_name() -> None:
    assert len(operators()) > 70
    for name, entry in operators().items():
        assert entry.summary.endswith((".", ":")), name
        assert entry.operands or name == "eye", name
        kinds = [p.kind for p in inspect.signature(entry.evaluate).parameters.values()]
        assert inspect.Parameter.VAR_POSITIONAL not in kinds, name


def test_an_unknown_operator_is_named_with_the_nearest() -> None:
    with pytest.raises(ag.UnknownName, match="did you mean 'convolution'"):
        get("convolutoin")


def masked() -> Program:
    builder = Builder(origin=NodeOrigin("head", "Head", "model.py", 7))
    x = builder.leaf("x", "input", (2, 3), "float32")
    ones = builder.emit("full", 1, shape=(3, 3), dtype="float32")
    mask = builder.emit("triangle", builder.emit("identity", ones))
    unused = builder.emit("add", x, 1.0)
    assert unused.shape == (2, 3)
    y = builder.emit("matmul", builder.emit("reshape", x, shape=(2, 3)), mask)
    return builder.program("Head", "none", {"": builder.emit("dropout", y, rate=0.5)})


def test_constants_are_folded_and_what_computes_nothing_is_left_out() -> None:
    long, short = masked(), simplified(masked())
    assert [node.operator for node in short.nodes] == ["matmul", "dropout"]
    [constant] = short.of_role("constant")
    assert constant.array is not None
    np.testing.assert_array_equal(constant.array, np.tri(3))
    x = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(run(long, {"x": x}, {})[""], run(short, {"x": x}, {})[""])


def test_the_text_names_layers_places_operands_and_shapes() -> None:
    lines = str(simplified(masked())).splitlines()
    assert lines[0] == "Head (none): 2 operators, 0 parameters, 36 floating-point operations"
    assert lines[1:3] == ["input x: 2 x 3 float32", "head: Head  model.py:7"]
    assert lines[3].split() == ["%1", "=", "matmul(x,", "constant_4)", "2", "x", "3", "float32"]


def test_the_data_is_json() -> None:
    found = json.loads(json.dumps(data(simplified(masked()))))
    assert [node["operator"] for node in found["nodes"]] == ["matmul", "dropout"]
    assert found["nodes"][0]["file"] == "model.py"


def test_missing_and_misshapen_inputs_are_one_sentence() -> None:
    program = masked()
    with pytest.raises(ag.InvalidInput, match=r"input 'x' is missing"):
        run(program, {}, {})
    with pytest.raises(ag.InvalidInput, match=r"input 'x' has shape \(3, 3\).*\(2, 3\)"):
        run(program, {"x": np.ones((3, 3))}, {})


def test_a_wrong_attribute_or_shape_is_refused_where_it_is_written() -> None:
    builder = Builder()
    x = builder.leaf("x", "input", (2, 3), "float32")
    with pytest.raises(ag.InvalidInput, match="'softmax' has no attribute 'dim'"):
        builder.emit("softmax", x, dim=1)
    with pytest.raises(ag.InvalidInput, match="do not broadcast"):
        builder.emit("add", x, builder.leaf("y", "input", (2, 4), "float32"))


@pytest.mark.parametrize(
    "steps",
    [
        [("slice", {"axis": 1, "start": 1, "stop": 4, "step": 2})],
        [("select", {"axis": 0, "index": 1})],
        [
            ("permute", {"axes": (2, 0, 1)}),
            ("reshape", {"shape": (5, 8)}),
            ("slice", {"axis": 1, "start": 2, "stop": 6}),
        ],
        [("slice", {"axis": 2, "start": 0, "stop": 3}), ("select", {"axis": 1, "index": 2}), ("identity", {})],
    ],
)
def test_what_is_written_through_a_view_is_what_numpy_writes(steps: list[tuple[str, dict[str, object]]]) -> None:
    """The law of lenses: NumPy, where views share memory, is the judge."""
    builder = Builder()
    x = builder.leaf("x", "input", (2, 4, 5), "float64")
    view = x
    for operator, attributes in steps:
        view = builder.emit(operator, view, **attributes)
    found = steps_between(x, view, builder.nodes)
    assert found is not None
    part = builder.leaf("part", "input", view.shape, "float64")
    whole = written(builder, x, found, part)
    program = builder.program("", "none", {"whole": whole, "again": read(builder, whole, found), "view": view})

    array = np.arange(40.0).reshape(2, 4, 5)
    right = array.copy()
    places = np.arange(40).reshape(2, 4, 5)
    seen = run(program, {"x": places, "part": np.zeros(view.shape)}, {})["view"]
    new = -1.0 - np.arange(np.prod(view.shape)).reshape(view.shape)
    right.reshape(-1)[seen.reshape(-1)] = new.reshape(-1)
    result = run(program, {"x": array, "part": new}, {})
    np.testing.assert_array_equal(result["whole"], right)
    np.testing.assert_array_equal(result["again"], new)


def test_each_operator_says_its_formula_attributes_shape_and_cost() -> None:
    """An entry of the vocabulary is whole: it is what every reader and writer is held to."""
    lacking = []
    for name, entry in operators().items():
        doc = inspect.getdoc(entry.evaluate) or ""
        lacking += [f"{name}: attribute {x}" for x in entry.defaults if x != "dtype" and x not in doc]
        if entry.flops is not none and "``" not in doc and "=" not in doc:
            lacking.append(f"{name}: formula")
        assert callable(entry.shape)
        assert callable(entry.flops)
    assert not lacking


def test_a_loop_runs_its_nodes_for_each_place_and_is_written_out() -> None:
    builder = Builder()
    x, start = builder.leaf("x", "input", (2, 3, 4), "float32"), builder.leaf("start", "input", (2, 4), "float32")
    seen = builder.leaf("seen", "input", (3, 2), "bool")
    now, state = builder.emit("loop_start", (x,), (start,), axes=(1,))
    total = builder.emit("add", builder.emit("multiply", state, 0.5), now)
    doubled = builder.emit("multiply", total, 2.0)
    outputs, last = builder.emit("loop_end", doubled, (total,), seen, axis=1, length=3, hidden="last")
    program = builder.program("Sums", "none", {"outputs": outputs, "last": last})
    arrays = np.random.default_rng(0).standard_normal((2, 4, 4))
    given = {"x": arrays[:, :3], "start": arrays[:, 3], "seen": np.array([[False, True], [True, False], [True, True]])}
    found = run(program, given, {})
    state, output, right = given["start"], np.zeros((2, 4)), []
    for t in range(3):
        new, there = state * 0.5 + given["x"][:, t], given["seen"][t][:, None]
        state, output = np.where(there, new, state), np.where(there, 2 * new, output)
        right.append(output)
    np.testing.assert_array_equal(found["outputs"], np.stack(right, 1))
    np.testing.assert_array_equal(found["last"], state)
    assert program.flops == 3 * 3 * 8
    assert {node.operator for node in unrolled(program).nodes} >= {"select", "where", "stack"}
    assert simplified(program).nodes == program.nodes
    with pytest.raises(ag.InvalidInput, match="unrolled"):
        get("loop_start").evaluate((), (), axes=())
