"""The capabilities of the example. Modules are Python objects: their classes' calls are watched while they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from agnostic import contracts
from agnostic.errors import InvalidInput, InvalidWeights
from agnostic.layers import Layer
from agnostic.models.forms import Input, ModelRun, is_python_refusal
from agnostic.models.weights import fit
from agnostic.patching import patched
from agnostic.reference.ops import NumpyOps
from agnostic.taps.records import Activations
from agnostic.visualization.ascent import Climbed
from agnostic.visualization.taps import Tap

AXES = {1: "N", 2: "NC", 3: "NLC", 4: "NHWC", 5: "NDHWC"}


def _modules(model: nnx.Module) -> dict[str, nnx.Module]:
    """The callable modules inside a model by their paths; not the model itself."""
    named = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model) if path}
    return {name: module for name, module in named.items() if callable(module)}


def _variables(model: nnx.Module) -> dict[str, Any]:
    flat = nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    return {".".join(map(str, path)): variable for path, variable in flat}


@contextmanager
def _hooked(model: nnx.Module, hook: Callable[[str, Any], None]) -> Iterator[None]:
    """Inside, ``hook(name, output)`` is called after each call of a module of the model."""
    names = {id(module): name for name, module in _modules(model).items()}

    def call(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(self, *args, **kwargs)
        if id(self) in names:
            hook(names[id(self)], output)
        return output

    with ExitStack() as stack:
        for cls in {type(module) for module in _modules(model).values()}:
            stack.enter_context(patched([(cls, "__call__", call)]))
        yield


class Layers(contracts.LayerTree):
    def tree(self, model):
        def size(module):
            return sum(x.size for x in jax.tree.leaves(nnx.state(module, nnx.Param)))

        return [Layer(n, type(x).__name__, None, None, None, size(x), calls=0) for n, x in _modules(model).items()]

    def layer_name(self, model, layer):
        return next((name for name, x in _modules(model).items() if x is layer), None)


class Inputs(contracts.ModelInputs):
    def trial(self, model, inputs):
        found = {layer.name: layer for layer in layers.tree(model)}
        ran: list[str] = []

        def see(name, y):
            axes = AXES[y.ndim]
            known, channels = found[name], y.shape[-1] if "C" in axes else None
            shape = (None, *y.shape[1:])
            found[name] = replace(known, shape=shape, axes=axes, channels=channels, calls=known.calls + 1)
            ran.append(name)

        error = None
        try:
            with _hooked(model, see):
                model(inputs)
        except Exception as raised:  # noqa: BLE001 - whatever a model raises for inputs that do not fit
            error = raised
        order = [*dict.fromkeys(ran), *(name for name in found if name not in ran)]
        return ModelRun([found[name] for name in order], error)

    def stated_inputs(self, model):
        first = next((x for x in _modules(model).values() if isinstance(x, nnx.Conv)), None)
        return None if first is None else [Input((1, None, None, first.in_features), "NHWC")]

    def input_count(self, model):
        return 1

    def input_names(self, model):
        return []

    def takes_other_names(self, model):
        return False

    def native_inputs(self, model, arrays):
        return jnp.asarray(arrays[0])

    def is_refusal(self, error):
        return is_python_refusal(error)


class Taps(contracts.Taps):
    @contextmanager
    def watch(self, model, names, *, detach=False):
        calls: dict[str, list[Any]] = {name: [] for name in names}
        with _hooked(model, lambda name, y: calls[name].append(y) if name in calls else None):
            yield Activations({x.name: x for x in layers.tree(model) if x.name in calls}, calls, np.asarray)

    def capture(self, model, inputs, names):
        with self.watch(model, names) as record:
            model(jnp.asarray(inputs))
        return record

    def submodel(self, model, names):
        return Part(model, names)


class Part(nnx.Module):
    """A module that returns outputs of layers of another."""

    def __init__(self, whole, names):
        self.whole, self.names = whole, tuple(names)

    def __call__(self, x):
        record = taps.capture(self.whole, x, self.names)
        return record[self.names[0]] if len(self.names) == 1 else [record[name] for name in self.names]


class JaxOps(NumpyOps):
    """The operations of the reference, by the functions of jax.numpy."""

    name = "flax"

    def asarray(self, value, dtype=None):
        return jnp.asarray(value, dtype)

    def numpy(self, x):
        return np.array(x.astype("float32") if x.dtype == jnp.bfloat16 else x)

    def cast(self, x, dtype):
        return x.astype(dtype)

    def stop_gradient(self, x):
        return jax.lax.stop_gradient(x)

    def irfft2(self, real, imaginary, shape):
        return jnp.fft.irfft2(jax.lax.complex(real, imaginary), s=shape, norm="ortho").astype(real.dtype)

    def warp(self, images, matrices, shape):
        count, height, width, _ = images.shape
        rows, columns = np.mgrid[: shape[0], : shape[1]]
        points = np.stack([rows, columns, np.ones_like(rows)]).reshape(3, -1).astype(np.float32)
        y, x = jnp.moveaxis(matrices @ points, 1, 0)
        y, x = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)

        def one(image, y, x):
            return jax.vmap(lambda c: jax.scipy.ndimage.map_coordinates(c, [y, x], 1, "nearest"), 2, 1)(image)

        return jax.vmap(one)(images, y, x).reshape(count, *shape, -1)


def _in_jax(name: str) -> Any:
    function = getattr(jnp, {"concatenate": "concatenate", "sigmoid": "tanh", "expand": "broadcast_to"}.get(name, name))
    if name == "sigmoid":
        return lambda self, x: 0.5 * (jnp.tanh(0.5 * x) + 1.0)
    if name == "pad":
        return lambda self, x, widths, value=0.0: jnp.pad(x, tuple(widths), constant_values=value)
    if name in ("sum", "mean", "max", "min"):
        return lambda self, x, axis=None, keepdims=False: function(
            x, axis=tuple(axis) if isinstance(axis, list) else axis, keepdims=keepdims
        )
    return lambda self, *args, **kwargs: function(*args, **kwargs)


for _name in (
    "concatenate", "stack", "expand", "repeat", "flip", "pad", "take", "take_along_axis", "where", "abs", "sign",
    "sqrt", "square", "exp", "log", "sin", "cos", "tanh", "sigmoid", "floor", "maximum", "minimum", "clip",
    "isfinite", "sum", "mean", "max", "min", "matmul", "einsum",
):  # fmt: skip
    setattr(JaxOps, _name, _in_jax(_name))


class Operations(contracts.Operations):
    def ops_for(self, arrays=()):
        return JaxOps()

    def engine(self):
        return "flax"


class Weights(contracts.Weights):
    def weights(self, model):
        return {name: np.array(x.get_value()) for name, x in _variables(model).items()}

    def set_weights(self, model, values):
        own = _variables(model)
        pairs = fit({k: x.shape for k, x in own.items()}, {k: x.shape for k, x in values.items()})
        for ours, theirs in pairs.items():
            path, _, key = ours.rpartition(".")
            holder = _modules(model)[path] if path else model
            variable = getattr(holder, key)
            variable.set_value(jnp.asarray(values[theirs], variable.get_value().dtype))

    def read_weights(self, path):
        if not path.is_file():
            raise InvalidWeights(f"cannot read weights from {path}: there is no such file")
        from safetensors.numpy import load_file

        return load_file(path)

    def load_weights(self, model, path, name):
        self.set_weights(model, self.read_weights(path))

    def save(self, model, path):
        raise InvalidInput(f"the example writes no files, {path.name!r} neither")


class Gradients(contracts.Gradients):
    def detached(self, inputs):
        return list(inputs)

    def pullback(self, function, inputs, cotangents):
        outputs, back = jax.vjp(lambda *x: function(*x), *inputs)
        return list(back([w.astype(y.dtype) for y, w in zip(outputs, cotangents(outputs), strict=True)]))

    def per_sample(self, function, inputs, batch, cotangents):
        def total(x, rows):
            outputs = function(*x, *rows)
            return jnp.stack([(y * w).sum() for y, w in zip(outputs, cotangents(outputs), strict=True)]).sum()

        return list(jax.vmap(jax.grad(total), (None, 0))(tuple(inputs), tuple(batch)))

    def jacobian(self, function, inputs):
        derivative = jax.jacrev(lambda *x: tuple(function(*x)), tuple(range(len(inputs))))
        return [list(row) for row in derivative(*inputs)]


class Ascents(contracts.Ascents):
    def ascend(self, model, ascent, settings):
        size = ascent.count if ascent.objective.coupled else settings.micro_batch or ascent.count
        for start in range(0, ascent.count, size):
            yield _climb(model, ascent, range(start, min(start + size, ascent.count)), settings.dtype or "float32")


def _climb(model: Any, ascent: Any, images: range, dtype: str) -> Climbed:
    def native(x: Any) -> Any:
        return jnp.asarray(x, dtype if np.asarray(x).dtype.kind == "f" else None)

    operations, wanted = JaxOps(), [name for name in ascent.objective.layers() if name]
    constants = {name: native(x) for name, x in ascent.constants().items()}
    arrays = [tuple(map(native, own)) for own in ascent.arrays(images)]

    def forward(inputs: Any, probe: Any) -> dict[str, Tap]:
        with taps.watch(model, wanted) as record:
            output = model(inputs + probe)
        found = {name: Tap(name, record[name], AXES[record[name].ndim]) for name in wanted}
        return {"": Tap("", output, AXES[output.ndim]), **found}

    def score(parameters: Any, probe: Any, now: Any) -> Any:
        scores = ascent.score(operations, lambda x: forward(x, probe), parameters, now, arrays, constants)
        return scores.sum(), scores

    def parts_reached(parameters: Any, now: Any) -> Any:
        def totals(probe: Any) -> Any:
            found = ascent.part_scores(operations, lambda x: forward(x, probe), parameters, now, arrays, constants)
            return jnp.stack([x.sum() for x in found])

        back = np.asarray(jax.jacrev(totals)(probe))
        return back.reshape(len(back), len(images), -1).any(axis=2).T

    differentiated = jax.grad(score, (0, 1), has_aux=True)
    parameters, schedule = native(ascent.initial(images)), ascent.schedule(images)
    state = ascent.recipe.update.initial_state(parameters)
    # Zeros added to what the network is given: their gradient is what comes back from it.
    probe = jnp.zeros((len(images) * ascent.views, *ascent.shape), dtype)
    scores, reached = [], np.zeros(len(images), bool)
    parts = np.zeros((len(images), len(ascent.objective.parts())), bool)
    for step in range(ascent.steps):
        now = {name: native(x[step]) for name, x in schedule.items()}
        if step in (0, ascent.steps - 1):
            parts |= parts_reached(parameters, now)
        (gradient, back), own = differentiated(parameters, probe, now)
        reached |= np.asarray(back).reshape(len(images), -1).any(axis=1)
        scores.append(np.asarray(own, np.float64))
        parameters, state = ascent.update(operations, parameters, gradient, state, now)
    pixels = np.asarray(ascent.display(operations, parameters, constants), np.float32)
    return Climbed(images, pixels, np.stack(scores), reached, parts)


layers, inputs, taps, ops, weights = Layers(), Inputs(), Taps(), Operations(), Weights()
gradients, ascent = Gradients(), Ascents()
