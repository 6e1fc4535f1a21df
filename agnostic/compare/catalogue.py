"""The catalogue: every mistake that has a name, by its key, and what it looks like. Its fix is code for the place."""

from __future__ import annotations

from collections.abc import Mapping

CATALOGUE: Mapping[str, str] = {
    # Norms
    "batch_norm_epsilon": "the batch norm has another epsilon",
    "train_mode": "the layer runs in training mode, by the batch's own statistics",
    "statistics_missing": "the running statistics were never loaded: the mean is 0 and the variance 1",
    "mean_variance_swapped": "the running mean and variance are swapped",
    "variance_convention": (
        "the running variance is another quantity: its root, its inverse, or biased where the other is not"
    ),
    "gamma_beta_swapped": "scale and offset are swapped",
    "layer_norm_epsilon": "the layer norm has another epsilon",
    "norm_epsilon": "the norm has another epsilon",
    "norm_axes": "the norm reduces over other axes",
    "norm_groups": "the group norm has another number of groups",
    "scale_missing": "a factor is missing",
    "bias_missing": "the offset is missing",
    # Windows
    "same_padding": (
        "SAME padding stands against explicit padding, which differ where the stride is 2 or the kernel even"
    ),
    "pad_then_stride": "the zeros are put around the image at other sides, so that the stride starts elsewhere",
    "padding": "the padding is another one",
    "padding_mode": "the border is filled otherwise",
    "strides": "the stride is another one",
    "dilation": "the dilation is another one",
    "groups": "the channels are grouped otherwise",
    "transposed_padding": "the transposed convolution's result is cut at other sides",
    "max_pool_padding": "the maximum is taken over zeros of the padding as well",
    "average_pool_padding": "the average counts the padding, or leaves it out, where A does not",
    "pool_kind": "the pool takes the maximum where the other takes the mean",
    "pool_size": "the window of the pool is another one",
    "ceil_mode": "incomplete windows at the border are kept by one side only",
    # Weights
    "kernel_transposed": "two axes of the kernel are swapped",
    "kernel_flipped": "the kernel is turned round: a true convolution, where the other correlates",
    "gate_order": "the gates of the recurrent layer are in another order",
    "weights_permuted": "the weights are A's in another order",
    "weights_scaled": "the weights are A's times a number",
    "weights_differ": "the weights differ",
    # Order of features
    "flatten_order": "the features were flattened in another order: (C, H, W) against (H, W, C)",
    "channel_order": "the channels are in reverse order: RGB against BGR",
    "preprocessing_range": "the input has another range, mean or standard deviation",
    "wrong_part": "another part of an array is taken",
    "concatenation_order": "the parts are concatenated in another order",
    "features_permuted": "the features are A's in another order",
    "reversed": "an axis runs backwards",
    # Activations
    "gelu_tanh": "one GELU is exact, the other its tanh approximation",
    "activation_missing": "the activation is missing",
    "activation_doubled": "the activation is applied twice",
    "activation_extra": "an activation stands where A has none",
    "activation_differs": "the activation is another one",
    "activation_slope": "the slope of the activation is another one",
    "softmax_axis": "the softmax runs along another axis",
    "layer_order": "two layers stand in the other order",
    # Resizing
    "align_corners": "one side aligns the corners' centres, the other does not",
    "half_pixel": "pixels are centred at i + 0.5 by one side and at i by the other",
    "interpolation": "the image is resized by another interpolation",
    "antialias": "one side filters before it shrinks",
    "cubic": "the cubic of bicubic is another one: -0.75 against -0.5",
    # Sequences
    "reset_after": "the GRU resets the state after the product where the other resets it before, or the reverse",
    "direction": "the sequence is read from the other end",
    "sequence_step": "another part of the sequence is taken",
    "attention_scale": "the attention's scores have another scale",
    "attention_mask": "one side masks the future",
    "attention_heads": "the features are split into heads otherwise",
    # Structure
    "residual_missing": "what goes round the block is not added",
    "residual_differs": "the sum has other parts, or other factors",
    "layer_missing": "a layer is missing",
    "layer_extra": "there is a layer that A does not have",
    "layer_kind": "the layer is of another kind",
    # Randomness and numbers
    "dropout_on": "dropout is on",
    "dtype": "the numbers have fewer digits",
    "constant_factor": "the result is A's times a constant",
    "constant_offset": "the result is A's plus a constant",
    # Training
    "optimizer_convention": "the optimizers follow another convention",
    "unexplained": "no known mistake removes the error",
}


def markdown() -> str:
    """The table of docs/compare.md."""
    lines = ["| key | what it looks like |", "| --- | --- |"]
    lines += [f"| `{key}` | {what} |" for key, what in CATALOGUE.items()]
    return "\n".join(lines) + "\n"
