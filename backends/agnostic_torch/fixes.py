"""What to write in PyTorch for each mistake of :mod:`agnostic.compare.mistakes.words`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FIXES: Mapping[str, str] = {
    "batch_norm_epsilon": "Write BatchNorm2d(..., eps={a}).",
    "batch_norm_momentum": "Write BatchNorm2d(..., momentum={a}); PyTorch's is one minus Keras'.",
    "train_mode": "Call model.eval() before inference: {layer} has training={b}.",
    "statistics_missing": "Copy running_mean and running_var as well: they are buffers, not parameters.",
    "mean_variance_swapped": "The order is running_mean, running_var.",
    "variance_convention": "PyTorch keeps the unbiased variance in running_var.",
    "gamma_beta_swapped": "weight is the scale, bias the offset.",
    "layer_norm_epsilon": "Write LayerNorm(..., eps={a}).",
    "norm_epsilon": "Write eps={a}.",
    "norm_axes": "Write normalized_shape over the last {a}.",
    "norm_groups": "Write num_groups={a}.",
    "scale_missing": "Multiply by {a} {place}.",
    "bias_missing": "Give {layer} a bias, and load A's.",
    "same_padding": "Pad before the layer: F.pad(x, ...) with {a}, and padding=0.",
    "pad_then_stride": "Pad by {a} before the strided layer.",
    "padding": "Pad by {a}.",
    "padding_mode": "Write padding_mode='{a}'.",
    "strides": "Write stride={a}.",
    "dilation": "Write dilation={a}.",
    "groups": "Write groups={a}, with the outputs of one group after those of the other.",
    "transposed_padding": "Write padding= and output_padding= such that {a} is cut.",
    "max_pool_padding": "Let MaxPool2d pad by itself (padding=...), which fills with -inf.",
    "average_pool_padding": "Write AvgPool2d(..., count_include_pad={a}).",
    "pool_kind": "Use A's pool: {a}.",
    "pool_size": "Write kernel_size={a}.",
    "ceil_mode": "Write ceil_mode={a}.",
    "kernel_transposed": "PyTorch's layout is (out, in, height, width), and (out, in) of Linear.",
    "kernel_flipped": "Turn the kernel back: weight.flip(2, 3).",
    "gate_order": "PyTorch's order is i, f, g, o of an LSTM and r, z, n of a GRU.",
    "weights_permuted": "Load A's weights into {layer} again, by agnostic.transfer.",
    "weights_scaled": "Load A's weights into {layer} again, by agnostic.transfer.",
    "weights_differ": "Load A's weights into {layer} again, by agnostic.transfer.",
    "flatten_order": (
        "Flatten as (H, W, C): x.permute(0, 2, 3, 1).flatten(1); or reorder the rows of the dense kernel."
    ),
    "channel_order": "Give it x.flip(1).",
    "preprocessing_range": "Prepare the input as A does: {a}.",
    "concatenation_order": "torch.cat them in A's order: {a}.",
    "features_permuted": "Reorder them.",
    "spatial_transposed": "Swap them back: x.transpose(2, 3).",
    "reversed": "Turn it round.",
    "gelu_tanh": "Write GELU(approximate={a}).",
    "activation_missing": "Apply {a} {place}.",
    "activation_doubled": "Take one {b} out.",
    "activation_extra": "Take {b} out.",
    "activation_differs": "Use {a}.",
    "activation_slope": "Write negative_slope={a}.",
    "softmax_axis": "Write dim={a}.",
    "layer_order": "Call them in A's order: {a}.",
    "align_corners": "Write interpolate(..., align_corners={a}).",
    "half_pixel": "Write mode='nearest-exact' for centres at i + 0.5, 'nearest' for i.",
    "interpolation": "Write mode='{a}'.",
    "antialias": "Write antialias={a}.",
    "cubic": "PyTorch's is -0.75 without antialias=True.",
    "reset_after": "PyTorch's GRU always resets after: use a layer of Keras with reset_after=True.",
    "recurrent_activation": "Use {a}.",
    "direction": "Turn the sequence round.",
    "return_sequences": "Take output[:, -1].",
    "sequence_step": "Take {a} of the sequence.",
    "attention_scale": "Scale the query by {a}.",
    "attention_mask": "Give the mask that A has.",
    "attention_heads": "Write num_heads={a}.",
    "residual_missing": "Add {a}.",
    "residual_differs": "Add {a}.",
    "layer_missing": "Put {a} in.",
    "layer_extra": "Take {b} out.",
    "layer_kind": "Use a {a}.",
    "layer_skipped": "Call {layer}.",
    "layer_doubled": "Call {layer} once.",
    "dropout_on": "Call model.eval(), and give functional dropout training=self.training.",
    "random": "Call model.eval().",
    "dtype": "Compute in float32: model.float(), no autocast; on a GPU torch.backends.cuda.matmul.allow_tf32 = "
    "torch.backends.cudnn.allow_tf32 = False.",
    "not_finite": "Look for an overflow, a division by zero or a logarithm of zero.",
    "constant_factor": "Divide by {b}.",
    "constant_offset": "Subtract {b}.",
    "optimizer_convention": "Build it by agnostic.optimizers.",
    "unexplained": "Compare the two layers yourself.",
}


def fix(mistake: str) -> str:
    """See :meth:`agnostic.contracts.fixes.Fixes.fix`."""
    return _FIXES[mistake]


_ATTRIBUTES: Mapping[str, Mapping[str, str]] = {
    "batch_norm": {"epsilon": "eps"},
    "layer_norm": {"epsilon": "eps"},
    "group_norm": {"epsilon": "eps", "groups": "num_groups"},
    "leaky_relu": {"negative_slope": "negative_slope"},
    "elu": {"alpha": "alpha"},
    "convolution": {"stride": "stride", "padding": "padding", "dilation": "dilation", "groups": "groups"},
    "average_pool": {"count_padding": "count_include_pad", "ceil_mode": "ceil_mode", "padding": "padding",
                     "stride": "stride", "kernel": "kernel_size"},
    "max_pool": {"ceil_mode": "ceil_mode", "padding": "padding", "stride": "stride", "kernel": "kernel_size"},
    "resize_bilinear": {"align_corners": "align_corners"},
    "resize_bicubic": {"align_corners": "align_corners"},
    "softmax": {"axis": "dim"},
    "gelu": {"approximate": "approximate"},
}  # fmt: skip
"""What modules call the attributes of their operators, by operator."""


def setting(layer: str, operator: str, name: str, value: Any) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.setting`."""
    if (operator, name) == ("batch_norm", "training"):
        return f"model.get_submodule({layer!r}).{'train' if value else 'eval'}()"
    attribute = _ATTRIBUTES.get(operator, {}).get(name)
    if name == "padding" and attribute is not None:
        if any(low != high for low, high in value):
            return None
        value = tuple(low for low, _ in value)
    return None if attribute is None else f"model.get_submodule({layer!r}).{attribute} = {value!r}"


def weight(role: str, name: str, undo: str) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.weight`."""
    return f"p = model.get_{role}({name!r}).data; p.copy_({undo.replace('p.', 'p.clone().', 1)})"


def copied(to: tuple[str, str], source: tuple[str, str]) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.copied`."""
    return f"model.get_{to[0]}({to[1]!r}).data.copy_(other.get_{source[0]}({source[1]!r}).data)"
