"""The ascent loop in PyTorch: what :mod:`agnostic.visualization.ascent` describes, by autograd, fast on this machine.

The network is a frozen copy: weights not differentiated, inference mode, batch normalizations folded, in the type and
memory format that suit the processor, and cut at the last layer of the objective by an exception. Where a spatial mean
of single channels of a convolution is wanted, that mean is an affine function of the convolution's input: its gradient
is computed once, and every step is one inner product instead of a convolution.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from agnostic.errors import InvalidInput
from agnostic.patching import held
from agnostic.visualization.ascent import (
    Ascent,
    Climbed,
    Settings,
    check_finite,
    is_coupled,
    layers_of_heads,
    pixel_importance,
)
from agnostic.visualization.objectives import OUTPUT
from agnostic.visualization.taps import Tap
from agnostic_torch.devices import usable_device
from agnostic_torch.layers import unwrap
from agnostic_torch.logits import Logits
from agnostic_torch.models import Conv2dSame, Residual
from agnostic_torch.ops import TorchOps
from agnostic_torch.taps import _arguments, leaves

Tensor = torch.Tensor

# Bytes of the largest activation of a micro-batch. Larger ones leave the cache and cost up to twice the time (VGG16
# at 150 x 150); smaller ones leave small networks waiting for their own calls.
_ACTIVATION_BYTES = 24 * 2**20
_MOST_ROWS = 16
# A GPU's micro-batch takes this part of its memory, if a network keeps as much as so many of its largest activations.
_MEMORY, _LARGEST_KEPT, _MOST_ROWS_OF_A_GPU = 1 / 4, 64, 256
_CPU = torch.device("cpu")
# Input channels from which a convolution is 2.5 times as fast in bfloat16 on AVX512_BF16; at 16 it is 1.6 times.
_WIDE = 32


class _Cut(BaseException):
    """Raised inside the network when the last wanted layer has run; a model's own handlers let it pass."""


def ascend(model: nn.Module, ascent: Ascent, settings: Settings) -> Iterator[Climbed]:
    """See :meth:`agnostic.contracts.ascent.Ascents.ascend`."""
    model = unwrap(model)
    first = next(itertools.chain(model.parameters(), model.buffers()), torch.empty(0))
    device = usable_device(settings.device) if settings.device else first.device
    dtype: torch.dtype = getattr(torch, settings.dtype) if settings.dtype else choose_dtype(model, device)
    memory_format = torch.contiguous_format if settings.memory_format == "contiguous" else torch.channels_last
    size = settings.micro_batch or choose_micro_batch(ascent, dtype, device)
    if is_coupled(ascent):
        size = ascent.count
    # float32 that was asked for by name is not TF32.
    exact = settings.dtype == "float32" and torch.cuda.is_available()
    # What is made in inference mode can never be differentiated, and the caller may be in it.
    with torch.inference_mode(False):
        network = frozen(model, dtype, memory_format, device, ascent.objective.layers(), ascent.unused)
        for layer in layers_of_heads(ascent):
            _open_heads(network.get_submodule(layer))
    for images in micro_batches(ascent.count, size):
        with torch.inference_mode(False):
            loop = _Loop(network, ascent, images, dtype, memory_format, device)
            with held("torch.backends.tf32", _without_tf32) if exact else contextlib.nullcontext():
                climbed = loop.run(settings)
        yield replace(climbed, computed=_computed(dtype, device, exact=exact))


def _computed(dtype: torch.dtype, device: torch.device, *, exact: bool) -> str:
    """See :attr:`agnostic.visualization.ascent.Climbed.computed`."""
    is_tf32 = dtype == torch.float32 and device.type == "cuda" and not exact and torch.backends.cudnn.allow_tf32
    return "tf32" if is_tf32 else str(dtype).removeprefix("torch.")


@functools.cache
def _multiplies_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_tile") or capabilities.get("avx512_bf16"))


def choose_dtype(model: nn.Module, device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it in hardware and the model has wide layers to gain by it, else float32.

    On processors AMX is 6 times as fast as float32, AVX512_BF16 2 to 3 times. There narrow convolutions gain little,
    and grouped and depthwise ones nothing: 0.6 times the speed for EfficientNet-Lite0. A GPU gains by the bytes alone.
    """
    wide = any(isinstance(m, nn.Conv2d) and m.in_channels >= _WIDE for m in model.modules())
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        wide = wide or any(isinstance(m, nn.Linear) and m.in_features >= _WIDE for m in model.modules())
    else:
        grouped = any(getattr(module, "groups", 1) > 1 for module in model.modules())
        fast = device.type == "cpu" and _multiplies_bfloat16() and not grouped
    return torch.bfloat16 if wide and fast else torch.float32


def choose_micro_batch(ascent: Ascent, dtype: torch.dtype, device: torch.device = _CPU) -> int:
    """Images that the device computes best together; the same whatever else runs there.

    On a processor those whose largest activation fits the cache, see ``_ACTIVATION_BYTES``; on a GPU, which waits for
    its calls unless there is much to do in each, as many as its memory holds, see ``_MEMORY``.
    """
    if device.type == "cuda":
        held = ascent.widest * dtype.itemsize * _LARGEST_KEPT
        room = int(torch.cuda.get_device_properties(device).total_memory * _MEMORY)
        rows = min(room // held, _MOST_ROWS_OF_A_GPU)
    else:
        rows = min(_ACTIVATION_BYTES // (ascent.widest * dtype.itemsize), _MOST_ROWS)
    return max(1, rows // ascent.views)


@contextlib.contextmanager
def _without_tf32() -> Iterator[None]:
    """float32 is that of IEEE 754 inside, not a GPU's TF32 with 10 bits."""
    cudnn, allowed = torch.backends.cudnn, torch.backends.cuda.matmul.allow_tf32
    kept = {name: getattr(cudnn, name) for name in ("enabled", "benchmark", "deterministic")}
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with cudnn.flags(**kept, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


def micro_batches(count: int, size: int) -> Iterator[range]:
    """``count`` images in even parts of at most ``size``, but of two images at least where there are two.

    A lone image gets other bits than the same image among several: oneDNN's convolutions choose another kernel, and
    reductions to a single number another order; an ascent amplifies them. From two on the bits are the same.
    """
    parts = max(1, min(-(-count // size), count // 2))
    for part in range(parts):
        yield range(part * count // parts, (part + 1) * count // parts)


def frozen(
    model: nn.Module,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    device: torch.device,
    keep: Sequence[str] = (),
    unused: Sequence[str] = (),
) -> nn.Module:
    """A copy in inference mode whose weights take no gradient; the model itself stays as it is.

    Batch normalizations are folded into the convolutions before them, where nothing asks for what lies between. The
    copy shares every tensor that needs no conversion, and the hooks that users have put on the model.

    Args:
        keep: names of layers whose outputs must stay what they are.
        unused: names of layers that will not run, whose weights are neither converted, moved nor folded.
    """
    memo: dict[int, Any] = {}
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        # Inference mode's tensors can take no part in what is differentiated.
        value = tensor.clone() if tensor.is_inference() else tensor.detach()
        memo[id(tensor)] = nn.Parameter(value, requires_grad=False) if isinstance(tensor, nn.Parameter) else value
    for module in model.modules():
        # Tensors kept as plain attributes: Module.to passes them by, and those with a graph cannot be copied.
        for tensor in leaves({name: x for name, x in vars(module).items() if name not in _REGISTERED}):
            memo.setdefault(id(tensor), tensor.detach().to(device, dtype if tensor.is_floating_point() else None))
        # A method is copied together with what it belongs to, which may hold anything.
        for hook in itertools.chain(module._forward_hooks.values(), module._forward_pre_hooks.values()):
            memo[id(hook)] = hook
    network = copy.deepcopy(model, memo).eval()
    left_out = {network.get_submodule(name) for name in unused}
    used = [module for module in network.modules() if module not in left_out]
    _convert(used, device, torch.promote_types(dtype, torch.float32))
    _fold_batch_norms(network, keep, left_out)
    used = [module for module in network.modules() if module not in left_out]
    _convert(used, device, dtype)
    for module in used:
        if isinstance(module, nn.Hardtanh) and type(module) in (nn.ReLU6, nn.Hardtanh) and module.inplace:
            vars(module)["forward"] = functools.partial(_clipped, module)
        for tensor in itertools.chain(module.parameters(recurse=False), module.buffers(recurse=False)):
            if tensor.ndim == 4:  # kernels of volumes have no such format
                tensor.data = tensor.data.contiguous(memory_format=memory_format)
    return network.requires_grad_(False)


def _convert(modules: Sequence[nn.Module], device: torch.device, dtype: torch.dtype) -> None:
    """Move the tensors of modules, without those of modules inside, to a device; floating point to a type as well."""
    for module in modules:
        module._apply(lambda x: x.to(device, dtype if x.is_floating_point() else None), recurse=False)


_HEADS = "_agnostic_heads"


def _open_heads(module: nn.Module) -> None:
    """Let an attention of a frozen copy remember what its heads give, side by side, before the output's projection.

    PyTorch computes all in one function; with the identity as its projection, that function gives the heads.
    """
    assert isinstance(module, nn.MultiheadAttention)
    project, run = module.out_proj, module.forward
    weight, bias = project.weight, project.bias
    identity = nn.Parameter(torch.eye(len(weight), dtype=weight.dtype, device=weight.device), requires_grad=False)

    def forward(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        project.weight = identity
        project.register_parameter("bias", None)
        try:
            heads, weights = run(*args, **kwargs)
        finally:
            project.weight, project.bias = weight, bias
        vars(module)[_HEADS] = heads
        return nn.functional.linear(heads, weight, bias), weights

    vars(module)["forward"] = forward


class _Clip(torch.autograd.Function):
    """A hard tangent in place that keeps what it returns: PyTorch's copies what it is given before it overwrites it.

    Where the result is a bound, and only there, what was given is at the bound or beyond: the gradients are the same.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.bounds = low, high
        ctx.mark_dirty(x)
        ctx.save_for_backward(x.clamp_(low, high))
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        found: Tensor = torch.ops.aten.hardtanh_backward(gradient, ctx.saved_tensors[0], *ctx.bounds)
        return found, None, None


def _clipped(module: nn.Hardtanh, x: Tensor) -> Tensor:
    found: Tensor = _Clip.apply(x, module.min_val, module.max_val)
    return found


# Where a module keeps its parameters, buffers and children.
_REGISTERED = ("_parameters", "_buffers", "_modules")


def _fold_batch_norms(network: nn.Module, keep: Sequence[str], left_out: Container[nn.Module]) -> None:
    """Convolution and batch normalization as one convolution: 1.2 times the speed for EfficientNet-Lite0.

    Only neighbours in a plain chain, where it is sure that nothing else reads the convolution's output, and only kinds
    that convolve with their weight as it stands.
    """
    kept = [network.get_submodule(name) for name in keep]  # a module may have several names
    for chain in network.modules():
        if not isinstance(chain, Residual) and getattr(type(chain), "forward", None) is not nn.Sequential.forward:
            continue
        # Not named_children, which passes by a module that stands in the chain a second time.
        members: list[tuple[str, Any]] = list(chain._modules.items())
        for (first, conv), (second, norm) in itertools.pairwise(members):
            plain = type(conv) in (nn.Conv2d, Conv2dSame) and type(norm) is nn.BatchNorm2d
            if not plain or norm.running_mean is None or conv in left_out:
                continue
            hooked = any(m._forward_hooks or m._forward_pre_hooks for m in (conv, norm))
            if not hooked and conv not in kept:
                setattr(chain, first, fuse_conv_bn_eval(conv, norm))
                setattr(chain, second, nn.Identity())


class _StepOps(TorchOps):
    """Operations of a step whose constants are copied to the device once: a copy in each step would wait for it.

    Attributes:
        gathers: whether maps are known neither to turn nor to shear, and views are to be read by products of matrices,
            whose gradient is one as well. A GPU adds that of ``grid_sample`` in another order every time, and the
            pictures of two runs differ; on a processor that one is faster, and always the same.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._known: dict[Any, Tensor] = {}
        self.gathers = False

    def warp(self, images: Tensor, matrices: Tensor, shape: tuple[int, int]) -> Tensor:
        if not self.gathers:
            return super().warp(images, matrices, shape)
        maps = matrices.to(images.dtype)
        down, across = (
            self._weights(maps[:, axis, axis], maps[:, axis, 2], images.shape[1 + axis], shape[axis]) for axis in (0, 1)
        )
        rows = down[:, None] @ images.permute(0, 3, 1, 2) @ across[:, None].mT
        return rows.permute(0, 2, 3, 1)

    def _weights(self, scale: Tensor, offset: Tensor, old: int, new: int) -> Tensor:
        """(rows, new, old): how much of each old pixel of a line is in a new one, linearly; the edges go on."""
        pixels = torch.arange(max(old, new), dtype=scale.dtype, device=scale.device)
        places = (scale[:, None] * pixels[:new] + offset[:, None]).clip(0, old - 1)
        return (1 - (places[..., None] - pixels[:old]).abs()).clip(0)

    def asarray(self, value: Any, dtype: str | None = None) -> Tensor:
        if isinstance(value, Tensor):
            return super().asarray(value, dtype)
        array = np.asarray(value)
        if array.nbytes > _SMALL:
            return super().asarray(array, dtype)
        key = array.shape, array.dtype.str, array.tobytes(), dtype
        if key not in self._known:
            self._known[key] = super().asarray(array, dtype)
        return self._known[key]


# Bytes of the largest constant that is kept by its content.
_SMALL = 2**16


class _Loop:
    """The ascent of one micro-batch."""

    def __init__(
        self,
        network: nn.Module,
        ascent: Ascent,
        images: range,
        dtype: torch.dtype,
        memory_format: torch.memory_format,
        device: torch.device,
    ) -> None:
        self.network, self.ascent, self.images = network, ascent, images
        self.dtype, self.memory_format = dtype, memory_format
        self.ops = _StepOps(device)
        self.real = "float64" if dtype == torch.float64 else "float32"
        self.constants = {name: self.ops.asarray(a, self.real) for name, a in ascent.constants().items()}
        self.arrays = [tuple(self._data(a) for a in own) for own in ascent.arrays(images)]
        self.others = [self._given(x) for x in ascent.others(images)]
        self.channel_means = {
            layer: indices
            for layer, indices in ascent.channel_means(images).items()
            # Where it runs several times, its inputs may have several shapes.
            if ascent.listing[layer].calls == 1 and _is_affine(network.get_submodule(layer))
        }
        self.of_heads = layers_of_heads(ascent)
        # The gradient of each wanted mean with respect to its convolution's input: (images, C, H, W), and the offset.
        self.affine: dict[str, list[tuple[Tensor, Tensor]]] = {}
        # Of each image, whether a gradient came back from the network in any step.
        self.reached = torch.zeros(len(images), dtype=torch.bool, device=device)
        self.inputs = torch.empty(0)  # what the network was given last

    def _given(self, array: npt.NDArray[Any]) -> Tensor:
        """An input that stays as it is, floating point in the network's type."""
        x = torch.from_numpy(np.ascontiguousarray(array)).to(self.ops.device)
        return x.to(self.dtype) if x.is_floating_point() else x

    def _data(self, array: npt.NDArray[Any]) -> Tensor:
        return self.ops.asarray(array, self.real if array.dtype.kind == "f" else None)

    def run(self, settings: Settings) -> Climbed:
        """The finished micro-batch."""
        ascent, ops = self.ascent, self.ops
        parameters = ops.asarray(ascent.initial(self.images), self.real)
        state = ascent.recipe.update.initial_state(parameters)
        schedule = {name: self._data(a) for name, a in ascent.schedule(self.images).items()}
        if self.ops.device.type != "cpu" and "matrices" in schedule:
            # Seen once, before the loop: a look in each step would wait for the device.
            self.ops.gathers = not bool(schedule["matrices"][..., (0, 1), (1, 0)].any())
        history = torch.empty(ascent.steps, len(self.images), dtype=parameters.dtype, device=parameters.device)
        finite = torch.ones(ascent.steps, len(self.images), dtype=torch.bool, device=parameters.device)
        parts, seen = self._parts_reached(parameters, {name: a[0] for name, a in schedule.items()}), 0
        weights, added = self._importance(parameters)
        for step in range(ascent.steps):
            now = {name: a[step] for name, a in schedule.items()}
            parameters = parameters.detach().requires_grad_()
            with torch.enable_grad():
                scores = ascent.score(ops, self._forward, parameters, now, self.arrays, self.constants, added)
            gradient, *of_pixels = _gradients(scores, parameters, *(() if added is None else (added,)))
            history[step] = scores.detach()
            # A sum is finite only if all its terms are, and costs one pass without a temporary.
            finite[step] = gradient.flatten(1).sum(1).isfinite()
            with torch.no_grad():
                parameters, state = ascent.update(ops, parameters, gradient, state, now)
                weights = weights if added is None else weights + pixel_importance(ops, *of_pixels)
            if settings.on_step is not None:
                settings.on_step(len(self.images))
            done = step + 1
            is_last = done == ascent.steps
            show = settings.on_images if is_last or done % (settings.every or ascent.steps) == 0 else None
            # Where the device runs ahead of the program, a look at its numbers would wait for it.
            if show is not None or is_last or parameters.device.type == "cpu":
                scored, good = (x[seen:done].cpu().numpy() for x in (history, finite))
                check_finite(ascent, self.images, scored, good, seen)
                seen = done
            if show is not None:
                show(self.images, done, self._pixels(parameters))
        if parts is not None:
            last = self._parts_reached(parameters, {name: a[-1] for name, a in schedule.items()})
            parts = parts if last is None else parts | last
        scores, reached = history.double().cpu().numpy(), self.reached.cpu().numpy()
        importance = None if added is None else ops.numpy(weights).astype(np.float32)
        return Climbed(self.images, self._pixels(parameters), scores, reached, parts, importance)

    def _importance(self, parameters: Tensor) -> tuple[Tensor, Tensor | None]:
        """The importance of pixels before the first step, and what is added to the images for it; None for none."""
        height, width, _ = self.ascent.shape
        weights = parameters.new_zeros(len(self.images), height, width)
        if not self.ascent.recipe.importance:
            return weights, None
        shown = self.ascent.shown[2]
        return weights, parameters.new_zeros(len(self.images), height, width, shown).requires_grad_()

    def _pixels(self, parameters: Tensor) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            shown = self.ascent.display(self.ops, parameters.detach(), self.constants)
        return self.ops.numpy(shown).astype(np.float32)

    def _parts_reached(self, parameters: Tensor, now: Mapping[str, Tensor]) -> npt.NDArray[np.bool_] | None:
        """(images, parts): whether a gradient of each part of the objective comes back; None where there is one."""
        if len(self.ascent.objective.parts()) < 2:
            return None
        with torch.enable_grad():
            scores = self.ascent.part_scores(
                self.ops, self._forward, parameters.detach().requires_grad_(), now, self.arrays, self.constants
            )
            gradients = [_gradients(x, self.inputs, keep=True)[0] for x in scores]
        found = [(x != 0).reshape(len(self.images), -1).any(1) for x in gradients]
        reached: npt.NDArray[np.bool_] = torch.stack(found, 1).cpu().numpy()
        return reached

    def _forward(self, inputs: Tensor) -> Mapping[str, Tap]:
        # A node of its own: what regularizers do to the same pixels is no gradient of the network's.
        inputs = inputs.view_as(inputs)
        # Not a method: the inputs would hold this loop, which holds them, until the garbage collector comes.
        inputs.register_hook(functools.partial(_receive, self.reached))
        self.inputs = inputs
        axes = self.ascent.input.axes
        rows = inputs.permute(*(self.ascent.input.channels_last.index(axis) for axis in axes)).to(self.dtype)
        rows = rows.contiguous(memory_format=self.memory_format) if axes == "NCHW" else rows.contiguous()
        # What a model does to its input in place must change neither the picture nor what the next step is given.
        rows = rows.clone() if rows.data_ptr() == inputs.data_ptr() else rows
        call = self.ascent.call.having(rows, [x.clone() for x in self.others])
        return _CutRun(self.ascent, self._affine_tap, self.of_heads).taps_of(self.network, call, self.channel_means)

    def _affine_tap(self, layer: str, module: nn.Module, x: Tensor) -> Tap:
        if layer not in self.affine:
            self.affine[layer] = [_affine_means(module, indices, x) for indices in self.channel_means[layer]]
        images = len(self.images)

        def channel_mean(number: int) -> Tensor:
            gradient, offset = self.affine[layer][number]
            # (images, views, K) @ (images, K, 1); both sides share the memory format, so the order of K is one.
            flat = x.permute(0, 2, 3, 1).reshape(images, -1, gradient.shape[1])
            means = torch.bmm(flat, gradient[..., None]).to(offset.dtype)[..., 0] + offset[:, None]
            return means.reshape(-1)

        return Tap(layer, None, "NCHW", channel_mean)


def _receive(reached: Tensor, gradient: Tensor) -> None:
    """Take note, for each image, of the gradient that the network passes back to its inputs.

    Args:
        reached: (images,) bool, changed in place.
        gradient: (images * views, H, W, C).
    """
    reached |= (gradient != 0).reshape(len(reached), -1).any(1)


class _CutRun:
    """One run of the network: it records the taps of an objective's layers, and is cut after the last of them."""

    def __init__(
        self, ascent: Ascent, affine_tap: Callable[[str, nn.Module, Tensor], Tap], of_heads: Container[str]
    ) -> None:
        self.ascent, self.affine_tap, self.of_heads = ascent, affine_tap, of_heads
        self.wanted = ascent.objective.layers()
        self.taps: dict[str, Tap] = {}
        # Calls of each layer that are still to come, the last of them the one that is looked at.
        self.left = {layer: ascent.last_call(layer) + 1 for layer in self.wanted if layer != OUTPUT}
        self.cut = OUTPUT not in self.wanted
        self.logits = Logits()

    def taps_of(self, network: nn.Module, call: Any, channel_means: Mapping[str, Any]) -> Mapping[str, Tap]:
        """Run the network; of the layers in ``channel_means`` only means of channels are wanted."""
        try:
            with self._hooks(network, channel_means), self._follow_logits():
                args, kwargs = _arguments(network, call)
                output = network(*args, **kwargs)
        except _Cut:
            return self.taps
        if missing := [layer for layer in self.wanted if layer != OUTPUT and layer not in self.taps]:
            raise InvalidInput(f"layer {missing[0]!r} did not run: the model calls it for some images only")
        if self.cut:  # some layer ran less often than for the image that it was listed with
            return self.taps
        if not isinstance(output, Tensor) or output.ndim != 2:
            what = f"{output.ndim} axes" if isinstance(output, Tensor) else f"type {type(output).__name__}"
            raise InvalidInput(
                f"the output has {what}, not (batch, classes); name the layer of the logits: logit(..., layer=...)"
            )
        self.taps[OUTPUT] = Tap(OUTPUT, output, "NC", logits=self.logits.before(output))
        return self.taps

    def _follow_logits(self) -> contextlib.AbstractContextManager[Any]:
        return self.logits if self.ascent.objective.wants_logits else contextlib.nullcontext()

    @contextlib.contextmanager
    def _hooks(self, network: nn.Module, channel_means: Mapping[str, Any]) -> Iterator[None]:
        handles = []
        try:
            for layer in self.left:
                module = network.get_submodule(layer)
                if layer in channel_means:
                    handles.append(module.register_forward_pre_hook(self._input_hook(layer), with_kwargs=True))
                else:
                    handles.append(module.register_forward_hook(self._output_hook(layer)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _ends(self, layer: str) -> bool:
        return self.cut and all(n == (1 if x == layer else 0) for x, n in self.left.items())

    def _record(self, layer: str, tap: Callable[[], Tap]) -> None:
        if not self.left[layer]:
            return
        self.taps[layer], last = tap(), self._ends(layer)
        self.left[layer] -= 1
        if last:
            raise _Cut

    def _output_hook(self, layer: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            if layer in self.of_heads:
                heads, order = vars(module)[_HEADS], "NLC" if module.batch_first else "LNC"
                self._record(layer, lambda: Tap(layer, heads, order))
                return
            # What runs after this layer may change the array in place; what is cut off cannot.
            axes, before = self.ascent.listing[layer].axes or "", self.logits.before(output)

            def tap() -> Tap:
                if self._ends(layer):
                    return Tap(layer, output, axes, logits=before)
                return Tap(layer, output.clone(), axes, logits=None if before is None else before.clone())

            self._record(layer, tap)

        return hook

    def _input_hook(self, layer: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            x = args[0] if args else kwargs["input"]
            self._record(layer, lambda: self.affine_tap(layer, module, x if self._ends(layer) else x.clone()))

        return hook


def _gradients(values: Tensor, *x: Tensor, keep: bool = False) -> tuple[Tensor, ...]:
    """The gradients of the sum of some values for each ``x``; zeros where nothing connects them.

    Args:
        keep: what connects them, for another gradient.
    """
    if not values.requires_grad:
        return tuple(map(torch.zeros_like, x))
    return torch.autograd.grad(values.sum(), x, retain_graph=keep, allow_unused=True, materialize_grads=True)


def _is_affine(module: nn.Module) -> bool:
    """Whether a module is a plain dense convolution, so that its output's means are affine in its input."""
    return (
        isinstance(module, nn.Conv2d)
        and type(module).forward is nn.Conv2d.forward
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not module._forward_hooks
        and not module._forward_pre_hooks
    )


def _affine_means(module: nn.Module, channels: npt.NDArray[np.int64], x: Tensor) -> tuple[Tensor, Tensor]:
    """The spatial mean of one channel an image as an affine function of the module's input.

    Args:
        channels: (images,) which channel.
        x: (images * views, C, H, W): only its shape, type and device matter.

    Returns:
        (images, H * W * C) gradients in channels-last order and (images,) offsets, such that the mean of the module's
        channel is ``<x, gradient> + offset``.
    """
    assert isinstance(module, nn.Conv2d)
    # A number of the input counts in the mean as often as a place of the kernel falls on it, times the weight there.
    down, across = (_covered(module, axis, size) for axis, size in enumerate(x.shape[2:]))
    places = torch.from_numpy(down), torch.from_numpy(across)
    real = torch.promote_types(x.dtype, torch.float32)
    chosen = torch.from_numpy(channels).to(x.device)
    weights = module.weight[chosen].to(real)
    gradients = torch.einsum("nckl,kh,lw->nhwc", weights, *(a.to(x.device, real) for a in places))
    bias = torch.zeros(len(channels), dtype=real, device=x.device) if module.bias is None else module.bias[chosen]
    return gradients.reshape(len(channels), -1).to(x.dtype), bias.to(real)


def _covered(module: nn.Conv2d, axis: int, size: int) -> npt.NDArray[np.float64]:
    """(kernel, size): how often each place of a kernel falls on each place of the input, over the output's size."""
    length, stride, dilation = (x[axis] for x in (module.kernel_size, module.stride, module.dilation))
    reach = dilation * (length - 1)
    if isinstance(module.padding, str):
        before, after = (reach // 2, reach - reach // 2) if module.padding == "same" else (0, 0)
    else:
        before = after = int(module.padding[axis])
    count = (size + before + after - reach - 1) // stride + 1
    found = np.zeros((length, size))
    for place in range(length):
        seen = np.arange(count) * stride + place * dilation - before
        np.add.at(found[place], seen[(seen >= 0) & (seen < size)], 1 / count)
    return found
