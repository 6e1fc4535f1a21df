"""Whether a model gives the same each time that it runs, and where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agnostic.compare import noise
from agnostic.compare.calls import LayerCall
from agnostic.compare.live import Live
from agnostic.contracts.calls import CALLS
from agnostic.description import LayerDescription
from agnostic.errors import InvalidInput

Array = np.ndarray[Any, Any]


class _Mismatch(BaseException):
    """A second run does not call what the first called; a BaseException, since Keras rewrites others."""


def check_repeatable(live: Live, outputs: Sequence[Array]) -> None:
    """Run a model again, and refuse one that draws numbers.

    Args:
        outputs: what it returned before.

    Raises:
        InvalidInput: a layer, or the code between layers, gives something else by more than rounding does.
    """
    again = live.run(seed=1)
    apart = len(again) != len(outputs)
    for x, before in zip(again, outputs, strict=False):
        values, dtype = live.numpy(x), live.backend.ops.dtype(x)
        # A network may amplify what rounding does to one layer: whether numbers are drawn is seen layer by layer.
        apart = apart or values.shape != before.shape
        apart = apart or noise.difference(values, before) > 1e3 * noise.least(noise.rms(before), dtype)
    if not apart:
        return
    try:
        where = _Second(live).where()
    except _Mismatch:
        where = ", in which layers it calls and with what"
    if where is not None:
        fix = live.backend.facts.set_inference
        raise InvalidInput(f"{live.title} is random: it gives something else for the same inputs{where}; {fix}")


class _Second:
    """Two runs of a model; in the second, each layer has what it had in the first."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._calls: list[tuple[str, list[Any], list[Any]]] = []
        self._found: list[str] = []

    def where(self) -> str | None:
        """Where the model first draws numbers, as a clause of a sentence; None where it does not."""
        outputs = self._live.run(self._first, seed=1)
        kept = [np.array(self._live.numpy(x)) for x in outputs]
        calls = iter(self._calls)

        def second(call: LayerCall) -> Sequence[Any]:
            return self._repeated(call, next(calls, None))

        made = self._live.run(second, seed=2)
        for x, before in zip(made, kept, strict=True):
            dtype = self._live.backend.ops.dtype(x)
            bound = noise.repeated(noise.rms(before), dtype, _per_sample(before))
            self._look(x, before, bound, ", in the code after the last layer")
        return self._found[0] if self._found else None

    def _first(self, call: LayerCall) -> Sequence[Any]:
        given = [np.array(self._live.numpy(x)) for x in call.arrays]
        results = call.run()
        self._calls.append((call.name, given, [np.array(self._live.numpy(x)) for x in results]))
        return results

    def _repeated(self, call: LayerCall, before: tuple[str, list[Any], list[Any]] | None) -> Sequence[Any]:
        if before is None or before[0] != call.name or len(before[1]) != len(call.arrays):
            raise _Mismatch
        _, given, returned = before
        description = self._live.descriptions[call.name]
        code = f", in the code before layer {call.name!r}"
        dtypes = [self._live.backend.ops.dtype(x) for x in call.arrays]
        fed = [
            self._look(x, values, noise.repeated(noise.rms(values), dtype, _per_sample(values)), code)
            for x, values, dtype in zip(call.arrays, given, dtypes, strict=True)
        ]
        results = call.run(fed)
        if len(results) != len(returned):
            raise _Mismatch
        own = f", from layer {call.name!r} ({description.config.get('class', '')}) on"
        return [
            self._look(x, values, layer_bound(values, dtypes, given, description), own)
            for x, values in zip(results, returned, strict=True)
        ]

    def _look(self, x: Any, before: Array, bound: float, where: str) -> Any:
        """Whether an array is far from the first run's, which goes on in its place."""
        made = self._live.numpy(x)
        if made.shape != before.shape:
            raise _Mismatch
        if noise.difference(made, before) > bound:
            self._found.append(where)
        return self._live.backend[CALLS].native(before, x)


def layer_bound(x: Array, dtypes: Sequence[str], received: Sequence[Array], description: LayerDescription) -> float:
    """How far an output may be from the same call's in another run; see :func:`agnostic.compare.noise.repeated`.

    Args:
        x: the output.
        dtypes: of the inputs.
        received: the inputs.
    """
    types = [name for name in (*dtypes, x.dtype.name) if name in noise.UNIT_ROUNDOFF]
    dtype = max(types, key=noise.unit, default="float32")
    length, scale = max(map(_per_sample, received), default=1), noise.rms(x)
    kernels = [x for name, x in description.weights.items() if name.endswith("kernel") and x.ndim > 1]
    if kernels:
        # (*size, inputs, outputs), and depthwise (*size, channels, multiplier).
        length = max(int(np.prod(x.shape[: -2 if "depthwise" in description.kind else -1])) for x in kernels)
        largest = max(map(noise.rms, received), default=0.0)
        scale = max(scale, float(np.sqrt(length)) * largest * max(map(noise.rms, kernels)))
    return noise.repeated(scale, dtype, length)


def _per_sample(x: Array) -> int:
    return int(np.prod(x.shape[1:]))
