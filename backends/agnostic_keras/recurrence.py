"""Recurrent layers of Keras in a program: one operator a layer where there is one, else a loop over their cell."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from keras import tree
from keras.src import activations, backend, ops
from keras.src.layers.rnn import gru, lstm, rnn

from agnostic.patching import Replacement
from agnostic.program.nodes import Value
from agnostic_keras import engines
from agnostic_keras.operations import Recorder


class Unloopable(Exception):
    """A cell cannot be written once for all times."""


def patches(recorder: Recorder) -> list[tuple[Any, str, Replacement]]:
    """What is replaced while a model is read."""

    def inner(original: Callable[..., Any], layer: Any, sequences: Any, initial_state: Any, mask: Any,
              training: bool = False) -> Any:  # fmt: skip
        found = _whole(recorder, layer, sequences, initial_state, tree.flatten(mask)[0])
        if found is not None:
            return found
        return original(layer, sequences, initial_state, mask=mask, training=training)

    fused = ("lstm", "gru", "bidirectional_lstm", "bidirectional_gru")
    return [
        *((cls, "inner_loop", inner) for cls in (lstm.LSTM, gru.GRU, rnn.RNN)),
        *((backend, name, _not_here) for name in fused if hasattr(backend, name)),
        (backend, "rnn", functools.partial(_repeated, recorder)),
    ]


def _not_here(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError  # so that the layer takes its general way


def _whole(recorder: Recorder, layer: Any, sequences: Any, initial_state: Any, mask: Any) -> Any:
    """(last output, outputs, states) by one operator of the vocabulary; None where none is the layer's."""
    cell, kind = layer.cell, type(layer).__name__
    if kind not in ("LSTM", "GRU", "SimpleRNN") or not type(layer).__module__.startswith("keras."):
        return None
    names = {"tanh": activations.tanh, "relu": activations.relu}
    function = next((name for name, known in names.items() if cell.activation is known), None)
    gates = getattr(cell, "recurrent_activation", activations.sigmoid)
    if gates is not activations.sigmoid or function is None or (function == "relu" and kind != "SimpleRNN"):
        return None
    operators: dict[str, tuple[str, dict[str, Any]]] = {
        "LSTM": ("lstm", {}),
        "GRU": ("gru", {"reset_after": bool(getattr(cell, "reset_after", True))}),
        "SimpleRNN": ("rnn", {"function": function}),
    }
    operator, extra = operators[kind]
    states = [recorder.value(state) for state in tree.flatten(initial_state)]
    x = recorder.emit("permute", recorder.value(sequences), axes=(1, 0, 2))
    weights = _weights(recorder, cell, kind)
    seen = []
    if mask is not None:
        seen = [recorder.emit("permute", recorder.value(ops.cast(mask, "bool")), axes=(1, 0))]
        weights += [None] * (operator == "lstm")  # no projection
        extra = {**extra, "zeros": bool(layer.zero_output_for_mask)}
    run, *last = recorder.emit(operator, x, *states, *weights, *seen, reverse=bool(layer.go_backwards), **extra)
    # Keras gives the outputs in the order in which they were computed.
    run = recorder.emit("flip", run, axes=(0,)) if layer.go_backwards and (layer.return_sequences or seen) else run
    given = _from_first(recorder, layer, run, seen[0], states[0]) if seen and not layer.zero_output_for_mask else run
    symbols = [recorder.symbolic(value) for value in last]
    final = symbols[0]
    if given is not run or (seen and layer.zero_output_for_mask):
        final = recorder.symbolic(recorder.emit("select", given, axis=0, index=run.shape[0] - 1))
    if not layer.return_sequences:
        return final, final, symbols
    return final, recorder.symbolic(recorder.emit("permute", given, axes=(1, 0, 2))), symbols


def _from_first(recorder: Recorder, layer: Any, run: Value, mask: Value, start: Value) -> Value:
    """Zeros until the first place that is seen, which is what most engines give, and not the given state."""
    if (engines.current().UNSEEN_GIVES_STATE and not layer.unroll) or _is_zero(recorder, start):
        return run
    mask = recorder.emit("flip", mask, axes=(0,)) if layer.go_backwards else mask
    count = recorder.emit("cumulative", recorder.emit("cast", mask, dtype="int32"), function="sum", axis=0)
    begun = recorder.emit("reshape", recorder.emit("binary", count, 0, function="greater", dtype="bool"),
                          shape=(*mask.shape, 1))  # fmt: skip
    result: Value = recorder.emit("where", begun, run, 0.0, dtype=run.dtype)
    return result


def _is_zero(recorder: Recorder, value: Value) -> bool:
    giver, leaf = recorder.builder.giver(value), recorder.builder.leaf_of(value)
    if leaf is not None:
        return leaf.array is not None and not leaf.array.any()
    return giver is not None and giver.operator == "full" and giver.operands[0] == 0


def _weights(recorder: Recorder, cell: Any, kind: str) -> list[Value | None]:
    """Kernel, recurrent kernel and biases as the vocabulary has them: gates along the first axis, r before z."""

    def gates(value: Value) -> Value:
        if kind != "GRU":
            return value
        n, axis = cell.units, len(value.shape) - 1
        parts = [recorder.emit("slice", value, axis=axis, start=i * n, stop=(i + 1) * n) for i in (1, 0, 2)]
        result: Value = recorder.emit("concatenate", tuple(parts), axis=axis)
        return result

    matrices = [
        recorder.emit("permute", gates(recorder.value(matrix)), axes=(1, 0))
        for matrix in (cell.kernel, cell.recurrent_kernel)
    ]
    if not cell.use_bias:
        return [*matrices, None, None]
    bias = recorder.value(cell.bias)
    if len(bias.shape) == 1:
        return [*matrices, gates(bias), None]
    return [*matrices, *(gates(recorder.emit("select", bias, axis=0, index=i)) for i in (0, 1))]


def _repeated(
    recorder: Recorder, original: Callable[..., Any], step: Callable[..., Any], inputs: Any, initial_states: Any,
    go_backwards: bool = False, mask: Any = None, constants: Any = None, unroll: bool = False, input_length: Any = None,
    time_major: bool = False, zero_output_for_mask: bool = False, return_all_outputs: bool = True,
) -> Any:  # fmt: skip
    """``keras.backend.rnn`` on symbolic tensors: (last output, outputs, states).

    Source: Keras 3, ``backend.jax.rnn``.
    """
    axis, states = 0 if time_major else 1, list(initial_states)
    if go_backwards:
        inputs = tree.map_structure(lambda x: ops.flip(x, axis), inputs)
        mask = None if mask is None else ops.flip(mask, axis)
    keeps_state = engines.current().UNSEEN_GIVES_STATE and not unroll and not zero_output_for_mask
    hidden: str | int = "zeros" if zero_output_for_mask else "last"
    if keeps_state:
        # By Keras' convention the first state is the last output, and of stacked cells that of the last cell.
        hidden = sum(len(tree.flatten(state)) for state in states[:-1]) if tree.is_nested(states[0]) else 0
    seen = None if mask is None else ops.cast(mask if time_major else ops.swapaxes(mask, 0, 1), "bool")
    constants = tuple(constants or ())
    length = tree.flatten(inputs)[0].shape[axis]
    every: Any = None
    if recorder.loops and length > 1:
        with recorder.attempt():
            every, states = _looped(recorder, step, inputs, states, constants, axis, seen, hidden)
    if every is None:
        outputs, states = _unrolled(step, inputs, states, constants, axis, seen, hidden)
        every = ops.stack(outputs, axis=axis)
    last = every[-1] if time_major else every[:, -1]
    return last, every if return_all_outputs else ops.expand_dims(last, axis), states


def _looped(
    recorder: Recorder, step: Callable[..., Any], inputs: Any, states: Any, constants: Any, axis: int, mask: Any,
    hidden: str | int,
) -> tuple[Any, Any]:  # fmt: skip
    """(outputs, states) of a loop, in which the cell stands once.

    Raises:
        Unloopable: what the cell gives is not as what it is given, or is no call of a layer.
    """
    given, before = tree.flatten(inputs), tree.flatten(states)
    values = [recorder.value(x) for x in (*given, *before)]
    if not all(isinstance(value, Value) for value in values):
        raise Unloopable
    sequences, first = tuple(values[: len(given)]), tuple(values[len(given) :])
    begun = recorder.emit("loop_start", sequences, first, axes=(axis,) * len(given))
    begun = [recorder.builder.retype(new, old.dtype) for new, old in zip(begun, values, strict=True)]
    count = len(recorder.builder.nodes)
    symbols = [recorder.symbolic(value) for value in begun]
    now = tree.pack_sequence_as(inputs, symbols[: len(given)])
    output, new = step(now, (*tree.pack_sequence_as(states, symbols[len(given) :]), *constants))
    result, after = recorder.value(output), [recorder.value(x) for x in tree.flatten(list(new))]
    calls = {node.calls[: recorder.depth + 1] for node in recorder.builder.nodes[count:]}
    if len(calls) != 1 or len(calls.pop()) <= recorder.depth or not _is_alike(recorder, [result, *after], first, count):
        raise Unloopable
    seen = [] if mask is None else [recorder.value(mask)]
    length = sequences[0].shape[axis]
    ended = recorder.emit("loop_end", result, tuple(after), *seen, axis=axis, length=length, hidden=hidden)
    ended = [recorder.builder.retype(new, old.dtype) for new, old in zip(ended, (result, *after), strict=True)]
    every, *last = (recorder.symbolic(value) for value in ended)
    return every, list(tree.pack_sequence_as(states, last))


def _is_alike(recorder: Recorder, results: Sequence[Any], states: Sequence[Value], count: int) -> bool:
    """Whether all results are a loop's own, and states like those that it began with."""
    nodes = recorder.builder.nodes[count - 1 :]
    inside = {value for node in nodes for value in node.outputs}
    own = all(isinstance(x, Value) and x in inside for x in results)
    kinds = [[(x.shape, x.dtype) for x in found] for found in (results[1:], states)] if own else [0, 1]
    return own and kinds[0] == kinds[1] and all(node.operator != "custom" for node in nodes)


def _unrolled(
    step: Callable[..., Any], inputs: Any, states: Any, constants: Any, axis: int, mask: Any, hidden: str | int
) -> tuple[list[Any], Any]:
    """(output of each time, states): the step once for each time."""
    outputs: list[Any] = []
    for time in range(tree.flatten(inputs)[0].shape[axis]):
        current = tree.map_structure(lambda x, time=time: x[:, time] if axis else x[time], inputs)
        output, new = step(current, (*states, *constants))
        new = list(new)
        if mask is not None:
            before = tree.flatten(states)[hidden] if isinstance(hidden, int) else ops.zeros_like(output)
            before = outputs[-1] if hidden == "last" and outputs else before
            output = _chosen(mask[time], output, before)
            new = tree.map_structure(lambda n, s, there=mask[time]: _chosen(there, n, s), new, states)
        states = new
        outputs.append(output)
    return outputs, states


def _chosen(mask: Any, new: Any, old: Any) -> Any:
    while len(mask.shape) < len(new.shape):
        mask = ops.expand_dims(mask, -1)
    return ops.where(mask, new, old)
