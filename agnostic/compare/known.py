"""Mistakes that have a name: each one a pattern over edits, the first that fits counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agnostic.compare.edits import Edit
from agnostic.compare.lowering import FAMILIES, kind

ACTIVATIONS = FAMILIES[0] | {"glu"}
POOLS = FAMILIES[1]
RESIZES = FAMILIES[2]
_WINDOWS = frozenset({"convolution", *POOLS})


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


KNOWN: tuple[Known, ...] = (
    Known(
        "dtype",
        "extra",
        _set("to_copy"),
        also=lambda e: e.b is not None and e.b.attributes.get("dtype") in ("float16", "bfloat16"),
    ),
    Known(
        "dtype",
        "extra",
        _set("view rshift bitwise_right_shift"),
        also=lambda e: e.b is not None and ("dtype" in e.b.attributes or kind(e.b) != "view"),
    ),
    Known("train_mode", "attribute", _set("batch_norm"), _set("training")),
    Known("batch_norm_epsilon", "attribute", _set("batch_norm"), _set("eps")),
    Known("layer_norm_epsilon", "attribute", _set("layer_norm"), _set("eps")),
    Known("norm_epsilon", "attribute", names=_set("eps")),
    Known("norm_groups", "attribute", _set("group_norm"), _set("group")),
    Known("norm_axes", "attribute", _set("layer_norm"), _set("normalized_shape")),
    Known("pad_then_stride", "extra", _set("constant_pad_nd")),
    Known("padding_mode", "missing", FAMILIES[6]),
    Known("padding_mode", "extra", FAMILIES[6]),
    Known("padding_mode", "replaced", also=_between(FAMILIES[6])),
    Known("strides", "attribute", _WINDOWS, _set("stride")),
    Known("dilation", "attribute", _WINDOWS, _set("dilation")),
    Known("groups", "attribute", _set("convolution"), _set("groups")),
    Known("transposed_padding", "attribute", _set("convolution"), _set("output_padding")),
    Known("padding", "attribute", _WINDOWS, _set("padding")),
    Known("average_pool_padding", "attribute", POOLS, _set("count_include_pad")),
    Known("pool_size", "attribute", POOLS, _set("kernel_size")),
    Known("ceil_mode", "attribute", POOLS, _set("ceil_mode")),
    Known("gelu_tanh", "attribute", _set("gelu"), _set("approximate")),
    Known("activation_slope", "attribute", _set("leaky_relu elu celu"), _set("negative_slope alpha")),
    Known("softmax_axis", "attribute", _set("softmax log_softmax"), _set("dim")),
    Known("align_corners", "attribute", RESIZES, _set("align_corners")),
    Known("interpolation", "attribute", RESIZES),
    Known("sequence_step", "attribute", _set("select"), _set("index")),
    Known("pool_kind", "replaced", also=_between(POOLS)),
    Known("sequence_step", "replaced", also=_between(_set("select mean sum amax slice"))),
    Known("half_pixel", "replaced", also=_between(_set("upsample_nearest2d upsample_nearest_exact2d"))),
    Known(
        "antialias",
        "replaced",
        also=_between(
            _set("upsample_bilinear2d upsample_bilinear2d_aa"), _set("upsample_bicubic2d upsample_bicubic2d_aa")
        ),
    ),
    Known("interpolation", "replaced", also=_between(RESIZES)),
    Known("activation_differs", "replaced", also=_between(ACTIVATIONS)),
    Known("attention_mask", "extra", _set("masked_fill where tril triu")),
    Known("attention_mask", "missing", _set("masked_fill where tril triu")),
    Known("attention_mask", "attribute", _set("tril triu masked_fill")),
    Known("features_permuted", "attribute", _set("roll flip permute transpose")),
    Known("channel_order", "extra", _set("flip"), also=lambda e: e.b is not None and len(e.b.outputs[0].shape) == 4),
    Known("channel_order", "missing", _set("flip"), also=lambda e: e.a is not None and len(e.a.outputs[0].shape) == 4),
    Known("reversed", "extra", _set("flip")),
    Known("reversed", "missing", _set("flip")),
    Known("concatenation_order", "order"),
    Known("activation_missing", "missing", ACTIVATIONS),
    Known("activation_extra", "extra", ACTIVATIONS),
    Known("residual_missing", "missing", _set("add sub")),
    Known("residual_differs", "extra", _set("add sub")),
    Known("scale_missing", "missing", _set("mul div")),
    Known("constant_factor", "extra", _set("mul div")),
    Known("constant_offset", "extra", _set("sub rsub")),
    Known("features_permuted", "extra", _set("transpose permute")),
    Known("features_permuted", "missing", _set("transpose permute")),
    Known("attention_heads", "shape", _set("transpose permute")),
    Known("constant_factor", "number", _set("mul div")),
    Known("constant_offset", "number", _set("add sub rsub")),
    Known("bias_missing", "operand", _set("linear convolution addmm"), also=lambda e: e.theirs is None),
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
    "dropout_on", "dtype", "train_mode", "padding_mode", "pad_then_stride", "dilation", "strides", "attention_heads",
    "attention_mask",
)  # fmt: skip
"""What names a difference of several edits; else the first edit does."""

TOGETHER = frozenset({
    "dropout_on", "dtype", "padding_mode", "pad_then_stride", "dilation", "attention_heads", "attention_mask",
    "preprocessing_range", "gamma_beta_swapped", "mean_variance_swapped",
})  # fmt: skip
"""Mistakes that take several edits, at whatever lines they stand."""
