"""Blocks of flat models: found by names or by the graph, in an order that can run, with the old name of each layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from agnostic.port.hierarchy import Nested, nested
from agnostic.program.builder import Builder, NodeOrigin
from agnostic.program.evaluate import run
from agnostic.program.nodes import Program, Value


class Flat:
    """Writes a flat model down, layer by layer."""

    def __init__(self) -> None:
        self.builder = Builder()
        self.modules = {"": "Functional"}
        self.x = self.builder.leaf("inputs", "input", (2, 4, 4, 3), "float32")

    def _at(self, name: str, kind: str) -> None:
        self.builder.origin = NodeOrigin(name, kind, calls=("", name))
        self.modules[name] = kind

    def conv(self, x: Value, width: int, name: str, size: int = 1) -> Any:
        self._at(name, "Conv2D")
        kernel = self.builder.leaf(f"{name}.kernel", "parameter", (width, x.shape[-1], size, size), "float32")
        half = size // 2
        return self.builder.emit(
            "convolution", x, kernel, stride=(1, 1), padding=((half, half),) * 2, dilation=(1, 1), channel_axis=-1
        )

    def norm(self, x: Value, name: str) -> Any:
        self._at(name, "BatchNormalization")
        n = x.shape[-1]
        weights = [self.builder.leaf(f"{name}.{w}", "parameter", (n,), "float32") for w in ("mean", "variance")]
        return self.builder.emit("batch_norm", x, *weights, epsilon=1e-3, channel_axis=-1)

    def relu(self, x: Value, name: str) -> Any:
        self._at(name, "ReLU")
        return self.builder.emit("activation", x, function="relu")

    def add(self, x: Value, y: Value, name: str) -> Any:
        self._at(name, "Add")
        return self.builder.emit("add", x, y)

    def program(self, x: Value) -> Program:
        return self.builder.program("net", "keras", {"": x}, self.modules)


def computes_the_same(program: Program, found: Nested) -> None:
    """The new order can run, and gives what the old one gave with the weights under their new names."""
    generator = np.random.default_rng(0)
    weights = {leaf.name: generator.uniform(0.5, 1.5, leaf.value.shape) for leaf in program.of_role("parameter")}
    renamed = {
        leaf.name: weights[found.weights.get(leaf.name, leaf.name)] for leaf in found.program.of_role("parameter")
    }
    x = {"inputs": generator.standard_normal((2, 4, 4, 3))}
    np.testing.assert_array_equal(run(found.program, x, renamed)[""], run(program, x, weights)[""])
    assert len(found.program.nodes) == len(program.nodes)


def named() -> Program:
    """Two residual blocks by name, whose shortcuts run in the middle of them, and a sum that the framework named."""
    f = Flat()
    x = f.conv(f.x, 8, "stem_conv")
    for block in ("stage_1", "stage_2"):
        y = f.conv(x, 4, f"{block}_1_conv")
        z = f.conv(x, 8, f"{block}_0_conv")
        y = f.conv(f.relu(f.norm(y, f"{block}_1_bn"), f"{block}_1_relu"), 8, f"{block}_2_conv", 3)
        x = f.relu(f.add(z, y, f"add_{block[-1]}"), f"{block}_out")
    return f.program(f.conv(x, 5, "head"))


def unnamed() -> Program:
    """Three residual blocks with the framework's names alone."""
    f = Flat()
    numbers: dict[str, int] = {}

    def new(word: str) -> str:
        numbers[word] = numbers.get(word, -1) + 1
        return f"{word}_{numbers[word]}" if numbers[word] else word

    def block(x: Value) -> Any:
        y = f.relu(f.norm(f.conv(x, 4, new("conv2d")), new("batch_normalization")), new("re_lu"))
        y = f.norm(f.conv(y, 6, new("conv2d")), new("batch_normalization"))
        return f.relu(f.add(x, y, new("add")), new("re_lu"))

    x = f.conv(f.x, 6, new("conv2d"))
    for _ in range(3):
        x = block(x)
    return f.program(f.conv(x, 5, new("conv2d")))


def checked(make: Callable[[], Program]) -> Nested:
    program = make()
    found = nested(program)
    computes_the_same(program, found)
    return found


def test_names_that_begin_alike_are_blocks() -> None:
    found = checked(named)
    assert found.layers["stage.1.conv_1"] == "stage_1_1_conv"
    assert found.layers["stage.2.bn_1"] == "stage_2_1_bn"
    assert found.weights["stage.1.conv_0.kernel"] == "stage_1_0_conv.kernel"
    assert found.program.modules["stage.1"] == found.program.modules["stage.2"] == "Residual"
    assert found.program.modules["stage"] == "Stage"
    # What joins a block's result to what it took, and was named by nobody, is the block's.
    [first, second] = [node for node in found.program.nodes if node.operator == "add"]
    assert first.module.startswith("stage.1")
    assert second.module.startswith("stage.2")
    paths = [node.module.rpartition(".")[0] for node in found.program.nodes]
    assert [p for p, before in zip(paths, ["?", *paths], strict=False) if p != before] == ["", "stage.1", "stage.2", ""]


def test_what_repeats_is_a_block_where_names_say_nothing() -> None:
    found = checked(unnamed)
    assert found.layers["blocks.0.conv2d.conv"] == "conv2d_1"
    assert found.layers["blocks.2.conv2d_2.norm"] == "batch_normalization_5"
    assert {found.program.modules[f"blocks.{n}"] for n in range(3)} == {"Residual"}
    assert found.program.modules["blocks.1.conv2d"] == "ConvNormActivation"


def test_a_layer_that_is_called_twice_belongs_to_no_block() -> None:
    f = Flat()
    x = f.relu(f.conv(f.conv(f.x, 3, "a_1_conv"), 3, "a_2_conv"), "a_relu")
    x = f.conv(f.conv(f.conv(x, 3, "middle"), 3, "b_1_conv"), 3, "b_2_conv")
    f.builder.origin = NodeOrigin("a_relu", "ReLU", calls=("", "a_relu@1"))
    program = f.program(f.builder.emit("activation", x, function="relu"))
    found = nested(program)
    computes_the_same(program, found)
    assert [node.module for node in found.program.nodes] == [
        "a.conv_1", "a.conv_2", "a_relu", "middle", "b.conv_1", "b.conv_2", "a_relu"]  # fmt: skip
    assert [node.calls[-1] for node in found.program.nodes if node.module == "a_relu"] == ["a_relu", "a_relu@1"]


def test_models_that_have_blocks_stay_as_they_are() -> None:
    f = Flat()
    f.modules[""] = "Net"
    program = f.program(f.conv(f.conv(f.conv(f.x, 3, "a_1"), 3, "a_2"), 3, "b"))
    assert nested(program).program is program
