"""Mistakes that have a name: each one a pattern over edits, the first that fits counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agnostic.compare.edits import Edit
from agnostic.compare.lowering import FAMILIES, kind
from agnostic.program.exact import HALVES

ACTIVATIONS = FAMILIES[0] | {"glu"}
POOLS = FAMILIES[1]
RESIZES = FAMILIES[2]
PADS = FAMILIES[6]
NORMS = FAMILIES[4]
_WINDOWS = frozenset({"convolution", "transposed_convolution", *POOLS})


@dataclass(frozen=True)
class Known:
    """One mistake.

    Attributes:
        mistake: its key.
        edit: the kind of edit.
        operators: of the node that is edited; empty: any.
        names: of the attribute; empty: any.
        also: what else must be true of the edit.
    """

    mistake: str
    edit: str
    operators: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    also: Callable[[Edit], bool] | None = None

    def fits(self, edit: Edit) -> bool:
        """Whether an edit is this mistake."""
        return (
            edit.kind == self.edit
            and (not self.operators or operator_of(edit) in self.operators)
            and (not self.names or edit.name in self.names)
            and (self.also is None or self.also(edit))
        )


def operator_of(edit: Edit) -> str:
    """What the edit is about, in one word."""
    node = edit.a if edit.kind == "missing" else edit.b if edit.b is not None else edit.a
    return "" if node is None else kind(node)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _between(*kinds: frozenset[str]) -> Callable[[Edit], bool]:
    return lambda edit: any({edit.ours, edit.theirs} <= group for group in kinds)


def _is_half(edit: Edit) -> bool:
    return edit.b is not None and edit.b.attributes.get("dtype") in HALVES


def _widths(edit: Edit) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """(A's, B's) zeros before and after each axis of a padding."""
    return list(zip(edit.ours, edit.theirs, strict=False))


def _other_sides(edit: Edit) -> bool:
    """Whether one side pads evenly and the other does not."""
    even = [all(low == high for low, high in side) for side in (edit.ours, edit.theirs)]
    return even[0] != even[1] or all(sum(a) == sum(b) for a, b in _widths(edit))


def _uneven(edit: Edit) -> bool:
    node = edit.b if edit.kind == "extra" else edit.a
    return node is not None and any(low != high for low, high in node.attributes.get("widths", ()))


def _of_images(edit: Edit) -> bool:
    node = edit.b if edit.kind == "extra" else edit.a
    return node is not None and len(node.outputs[0].shape) == 4


KNOWN: tuple[Known, ...] = (
    Known("dtype", "extra", _set("cast"), also=_is_half),
    Known("dtype", "extra", _set("view rshift bitwise_right_shift")),
    Known("train_mode", "replaced", also=_between(_set("batch_norm batch_norm_training"))),
    Known("batch_norm_epsilon", "attribute", _set("batch_norm batch_norm_training"), _set("epsilon")),
    Known("layer_norm_epsilon", "attribute", _set("layer_norm"), _set("epsilon")),
    Known("norm_epsilon", "attribute", names=_set("epsilon")),
    Known("norm_groups", "attribute", _set("group_norm"), _set("groups")),
    Known("norm_axes", "attribute", NORMS, _set("axes channel_axis")),
    Known("same_padding", "attribute", PADS, _set("widths"), also=_other_sides),
    Known("padding", "attribute", PADS, _set("widths")),
    Known("max_pool_padding", "attribute", _set("pad"), _set("value")),
    Known("pad_then_stride", "extra", _set("pad"), also=_uneven),
    Known("pad_then_stride", "missing", _set("pad"), also=_uneven),
    Known("padding", "extra", _set("pad")),
    Known("padding", "missing", _set("pad")),
    Known("padding_mode", "missing", PADS),
    Known("padding_mode", "extra", PADS),
    Known("padding_mode", "replaced", also=_between(PADS)),
    Known("strides", "attribute", _WINDOWS, _set("stride")),
    Known("dilation", "attribute", _WINDOWS, _set("dilation")),
    Known("groups", "attribute", _set("convolution transposed_convolution"), _set("groups")),
    Known("transposed_padding", "attribute", _set("transposed_convolution"), _set("crop extra")),
    Known("average_pool_padding", "attribute", POOLS, _set("count_padding")),
    Known("padding", "attribute", _WINDOWS, _set("padding")),
    Known("pool_size", "attribute", POOLS, _set("kernel")),
    Known("ceil_mode", "attribute", POOLS, _set("ceil_mode")),
    Known("activation_slope", "attribute", ACTIVATIONS, _set("negative_slope alpha")),
    Known("activation_differs", "attribute", ACTIVATIONS - {"softmax", "log_softmax"}),
    Known("softmax_axis", "attribute", _set("softmax log_softmax"), _set("axis")),
    Known("align_corners", "attribute", RESIZES, _set("align_corners")),
    Known("half_pixel", "attribute", RESIZES, _set("half_pixel")),
    Known("antialias", "attribute", RESIZES, _set("antialias")),
    Known("cubic", "attribute", RESIZES, _set("cubic edges")),
    Known("interpolation", "attribute", RESIZES),
    Known("reset_after", "attribute", _set("gru"), _set("reset_after")),
    Known("direction", "attribute", _set("lstm gru rnn"), _set("reverse")),
    Known("sequence_step", "attribute", _set("select"), _set("index")),
    Known("wrong_part", "attribute", _set("slice"), _set("start stop")),
    Known("gelu_tanh", "replaced", also=_between(_set("gelu gelu_tanh"))),
    Known("pool_kind", "replaced", also=_between(POOLS)),
    Known("sequence_step", "replaced", also=_between(_set("select mean sum max slice"))),
    Known("interpolation", "replaced", also=_between(RESIZES)),
    Known("activation_differs", "replaced", also=_between(ACTIVATIONS)),
    Known("attention_mask", "extra", _set("where triangle")),
    Known("attention_mask", "missing", _set("where triangle")),
    Known("attention_mask", "attribute", _set("triangle where")),
    Known("attention_mask", "number", _set("where")),
    Known("direction", "attribute", _set("roll"), _set("shifts")),
    Known("features_permuted", "attribute", _set("roll flip permute")),
    Known("channel_order", "extra", _set("flip"), also=_of_images),
    Known("channel_order", "missing", _set("flip"), also=_of_images),
    Known("reversed", "extra", _set("flip")),
    Known("reversed", "missing", _set("flip")),
    Known("concatenation_order", "order"),
    Known("activation_missing", "missing", ACTIVATIONS),
    Known("activation_extra", "extra", ACTIVATIONS),
    Known("residual_missing", "missing", _set("add subtract")),
    Known("residual_differs", "extra", _set("add subtract")),
    Known("scale_missing", "missing", _set("multiply divide")),
    Known("constant_factor", "extra", _set("multiply divide")),
    Known("features_permuted", "extra", _set("permute")),
    Known("features_permuted", "missing", _set("permute")),
    Known("attention_heads", "shape", _set("permute reshape")),
    Known("constant_factor", "number", _set("multiply divide")),
    Known("constant_offset", "number", _set("add subtract")),
    Known("bias_missing", "operand", _set("linear convolution"), also=lambda e: e.theirs is None),
    Known("layer_kind", "replaced"),
    Known("layer_missing", "missing"),
    Known("layer_extra", "extra"),
    Known("layer_order", "operand"),
)
"""In the order in which they are looked for. Weights are told by :mod:`agnostic.compare.leaf_relations`."""


def mistake_of(edit: Edit) -> str:
    """The key of one edit's mistake."""
    return next((known.mistake for known in KNOWN if known.fits(edit)), "unexplained")


RANK: Sequence[str] = (
    "dropout_on", "dtype", "train_mode", "pool_kind", "average_pool_padding", "padding_mode", "pad_then_stride",
    "dilation", "strides", "attention_heads", "attention_mask",
)  # fmt: skip
"""What names a difference of several edits; else the first edit does."""

TOGETHER = frozenset({
    "dropout_on", "dtype", "pool_kind", "average_pool_padding", "padding_mode", "pad_then_stride", "dilation",
    "attention_heads", "attention_mask", "preprocessing_range", "gamma_beta_swapped", "mean_variance_swapped",
})  # fmt: skip
"""Mistakes that take several edits, at whatever lines they stand."""
