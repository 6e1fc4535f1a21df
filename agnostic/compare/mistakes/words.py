"""The catalogue: every mistake by its key, and what it looks like. How it is fixed, the backends say."""

from __future__ import annotations

from collections.abc import Mapping

from agnostic.contracts.fixes import FIXES
from agnostic.registry import Backend, get_backend, registrations

CATALOGUE: Mapping[str, str] = {
    # Norms
    "batch_norm_epsilon": "the batch norm has another epsilon",
    "batch_norm_momentum": "the running statistics were collected with another momentum",
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
    "weights_scaled": "the weights are A's times {b}",
    "weights_differ": "the weights differ",
    # Order of features
    "flatten_order": "the features were flattened in another order: (C, H, W) against (H, W, C)",
    "channel_order": "the channels are in reverse order: RGB against BGR",
    "preprocessing_range": "the input has another range, mean or standard deviation",
    "concatenation_order": "the parts are concatenated in another order",
    "features_permuted": "the features are A's in another order",
    "spatial_transposed": "height and width are swapped",
    "reversed": "an axis runs backwards: {b}",
    # Activations
    "gelu_tanh": "one GELU is exact, the other its tanh approximation",
    "activation_missing": "the activation is missing: {a}",
    "activation_doubled": "the activation is applied twice: {b}",
    "activation_extra": "an activation stands where A has none: {b}",
    "activation_differs": "the activation is {b}, A's is {a}",
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
    "recurrent_activation": "the gates' activation is another one",
    "direction": "the sequence is read from the other end",
    "return_sequences": "one side returns all steps, the other the last",
    "sequence_step": "another part of the sequence is taken",
    "attention_scale": "the attention's scores have another scale",
    "attention_mask": "one side masks the future",
    "attention_heads": "the features are split into heads otherwise",
    # Structure
    "residual_missing": "what goes round the block is not added",
    "residual_differs": "the sum has other parts, or other factors",
    "layer_missing": "a layer is missing: {a}",
    "layer_extra": "there is a layer that A does not have: {b}",
    "layer_kind": "the layer is a {b}, A's is a {a}",
    "layer_skipped": "the layer does nothing: what goes in comes out",
    "layer_doubled": "the layer is applied twice",
    # Randomness and numbers
    "dropout_on": "dropout is on",
    "random": "the layer is random: two runs of the same input differ",
    "dtype": "the numbers have fewer digits: {b}",
    "not_finite": "the result is not finite",
    "constant_factor": "the result is A's times a constant",
    "constant_offset": "the result is A's plus a constant",
    # Training
    "optimizer_convention": "the optimizers follow another convention",
    "unexplained": "no known mistake removes the error",
}


def fix_for(mistake: str, framework: str, **values: object) -> str:
    """What to write in a framework; in another's words where its backend has none.

    Args:
        framework: the backend's name.
        values: ``a`` is A's value, ``b`` B's, ``layer`` the name of B's layer.
    """
    known = {backend.name: backend for backend in _with_fixes()}
    backend = known.get(framework) or next(iter(known.values()))
    text = backend[FIXES].fix(mistake)
    for name, value in values.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def _with_fixes() -> list[Backend]:
    return [backend for name in registrations() if FIXES in (backend := get_backend(name))]


def markdown() -> str:
    """The table of docs/compare.md."""
    backends = _with_fixes()
    titles = ["key", "what it looks like", *(f"fix in {backend.registration.title}" for backend in backends)]
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    plain = {"{a}": "A's", "{b}": "B's", "{layer}": "the layer", "{place}": "there"}
    for key, what in CATALOGUE.items():
        cells = [what, *(backend[FIXES].fix(key) for backend in backends)]
        for mark, word in plain.items():
            cells = [cell.replace(mark, word) for cell in cells]
        lines.append(f"| `{key}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
