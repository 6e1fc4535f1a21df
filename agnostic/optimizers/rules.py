"""Update rules as pure functions over Ops: state in, state out. Written once, for every backend.

Two kinds live here. The ``*_step`` functions return a step and leave its sign to the caller: gradient ascent uses them.
:data:`RULES` holds the rule of every specification; for descent. A rule has two parts:

- ``numbers``: what changes from step to step and is one number for a whole parameter (bias corrections, the rate). It
  is computed in float64 NumPy where the step count is known (PyTorch), and in the graph where it is not (Keras).
- ``update``: new parameters and new state of one parameter.

All conventions are plain Python values of the specification, so a trace sees no branches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agnostic.errors import InvalidInput
from agnostic.ops import Array, Ops, norm, norms, widened
from agnostic.optimizers import specs
from agnostic.renamed import old_names

State = Mapping[str, Array]
Numbers = Mapping[str, Any]
Moved = tuple[Array, dict[str, Array]]
"""A parameter after a step, and its new state."""
Counted = tuple[dict[str, Any], dict[str, Array]]
"""The numbers of a step, and the new state of the scalars."""


def adam_step(
    ops: Ops,
    gradient: Array,
    mean: Array,
    square: Array,
    *,
    learning_rate: Array | float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    correction_1: Array | float,
    correction_2: Array | float,
) -> tuple[Array, Array, Array]:
    """One step of Adam, with epsilon outside the root and after the bias correction, as in PyTorch.

    Args:
        gradient, mean, square: of one shape; the moments start at zero.
        correction_1, correction_2: ``1 - beta ** t`` with t = 1 for the first step, computed beforehand in float64.

    Returns:
        (step, new mean, new square).

    Source: Kingma, Ba, "Adam", 2015, algorithm 1.
    """
    mean = _average(mean, gradient, beta_1)
    square = _average(square, ops.square(gradient), beta_2)
    step = learning_rate * (mean / correction_1) / (ops.sqrt(square / correction_2) + epsilon)
    return step, mean, square


def normalized_gradient_step(ops: Ops, gradient: Array, *, learning_rate: Array | float, epsilon: float) -> Array:
    """A step of fixed root mean square per image: ``learning_rate * g / (sqrt(mean(g ** 2)) + epsilon)``.

    Args:
        gradient: (images, ...); the mean is per image.

    Source: Chollet, "Deep Learning with Python", 2017, listing 5.38.
    """
    shape = ops.shape(gradient)
    length = norm(ops, gradient, axis=tuple(range(1, len(shape))), keepdims=True)
    scale = ops.cast(length / math.sqrt(math.prod(shape[1:])), ops.dtype(gradient)) + epsilon
    return learning_rate * gradient / scale


def _average(old: Array, new: Array, keep: float) -> Array:
    return keep * old + (1 - keep) * new


# Rules of specifications ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class StateArray:
    """One array of a parameter's state.

    Attributes:
        shape: of the array.
        value: what it starts with.
        dtype: a name, or None for the parameter's own.
    """

    shape: tuple[int, ...]
    value: float = 0.0
    dtype: str | None = None


@dataclass(frozen=True)
class Rule:
    """How one kind of optimizer updates one parameter.

    Attributes:
        slots: (spec, shape of the parameter) -> the state by name.
        numbers: (ops, spec, t, learning rate, scalar state) -> (numbers for ``update``, new scalar state). ``t`` is 1
            at the first step. Scalar state is the slots that :func:`scalar_slots` names.
        update: (ops, spec, parameter, gradient, state, numbers) -> (new parameter, new state), scalar state left out.
        elementwise: whether each element moves by itself, so that a parameter may be cut into blocks.
    """

    slots: Callable[[Any, tuple[int, ...]], dict[str, StateArray]]
    numbers: Callable[[Ops, Any, Array, Array, State], Counted]
    update: Callable[[Ops, Any, Array, Array, State, Numbers], Moved]
    elementwise: bool = True


def rule_of(spec: specs.Spec) -> Rule:
    """The rule of a specification."""
    return RULES[type(spec)]


def scalar_slots(spec: specs.Spec) -> frozenset[str]:
    """The slots that hold one number for a parameter of any shape; ``numbers`` changes them, not ``update``."""
    return frozenset(name for name, slot in rule_of(spec).slots(spec, (2, 2)).items() if slot.shape == ())


def step(ops: Ops, spec: specs.Spec, parameter: Array, gradient: Array, state: State, now: Numbers) -> Moved:
    """One step of one parameter, weight decay included.

    Args:
        parameter, gradient: of one shape and type.
        state: the slots of :attr:`Rule.slots`.
        now: what :attr:`Rule.numbers` gave for this step; for a rule that is not elementwise, arrays among them are in
            float32 where the parameter is in half precision.

    Returns:
        (new parameter, new state); scalar state is left out.
    """
    if not rule_of(spec).elementwise:
        return _wide_step(ops, spec, parameter, gradient, state, now)
    if spec.weight_decay:
        parameter, gradient = _decay(spec, parameter, gradient, now)
    return rule_of(spec).update(ops, spec, parameter, gradient, state, now)


def _wide_step(ops: Ops, spec: specs.Spec, parameter: Array, gradient: Array, state: State, now: Numbers) -> Moved:
    """As :func:`step`, with norms and means: half precision is float32 on the way, where their squares fit."""
    dtype = ops.dtype(parameter)
    p, g = widened(ops, parameter), widened(ops, gradient)
    # Adafactor looks at the weights before or after they decay, LAMB decays inside its ratio: both decay themselves.
    if spec.weight_decay and not isinstance(spec, specs.Adafactor | specs.LAMB):
        p, g = _decay(spec, p, g, now)
    arrays = {name: widened(ops, x) for name, x in state.items()}
    moved, changed = rule_of(spec).update(ops, spec, p, g, arrays, {**now, "dtype": dtype})
    return ops.cast(moved, dtype), {name: ops.cast(x, ops.dtype(state[name])) for name, x in changed.items()}


def _decay(spec: specs.Spec, p: Array, g: Array, now: Numbers) -> tuple[Array, Array]:
    if spec.decay == "coupled":
        return p, g + spec.weight_decay * p
    return p * (1 - now["learning_rate"] * spec.weight_decay), g


def clip(ops: Ops, spec: specs.Spec, gradients: Sequence[Array]) -> list[Array]:
    """The gradients of all parameters, clipped as the specification says.

    Source: ``torch.nn.utils.clip_grad_norm_`` for "torch", ``keras.optimizers.Optimizer`` for "keras".
    """
    if spec.clip_value is not None:
        return [ops.clip(g, -spec.clip_value, spec.clip_value) for g in gradients]
    if spec.clip_norm is not None:
        factors = _shrink(ops, spec, spec.clip_norm, norms(ops, gradients)) if gradients else ()
        return [_scaled(ops, g, factors[i]) for i, g in enumerate(gradients)]
    if spec.clip_global_norm is not None and gradients:
        factor = _shrink(ops, spec, spec.clip_global_norm, norm(ops, norms(ops, gradients)))
        return [_scaled(ops, g, factor) for g in gradients]
    return list(gradients)


def _shrink(ops: Ops, spec: specs.Spec, most: float, length: Array) -> Array:
    if spec.clip_convention == "torch":
        return ops.minimum(most / (length + 1e-6), 1.0)
    return most / ops.maximum(length, most)


def clip_scale(spec: specs.Spec, most: float, length: float) -> float:
    """What gradients of a known norm are multiplied by so that it becomes ``most``; 1 where it is less."""
    divisor = length + 1e-6 if spec.clip_convention == "torch" else length
    return min(1.0, most / divisor) if divisor > 0 else 1.0


def _scaled(ops: Ops, x: Array, factor: Array) -> Array:
    """``x * factor`` in the type of ``x``; half precision may hold the product and not the factor."""
    wide = widened(ops, x)
    return ops.cast(wide * ops.cast(factor, ops.dtype(wide)), ops.dtype(x))


def one_minus_power(ops: Ops, base: float, t: Array) -> Array:
    """``1 - base ** t`` to full precision: the difference itself loses 4 digits in float32 for 0.999.

    Source: ``-expm1(x) = -2 tanh(x / 2) / (1 - tanh(x / 2))`` with ``x = t log(base)``.
    """
    if base == 0:
        return 1.0 + 0.0 * t
    half = ops.tanh((0.5 * math.log(base)) * t)
    return -2.0 * half / (1.0 - half)


def _same(*names: str) -> Callable[[Any, tuple[int, ...]], dict[str, StateArray]]:
    return lambda spec, shape: {name: StateArray(shape) for name in names}


def _rate_only(ops: Ops, spec: Any, t: Array, learning_rate: Array, scalars: State) -> Counted:
    return {"learning_rate": learning_rate}, {}


# Momentum
def _downhill(spec: Any, v: Array, g: Array, lr: Array, kept: Array, nesterov: bool) -> tuple[Array, Array]:
    """(what is subtracted from the parameters, the new buffer), in the three forms of :class:`specs.SGD`."""
    m = spec.momentum
    # Without dampening it is the number 1, which no pass over the gradient is spent on.
    all_of_it = isinstance(kept, float) and kept == 1.0
    if spec.convention == "torch":
        v = m * v + (g if all_of_it else kept * g)
        return lr * (g + m * v if nesterov else v), v
    share = lr if all_of_it else lr * kept
    if spec.convention == "keras":
        v = m * v - share * g
        return (lr * g - m * v if nesterov else -v), v
    v = m * v + share * g
    return (lr * g + m * v if nesterov else v), v


def _sgd_slots(spec: specs.SGD, shape: tuple[int, ...]) -> dict[str, StateArray]:
    return {"momentum": StateArray(shape)} if spec.momentum else {}


def _sgd_numbers(ops: Ops, spec: specs.SGD, t: Array, learning_rate: Array, scalars: State) -> Counted:
    # PyTorch's buffer starts as the first gradient, undamped.
    kept = 1.0 if spec.dampening == 0 else ops.where(t == 1, 1.0 + 0.0 * t, (1 - spec.dampening) + 0.0 * t)
    return {"learning_rate": learning_rate, "kept": kept}, {}


def _sgd(ops: Ops, spec: specs.SGD, p: Array, g: Array, state: State, now: Numbers) -> Moved:
    lr = now["learning_rate"]
    if not spec.momentum:
        return p - lr * g, {}
    down, v = _downhill(spec, state["momentum"], g, lr, now["kept"], spec.nesterov)
    return p - down, {"momentum": v}


# Scaled by squares
def _rmsprop_slots(spec: specs.RMSprop, shape: tuple[int, ...]) -> dict[str, StateArray]:
    names = ["square", *["mean"] * spec.centered, *["momentum"] * (spec.momentum > 0)]
    return {name: StateArray(shape) for name in names}


def _root(ops: Ops, spec: Any, square: Array) -> Array:
    if spec.epsilon_place == "inside":
        return ops.sqrt(square + spec.epsilon)
    return ops.sqrt(square) + spec.epsilon


def _rmsprop(ops: Ops, spec: specs.RMSprop, p: Array, g: Array, state: State, now: Numbers) -> Moved:
    square = _average(state["square"], ops.square(g), spec.rho)
    new = {"square": square}
    if spec.centered:
        new["mean"] = _average(state["mean"], g, spec.rho)
        square = square - ops.square(new["mean"])
    direction = g / _root(ops, spec, square)
    lr = now["learning_rate"]
    if not spec.momentum:
        return p - lr * direction, new
    down, new["momentum"] = _downhill(spec, state["momentum"], direction, lr, 1.0, False)
    return p - down, new


def _adagrad_slots(spec: specs.Adagrad, shape: tuple[int, ...]) -> dict[str, StateArray]:
    return {"sum": StateArray(shape, spec.initial_accumulator)}


def _adagrad_numbers(ops: Ops, spec: specs.Adagrad, t: Array, learning_rate: Array, scalars: State) -> Counted:
    rate = learning_rate / (1 + (t - 1) * spec.lr_decay) if spec.lr_decay else learning_rate
    return {"learning_rate": learning_rate, "rate": rate}, {}


def _adagrad(ops: Ops, spec: specs.Adagrad, p: Array, g: Array, state: State, now: Numbers) -> Moved:
    total = state["sum"] + ops.square(g)
    return p - now["rate"] * g / _root(ops, spec, total), {"sum": total}


def _adadelta(ops: Ops, spec: specs.Adadelta, p: Array, g: Array, state: State, now: Numbers) -> Moved:
    square = _average(state["square"], ops.square(g), spec.rho)
    delta = ops.sqrt((state["delta"] + spec.epsilon) / (square + spec.epsilon)) * g
    new = {"square": square, "delta": _average(state["delta"], ops.square(delta), spec.rho)}
    return p - now["learning_rate"] * delta, new


# Adam and its relatives
def _adam_slots(spec: specs.Adam, shape: tuple[int, ...]) -> dict[str, StateArray]:
    return {name: StateArray(shape) for name in ["mean", "square", *["largest"] * spec.amsgrad]}


def _adam_numbers(ops: Ops, spec: specs.Adam, t: Array, learning_rate: Array, scalars: State) -> Counted:
    # Both sides of the fraction times sqrt(1 - beta_2^t): one form for both places of epsilon.
    root = ops.sqrt(one_minus_power(ops, spec.beta_2, t))
    after = spec.epsilon_place == "after correction"
    return {
        "learning_rate": learning_rate,
        "rate": learning_rate * root / one_minus_power(ops, spec.beta_1, t),
        "epsilon": spec.epsilon * root if after else spec.epsilon,
    }, {}


def _adam(ops: Ops, spec: specs.Adam, p: Array, g: Array, state: State, now: Numbers) -> Moved:
    mean = _average(state["mean"], g, spec.beta_1)
    square = _average(state["square"], ops.square(g), spec.beta_2)
    new = {"mean": mean, "square": square}
    if spec.amsgrad:
        new["largest"] = square = ops.maximum(state["largest"], square)
    return p - now["rate"] * mean / (ops.sqrt(square) + now["epsilon"]), new


def _adamax_numbers(ops: Ops, spec: specs.Adamax, t: Array, learning_rate: Array, scalars: State) -> Counted:
    return {"learning_rate": learning_rate, "rate": learning_rate / one_minus_power(ops, spec.beta_1, t)}, {}


def _adamax(ops: Ops, spec: specs.Adamax, p: Array, g: Array, state: State, now: Numbers) -> Moved:
    mean = _average(state["mean"], g, spec.beta_1)
    size = ops.abs(g)
    if spec.epsilon_place == "inside":
        largest = ops.maximum(spec.beta_2 * state["largest"], size + spec.epsilon)
        below = largest
    else:
        largest = ops.maximum(spec.beta_2 * state["largest"], size)
        below = largest + spec.epsilon
    return p - now["rate"] * mean / below, {"mean": mean, "largest": largest}


def _nadam_slots(spec: specs.NAdam, shape: tuple[int, ...]) -> dict[str, StateArray]:
    dtype = "float32" if spec.product_dtype == "float32" else None
    return {"mean": StateArray(shape), "square": StateArray(shape), "product": StateArray((), 1.0, dtype)}


def _nadam_numbers(ops: Ops, spec: specs.NAdam, t: Array, learning_rate: Array, scalars: State) -> Counted:
    # 0.96 ** x, written so that a traced x needs no power with a constant base.
    mu = spec.beta_1 * (1 - 0.5 * ops.exp((math.log(0.96) * spec.momentum_decay) * t))
    following = spec.beta_1 * (1 - 0.5 * ops.exp((math.log(0.96) * spec.momentum_decay) * (t + 1)))
    product = scalars["product"]
    product = product * ops.cast(mu, ops.dtype(product))
    exact = ops.cast(product, ops.dtype(t))
    root = ops.sqrt(one_minus_power(ops, spec.beta_2, t))
    return {
        "learning_rate": learning_rate,
        "gradient_rate": learning_rate * root * (1 - mu) / (1 - exact),
        "mean_rate": learning_rate * root * following / (1 - exact * following),
        "epsilon": spec.epsilon * root,
    }, {"product": product}


def _nadam(ops: Ops, spec: specs.NAdam, p: Array, g: Array, state: State, now: Numbers) -> Moved:
    mean = _average(state["mean"], g, spec.beta_1)
    square = _average(state["square"], ops.square(g), spec.beta_2)
    below = ops.sqrt(square) + now["epsilon"]
    moved = p - now["gradient_rate"] * (g / below) - now["mean_rate"] * (mean / below)
    return moved, {"mean": mean, "square": square}


def _radam_numbers(ops: Ops, spec: specs.RAdam, t: Array, learning_rate: Array, scalars: State) -> Counted:
    correction = one_minus_power(ops, spec.beta_2, t)
    longest = 2 / (1 - spec.beta_2) - 1
    rate = learning_rate / one_minus_power(ops, spec.beta_1, t)
    zero = 0.0 * t
    if longest <= 5:
        # It forgets so fast that the mean square stays too uncertain for ever.
        return {"learning_rate": learning_rate, "adaptive": zero, "plain": rate + zero, "epsilon": 1.0 + zero}, {}
    length = longest - 2 * t * (1 - correction) / correction
    tractable = length > 5
    # At least 5 where it is not used, to stay off the root of a negative number.
    long = ops.maximum(length, 5.0)
    rectified = (long - 4) * (long - 2) * longest / ((longest - 4) * (longest - 2) * long)
    return {
        "learning_rate": learning_rate,
        "adaptive": ops.where(tractable, rate * ops.sqrt(rectified * correction), zero),
        "plain": ops.where(tractable, zero, rate + zero),
        # Any number greater than 0 will do in the term that is multiplied by 0.
        "epsilon": ops.where(tractable, spec.epsilon + zero, 1.0 + zero),
    }, {}


def _radam(ops: Ops, spec: specs.RAdam, p: Array, g: Array, state: State, now: Numbers) -> Moved:
    mean = _average(state["mean"], g, spec.beta_1)
    square = _average(state["square"], ops.square(g), spec.beta_2)
    # One of the two is 0.
    moved = p - now["plain"] * mean - now["adaptive"] * (mean / (ops.sqrt(square) + now["epsilon"]))
    return moved, {"mean": mean, "square": square}


def _lion(ops: Ops, spec: specs.Lion, p: Array, g: Array, state: State, now: Numbers) -> Moved:
    mean = state["mean"]
    direction = ops.sign(_average(mean, g, spec.beta_1))
    return p - now["learning_rate"] * direction, {"mean": _average(mean, g, spec.beta_2)}


# Rules that look at a whole parameter
MACHINE_EPSILON = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}


def _adafactor_slots(spec: specs.Adafactor, shape: tuple[int, ...]) -> dict[str, StateArray]:
    if len(shape) < 2:
        return {"square": StateArray(shape)}
    return {"row": StateArray((*shape[:-1], 1)), "column": StateArray((*shape[:-2], 1, shape[-1]))}


def _adafactor_numbers(ops: Ops, spec: specs.Adafactor, t: Array, learning_rate: Array, scalars: State) -> Counted:
    return {
        "learning_rate": learning_rate,
        "rate": ops.minimum(learning_rate + 0.0 * t, t**-0.5),
        "forget": t**spec.beta_2_decay,
    }, {}


def _rms(ops: Ops, x: Array) -> Array:
    return norm(ops, x) / math.sqrt(max(math.prod(ops.shape(x)), 1))


def _adafactor(ops: Ops, spec: specs.Adafactor, p: Array, g: Array, state: State, now: Numbers) -> Moved:
    floor = spec.epsilon_place == "floor"
    epsilon = MACHINE_EPSILON[now["dtype"]] if spec.epsilon_1 is None else spec.epsilon_1
    size = _rms(ops, p) if floor else None
    if spec.weight_decay:
        p, g = _decay(spec, p, g, now)
    size = _rms(ops, p) if size is None else size
    squares = ops.square(g) if floor else ops.square(g) + epsilon
    forget = now["forget"]
    if "row" in state:
        row = state["row"] + forget * (ops.mean(squares, axis=-1, keepdims=True) - state["row"])
        column = state["column"] + forget * (ops.mean(squares, axis=-2, keepdims=True) - state["column"])
        new = {"row": row, "column": column}
        mean = ops.mean(row, axis=-2, keepdims=True)
        square = row * column / (ops.maximum(mean, epsilon) if floor else mean)
    else:
        square = state["square"] + forget * (squares - state["square"])
        new = {"square": square}
    if floor:
        square = ops.maximum(square, epsilon**2)
    direction = g / ops.sqrt(square)
    too_long = ops.maximum(_rms(ops, direction) / spec.clip_threshold, 1.0)
    return p - ops.maximum(size, spec.epsilon_2) * now["rate"] / too_long * direction, new


def _lamb_numbers(ops: Ops, spec: specs.LAMB, t: Array, learning_rate: Array, scalars: State) -> Counted:
    # As in Adam, both sides of the fraction times sqrt(1 - beta_2^t): a pass over the squares less.
    root = ops.sqrt(one_minus_power(ops, spec.beta_2, t))
    return {
        "learning_rate": learning_rate,
        "mean_rate": root / one_minus_power(ops, spec.beta_1, t),
        "epsilon": spec.epsilon * root,
    }, {}


def _lamb(ops: Ops, spec: specs.LAMB, p: Array, g: Array, state: State, now: Numbers) -> Moved:
    inside = spec.decay == "ratio"
    if spec.weight_decay and not inside:
        p, g = _decay(spec, p, g, now)
    mean = _average(state["mean"], g, spec.beta_1)
    square = _average(state["square"], ops.square(g), spec.beta_2)
    direction = now["mean_rate"] * mean / (ops.sqrt(square) + now["epsilon"])
    if inside:
        direction = direction + spec.weight_decay * p
    size, length = norm(ops, p), norm(ops, direction)
    # Divided by 1 where the length is 0, so that no branch that is thrown away divides by 0.
    one = ops.cast(length >= 0, ops.dtype(length))
    ratio = ops.where((size > 0) & (length > 0), size / ops.where(length > 0, length, one), one)
    return p - now["learning_rate"] * ratio * direction, {"mean": mean, "square": square}


def _rounded(ops: Ops, x: Array, dtype: str) -> Array:
    """``x`` as it is kept in a narrower type."""
    return ops.cast(ops.cast(x, dtype), ops.dtype(x))


def _orthogonal(ops: Ops, spec: specs.Muon, x: Array) -> Array:
    """A wide matrix with its singular values brought near 1, each operation rounded as PyTorch rounds it."""
    length = ops.cast(norm(ops, x), ops.dtype(x))
    x = x / (ops.maximum(length, spec.epsilon) if spec.epsilon_place == "floor" else length + spec.epsilon)
    a, b, c = spec.coefficients
    for _ in range(spec.steps):
        gram = ops.matmul(x, ops.transpose(x, (1, 0)))
        x = ops.addmm(x, ops.addmm(gram, gram, gram, b, c), x, a, 1.0)
    return x


def _muon(ops: Ops, spec: specs.Muon, p: Array, g: Array, state: State, now: Numbers) -> Moved:
    shape = ops.shape(p)
    if len(shape) != 2:
        raise InvalidInput(f"Muon moves matrices, not a parameter of shape {shape}: give it a group with another rule")
    m = spec.momentum
    v = state["momentum"]
    if spec.momentum_form == "mean":
        v = _rounded(ops, ops.lerp(v, g, 1 - m), now["dtype"])
        x = ops.lerp(g, v, m) if spec.nesterov else v
    else:
        v = m * v + g
        x = g + m * v if spec.nesterov else v
    x = ops.cast(x, now["dtype"])
    if spec.iteration_dtype == "bfloat16":
        x = ops.cast(x, "bfloat16")
    tall = shape[0] > shape[1]
    if tall:
        x = ops.transpose(x, (1, 0))
    x = _orthogonal(ops, spec, x)
    if tall:
        x = ops.transpose(x, (1, 0))
    # A Keras kernel is (inputs, outputs), a PyTorch weight (outputs, inputs).
    outputs, inputs = shape[::-1] if now.get("outputs_last", False) else shape
    scale = {
        "original": math.sqrt(max(1.0, outputs / inputs)),
        "match_rms_adamw": 0.2 * math.sqrt(max(shape)),
        "none": 1.0,
    }[spec.scale]
    return p - (now["learning_rate"] * scale) * ops.cast(x, ops.dtype(p)), {"momentum": v}


_MOMENTS = _same("mean", "square")

RULES: Mapping[type[specs.Spec], Rule] = {
    specs.SGD: Rule(_sgd_slots, _sgd_numbers, _sgd),
    specs.RMSprop: Rule(_rmsprop_slots, _rate_only, _rmsprop),
    specs.Adagrad: Rule(_adagrad_slots, _adagrad_numbers, _adagrad),
    specs.Adadelta: Rule(_same("square", "delta"), _rate_only, _adadelta),
    specs.Adam: Rule(_adam_slots, _adam_numbers, _adam),
    specs.AdamW: Rule(_adam_slots, _adam_numbers, _adam),
    specs.Adamax: Rule(_same("mean", "largest"), _adamax_numbers, _adamax),
    specs.NAdam: Rule(_nadam_slots, _nadam_numbers, _nadam),
    specs.RAdam: Rule(_MOMENTS, _radam_numbers, _radam),
    specs.Lion: Rule(_same("mean"), _rate_only, _lion),
    specs.Adafactor: Rule(_adafactor_slots, _adafactor_numbers, _adafactor, elementwise=False),
    specs.LAMB: Rule(_MOMENTS, _lamb_numbers, _lamb, elementwise=False),
    specs.Muon: Rule(_same("momentum"), _rate_only, _muon, elementwise=False),
}
"""The rule of every specification."""


def python_numbers(
    spec: specs.Spec, t: int, learning_rate: float, scalars: Mapping[str, Any]
) -> tuple[dict[str, float], dict[str, Any]]:
    """The numbers of step ``t`` in float64, where ``t`` is known: (Python floats, new scalar state).

    Args:
        t: 1 for the first step.
        scalars: NumPy scalars or arrays of shape (), in the type that their slots say.
    """
    # Here, not above: the reference uses this module.
    from agnostic.reference.ops import ops

    numbers, new = rule_of(spec).numbers(ops, spec, np.float64(t), np.float64(learning_rate), scalars)
    return {name: float(value) for name, value in numbers.items()}, new


if not TYPE_CHECKING:
    __getattr__ = old_names(__name__, {"Slot": "StateArray"})
