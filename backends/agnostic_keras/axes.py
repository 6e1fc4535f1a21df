"""What Keras' operations do to the dimensions of arrays, on every engine. See :mod:`agnostic.axes`.

Seen are the functions of the engine that layers and ``keras.ops`` lead to, and the arithmetic of the engine's arrays.
What calls the engine past both is not followed, and the axes of its result are unknown.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import tree
from keras.src import backend, ops

from agnostic import axes
from agnostic.axes import Dimension, Dimensions
from agnostic.ops import Array
from agnostic.patching import Replacement, patched

Found = Dimensions | None | list[Dimensions | None]
Rule = Callable[["Following", Mapping[str, Any], tuple[Any, ...], Any], Found]
"""Of keyword arguments, positional ones and the result: the dimensions of the result, or of each of several."""


class Following:
    """The dimensions of the arrays of one run, by the arrays' identity, as long as they are there."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], Dimensions]] = {}
        self._inputs: list[tuple[Dimensions, bool]] = []

    def start(self, inputs: Any) -> None:
        """The model is called with these arrays."""
        for x in _arrays(inputs):
            dimensions = axes.unknown(x.shape)
            self._inputs.append((dimensions, "int" in keras.backend.standardize_dtype(x.dtype)))
            self.put(x, dimensions)

    def put(self, x: Array, dimensions: Dimensions) -> None:
        """An array has these."""
        self._known[id(x)] = weakref.ref(x), dimensions

    def of(self, x: Any) -> Dimensions | None:
        """Those of an array."""
        array: Any = x  # which found[0]() may be no more
        found = self._known.get(id(x))
        if found is None or found[0]() is not x or len(found[1]) != len(array.shape):
            return None
        return found[1]

    def recurrent(self, x: Any, output: Any) -> None:
        """A recurrent layer was called with an array, and returned this: of all steps, or of the last."""
        given, result = self.of(x), next(iter(_arrays(output)), None)
        if given is not None and len(given) == 3 and result is not None and len(result.shape) in (2, 3):
            axes.tell(given, "NLC")
            self.put(result, (*given[: len(result.shape) - 1], axes.new(int(result.shape[-1]), "C")))

    def ended(self) -> None:
        """The run is over: what nothing told of the inputs is assumed."""
        last = keras.config.image_data_format() == "channels_last"
        for dimensions, integers in self._inputs:
            axes.assume(dimensions, integers=integers, channels_last=last)
        self._inputs.clear()

    def _call(self, rule: Rule) -> Replacement:
        def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            outputs = _arrays(result)
            given = [x for x in _arrays((args, kwargs)) if self.of(x) is not None]
            if outputs and (given or rule is _convolved):
                found = rule(self, kwargs, args, result)
                for x, dimensions in zip(outputs, found if isinstance(found, list) else [found], strict=False):
                    if dimensions is not None and len(dimensions) == len(x.shape):
                        self.put(x, dimensions)
            return result

        return call

    @contextmanager
    def following(self, inputs: Any) -> Iterator[None]:
        """Inside, what is computed from these arrays is followed."""
        self.start(inputs)
        modules = (backend, backend.numpy, backend.nn, backend.math, backend.image, backend.core)
        patches = []
        for name, rule in _RULES.items():
            # What an engine does by several functions of its own is seen where Keras has it as one.
            found = [x for x in modules if hasattr(x, name)] or [x for x in (ops, keras.ops) if hasattr(x, name)]
            patches += [(module, name, self._call(rule)) for module in found]
        for cls in {type(x) for x in _arrays(inputs)}:
            patches += [(cls, name, self._call(rule)) for name, rule in _OPERATORS.items() if hasattr(cls, name)]
        with patched(patches):
            yield


def _arrays(value: Any) -> list[Array]:
    return [x for x in tree.flatten(value) if hasattr(x, "shape") and hasattr(x, "dtype")]


def _argument(kwargs: Mapping[str, Any], args: tuple[Any, ...], place: int, *names: str) -> Any:
    return args[place] if len(args) > place else next((kwargs[name] for name in names if name in kwargs), None)


def _first(kwargs: Mapping[str, Any], args: tuple[Any, ...]) -> Any:
    return args[0] if args else next(iter(kwargs.values()), None)


def _shape(x: Array) -> tuple[int, ...]:
    return tuple(int(n) for n in x.shape)


# Rules ---------------------------------------------------------------------------------------------------------------
def _pointwise(following: Following, kwargs: Mapping[str, Any], args: tuple[Any, ...], result: Any) -> Found:
    given = [x for x in map(following.of, _arrays((args, kwargs))) if x is not None]
    found: list[Dimensions | None] = []
    for output in _arrays(result):
        fitting = [x for x in given if len(x) <= len(output.shape)]
        found.append(axes.together(fitting, _shape(output)) if fitting else None)
    return found


def _resized(following: Following, kwargs: Mapping[str, Any], args: tuple[Any, ...], result: Any) -> Found:
    given = following.of(_first(kwargs, args))
    return [None if given is None else axes.all_resized(given, _shape(x)) for x in _arrays(result)]


def _concatenated(following: Following, kwargs: Mapping[str, Any], args: tuple[Any, ...], result: Any) -> Found:
    given = [x for x in map(following.of, _arrays(_first(kwargs, args))) if x is not None]
    return axes.concatenated(given, _shape(result)) if given else None


def _layout(kwargs: Mapping[str, Any], args: tuple[Any, ...], rank: int) -> str | None:
    formats = ("channels_first", "channels_last")
    order = next((x for x in (*args, *kwargs.values()) if isinstance(x, str) and x in formats), None)
    order = order or keras.config.image_data_format()
    if not 3 <= rank <= 5:
        return None
    return f"NC{axes.POSITIONS[rank - 2]}" if order == "channels_first" else f"N{axes.POSITIONS[rank - 2]}C"


def _convolved(following: Following, kwargs: Mapping[str, Any], args: tuple[Any, ...], result: Any) -> Found:
    names = _layout(kwargs, args, len(result.shape))
    return None if names is None else axes.convolved(following.of(_first(kwargs, args)), _shape(result), names)


def _pooled(following: Following, kwargs: Mapping[str, Any], args: tuple[Any, ...], result: Any) -> Found:
    given, names = following.of(_first(kwargs, args)), _layout(kwargs, args, len(result.shape))
    if given is not None and names is not None:
        axes.tell(given, names)
    return _resized(following, kwargs, args, result)


def _normalized(following: Following, kwargs: Mapping[str, Any], args: tuple[Any, ...], result: Any) -> Found:
    """Over a batch: the axis that is left is the channels."""
    given, axis = following.of(_first(kwargs, args)), _argument(kwargs, args, 3, "axis")
    if given is not None and isinstance(axis, int):
        axes.tell((given[axis],), "C")
    return _resized(following, kwargs, args, result)


def _permuted(following: Following, kwargs: Mapping[str, Any], args: tuple[Any, ...], result: Any) -> Found:
    given, order = following.of(_first(kwargs, args)), _argument(kwargs, args, 1, "axes")
    if given is None:
        return None
    return tuple(given[d] for d in (range(len(given) - 1, -1, -1) if order is None else order))


def _swapped(following: Following, kwargs: Mapping[str, Any], args: tuple[Any, ...], result: Any) -> Found:
    given = following.of(_first(kwargs, args))
    if given is None:
        return None
    found = list(given)
    first, second = _argument(kwargs, args, 1, "axis1"), _argument(kwargs, args, 2, "axis2")
    found[first], found[second] = found[second], found[first]
    return tuple(found)


def _moved(following: Following, kwargs: Mapping[str, Any], args: tuple[Any, ...], result: Any) -> Found:
    given = following.of(_first(kwargs, args))
    if given is None:
        return None
    rank = len(given)
    source, to = (
        [int(d) % rank for d in (x if isinstance(x, Iterable) else [x])]
        for x in (_argument(kwargs, args, 1, "source"), _argument(kwargs, args, 2, "destination"))
    )
    order = [d for d in range(rank) if d not in source]
    for place, d in sorted(zip(to, source, strict=True)):
        order.insert(place, d)
    return tuple(given[d] for d in order)


def _reshaped(following: Following, kwargs: Mapping[str, Any], args: tuple[Any, ...], result: Any) -> Found:
    given = following.of(_first(kwargs, args))
    return None if given is None else axes.reshaped(given, _shape(result))


def _axes(axis: Any, rank: int) -> set[int]:
    if axis is None:
        return set(range(rank))
    return {int(d) % rank for d in (axis if isinstance(axis, Iterable) else [axis])}


def _reduced(following: Following, kwargs: Mapping[str, Any], args: tuple[Any, ...], result: Any) -> Found:
    given = following.of(_first(kwargs, args))
    if given is None or len(result.shape) == len(given):
        return _resized(following, kwargs, args, result)
    gone = _axes(_argument(kwargs, args, 1, "axis"), len(given))
    return tuple(x for d, x in enumerate(given) if d not in gone)


def _squeezed(following: Following, kwargs: Mapping[str, Any], args: tuple[Any, ...], result: Any) -> Found:
    given = following.of(_first(kwargs, args))
    if given is None:
        return None
    gone = _axes(_argument(kwargs, args, 1, "axis"), len(given))
    return tuple(x for d, x in enumerate(given) if d not in gone or axes.length(x) != 1)


def _inserted(following: Following, kwargs: Mapping[str, Any], args: tuple[Any, ...], result: Any) -> Found:
    given = next((x for x in map(following.of, _arrays(_first(kwargs, args))) if x is not None), None)
    if given is None:
        return None
    shape = _shape(result)
    places, rest = _axes(_argument(kwargs, args, 1, "axis") or 0, len(shape)), iter(given)
    if len(shape) - len(places) != len(given):
        return None
    return tuple(axes.new(n) if d in places else next(rest) for d, n in enumerate(shape))


def _spread(following: Following, kwargs: Mapping[str, Any], args: tuple[Any, ...], result: Any) -> Found:
    given = following.of(_first(kwargs, args))
    return None if given is None else axes.together([given], _shape(result))


def _product(following: Following, kwargs: Mapping[str, Any], args: tuple[Any, ...], result: Any) -> Found:
    first, second = (*args, *kwargs.values())[:2]
    if min(len(first.shape), len(second.shape)) < 2:
        return None
    return axes.product(following.of(first), following.of(second), _shape(result))


def _einsum(following: Following, kwargs: Mapping[str, Any], args: tuple[Any, ...], result: Any) -> Found:
    return axes.einsum(args[0], [following.of(x) for x in args[1:]], _shape(result))


def _taken(following: Following, kwargs: Mapping[str, Any], args: tuple[Any, ...], result: Any) -> Found:
    """Rows of a table by their numbers, or some places along one axis."""
    given, indices = following.of(args[0]), following.of(_argument(kwargs, args, 1, "indices"))
    if given is None and indices is not None and len(result.shape) == len(indices) + 1:
        return (*indices, axes.new(int(result.shape[-1]), "C"))
    return None if given is None else axes.all_resized(given, _shape(result))


def _attended(following: Following, kwargs: Mapping[str, Any], args: tuple[Any, ...], result: Any) -> Found:
    query, value = following.of(_first(kwargs, args)), following.of(_argument(kwargs, args, 2, "value"))
    if query is None:
        return None
    return (*query[:-1], value[-1] if value is not None else axes.resized(query[-1], _shape(result)[-1]))


def _item(following: Following, kwargs: Mapping[str, Any], args: tuple[Any, ...], result: Any) -> Found:
    given = following.of(args[0])
    index: Sequence[Any] = args[1] if isinstance(args[1], tuple) else (args[1],)
    simple = all(x is None or x is Ellipsis or isinstance(x, int | slice) for x in index)
    if given is None or not simple or isinstance(args[1], bool):
        return None
    used = sum(x is not None and x is not Ellipsis for x in index)
    index = index if Ellipsis in index else (*index, Ellipsis)
    found: list[Dimension | None] = []
    rest = iter(given)
    for x in index:
        if x is None:
            found.append(None)
        elif x is Ellipsis:
            found += [next(rest) for _ in range(len(given) - used)]
        elif isinstance(x, int):
            next(rest)
        else:
            found.append(next(rest))
    if len(found) != len(result.shape):
        return None
    return tuple(axes.new(n) if d is None else axes.resized(d, n) for d, n in zip(found, _shape(result), strict=True))


_NAMES: dict[Rule, str] = {
    _pointwise: "add subtract multiply divide true_divide floor_divide power square sqrt exp exp2 log log1p log2 expm1 "
    "negative abs absolute maximum minimum where clip tanh sin cos sinh cosh arctan sign floor ceil round trunc "
    "reciprocal nan_to_num logical_and logical_or logical_not equal not_equal greater greater_equal less less_equal "
    "isfinite isnan zeros_like ones_like full_like copy cumsum cumprod flip relu relu6 sigmoid softplus softsign silu "
    "swish elu selu gelu celu leaky_relu hard_sigmoid hard_silu hard_swish hard_tanh log_sigmoid softmax log_softmax "
    "sparsemax threshold soft_shrink hard_shrink tanh_shrink squareplus sparse_plus erf erfinv rsqrt cast "
    "stop_gradient convert_to_tensor",
    _resized: "split pad roll tile repeat sort array_split slice layer_normalization rms_normalization glu",
    _concatenated: "concatenate",
    _convolved: "conv depthwise_conv separable_conv conv_transpose",
    _pooled: "max_pool average_pool adaptive_max_pool adaptive_average_pool resize affine_transform",
    _normalized: "batch_normalization",
    _permuted: "transpose",
    _swapped: "swapaxes",
    _moved: "moveaxis",
    _reshaped: "reshape ravel",
    _reduced: "mean sum max min amax amin var std prod any all argmax argmin logsumexp norm count_nonzero median",
    _squeezed: "squeeze",
    _inserted: "expand_dims stack",
    _spread: "broadcast_to",
    _product: "matmul",
    _einsum: "einsum",
    _taken: "take",
    _attended: "dot_product_attention",
}  # fmt: skip
_RULES = {name: rule for rule, names in _NAMES.items() for name in names.split()}
_ARITHMETIC = ["add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow", "rpow", "neg"]
_OPERATORS: dict[str, Rule] = {
    **{f"__{name}__": _pointwise for name in _ARITHMETIC},
    "__matmul__": _product,
    "__getitem__": _item,
}
