"""The catalogue: every mistake by its key, what it looks like, and how it is mended in either framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """One entry of the catalogue.

    Attributes:
        what: the mistake in one phrase.
        torch, keras: what to write; ``{a}`` is A's value, ``{b}`` B's, ``{layer}`` the name of B's layer.
    """

    what: str
    torch: str
    keras: str = ""

    def mend(self, framework: str, **values: object) -> str:
        """What to write in a framework."""
        text = self.keras if framework == "keras" and self.keras else self.torch
        for name, value in values.items():
            text = text.replace("{" + name + "}", str(value))
        return text


_LOAD = "Load A's weights into {layer} again, by agnostic.transfer."

CATALOGUE: Mapping[str, Mistake] = {
    # Norms
    "batch_norm_epsilon": Mistake(
        "the batch norm has another epsilon",
        "Write BatchNorm2d(..., eps={a}).",
        "Write BatchNormalization(epsilon={a}).",
    ),
    "batch_norm_momentum": Mistake(
        "the running statistics were collected with another momentum",
        "Write BatchNorm2d(..., momentum={a}); PyTorch's is one minus Keras'.",
        "Write BatchNormalization(momentum={a}); Keras' is one minus PyTorch's.",
    ),
    "train_mode": Mistake(
        "the layer runs in training mode, by the batch's own statistics",
        "Call model.eval() before inference; {layer}.training is {b}.",
        "Call the model with training=False, and do not pin training={b} where {layer} is called.",
    ),
    "statistics_missing": Mistake(
        "the running statistics were never loaded: the mean is 0 and the variance 1",
        "Copy running_mean and running_var as well: they are buffers, not parameters.",
        "Copy moving_mean and moving_variance as well: they are not among the trainable weights.",
    ),
    "mean_variance_swapped": Mistake(
        "the running mean and variance are swapped",
        "The order is running_mean, running_var.",
        "The order of get_weights() is gamma, beta, moving_mean, moving_variance.",
    ),
    "variance_convention": Mistake(
        "the running variance is another quantity: its root, its inverse, or biased where the other is not",
        "PyTorch keeps the unbiased variance in running_var.",
        "Keras keeps the biased variance in moving_variance.",
    ),
    "gamma_beta_swapped": Mistake(
        "scale and offset are swapped",
        "weight is the scale, bias the offset.",
        "The order of get_weights() is gamma, beta.",
    ),
    "layer_norm_epsilon": Mistake(
        "the layer norm has another epsilon",
        "Write LayerNorm(..., eps={a}).",
        "Write LayerNormalization(epsilon={a}).",
    ),
    "norm_epsilon": Mistake("the norm has another epsilon", "Write eps={a}.", "Write epsilon={a}."),
    "norm_axes": Mistake(
        "the norm reduces over other axes", "Write normalized_shape over the last {a}.", "Write axis={a}."
    ),
    "norm_groups": Mistake("the group norm has another number of groups", "Write num_groups={a}.", "Write groups={a}."),
    "scale_missing": Mistake("a factor is missing", "Multiply by {a} {place}.", "Multiply by {a} {place}."),
    "bias_missing": Mistake(
        "the offset is missing",
        "Give {layer} a bias, and load A's.",
        "Give {layer} a bias (use_bias=True, or center=True), and load A's.",
    ),
    # Windows
    "same_padding": Mistake(
        "SAME padding stands against explicit padding, which differ where the stride is 2 or the kernel even",
        "Pad by hand before the layer: F.pad(x, ...) with {a}, and padding=0.",
        "Write ZeroPadding2D({a}) before the layer, and padding='valid'.",
    ),
    "pad_then_stride": Mistake(
        "the zeros are put around the image at other sides, so that the stride starts elsewhere",
        "Pad by {a} before the strided layer.",
        "Write ZeroPadding2D({a}) before the strided layer, and padding='valid'.",
    ),
    "padding": Mistake("the padding is another one", "Pad by {a}.", "Pad by {a}."),
    "padding_mode": Mistake(
        "the border is filled otherwise", "Write padding_mode='{a}'.", "Fill the border with '{a}'."
    ),
    "strides": Mistake("the stride is another one", "Write stride={a}.", "Write strides={a}."),
    "dilation": Mistake("the dilation is another one", "Write dilation={a}.", "Write dilation_rate={a}."),
    "groups": Mistake(
        "the channels are grouped otherwise",
        "Write groups={a}, with the outputs of one group after those of the other.",
        "Write groups={a}, with the outputs of one group after those of the other.",
    ),
    "transposed_padding": Mistake(
        "the transposed convolution's result is cut at other sides",
        "Write padding= and output_padding= such that {a} is cut.",
        "Write padding='valid', and Cropping2D({a}) behind it.",
    ),
    "max_pool_padding": Mistake(
        "the maximum is taken over zeros of the padding as well",
        "Let MaxPool2d pad by itself (padding=...), which fills with -inf.",
        "Pad with -inf: ops.pad(x, ..., constant_values=-inf), or use padding='same'.",
    ),
    "average_pool_padding": Mistake(
        "the average counts the padding, or leaves it out, where A does not",
        "Write AvgPool2d(..., count_include_pad={a}).",
        "Pad by hand with zeros, and padding='valid', to count the padding; padding='same' leaves it out.",
    ),
    "pool_kind": Mistake(
        "the pool takes the maximum where the other takes the mean", "Use A's pool: {a}.", "Use A's pool: {a}."
    ),
    "pool_size": Mistake("the window of the pool is another one", "Write kernel_size={a}.", "Write pool_size={a}."),
    "ceil_mode": Mistake(
        "incomplete windows at the border are kept by one side only",
        "Write ceil_mode={a}.",
        "Pad at the end, to keep the last window.",
    ),
    # Weights
    "kernel_transposed": Mistake(
        "two axes of the kernel are swapped",
        "PyTorch's layout is (out, in, height, width), and (out, in) of Linear.",
        "Keras' layout is (height, width, in, out), and (in, out) of Dense: kernel.transpose(2, 3, 1, 0).",
    ),
    "kernel_flipped": Mistake(
        "the kernel is turned round: a true convolution, where the other correlates",
        "Turn the kernel back: weight.flip(2, 3).",
        "Turn the kernel back: kernel[::-1, ::-1].",
    ),
    "gate_order": Mistake(
        "the gates of the recurrent layer are in another order",
        "PyTorch's order is i, f, g, o of an LSTM and r, z, n of a GRU.",
        "Keras' order is i, f, c, o of an LSTM and z, r, h of a GRU.",
    ),
    "weights_permuted": Mistake("the weights are A's in another order", _LOAD),
    "weights_scaled": Mistake("the weights are A's times {b}", _LOAD),
    "weights_differ": Mistake("the weights differ", _LOAD),
    # Order of features
    "flatten_order": Mistake(
        "the features were flattened in another order: (C, H, W) against (H, W, C)",
        "Flatten as (H, W, C): x.permute(0, 2, 3, 1).flatten(1); or reorder the rows of the dense kernel.",
        "Put Permute((3, 1, 2)) before Flatten, or reorder the rows of the dense kernel.",
    ),
    "channel_order": Mistake(
        "the channels are in reverse order: RGB against BGR", "Give it x.flip(1).", "Give it x[..., ::-1]."
    ),
    "preprocessing_range": Mistake(
        "the input has another range, mean or standard deviation",
        "Prepare the input as A does: {a}.",
        "Prepare the input as A does: {a}.",
    ),
    "concatenation_order": Mistake(
        "the parts are concatenated in another order",
        "torch.cat them in A's order: {a}.",
        "Concatenate them in A's order: {a}.",
    ),
    "features_permuted": Mistake("the features are A's in another order", "Reorder them.", "Reorder them."),
    "spatial_transposed": Mistake(
        "height and width are swapped", "Swap them back: x.transpose(2, 3).", "Swap them back: ops.swapaxes(x, 1, 2)."
    ),
    "reversed": Mistake("an axis runs backwards: {b}", "Turn it round.", "Turn it round."),
    # Activations
    "gelu_tanh": Mistake(
        "one GELU is exact, the other its tanh approximation",
        "Write GELU(approximate={a}).",
        "Write activations.gelu(x, approximate={a}); ops.gelu's default is the approximation.",
    ),
    "activation_missing": Mistake(
        "the activation is missing: {a}",
        "Apply {a} {place}.",
        "Apply {a} {place}, or give it activation='{a}'.",
    ),
    "activation_doubled": Mistake(
        "the activation is applied twice: {b}",
        "Take one {b} out.",
        "Take one {b} out: a layer's activation= and an Activation behind it are two.",
    ),
    "activation_extra": Mistake("an activation stands where A has none: {b}", "Take {b} out.", "Take {b} out."),
    "activation_differs": Mistake("the activation is {b}, A's is {a}", "Use {a}.", "Use {a}."),
    "activation_slope": Mistake(
        "the slope of the activation is another one",
        "Write negative_slope={a}.",
        "Write negative_slope={a}; Keras' default is 0.3, PyTorch's 0.01.",
    ),
    "softmax_axis": Mistake("the softmax runs along another axis", "Write dim={a}.", "Write axis={a}."),
    "layer_order": Mistake(
        "two layers stand in the other order", "Call them in A's order: {a}.", "Call them in A's order: {a}."
    ),
    # Resizing
    "align_corners": Mistake(
        "one side aligns the corners' centres, the other does not",
        "Write interpolate(..., align_corners={a}).",
        "Keras never aligns corners: resize by a matrix, or train with align_corners=False.",
    ),
    "half_pixel": Mistake(
        "pixels are centred at i + 0.5 by one side and at i by the other",
        "Write mode='nearest-exact' for centres at i + 0.5, 'nearest' for i.",
        "Keras looks at i + 0.5.",
    ),
    "interpolation": Mistake(
        "the image is resized by another interpolation", "Write mode='{a}'.", "Write interpolation='{a}'."
    ),
    "antialias": Mistake("one side filters before it shrinks", "Write antialias={a}.", "Write antialias={a}."),
    "cubic": Mistake(
        "the cubic of bicubic is another one: -0.75 against -0.5",
        "PyTorch's is -0.75 without antialias=True.",
        "Keras' is -0.5 on TensorFlow and JAX.",
    ),
    # Sequences
    "reset_after": Mistake(
        "the GRU resets the state after the product where the other resets it before, or the reverse",
        "PyTorch's GRU always resets after: use a layer of Keras with reset_after=True.",
        "Write GRU(..., reset_after={a}); PyTorch's is True.",
    ),
    "recurrent_activation": Mistake(
        "the gates' activation is another one", "Use {a}.", "Write recurrent_activation='{a}'."
    ),
    "direction": Mistake(
        "the sequence is read from the other end", "Turn the sequence round.", "Write go_backwards={a}."
    ),
    "return_sequences": Mistake(
        "one side returns all steps, the other the last", "Take output[:, -1].", "Write return_sequences={a}."
    ),
    "sequence_step": Mistake("another part of the sequence is taken", "Take {a} of the sequence."),
    "attention_scale": Mistake(
        "the attention's scores have another scale",
        "Scale the query by {a}.",
        "Scale the query by {a}; key_dim is the size of one head.",
    ),
    "attention_mask": Mistake("one side masks the future", "Give the mask that A has.", "Write use_causal_mask={a}."),
    "attention_heads": Mistake(
        "the features are split into heads otherwise", "Write num_heads={a}.", "Write num_heads={a}."
    ),
    # Structure
    "residual_missing": Mistake("what goes round the block is not added", "Add {a}.", "Add {a}."),
    "residual_differs": Mistake("the sum has other parts, or other factors", "Add {a}.", "Add {a}."),
    "layer_missing": Mistake("a layer is missing: {a}", "Put {a} in.", "Put {a} in."),
    "layer_extra": Mistake("there is a layer that A does not have: {b}", "Take {b} out.", "Take {b} out."),
    "layer_kind": Mistake("the layer is a {b}, A's is a {a}", "Use a {a}.", "Use a {a}."),
    "layer_skipped": Mistake("the layer does nothing: what goes in comes out", "Call {layer}.", "Call {layer}."),
    "layer_doubled": Mistake("the layer is applied twice", "Call {layer} once.", "Call {layer} once."),
    # Randomness and numbers
    "dropout_on": Mistake(
        "dropout is on",
        "Call model.eval(), and give functional dropout training=self.training.",
        "Call the model with training=False.",
    ),
    "random": Mistake(
        "the layer is random: two runs of the same input differ",
        "Call model.eval().",
        "Call the model with training=False.",
    ),
    "dtype": Mistake(
        "the numbers have fewer digits: {b}",
        "Compute in float32: model.float(), no autocast, torch.backends.cuda.matmul.allow_tf32 = False.",
        "Compute in float32: keras.config.set_dtype_policy('float32') before the model is made.",
    ),
    "not_finite": Mistake(
        "the result is not finite", "Look for an overflow, a division by zero or a logarithm of zero."
    ),
    "constant_factor": Mistake("the result is A's times a constant", "Divide by {b}.", "Divide by {b}."),
    "constant_offset": Mistake("the result is A's plus a constant", "Subtract {b}.", "Subtract {b}."),
    # Training
    "optimizer_convention": Mistake(
        "the optimizers follow another convention",
        "Build it by agnostic.optimizers.",
        "Build it by agnostic.optimizers.",
    ),
    "unexplained": Mistake("no known mistake removes the error", "Compare what the two layers compute by hand."),
}


def markdown() -> str:
    """The table of docs/compare.md."""
    lines = ["| key | what it looks like | mend in PyTorch | mend in Keras |", "| --- | --- | --- | --- |"]
    plain = {"{a}": "A's", "{b}": "B's", "{layer}": "the layer", "{place}": "there"}
    for key, mistake in CATALOGUE.items():
        cells = [mistake.what, mistake.torch, mistake.keras or mistake.torch]
        for mark, word in plain.items():
            cells = [cell.replace(mark, word) for cell in cells]
        lines.append(f"| `{key}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
