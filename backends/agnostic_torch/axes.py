"""What PyTorch's operators do to the dimensions of arrays. See :mod:`agnostic.axes`."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from agnostic import axes
from agnostic.axes import Dimensions

Found = Dimensions | None | list[Dimensions | None]
"""The dimensions of an operator's result, or of each of several."""
Rule = Callable[["Following", Sequence[Any], Mapping[str, Any], Any], Found]


class Following:
    """The dimensions of the arrays of one run, by the arrays' identity, as long as they are there.

    Weights and other constants have none, and neither has the result of an operator that is not known.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Tensor], Dimensions]] = {}
        self._inputs: list[tuple[Dimensions, bool]] = []

    def start(self, inputs: Iterable[Tensor]) -> None:
        """The model is called with these arrays."""
        for x in inputs:
            if not x.is_nested:
                dimensions = axes.unknown(x.shape)
                self._inputs.append((dimensions, not (x.is_floating_point() or x.is_complex())))
                self.put(x, dimensions)

    def put(self, x: Tensor, dimensions: Dimensions) -> None:
        """An array has these."""
        self._known[id(x)] = weakref.ref(x), dimensions

    def of(self, x: Any) -> Dimensions | None:
        """Those of an array."""
        array: Any = x  # which found[0]() may be no more
        found = self._known.get(id(x))
        if found is None or found[0]() is not x or array.is_nested or len(found[1]) != array.ndim:
            return None
        return found[1]

    def set_letters(self, x: Any, letters: str) -> None:
        """The letters of an array that are not known yet are these."""
        given = self.of(x)
        if given is not None and len(given) == len(letters):
            axes.tell(given, letters)

    def recurrent(self, x: Any, output: Any) -> None:
        """A recurrent module was called with an array, and returned this: features in the place of features."""
        given, result = self.of(x), next(iter(_tensors(output)), None)
        if given and result is not None and result.ndim == len(given):
            axes.tell(given[-1:], "C")
            self.put(result, (*given[:-1], axes.new(result.shape[-1], "C")))

    def ended(self) -> None:
        """The run is over: what nothing told of the inputs is assumed."""
        for dimensions, integers in self._inputs:
            axes.assume(dimensions, integers=integers)
        self._inputs.clear()

    def operator(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        """An operator was applied."""
        name = getattr(func, "__name__", "").partition(".")[0]
        outputs = _tensors(result)
        given = [x for x in _tensors([*args, *kwargs.values()]) if self.of(x) is not None]
        if not outputs or any(x.is_nested for x in outputs) or not (given or name in _MAKING):
            return
        rule = _RULES.get(name.removesuffix("_"), _RULES.get(name))
        if rule is None and torch.Tag.pointwise in getattr(func, "tags", ()):
            rule = _pointwise
        found = None if rule is None else rule(self, args, kwargs, result)
        for x, dimensions in zip(outputs, found if isinstance(found, list) else [found], strict=False):
            if dimensions is not None and len(dimensions) == x.ndim:
                self.put(x, dimensions)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return list(itertools.chain.from_iterable(map(_tensors, value)))
    return []


def _int(value: int, rank: int) -> int:
    return value % rank if rank else 0


def _argument(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str, default: Any = None) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)


# Rules ---------------------------------------------------------------------------------------------------------------
def _pointwise(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    given = [x for x in map(following.of, _tensors([*args, *kwargs.values()])) if x is not None]
    found: list[Dimensions | None] = []
    for output in _tensors(result):
        fitting = [x for x in given if len(x) <= output.ndim]
        found.append(axes.together(fitting, output.shape) if fitting else None)
    return found


def _resized(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    """Dimension by dimension the first array's, in other lengths; of the first that is known of a list."""
    parts = _tensors(args[0] if args else list(kwargs.values()))
    given = next((x for x in map(following.of, parts) if x is not None), None)
    return [None if given is None else axes.all_resized(given, x.shape) for x in _tensors(result)]


def _concatenated(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    given = [x for x in map(following.of, _tensors(args[0])) if x is not None]
    return axes.concatenated(given, result.shape) if given else None


def _spatial(last: int) -> Rule:
    """As :func:`_resized`, of an operator over so many last dimensions, which has channels before them."""

    def rule(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
        given = following.of(args[0])
        if given is not None and len(given) in (last + 1, last + 2):
            axes.tell(given, ("NC" if len(given) == last + 2 else "C") + axes.POSITIONS[last])
        return _resized(following, args, kwargs, result)

    return rule


def _normalized_channels(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    given = following.of(args[0])
    if given is not None and 1 < len(given) < 6:
        axes.tell(given, "NC" + axes.POSITIONS[len(given) - 2])
    return _first_kept(following, args, kwargs, result)


def _normalized_last(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    given = following.of(args[0])
    if given and len(args[1]) == 1 and all(axes.letter_of(d) != "C" for d in given):
        axes.tell(given[-1:], "C")
    return _first_kept(following, args, kwargs, result)


def _first_kept(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    """The first result has the first array's dimensions; statistics beside it are nothing that a layer returns."""
    return following.of(args[0])


def _permuted(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    given = following.of(args[0])
    order = _argument(args, kwargs, 1, "dims")
    return None if given is None else tuple(given[_int(d, len(given))] for d in order)


def _transposed(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    given = following.of(args[0])
    if given is None or len(given) < 2:
        return given
    first, second = (args[1], args[2]) if len(args) > 2 else (-2, -1)
    found = list(given)
    found[first], found[second] = found[second], found[first]
    return tuple(found)


def _reshaped(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    given = following.of(args[0])
    return None if given is None else axes.reshaped(given, result.shape)


def _squeezed(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    given = following.of(args[0])
    if given is None:
        return None
    dims = _argument(args, kwargs, 1, "dim", list(range(len(given))))
    gone = {_int(d, len(given)) for d in (dims if isinstance(dims, Sequence) else [dims])}
    return tuple(x for d, x in enumerate(given) if d not in gone or axes.length(x) != 1)


def _inserted(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    """One dimension more: of unsqueeze, or of a stack."""
    given = next((x for x in map(following.of, _tensors(args[0])) if x is not None), None)
    if given is None:
        return None
    place = _int(_argument(args, kwargs, 1, "dim", 0), len(given) + 1)
    return (*given[:place], *axes.unknown(result.shape[place : place + 1]), *given[place:])


def _dropped(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    """One dimension less: of select, or of unbind."""
    given = following.of(args[0])
    if given is None:
        return None
    place = _int(_argument(args, kwargs, 1, "dim", 0), len(given))
    return [(*given[:place], *given[place + 1 :])] * len(_tensors(result))


def _reduced(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    given = following.of(args[0])
    outputs = _tensors(result)
    if given is None or outputs[0].ndim == len(given):
        return _resized(following, args, kwargs, result)
    dims = next((x for x in args[1:] if isinstance(x, list | tuple)), kwargs.get("dim"))
    if dims is None:
        dims = next((x for x in args[1:] if isinstance(x, int) and not isinstance(x, bool)), range(len(given)))
    gone = {_int(d, len(given)) for d in (dims if isinstance(dims, Iterable) else [dims])}
    return [tuple(x for d, x in enumerate(given) if d not in gone)] * len(outputs)


def _expanded(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    given = following.of(args[0])
    return None if given is None else axes.together([given], result.shape)


def _product(first: int) -> Rule:
    """A matrix product of the two arguments from this place on."""

    def rule(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
        a, b = args[first], args[first + 1]
        if min(a.ndim, b.ndim) < 2:
            return None
        return axes.product(following.of(a), following.of(b), result.shape)

    return rule


def _linear(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    given = following.of(args[0])
    return None if not given else (*given[:-1], axes.mixed(given[-1], given[:-1], result.shape[-1]))


def _convolved(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    spatial = args[1].ndim - 2
    if not 1 <= spatial <= 3:
        return None
    names = ("N" if result.ndim > spatial + 1 else "") + "C" + axes.POSITIONS[spatial]
    return axes.convolved(following.of(args[0]), result.shape, names)


def _attended(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    query, value = following.of(args[0]), following.of(args[2])
    if query is None or not _tensors(result):
        return None
    last = value[-1] if value is not None else axes.resized(query[-1], _tensors(result)[0].shape[-1])
    return [(*query[:-1], last)]


def _embedded(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    given = following.of(args[1])
    return None if given is None else (*given, axes.new(result.shape[-1], "C"))


def _patches(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    """Of unfold, (N, C H W) to (N, C times the kernel, positions)."""
    given = following.of(args[0])
    if given is None or len(given) != 4:
        return None
    axes.tell(given, "NCHW")
    return (given[0], axes.new(result.shape[1], "C"), axes.new(result.shape[2], "L"))


def _unpatched(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    given = following.of(args[0])
    if given is None or len(given) != 3:
        return None
    return (given[0], *(axes.new(n, letter) for n, letter in zip(result.shape[1:], "CHW", strict=True)))


def _sampled(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    return _spatial(result.ndim - 2)(following, args, kwargs, result)


def _indexed(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    """By one list of places along one dimension; of others nothing is known."""
    given, index = following.of(args[0]), args[1]
    if given is None or sum(x is not None for x in index) != 1:
        return None
    return axes.all_resized(given, result.shape) if next(x for x in index if x is not None).ndim == 1 else None


def _einsum(following: Following, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Found:
    return axes.einsum(args[0], [following.of(x) for x in _tensors(args[1])], result.shape)


_NAMES: dict[Rule, str] = {
    _pointwise: "where clone contiguous _to_copy to detach alias lift_fresh dropout native_dropout softmax "
    "_softmax log_softmax _log_softmax _safe_softmax cumsum cumprod copy masked_fill fill "
    "zeros_like ones_like empty_like full_like rand_like randn_like bernoulli prelu gelu "
    "glu_jvp batch_norm_elemt channel_shuffle native_channel_shuffle hardswish hardsigmoid "
    "hardtanh relu6 mish silu softplus log_sigmoid leaky_relu elu selu celu softshrink "
    "hardshrink threshold rrelu rrelu_with_noise lerp addcmul addcdiv clamp _conj resolve_conj "
    "view_as_complex_copy nan_to_num",
    _resized: "slice narrow index_select constant_pad_nd pad _pad_enum reflection_pad1d reflection_pad2d "
    "reflection_pad3d replication_pad1d replication_pad2d replication_pad3d roll flip sort topk gather "
    "split split_with_sizes chunk tensor_split unsafe_split unsafe_chunk glu repeat tile repeat_interleave "
    "_fft_r2c _fft_c2r _fft_c2c fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 cummax linalg_qr tril triu scatter "
    "scatter_add index_add index_copy index_fill slice_scatter select_scatter index_put _index_put_impl "
    "local_response_norm logcumsumexp",
    _concatenated: "cat concat concatenate",
    _first_kept: "native_group_norm group_norm instance_norm rms_norm _fused_rms_norm",
    _normalized_channels: "batch_norm native_batch_norm _native_batch_norm_legit cudnn_batch_norm "
    "_native_batch_norm_legit_no_training _batch_norm_impl_index miopen_batch_norm _batch_norm_with_update "
    "_batch_norm_no_update",
    _normalized_last: "native_layer_norm layer_norm",
    _permuted: "permute",
    _transposed: "transpose t swapaxes swapdims numpy_T mT matrix_H adjoint",
    _reshaped: "view _unsafe_view reshape _reshape_alias flatten unflatten view_as reshape_as",
    _squeezed: "squeeze",
    _inserted: "unsqueeze stack",
    _dropped: "select unbind",
    _reduced: "sum mean amax amin max min var std var_mean std_mean norm prod argmax argmin any all logsumexp "
    "linalg_vector_norm median nansum nanmean count_nonzero mode aminmax",
    _expanded: "expand broadcast_to expand_as",
    _product(0): "mm bmm matmul",
    _product(1): "addmm baddbmm _addmm_activation",
    _linear: "linear",
    _convolved: "convolution convolution_overrideable _convolution conv1d conv2d conv3d conv_transpose1d "
    "conv_transpose2d conv_transpose3d mkldnn_convolution cudnn_convolution thnn_conv2d slow_conv3d "
    "_conv_depthwise2d conv_depthwise3d",
    _attended: "scaled_dot_product_attention _scaled_dot_product_flash_attention "
    "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention "
    "_scaled_dot_product_cudnn_attention _scaled_dot_product_attention_math",
    _embedded: "embedding",
    _patches: "im2col",
    _unpatched: "col2im",
    _sampled: "grid_sampler grid_sampler_2d grid_sampler_3d",
    _indexed: "index _unsafe_index",
    _einsum: "einsum",
}  # fmt: skip


def _rules() -> dict[str, Rule]:
    found = {name: rule for rule, all_names in _NAMES.items() for name in all_names.split()}
    for spatial in (1, 2, 3):
        rule = _spatial(spatial)
        pools = ("max_pool{}d", "max_pool{}d_with_indices", "avg_pool{}d", "adaptive_avg_pool{}d", "lp_pool{}d",
                 "_adaptive_avg_pool{}d", "adaptive_max_pool{}d", "mkldnn_max_pool{}d", "max_unpool{}d",
                 "fractional_max_pool{}d", "quantized_max_pool{}d", "mkldnn_adaptive_avg_pool{}d")  # fmt: skip
        found.update((name.format(spatial), rule) for name in pools)
    ups = ("nearest1d 1", "nearest2d 2", "nearest3d 3", "linear1d 1", "bilinear2d 2", "bicubic2d 2", "trilinear3d 3")
    for what in ups:
        name, spatial_ = what.split()
        for form in ("upsample_{}", "_upsample_{}_aa", "_upsample_{}"):
            found[form.format(name)] = _spatial(int(spatial_))
    for name in ("nearest-exact", "nearest_exact"):
        found.update((f"_upsample_{name}{n}d", _spatial(n)) for n in (1, 2, 3))
    found.update((name, _spatial(2)) for name in ("pixel_shuffle", "pixel_unshuffle"))
    return found


_RULES = _rules()
_MAKING = frozenset(name for name, rule in _RULES.items() if rule is _convolved)
"""Operators whose results are known even where their operands are not."""
