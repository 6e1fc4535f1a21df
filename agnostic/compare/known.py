"""Mistakes that have a name: each is one entry, with what it looks like, its patterns over edits, and how it is made.

The entries stand in the order in which they are looked for. Some keys depend on what stands around an edit: those are
told by :mod:`agnostic.compare.naming`; those of weights by :mod:`agnostic.compare.leaf_relations`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agnostic.compare.edits import Edit
from agnostic.compare.lowering import FAMILIES, kind
from agnostic.program.exact import HALVES
from agnostic.program.nodes import Node, Value

ACTIVATIONS = FAMILIES[0] | {"glu"}
POOLS = FAMILIES[1]
RESIZES = FAMILIES[2]
PADS = FAMILIES[6]
NORMS = FAMILIES[4]
_WINDOWS = frozenset({"convolution", "transposed_convolution", *POOLS})

Injection = Callable[[Node], Node | None]
"""Makes the mistake of a node; None where it has no place."""


@dataclass(frozen=True)
class Pattern:
    """Edits that are one mistake.

    Attributes:
        edit: the kind of edit.
        operators: of the node that is edited; empty: any.
        names: of the attribute; empty: any.
        also: what else must be true of the edit.
    """

    edit: str
    operators: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    also: Callable[[Edit], bool] | None = None

    def fits(self, edit: Edit) -> bool:
        """Whether an edit is this."""
        return (
            edit.kind == self.edit
            and (not self.operators or operator_of(edit) in self.operators)
            and (not self.names or edit.name in self.names)
            and (self.also is None or self.also(edit))
        )


@dataclass(frozen=True)
class Mistake:
    """One entry.

    Attributes:
        key: its name.
        looks: what it looks like, as a clause.
        patterns: the edits that it is.
        made: how a test makes it; None where its edits are made by hand.
    """

    key: str
    looks: str
    patterns: tuple[Pattern, ...] = ()
    made: Injection | None = None


def operator_of(edit: Edit) -> str:
    """What the edit is about, in one word."""
    node = edit.a if edit.kind == "missing" else edit.b if edit.b is not None else edit.a
    return "" if node is None else kind(node)


# Parts of patterns ---------------------------------------------------------------------------------------------------
def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _attribute(operators: frozenset[str] | str, names: str, also: Callable[[Edit], bool] | None = None) -> Pattern:
    return Pattern("attribute", _set(operators) if isinstance(operators, str) else operators, _set(names), also)


def _replaced(*groups: frozenset[str] | str) -> Pattern:
    kinds = [_set(x) if isinstance(x, str) else x for x in groups]
    return Pattern("replaced", also=lambda edit: any({edit.ours, edit.theirs} <= group for group in kinds))


def _alone(operators: frozenset[str] | str, also: Callable[[Edit], bool] | None = None) -> tuple[Pattern, Pattern]:
    """An operator that one side has alone."""
    found = _set(operators) if isinstance(operators, str) else operators
    return Pattern("extra", found, also=also), Pattern("missing", found, also=also)


def _is_half(edit: Edit) -> bool:
    return edit.b is not None and edit.b.attributes.get("dtype") in HALVES


def _is_truth(edit: Edit) -> bool:
    """Whether one side takes truth values where the other takes others, or none."""
    return any(isinstance(x, Value) and x.dtype == "bool" for x in (edit.ours, edit.theirs))


def _other_sides(edit: Edit) -> bool:
    """Whether one side pads evenly and the other does not."""
    even = [all(low == high for low, high in side) for side in (edit.ours, edit.theirs)]
    return even[0] != even[1] or all(sum(a) == sum(b) for a, b in zip(edit.ours, edit.theirs, strict=False))


def _own(edit: Edit) -> Node | None:
    return edit.b if edit.kind == "extra" else edit.a


def _uneven(edit: Edit) -> bool:
    node = _own(edit)
    return node is not None and any(low != high for low, high in node.attributes.get("widths", ()))


def _of_images(edit: Edit) -> bool:
    node = _own(edit)
    return node is not None and len(node.outputs[0].shape) == 4


# How mistakes are made -----------------------------------------------------------------------------------------------
def _with(operators: str, name: str, change: Callable[[Any], Any], default: Any = None) -> Injection:
    """A node of these operators with another setting."""

    def made(node: Node) -> Node | None:
        if kind(node) not in operators.split():
            return None
        before = node.attributes.get(name, default)
        after = None if before is None else change(before)
        same = after is None or after == before
        return None if same else replace(node, attributes={**node.attributes, name: after})

    return made


def _as(operators: str, change: Callable[[Node], tuple[str, dict[str, Any]] | None]) -> Injection:
    """Another operator on the same operands."""

    def made(node: Node) -> Node | None:
        found = change(node) if kind(node) in operators.split() else None
        return None if found is None else replace(node, operator=found[0], attributes=found[1])

    return made


def _nothing(operators: frozenset[str]) -> Injection:
    """A node of these operators that gives its operand as it is."""

    def made(node: Node) -> Node | None:
        given = node.operands[0]
        if kind(node) not in operators or getattr(given, "shape", None) != node.outputs[0].shape:
            return None
        return replace(node, operator="identity", operands=(given,), attributes={})

    return made


def _function(name: str, **attributes: Any) -> Callable[[Node], tuple[str, dict[str, Any]]]:
    return lambda node: ("activation", {"function": name, **attributes})


def _shifted(widths: Any) -> Any:
    return tuple((low + 1, high - 1) if low == high > 0 else (low, high) for low, high in widths)


# The entries ---------------------------------------------------------------------------------------------------------
KNOWN: tuple[Mistake, ...] = (
    Mistake("dropout_on", "dropout is on"),
    Mistake("dtype", "the numbers have fewer digits",
            (Pattern("extra", _set("cast"), also=_is_half), Pattern("extra", _set("view rshift bitwise_right_shift")))),
    # Norms
    Mistake("train_mode", "the layer runs in training mode, by the batch's own statistics",
            (_replaced("batch_norm batch_norm_training"),)),
    Mistake("statistics_missing", "the running statistics were never loaded: the mean is 0 and the variance 1"),
    Mistake("mean_variance_swapped", "the running mean and variance are swapped"),
    Mistake("variance_convention",
            "the running variance is another quantity: its root, its inverse, or biased where the other is not"),
    Mistake("gamma_beta_swapped", "scale and offset are swapped"),
    Mistake("batch_norm_epsilon", "the batch norm has another epsilon",
            (_attribute("batch_norm batch_norm_training", "epsilon"),),
            _with("batch_norm", "epsilon", lambda x: x + 0.05)),
    Mistake("layer_norm_epsilon", "the layer norm has another epsilon", (_attribute("layer_norm", "epsilon"),),
            _with("layer_norm", "epsilon", lambda x: x + 0.05)),
    Mistake("norm_epsilon", "the norm has another epsilon", (_attribute("", "epsilon"),),
            _with("group_norm", "epsilon", lambda x: x + 0.05)),
    Mistake("norm_groups", "the group norm has another number of groups", (_attribute("group_norm", "groups"),),
            _with("group_norm", "groups", lambda x: 1 if x > 1 else 2)),
    Mistake("norm_axes", "the norm reduces over other axes",
            (_attribute(NORMS, "axes channel_axis"), _attribute("norm", "axes axis"))),
    # Windows
    Mistake("same_padding",
            "SAME padding stands against explicit padding, which differ where the stride is 2 or the kernel even",
            (_attribute(PADS, "widths", _other_sides),), _with("pad", "widths", _shifted)),
    Mistake("pad_then_stride",
            "the zeros are put around the image at other sides, so that the stride starts elsewhere",
            _alone("pad", _uneven)),
    Mistake("max_pool_padding", "the maximum is taken over zeros of the padding as well",
            (_attribute("pad", "value"),)),
    Mistake("padding", "the padding is another one",
            (_attribute(PADS, "widths"), *_alone("pad"), _attribute(_WINDOWS, "padding"))),
    Mistake("padding_mode", "the border is filled otherwise",
            (*_alone(PADS), _replaced(PADS), _attribute("sample", "fill")),
            _with("pad", "mode", lambda x: "reflect" if x == "constant" else None)),
    Mistake("strides", "the stride is another one", (_attribute(_WINDOWS, "stride"),)),
    Mistake("dilation", "the dilation is another one", (_attribute(_WINDOWS, "dilation"),)),
    Mistake("groups", "the channels are grouped otherwise",
            (_attribute("convolution transposed_convolution", "groups"),)),
    Mistake("transposed_padding", "the transposed convolution's result is cut at other sides",
            (_attribute("transposed_convolution", "crop extra"),)),
    Mistake("average_pool_padding", "the average counts the padding, or leaves it out, where A does not",
            (_attribute(POOLS, "count_padding"),)),
    Mistake("pool_size", "the window of the pool is another one", (_attribute(POOLS, "kernel"),)),
    Mistake("ceil_mode", "incomplete windows at the border are kept by one side only",
            (_attribute(POOLS, "ceil_mode"),)),
    Mistake("reduction_axes", "the numbers are reduced along other axes", (_attribute(POOLS, "axes axis"),)),
    # Weights
    Mistake("kernel_transposed", "two axes of the kernel are swapped"),
    Mistake("kernel_flipped", "the kernel is turned round: a true convolution, where the other correlates"),
    Mistake("gate_order", "the gates of the recurrent layer are in another order"),
    Mistake("weights_permuted", "the weights are A's in another order, or those of another layer"),
    Mistake("weights_scaled", "the weights are A's times a number"),
    Mistake("weights_differ", "the weights differ"),
    # Activations
    Mistake("activation_slope", "the slope of the activation is another one",
            (_attribute(ACTIVATIONS, "negative_slope alpha"),),
            _with("leaky_relu", "negative_slope", lambda x: x * 2, 0.01)),
    Mistake("softmax_axis", "the softmax runs along another axis", (_attribute("softmax log_softmax", "axis"),)),
    Mistake("gelu_tanh", "one GELU is exact, the other its tanh approximation", (_replaced("gelu gelu_tanh"),),
            _as("gelu", _function("gelu_tanh"))),
    Mistake("pool_kind", "the pool takes the maximum where the other takes the mean", (_replaced(POOLS),)),
    Mistake("activation_differs", "the activation is another one",
            (Pattern("attribute", ACTIVATIONS - {"softmax", "log_softmax"}), _replaced(ACTIVATIONS)),
            _as("relu silu hard_silu", lambda node: ("activation", {"function": "gelu"}))),
    Mistake("activation_doubled", "the activation is applied twice"),
    Mistake("activation_missing", "the activation is missing", (Pattern("missing", ACTIVATIONS),),
            _nothing(_set("relu gelu silu tanh sigmoid"))),
    Mistake("activation_extra", "an activation stands where A has none", (Pattern("extra", ACTIVATIONS),)),
    # Resizing
    Mistake("align_corners", "one side aligns the corners' centres, the other does not",
            (_attribute(RESIZES | {"sample"}, "align_corners"),),
            _with("resize_bilinear", "align_corners", lambda x: not x, default=False)),
    Mistake("half_pixel", "pixels are centred at i + 0.5 by one side and at i by the other",
            (_attribute(RESIZES, "half_pixel"),)),
    Mistake("antialias", "one side filters before it shrinks", (_attribute(RESIZES, "antialias"),)),
    Mistake("cubic", "the cubic of bicubic is another one: -0.75 against -0.5", (_attribute(RESIZES, "cubic edges"),)),
    Mistake("interpolation", "the image is resized by another interpolation",
            (Pattern("attribute", RESIZES), _replaced(RESIZES), _attribute("sample", "method"))),
    # Sequences
    Mistake("reset_after",
            "the GRU resets the state after the product where the other resets it before, or the reverse",
            (_attribute("gru", "reset_after"),)),
    Mistake("direction", "the sequence is read from the other end, or shifted the other way",
            (_attribute("lstm gru rnn", "reverse"), _attribute("roll", "shifts"))),
    Mistake("sequence_step", "another part of the sequence is taken",
            (_attribute("select", "index"), _replaced("select mean sum max slice"))),
    Mistake("attention_scale", "the attention's scores have another scale"),
    Mistake("attention_mask", "other places are masked, or with another number, or none",
            (*_alone("where triangle"), Pattern("attribute", _set("triangle where")), Pattern("number", _set("where")),
             Pattern("operand", _set("lstm gru rnn"), also=_is_truth)),
            _with("triangle", "diagonal", lambda x: x + 1, default=0)),
    Mistake("attention_heads", "the features are split into heads, or put together, otherwise",
            (Pattern("shape", _set("permute reshape")), _attribute("select slice", "axis"))),
    # Order of features
    Mistake("flatten_order", "the features were flattened in another order: (C, H, W) against (H, W, C)"),
    Mistake("channel_order", "the channels are in reverse order: RGB against BGR", _alone("flip", _of_images)),
    Mistake("preprocessing_range", "the input has another range, mean or standard deviation"),
    Mistake("wrong_part", "another part of an array is taken, or written",
            (_attribute("slice", "start stop step"), Pattern("part"),
             _attribute("view.gather view.scatter take gather index", "places axis index"))),
    Mistake("concatenation_order", "the parts are concatenated in another order", (Pattern("order"),)),
    Mistake("features_permuted", "the features are A's in another order",
            (Pattern("attribute", _set("roll flip permute")), *_alone("permute"), *_alone("roll"))),
    Mistake("reversed", "an axis runs backwards", _alone("flip")),
    # Structure
    Mistake("residual_missing", "what goes round the block is not added", (Pattern("missing", _set("add subtract")),)),
    Mistake("residual_differs", "the sum has other parts, or other factors", (Pattern("extra", _set("add subtract")),)),
    Mistake("scale_missing", "a factor is missing", (Pattern("missing", _set("multiply divide")),)),
    Mistake("constant_factor", "the result is A's times a constant",
            (Pattern("extra", _set("multiply divide")), Pattern("number", _set("multiply divide")))),
    Mistake("constant_offset", "the result is A's plus a constant", (Pattern("number", _set("add subtract")),)),
    Mistake("constant_differs", "a number in the code is another one", (Pattern("number"),
            _attribute("full arange linspace", "start end step value length"))),
    Mistake("bias_missing", "the offset is missing",
            (Pattern("operand", _set("linear convolution"), also=lambda e: e.theirs is None),)),
    Mistake("layer_kind", "another operator stands there, or the layer is of another kind", (Pattern("replaced"),)),
    Mistake("layer_missing", "a layer is missing", (Pattern("missing"),)),
    Mistake("layer_extra", "there is a layer that A does not have", (Pattern("extra"),)),
    Mistake("layer_order", "a layer takes what another one should take, or two stand in the other order",
            (Pattern("operand"),)),
    Mistake("broadcast", "an array is laid along other axes of another", (Pattern("shape"),)),
    Mistake("setting_differs", "an operator has another setting", (Pattern("attribute"),)),
    # Training
    Mistake("optimizer_convention", "the optimizers follow another convention"),
    Mistake("unexplained", "no known mistake removes the error"),
)  # fmt: skip
"""In the order in which they are looked for."""


def mistake_of(edit: Edit) -> str:
    """The key of one edit's mistake."""
    return next((x.key for x in KNOWN if any(p.fits(edit) for p in x.patterns)), "unexplained")


RANK: Sequence[str] = (
    "dropout_on", "dtype", "train_mode", "pool_kind", "pool_size", "average_pool_padding", "padding_mode",
    "pad_then_stride", "dilation", "strides", "attention_heads", "attention_mask",
)  # fmt: skip
"""What names a difference of several edits; else the first edit does."""

TOGETHER = frozenset({
    "dropout_on", "dtype", "pool_kind", "average_pool_padding", "padding_mode", "pad_then_stride", "dilation",
    "attention_heads", "attention_mask", "preprocessing_range", "gamma_beta_swapped", "mean_variance_swapped",
    "layer_order", "layer_missing",
})  # fmt: skip
"""Mistakes that take several edits, at whatever lines they stand."""


def markdown() -> str:
    """The table of docs/compare.md."""
    lines = ["| key | what it looks like |", "| --- | --- |"]
    lines += [f"| `{x.key}` | {x.looks} |" for x in KNOWN]
    return "\n".join(lines) + "\n"
