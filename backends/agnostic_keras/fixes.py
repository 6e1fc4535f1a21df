"""What to write in Keras for each mistake of :mod:`agnostic.compare.mistakes.words`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FIXES: Mapping[str, str] = {
    "batch_norm_epsilon": "Write BatchNormalization(epsilon={a}).",
    "batch_norm_momentum": "Write BatchNormalization(momentum={a}); Keras' is one minus PyTorch's.",
    "train_mode": "Call the model with training=False, and do not pin training={b} where {layer} is called.",
    "statistics_missing": "Copy moving_mean and moving_variance as well: they are not among the trainable weights.",
    "mean_variance_swapped": "The order of get_weights() is gamma, beta, moving_mean, moving_variance.",
    "variance_convention": "Keras keeps the biased variance in moving_variance.",
    "gamma_beta_swapped": "The order of get_weights() is gamma, beta.",
    "layer_norm_epsilon": "Write LayerNormalization(epsilon={a}).",
    "norm_epsilon": "Write epsilon={a}.",
    "norm_axes": "Write axis={a}.",
    "norm_groups": "Write groups={a}.",
    "scale_missing": "Multiply by {a} {place}.",
    "bias_missing": "Give {layer} a bias (use_bias=True, or center=True), and load A's.",
    "same_padding": "Write ZeroPadding2D({a}) before the layer, and padding='valid'.",
    "pad_then_stride": "Write ZeroPadding2D({a}) before the strided layer, and padding='valid'.",
    "padding": "Pad by {a}.",
    "padding_mode": "Fill the border with '{a}'.",
    "strides": "Write strides={a}.",
    "dilation": "Write dilation_rate={a}.",
    "groups": "Write groups={a}, with the outputs of one group after those of the other.",
    "transposed_padding": "Write padding='valid', and Cropping2D({a}) behind it.",
    "max_pool_padding": "Pad with -inf: ops.pad(x, ..., constant_values=-inf), or use padding='same'.",
    "average_pool_padding": (
        "Pad with zeros before the layer, with padding='valid', to count the padding; padding='same' leaves it out."
    ),
    "pool_kind": "Use A's pool: {a}.",
    "pool_size": "Write pool_size={a}.",
    "ceil_mode": "Pad at the end, to keep the last window.",
    "kernel_transposed": (
        "Keras' layout is (height, width, in, out), and (in, out) of Dense: kernel.transpose(2, 3, 1, 0)."
    ),
    "kernel_flipped": "Turn the kernel back: kernel[::-1, ::-1].",
    "gate_order": "Keras' order is i, f, c, o of an LSTM and z, r, h of a GRU.",
    "weights_permuted": "Load A's weights into {layer} again, by agnostic.transfer.",
    "weights_scaled": "Load A's weights into {layer} again, by agnostic.transfer.",
    "weights_differ": "Load A's weights into {layer} again, by agnostic.transfer.",
    "flatten_order": "Put Permute((3, 1, 2)) before Flatten, or reorder the rows of the dense kernel.",
    "channel_order": "Give it x[..., ::-1].",
    "preprocessing_range": "Prepare the input as A does: {a}.",
    "concatenation_order": "Concatenate them in A's order: {a}.",
    "features_permuted": "Reorder them.",
    "spatial_transposed": "Swap them back: ops.swapaxes(x, 1, 2).",
    "reversed": "Turn it round.",
    "gelu_tanh": "Write activations.gelu(x, approximate={a}); ops.gelu's default is the approximation.",
    "activation_missing": "Apply {a} {place}, or give it activation='{a}'.",
    "activation_doubled": "Take one {b} out: a layer's activation= and an Activation behind it are two.",
    "activation_extra": "Take {b} out.",
    "activation_differs": "Use {a}.",
    "activation_slope": "Write negative_slope={a}; Keras' default is 0.3, PyTorch's 0.01.",
    "softmax_axis": "Write axis={a}.",
    "layer_order": "Call them in A's order: {a}.",
    "align_corners": "Keras never aligns corners: resize by a matrix, or train with align_corners=False.",
    "half_pixel": "Keras looks at i + 0.5.",
    "interpolation": "Write interpolation='{a}'.",
    "antialias": "Write antialias={a}.",
    "cubic": "Keras' is -0.5 on TensorFlow and JAX.",
    "reset_after": "Write GRU(..., reset_after={a}); PyTorch's is True.",
    "recurrent_activation": "Write recurrent_activation='{a}'.",
    "direction": "Write go_backwards={a}.",
    "return_sequences": "Write return_sequences={a}.",
    "sequence_step": "Take {a} of the sequence.",
    "attention_scale": "Scale the query by {a}; key_dim is the size of one head.",
    "attention_mask": "Write use_causal_mask={a}.",
    "attention_heads": "Write num_heads={a}.",
    "residual_missing": "Add {a}.",
    "residual_differs": "Add {a}.",
    "layer_missing": "Put {a} in.",
    "layer_extra": "Take {b} out.",
    "layer_kind": "Use a {a}.",
    "layer_skipped": "Call {layer}.",
    "layer_doubled": "Call {layer} once.",
    "dropout_on": "Call the model with training=False.",
    "random": "Call the model with training=False.",
    "dtype": "Compute in float32: keras.config.set_dtype_policy('float32') before the model is made; on a GPU switch "
    "TF32 off: jax.config.update('jax_default_matmul_precision', 'highest'), "
    "tf.config.experimental.enable_tensor_float_32_execution(False), torch.backends.cudnn.allow_tf32 = False.",
    "not_finite": "Look for an overflow, a division by zero or a logarithm of zero.",
    "constant_factor": "Divide by {b}.",
    "constant_offset": "Subtract {b}.",
    "optimizer_convention": "Build it by agnostic.optimizers.",
    "unexplained": "Compare the two layers yourself.",
}


def fix(mistake: str) -> str:
    """See :meth:`agnostic.contracts.fixes.Fixes.fix`."""
    return _FIXES[mistake]


def setting(layer: str, operator: str, name: str, value: Any) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.setting`: a built layer's settings are its configuration's."""
    return None


def weight(role: str, name: str, undo: str) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.weight`."""
    return None


def copied(to: tuple[str, str], source: tuple[str, str]) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.copied`."""
    return None
