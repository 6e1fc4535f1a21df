"""Injected faults: what was done to B, where, and what a diagnosis must call it. Run by scripts/faults.py.

Three ways to break a model: its hyperparameters after it was built, its weights, and its code.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tests.compare import networks as net


@dataclass(frozen=True)
class Case:
    """One pair of models.

    Attributes:
        name: family, place and fault.
        make: gives (A, B, inputs).
        where: names of B's layers, or A's, that are the exact place. For code between layers, the layer that is given
            something else, or the one before. Empty for a correct pair.
        mistakes: keys that are right.
    """

    name: str
    make: Callable[[], tuple[Any, Any, Any]]
    where: tuple[str, ...] = ()
    mistakes: tuple[str, ...] = ()


def layer(model: nn.Module, name: str) -> Any:
    return model.get_submodule(name)


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module.eval())


# What is done to one layer of B ---------------------------------------------------------------------------------------
def set_to(**attributes: Any) -> Callable[[nn.Module, str], None]:
    def fault(model: nn.Module, name: str) -> None:
        for key, value in attributes.items():
            setattr(layer(model, name), key, value)

    return fault


def weights(change: Callable[[Any], None]) -> Callable[[nn.Module, str], None]:
    def fault(model: nn.Module, name: str) -> None:
        with torch.no_grad():
            change(layer(model, name))

    return fault


def replaced(make: Callable[[Any], nn.Module]) -> Callable[[nn.Module, str], None]:
    return lambda model, name: put(model, name, make(layer(model, name)))


def hooked(change: Callable[[Any, Any, Any], Any]) -> Callable[[nn.Module, str], None]:
    def fault(model: nn.Module, name: str) -> None:
        layer(model, name).register_forward_hook(change)

    return fault


def train(model: nn.Module, name: str) -> None:
    layer(model, name).train()


def asymmetric(m: Any) -> nn.Module:
    """Zeros at the end first, as TensorFlow's SAME has them, then a stride without padding."""
    conv = copy.deepcopy(m)
    conv.padding = (0, 0)
    return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv)


class Same(nn.Conv2d):
    """SAME padding written by hand in a subclass."""

    def forward(self, x: Any) -> Any:
        h, w = x.shape[-2:]
        pads = []
        for n, k, s in ((w, self.kernel_size[1], self.stride[1]), (h, self.kernel_size[0], self.stride[0])):
            total = max((-(-n // s) - 1) * s + k - n, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def subclassed(m: Any) -> nn.Module:
    new = Same(m.in_channels, m.out_channels, m.kernel_size, m.stride, 0, m.dilation, m.groups, m.bias is not None)
    new.load_state_dict(m.state_dict())
    return new


class Lower(nn.Module):
    """A layer that computes in bfloat16, as under autocast."""

    def __init__(self, inner: nn.Module, dtype: Any) -> None:
        super().__init__()
        self.weight, self.bias, self.inner_dtype = inner.weight, inner.bias, dtype

    def forward(self, x: Any) -> Any:
        return F.linear(
            x.to(self.inner_dtype), self.weight.to(self.inner_dtype), self.bias.to(self.inner_dtype)
        ).float()


def conv_in(dtype: Any) -> Callable[[Any, Any], Any]:
    def forward(self: Any, x: Any) -> Any:
        bias = None if self.bias is None else self.bias.to(dtype)
        y = F.conv2d(x.to(dtype), self.weight.to(dtype), bias, self.stride,
                     self.padding, self.dilation, self.groups)  # fmt: skip
        return y.float()

    return forward


def autocast(model: nn.Module, name: str) -> None:
    module = layer(model, name)
    module.forward = conv_in(torch.bfloat16).__get__(module)


def tf32(model: nn.Module, name: str) -> None:
    """What an A100 does by default: products of numbers with 10 bits."""
    module = layer(model, name)

    def cut(x: Any) -> Any:
        bits = x.detach().contiguous().view(torch.int32)
        return ((bits + 0x0FFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)

    def forward(x: Any) -> Any:
        return F.conv2d(
            cut(x), cut(module.weight), module.bias, module.stride, module.padding, module.dilation, module.groups
        )

    module.forward = forward


def gates(order: Sequence[int]) -> Callable[[nn.Module, str], None]:
    def change(m: Any) -> None:
        for p in m.parameters():
            split = p.data.chunk(len(order))
            p.data.copy_(torch.cat([split[g] for g in order]))

    return weights(change)


Spec = tuple[str, Callable[[], nn.Module], str, Callable[[nn.Module, str], None], tuple[str, ...]]

R, M, V, D, T, U = net.Residual, net.mobile, net.Plain, net.Dense, net.Transformer, net.Decoder
L = lambda: net.Sequence("lstm")  # noqa: E731
G = lambda: net.Sequence("gru")  # noqa: E731

C, A = net.CodedUNet, net.CodedAttention

FAMILIES = {
    "residual": R,
    "mobile": M,
    "plain": V,
    "dense": D,
    "vit": T,
    "lstm": L,
    "gru": G,
    "decoder": U,
    "coded": C,
    "attention": A,
}

_swap_affine = weights(lambda m: (w := m.weight.clone(), m.weight.copy_(m.bias), m.bias.copy_(w)))
_swap_statistics = weights(
    lambda m: (v := m.running_var.clone(), m.running_var.copy_(m.running_mean.abs()), m.running_mean.copy_(v))
)

LAYERS: tuple[Spec, ...] = (
    ("first batch norm epsilon", R, "bn1", set_to(eps=1e-3), ("batch_norm_epsilon",)),
    ("middle batch norm epsilon", R, "layer2.bn2", set_to(eps=1e-4), ("batch_norm_epsilon",)),
    ("downsampling batch norm epsilon", R, "layer2.down.1", set_to(eps=1e-3), ("batch_norm_epsilon",)),
    ("densenet batch norm epsilon", D, "norms.1", set_to(eps=1.1e-5), ("batch_norm_epsilon",)),
    ("mobile batch norm epsilon", M, "4.body.4", set_to(eps=1e-3), ("batch_norm_epsilon",)),
    ("last batch norm train mode", R, "layer3.bn2", train, ("train_mode",)),
    ("first batch norm train mode", M, "1", train, ("train_mode",)),
    ("densenet train mode", D, "norm", train, ("train_mode",)),
    ("statistics not copied", R, "layer1.bn2", weights(lambda m: m.reset_running_stats()), ("statistics_missing",)),
    ("scale and offset swapped", R, "layer1.bn1", _swap_affine, ("gamma_beta_swapped",)),
    (
        "mean and variance swapped",
        M,
        "4.body.1",
        lambda m, n: _swap_statistics(m, n),
        ("mean_variance_swapped", "weights_differ"),
    ),
    (
        "standard deviation for variance",
        R,
        "layer3.bn1",
        weights(lambda m: m.running_var.sqrt_()),
        ("variance_convention",),
    ),
    ("batch norm without offset", D, "norms.2", weights(lambda m: m.bias.zero_()), ("bias_missing",)),
    ("batch norm without scale", D, "norms.0", weights(lambda m: m.weight.fill_(1)), ("scale_missing",)),
    ("layer norm epsilon first", T, "blocks.0.ln1", set_to(eps=1e-3), ("layer_norm_epsilon",)),
    ("layer norm epsilon middle", T, "blocks.1.ln2", set_to(eps=1e-4), ("layer_norm_epsilon",)),
    ("layer norm epsilon last", T, "norm", set_to(eps=1e-3), ("layer_norm_epsilon",)),
    ("layer norm without offset", T, "blocks.2.ln1", weights(lambda m: m.bias.zero_()), ("bias_missing",)),
    ("group norm groups", U, "norm", set_to(num_groups=2), ("norm_groups",)),
    ("group norm epsilon", U, "norm", set_to(eps=1e-3), ("norm_epsilon",)),
    ("SAME padding first", M, "0", replaced(asymmetric), ("same_padding", "pad_then_stride")),
    ("SAME padding subclass", R, "layer2.conv1", replaced(subclassed), ("same_padding", "pad_then_stride")),
    ("SAME padding depthwise", M, "4.body.3", replaced(subclassed), ("same_padding", "pad_then_stride")),
    (
        "border mode",
        U,
        "out",
        set_to(padding_mode="zeros", _reversed_padding_repeated_twice=[1, 1, 1, 1]),
        ("padding_mode",),
    ),
    (
        "kernel transposed first",
        V,
        "conv1",
        weights(lambda m: m.weight.copy_(m.weight.transpose(2, 3).clone())),
        ("kernel_transposed",),
    ),
    (
        "kernel transposed in out",
        R,
        "layer3.conv1",
        weights(lambda m: m.weight.copy_(m.weight.transpose(0, 1).clone())),
        ("kernel_transposed",),
    ),
    ("kernel flipped", R, "layer1.conv2", weights(lambda m: m.weight.copy_(m.weight.flip(2, 3))), ("kernel_flipped",)),
    (
        "depthwise kernel flipped",
        M,
        "3.body.3",
        weights(lambda m: m.weight.copy_(m.weight.flip(2, 3))),
        ("kernel_flipped",),
    ),
    (
        "transposed convolution flipped",
        U,
        "up1",
        weights(lambda m: m.weight.copy_(m.weight.flip(2, 3))),
        ("kernel_flipped",),
    ),
    ("dense transposed", V, "fc2", weights(lambda m: m.weight.copy_(m.weight.T.clone())), ("kernel_transposed",)),
    (
        "dense reshaped, not transposed",
        V,
        "fc3",
        weights(lambda m: m.weight.copy_(m.weight.T.reshape(m.weight.shape).clone())),
        ("kernel_transposed",),
    ),
    (
        "groups interleaved",
        M,
        "5",
        weights(lambda m: m.weight.copy_(m.weight.view(3, 4, 4, 3, 3).transpose(0, 1).reshape(12, 4, 3, 3).clone())),
        ("groups",),
    ),
    ("dilation", U, "mid", set_to(dilation=(1, 1), padding=(1, 1)), ("dilation",)),
    ("input channels reversed", R, "conv1", weights(lambda m: m.weight.copy_(m.weight.flip(1))), ("channel_order",)),
    ("stride elsewhere", R, "layer2.down.0", weights(lambda m: m.weight.copy_(m.weight * 1.5)), ("weights_scaled",)),
    (
        "weights of another training",
        R,
        "layer2.conv2",
        weights(
            lambda m: m.weight.copy_(torch.randn(m.weight.shape, generator=torch.Generator().manual_seed(9)) * 0.1)
        ),
        ("weights_differ",),
    ),
    ("one number changed", R, "fc", weights(lambda m: m.weight[3, 5].add_(0.5)), ("weights_differ",)),
    ("bias not copied", V, "conv3", weights(lambda m: m.bias.zero_()), ("bias_missing",)),
    ("bias left out", V, "fc1", lambda m, n: setattr(layer(m, n), "bias", None), ("bias_missing",)),
    (
        "rows of the first dense layer",
        V,
        "fc1",
        weights(lambda m: m.weight.copy_(m.weight.view(20, 12, 16).transpose(1, 2).reshape(20, 192).clone())),
        ("flatten_order",),
    ),
    (
        "embedding of another training",
        L,
        "embedding",
        weights(lambda m: m.weight.copy_(m.weight.flip(0))),
        ("weights_differ", "weights_permuted"),
    ),
    ("GELU by its approximation", T, "blocks.1.act", set_to(approximate="tanh"), ("gelu_tanh",)),
    ("GELU in the last block", T, "blocks.2.act", replaced(lambda m: nn.GELU(approximate="tanh")), ("gelu_tanh",)),
    ("ReLU for GELU", T, "blocks.0.act", replaced(lambda m: nn.ReLU()), ("activation_differs",)),
    ("slope of LeakyReLU", M, "6", set_to(negative_slope=0.3), ("activation_slope",)),
    ("ReLU for ReLU6", M, "3.body.2", replaced(lambda m: nn.ReLU()), ("activation_differs",)),
    ("SiLU for hard swish", M, "2", replaced(lambda m: nn.SiLU()), ("activation_differs",)),
    (
        "activation missing",
        M,
        "3.body.5",
        replaced(lambda m: nn.Identity()),
        ("activation_missing", "layer_skipped", "activation_differs"),
    ),
    (
        "activation doubled",
        T,
        "blocks.1.act",
        replaced(lambda m: nn.Sequential(nn.GELU(), nn.GELU())),
        ("activation_doubled",),
    ),
    ("sigmoid twice", M, "10", replaced(lambda m: nn.Sequential(nn.Sigmoid(), nn.Sigmoid())), ("activation_doubled",)),
    ("activation in a hook", V, "conv3", hooked(lambda m, x, y: torch.tanh(y)), ("activation_extra",)),
    (
        "result scaled in a hook",
        R,
        "layer1.conv1",
        hooked(lambda m, x, y: y * 0.5),
        ("scale_missing", "constant_factor", "weights_scaled"),
    ),
    ("average counts the padding", M, "7", set_to(count_include_pad=False), ("average_pool_padding",)),
    (
        "max pool moved",
        R,
        "pool",
        replaced(lambda m: nn.Sequential(nn.ZeroPad2d((0, 2, 0, 2)), nn.MaxPool2d(3, 2))),
        ("same_padding", "pad_then_stride", "max_pool_padding"),
    ),
    ("average for maximum", R, "pool", replaced(lambda m: nn.AvgPool2d(3, 2, 1)), ("pool_kind",)),
    ("corners aligned", U, "up2", set_to(align_corners=True), ("align_corners",)),
    ("nearest for bilinear", U, "up2", replaced(lambda m: nn.Upsample(scale_factor=2)), ("interpolation",)),
    ("LSTM gates i f g o as i g f o", L, "rnn", gates((0, 2, 1, 3)), ("gate_order",)),
    ("LSTM gates i f g o as f i g o", L, "rnn", gates((1, 0, 2, 3)), ("gate_order",)),
    ("GRU gates z and r swapped", G, "rnn", gates((1, 0, 2)), ("gate_order",)),
    (
        "GRU biases swapped",
        G,
        "rnn",
        weights(lambda m: (b := m.bias_ih_l0.clone(), m.bias_ih_l0.copy_(m.bias_hh_l0), m.bias_hh_l0.copy_(b))),
        ("weights_permuted",),
    ),
    ("LSTM without bias", L, "rnn", weights(lambda m: (m.bias_ih_l0.zero_(), m.bias_hh_l0.zero_())), ("bias_missing",)),
    ("attention heads", T, "blocks.0.attention", set_to(num_heads=4, head_dim=3), ("attention_heads",)),
    (
        "query and key swapped",
        T,
        "blocks.1.attention",
        weights(
            lambda m: (
                w := m.in_proj_weight.clone(),
                m.in_proj_weight.copy_(torch.cat([w[12:24], w[:12], w[24:]])),
                b := m.in_proj_bias.clone(),
                m.in_proj_bias.copy_(torch.cat([b[12:24], b[:12], b[24:]])),
            )
        ),
        ("weights_permuted",),
    ),
    ("dropout on", M, "9", replaced(lambda m: _dropping(m)), ("dropout_on",)),
    ("bfloat16 in one layer", R, "layer2.conv2", autocast, ("dtype",)),
    ("bfloat16 dense", V, "fc2", replaced(lambda m: Lower(m, torch.bfloat16)), ("dtype",)),
    ("float16 dense", T, "blocks.2.mlp1", replaced(lambda m: Lower(m, torch.float16)), ("dtype",)),
    ("TF32", V, "conv2", tf32, ("dtype",)),
    (
        "weights stored in float16",
        R,
        "layer1.conv1",
        weights(lambda m: m.weight.copy_(m.weight.half().float())),
        ("dtype",),
    ),
)
"""(fault, network, layer, what is done, keys that are right). The place is that layer."""


def _dropping(m: nn.Module) -> nn.Module:
    body = nn.Sequential(copy.deepcopy(m), nn.Dropout(0.5))
    m.register_forward_hook(lambda module, x, y: F.dropout(y, 0.5, training=True))
    del body
    return m


CODE: tuple[tuple[str, Callable[[], nn.Module], Callable[[], nn.Module], tuple[str, ...], tuple[str, ...]], ...] = (
    ("BGR", R, lambda: R(bgr=True), ("conv1",), ("channel_order",)),
    ("0..255", R, lambda: R(range=(255.0, 0.0)), ("conv1",), ("preprocessing_range",)),
    ("-1..1", V, lambda: _prepared(V(), 2.0, -1.0), ("conv1",), ("preprocessing_range",)),
    ("mean and standard deviation", R, lambda: R(mean=True), ("conv1",), ("preprocessing_range",)),
    (
        "residual missing",
        R,
        lambda: R(blocks={1: {"no residual": True}}),
        ("layer1.relu", "layer1.bn2"),
        ("residual_missing",),
    ),
    (
        "residual missing late",
        R,
        lambda: R(blocks={3: {"no residual": True}}),
        ("layer3.relu", "layer3.bn2"),
        ("residual_missing",),
    ),
    (
        "residual scaled",
        R,
        lambda: R(blocks={2: {"scaled residual": True}}),
        ("layer2.relu", "layer2.bn2"),
        ("scale_missing", "constant_factor"),
    ),
    (
        "activation before the sum",
        R,
        lambda: R(blocks={2: {"early activation": True}}),
        ("layer2.relu", "layer3.conv1", "layer2.down.1", "layer2.bn2"),
        ("activation_extra", "activation_differs", "activation_missing", "residual_differs", "layer_order"),
    ),
    (
        "last activation of a block",
        R,
        lambda: R(blocks={3: {"no last activation": True}}),
        ("layer3.relu", "avgpool"),
        ("activation_missing", "layer_missing"),
    ),
    (
        "activation before the norm",
        R,
        lambda: R(blocks={1: {"activation first": True}}),
        ("layer1.bn1", "layer1.relu"),
        ("layer_order", "activation_extra", "activation_missing"),
    ),
    ("maximum over the image", R, lambda: R(max=True), ("fc", "avgpool"), ("pool_kind", "layer_missing")),
    ("no ReLU between", V, lambda: V(**{"no relu": True}), ("conv3", "conv2"), ("activation_missing",)),
    ("LeakyReLU for ReLU", V, lambda: V(leaky=True), ("conv3", "conv2"), ("activation_differs")),
    ("flattened HWC", V, lambda: V(hwc=True), ("fc1",), ("flatten_order",)),
    ("flattened CWH", V, lambda: V(cwh=True), ("fc1",), ("flatten_order",)),
    ("GELU by its approximation, in code", V, lambda: V(tanh=True), ("fc2", "fc1"), ("gelu_tanh",)),
    ("GELU twice, in code", V, lambda: V(doubled=True), ("fc3", "fc2"), ("activation_doubled",)),
    ("SiLU for GELU, in code", V, lambda: V(silu=True), ("fc3", "fc2"), ("activation_differs",)),
    ("dropout in code", V, lambda: V(dropout=True), ("fc2", "fc1"), ("dropout_on",)),
    ("softmax missing", V, lambda: V(**{"no softmax": True}), ("output", "fc3"), ("activation_missing",)),
    ("softmax twice", V, lambda: V(**{"two softmax": True}), ("output", "fc3"), ("activation_doubled",)),
    ("concatenated the other way", D, lambda: D(cat=0), ("norms.1",), ("concatenation_order",)),
    ("concatenated the other way late", D, lambda: D(cat=2), ("norm",), ("concatenation_order",)),
    ("layer scale missing", T, lambda: T(blocks={1: {"no scale": True}}), ("blocks.2.ln1",), ("scale_missing",)),
    (
        "attention's residual missing",
        T,
        lambda: T(blocks={0: {"no residual": True}}),
        ("blocks.0.ln2",),
        ("residual_missing",),
    ),
    (
        "position embedding missing",
        T,
        lambda: T(**{"no position": True}),
        ("blocks.0.ln1",),
        ("residual_missing", "bias_missing", "constant_offset", "scale_missing"),
    ),
    (
        "another token",
        T,
        lambda: T(last=True),
        ("head",),
        ("sequence_step",),
    ),
    ("sequence backwards", L, lambda: net.Sequence("lstm", backwards=True), ("rnn",), ("reversed", "direction")),
    ("embedding scaled", G, lambda: net.Sequence("gru", scaled=True), ("rnn",), ("scale_missing", "constant_factor")),
    (
        "mean over time",
        L,
        lambda: net.Sequence("lstm", mean=True),
        ("head",),
        ("sequence_step",),
    ),
    ("slope in code", U, lambda: U(slope=True), ("mid",), ("activation_slope",)),
    ("nearest in code", U, lambda: U(nearest=True), ("last",), ("interpolation",)),
    ("corners aligned in code", U, lambda: U(corners=True), ("last",), ("align_corners",)),
    ("corners aligned in a U-Net", C, lambda: C(corners=True), ("up", "mid"), ("align_corners",)),
    ("nearest in a U-Net", C, lambda: C(mode="nearest"), ("up", "mid"), ("interpolation",)),
    ("cubic in a U-Net", C, lambda: C(mode="bicubic"), ("up", "mid"), ("interpolation",)),
    (
        "pixels' centres in a U-Net",
        lambda: C(mode="nearest"),
        lambda: C(mode="nearest-exact"),
        ("up", "mid"),
        ("half_pixel",),
    ),
    ("residual missing in a U-Net", C, lambda: C(**{"no residual": True}), ("up", "mid"), ("residual_missing",)),
    ("concatenated the other way in a U-Net", C, lambda: C(cat=True), ("up", "mid"), ("concatenation_order",)),
    ("SiLU for ReLU in a U-Net", C, lambda: C(act=F.silu), ("second", "first"), ("activation_differs",)),
    ("activation missing in a U-Net", C, lambda: C(act=lambda x: x), ("second", "first"), ("activation_missing",)),
    ("mean for maximum in a U-Net", C, lambda: C(pool=_mean), ("second", "first"), ("pool_kind",)),
    (
        "padding counted in a U-Net",
        lambda: C(pool=lambda x: F.avg_pool2d(x, 3, 2, 1)),
        lambda: C(pool=lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
        ("second", "first"),
        ("average_pool_padding",),
    ),
    (
        "filtered before it shrinks in a U-Net",
        lambda: C(pool=lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear")),
        lambda: C(pool=lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True)),
        ("second", "first"),
        ("antialias",),
    ),
    ("attention without its scale", A, lambda: A(scale=1.0), ("out", "value"), ("attention_scale",)),
    ("attention masked", A, lambda: A(causal=True), ("out", "value"), ("attention_mask",)),
    ("attention of other heads", A, lambda: A(heads=3), ("out", "value"), ("attention_heads",)),
    ("heads not put together", A, lambda: A(unmerged=True), ("out", "value"), ("features_permuted",)),
    ("query for key", A, lambda: A(swapped=True), ("out", "value"), ("layer_order",)),
)
"""(fault, A, B, places that are exact, keys that are right): B is written differently."""


def _mean(x: Any) -> Any:
    return F.avg_pool2d(x, 2)


def _prepared(body: nn.Module, scale: float, offset: float) -> nn.Module:
    body.forward = (lambda forward: lambda x: forward(x * scale + offset))(body.forward)  # type: ignore[method-assign]
    return body


def inputs_of(model: nn.Module) -> Any:
    return net.tokens() if isinstance(model, net.Sequence) else net.images()


def _pair(make: Callable[[], nn.Module], fault: Callable[[nn.Module, str], None], name: str) -> Callable[[], Any]:
    def build() -> tuple[Any, Any, Any]:
        a = net.randomized(make())
        b = copy.deepcopy(a)
        fault(b, name)
        return a, b, inputs_of(a)

    return build


def _codes(one: Callable[[], nn.Module], two: Callable[[], nn.Module]) -> Callable[[], Any]:
    def build() -> tuple[Any, Any, Any]:
        a, b = net.randomized(one()), net.randomized(two())
        b.load_state_dict(a.state_dict())
        return a, b, inputs_of(a)

    return build


@functools.cache
def torch_cases() -> tuple[Case, ...]:
    """Every fault, torch against torch."""
    cases = [
        Case(fault, _pair(make, done, name), (name, *_inside(name)), keys) for fault, make, name, done, keys in LAYERS
    ]
    cases += [Case(fault, _codes(a, b), where, keys) for fault, a, b, where, keys in CODE]
    return tuple(cases)


def _inside(name: str) -> tuple[str, ...]:
    """The layers that a replacement may consist of."""
    return tuple(f"{name}.{k}" for k in range(3))


@functools.cache
def torch_pairs() -> tuple[Case, ...]:
    """Correct pairs: the same network in other words."""
    same: list[tuple[str, Callable[[], Any]]] = [
        (name, _codes(make, make))
        for name, make in FAMILIES.items()
    ]  # fmt: skip
    # What looks like a mistake and computes the same is none: SAME on odd sizes, a clip that nothing reaches, zeros
    # around a maximum of what is positive.
    same += [
        ("SAME on an odd size", _pair(V, replaced(subclassed), "conv2")),
        ("ReLU6 of small numbers", _codes(V, lambda: V(relu6=True))),
        ("zeros around a maximum of ReLUs", _codes(V, lambda: V(**{"zero pad pool": True}))),
        ("dropout of rate 0", _pair(M, replaced(lambda m: nn.Sequential(m, nn.Dropout(0.5))), "9")),
        ("attention by hand", _codes(A, lambda: A(**{"by hand": True}))),
        ("attention by hand, the other way round", _codes(lambda: A(**{"by hand": True}), A)),
        ("a layer in a Sequential", _pair(R, replaced(lambda m: nn.Sequential(m)), "layer2.conv2")),
    ]
    return tuple(Case(f"correct {name}", make) for name, make in same)


@functools.cache
def judged(case: Case) -> dict[str, Any]:
    """Compare a pair, and say whether the fault was located and named, or whether a correct pair alarmed; once."""
    import agnostic as ag

    a, b, inputs = case.make()
    try:
        found = ag.compare(a, b, inputs)
    except Exception as error:  # noqa: BLE001 - a crash is a miss, and is shown as one
        said = f"{type(error).__name__}: {str(error)[:200]}"
        return {"name": case.name, "faulty": bool(case.where), "located": False, "named": False, "same": False,
                "at": None, "mistake": None, "said": said}  # fmt: skip
    first = found.first_divergence
    names = () if first is None else tuple(x.partition(" (call")[0] for x in (first.a, first.b, first.after))
    place = None if first is None else f"{first.kind} {first.after} {first.b}"
    return {
        "name": case.name,
        "faulty": bool(case.where),
        "located": bool(set(names) & set(case.where)),
        "named": found.diagnosis.mistake in case.mistakes,
        "same": bool(found.same),
        "at": place,
        "mistake": found.diagnosis.mistake,
        "said": str(found.diagnosis),
    }


def rated(pair: str, match: str | None = None) -> list[dict[str, Any]]:
    """What is found of every fault and every correct pair.

    Args:
        pair: ``"torch"``, or ``"keras-"`` and the engine of this process.
        match: only the faults whose name has this in it.
    """
    if pair == "torch":
        cases = [*torch_cases(), *torch_pairs()]
    else:
        from tests.compare import keras_faults

        cases = [*keras_faults.keras_cases(), *keras_faults.keras_pairs()]
    return [{"pair": pair, **judged(case)} for case in cases if match is None or match in case.name]
