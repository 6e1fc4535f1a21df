"""Checks of ports: the spelling of source, the file of its weights, and models that were built from source."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.contracts.ported import PORTED
from agnostic.contracts.writer import WRITER
from agnostic.models.load import executed
from agnostic.port.dialect import Dialect
from agnostic.port.sources import Draft, drafted
from agnostic.program.builder import Builder, NodeOrigin
from agnostic.program.evaluate import run as evaluate
from agnostic.program.nodes import Program
from agnostic.registry import Model
from agnostic.testing import operations
from agnostic.testing.subject import Subject, require
from agnostic.text import counted

Array = npt.NDArray[Any]

FACTS = ("name", "channels", "reserved", "modules", "helpers")
"""What a dialect states; its methods are the other members of :class:`agnostic.port.dialect.Dialect`."""


def a_program() -> tuple[Program, dict[str, Array], Array]:
    """A program that needs layers, weights in another order, axes and a residual sum; its weights, and an input."""
    rng = np.random.default_rng(0)
    weights = {
        "conv.weight": rng.normal(0, 0.3, (4, 3, 3, 3)), "conv.bias": rng.normal(0, 0.1, 4),
        "head.weight": rng.normal(0, 0.3, (5, 4 * 6 * 6)), "head.bias": rng.normal(0, 0.1, 5),
    }  # fmt: skip
    weights = {name: x.astype(np.float32) for name, x in weights.items()}
    builder = Builder()
    x = builder.leaf("x", "input", (2, 3, 8, 8), "float32")
    leaves = {name: builder.leaf(name, "parameter", w.shape, "float32") for name, w in weights.items()}
    builder.origin = NodeOrigin("conv", "Conv", calls=("", "conv"))
    options: dict[str, Any] = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    y = builder.emit("convolution", x, leaves["conv.weight"], leaves["conv.bias"], **options)
    builder.origin = NodeOrigin("", "Examined", calls=("",))
    y = builder.emit("add", y, builder.emit("activation", y, function="tanh"))
    y = builder.emit("reshape", y, shape=(2, 4 * 6 * 6))
    builder.origin = NodeOrigin("head", "Head", calls=("", "head"))
    y = builder.emit("linear", y, leaves["head.weight"], leaves["head.bias"])
    return builder.program("Examined", "none", {"": y}), weights, rng.normal(size=(2, 3, 8, 8)).astype(np.float32)


def dialects_are_whole(subject: Subject) -> None:
    """``dialect`` gives every member of :class:`agnostic.port.dialect.Dialect`, named after the backend."""
    found = subject.owner[WRITER].dialect()
    members = [*FACTS, *(name for name in vars(Dialect) if not name.startswith("_"))]
    missing = [name for name in dict.fromkeys(members) if not hasattr(found, name)]
    require(not missing, WRITER, "dialect", f"the dialect has no {', '.join(missing)}")
    require(found.name == subject.backend, WRITER, "dialect", f"the dialect's name is {found.name!r}")
    require(found.channels in (-1, 1), WRITER, "dialect", f"the dialect's channels are {found.channels!r}, not -1 or 1")


def _built(subject: Subject, folder: Path) -> tuple[Draft, Model]:
    writer = subject.owner[WRITER]
    program, weights, _ = a_program()
    draft = drafted([program], writer.dialect())
    source = folder / "examined.py"
    source.write_text(draft.written.text, encoding="utf-8")
    path = writer.write_weights(draft.arrays(weights), folder, "examined")
    held = isinstance(path, Path) and path.parent == folder and path.stem == "examined" and path.is_file()
    require(held, WRITER, "write_weights", f"there is no file 'examined' in the folder, but {path}")
    return draft, executed(source).make_model(path)


def written_source_computes_the_program(subject: Subject) -> None:
    """Source in the dialect, filled by ``write_weights`` and run by ``run``, computes what the program does."""
    program, weights, x = a_program()
    right = evaluate(program, {"x": x}, weights)[""]
    with tempfile.TemporaryDirectory() as folder:
        draft, model = _built(subject, Path(folder))
        outputs, _ = _run(subject, model, [x.transpose(draft.laid.inputs["x"])], [])
    require(len(outputs) == 1, PORTED, "run", f"it returned {counted(len(outputs), 'output')} instead of one")
    said = "the written source, with the file of 'write_weights', does not compute what the program does"
    require(_near(outputs[0], right), WRITER, "dialect", said)


def layers_of_ports_are_told(subject: Subject) -> None:
    """``run`` gives what a named layer returned, of no other layer, and the same outputs with and without."""
    program, weights, x = a_program()
    convolved = program.nodes[0].outputs[0]
    right = evaluate(replace(program, outputs=(("", convolved),)), {"x": x}, weights)[""]
    with tempfile.TemporaryDirectory() as folder:
        draft, model = _built(subject, Path(folder))
        given, (value, places) = [x.transpose(draft.laid.inputs["x"])], draft.laid.places[convolved]
        names = [name for name, returned in draft.written.layers.items() if returned == value]
        require(len(names) == 1, WRITER, "dialect", f"a convolution with weights of its own is the layers {names}")
        plain, none = _run(subject, model, given, [])
        outputs, layers = _run(subject, model, given, names)
    require(not none, PORTED, "run", "asked for no layer it told of layers")
    same = len(plain) == len(outputs) and all(map(np.array_equal, plain, outputs))
    require(same, PORTED, "run", "another output where a layer is asked for")
    require(list(layers) == names, PORTED, "run", f"asked for the layers {names} it told of {list(layers)}")
    told = _near(layers[names[0]], right.transpose(places))
    require(told, PORTED, "run", f"what it says of the layer {names[0]!r} is not what that returned")


def _run(subject: Subject, model: Model, given: Sequence[Array], names: Sequence[str]) -> tuple[list[Array], Any]:
    layers: dict[str, Array] = {}
    outputs = subject.owner[PORTED].run(model, given, names, lambda name, x: layers.update({name: x.copy()}))
    return outputs, layers


def _near(found: Array, right: Array) -> bool:
    # float32 in the model: sums of at most 144 products (see CONTRIBUTING, Tolerances).
    return found.shape == right.shape and float(np.abs(found - right).max()) <= operations.tolerance(right)


CHECKS: Mapping[str, Sequence[Callable[[Subject], None]]] = {
    "writer": (dialects_are_whole, written_source_computes_the_program),
    "ported": (layers_of_ports_are_told,),
}
