"""Native Keras optimizers of specifications: Keras' own where they are exact, else ours on the shared rules.

Ours has what Keras lacks: groups with hyperparameters of their own. It is an ordinary keras.optimizers.Optimizer, so it
works in ``fit()`` on every engine, jitted or not, is saved with the model, and takes Keras' schedules.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops as kops

from agnostic import display
from agnostic.errors import InvalidInput
from agnostic.layers import Layer
from agnostic.optimizers import rules
from agnostic.optimizers.inventory import Inventory, ParameterGroup
from agnostic.optimizers.snapshot import ParameterState, Snapshot
from agnostic.optimizers.specs import KINDS, Muon, Spec, as_dict, make, obstacles, replace
from agnostic.text import counted
from agnostic_keras import engines
from agnostic_keras.layers import named_layers, tree
from agnostic_keras.ops import KerasOps

Variable = Any

_OPS = KerasOps()

# The entry of a saved state that says what the others are.
_NAMES = "names"

# What Keras adds to the names of layers that have none of their own, and of models.
_NUMBER = re.compile(r"_\d+$")

# The optimizers whose averages are in the weights' place, by id while they are in use.
_averaging: set[int] = set()

# Our field -> Keras' argument, where the two differ.
_KERAS_NAMES: Mapping[str, str] = {"initial_accumulator": "initial_accumulator_value", "steps": "ns_steps"}
_SAME_NAME = (
    "momentum", "nesterov", "rho", "epsilon", "centered", "beta_1", "beta_2", "amsgrad",
    "beta_2_decay", "epsilon_1", "epsilon_2", "clip_threshold",
)  # fmt: skip

_NATIVE_STATE: Mapping[str, Mapping[str, str]] = {
    "SGD": {"momentum": "momentums"},
    "RMSprop": {"square": "_velocities", "mean": "_average_gradients", "momentum": "_momentums"},
    "Adagrad": {"sum": "_accumulators"},
    "Adadelta": {"square": "_accumulated_grads", "delta": "_accumulated_delta_vars"},
    "Adam": {"mean": "_momentums", "square": "_velocities", "largest": "_velocity_hats"},
    "AdamW": {"mean": "_momentums", "square": "_velocities", "largest": "_velocity_hats"},
    "Adamax": {"mean": "_m", "largest": "_u"},
    "NAdam": {"mean": "_momentums", "square": "_velocities"},
    "Lion": {"mean": "_momentums"},
    "Adafactor": {"row": "_r", "column": "_c", "square": "_v"},
    "LAMB": {"mean": "_momentums", "square": "_velocities"},
    "Muon": {"momentum": "momentums"},
}
"""The attributes in which Keras' classes keep the slots, a list in the order of the variables each."""

_KINDS = {cls.natives["keras"].name: cls for cls in KINDS.values() if "keras" in cls.natives}


# Parameters -----------------------------------------------------------------------------------------------------------
def inventory(model: keras.Model) -> Inventory:
    """The trainable variables of a model, and the layers that hold them.

    Raises:
        InvalidInput: the model has no variables yet.
    """
    if not model.built:
        raise InvalidInput(f"the model {model.name!r} has no variables yet: call it once, or model.build(shape)")
    trainable = {id(v): v for v in model.trainable_variables}
    names: dict[int, str] = {}
    held: list[tuple[Layer, list[int]]] = []
    described = {layer.name: layer for layer in tree(model)}
    # Inner layers last, so that the innermost owner names a variable.
    for name, layer in named_layers(model).items():
        own = [id(v) for v in layer.trainable_variables if id(v) in trainable]
        held.append((described[name], own))
        for v in layer.trainable_variables:
            if id(v) in trainable:
                names[id(v)] = f"{name}.{v.name}"
    for key, v in trainable.items():
        names.setdefault(key, v.name)
    parameters: dict[str, Any] = {}
    for key, v in trainable.items():
        name, number = names[key], 2
        while names[key] in parameters:
            names[key], number = f"{name}#{number}", number + 1
        parameters[names[key]] = v
    layers = [(layer, tuple(names[key] for key in own)) for layer, own in held if own]
    layers += [(Layer(name, "Variable", None, None, None, 0), (name,)) for name in parameters]
    return Inventory(parameters, layers, "keras", lambda: _absent(model, {layer.name for layer, _ in layers}))


def _absent(model: keras.Model, known: Collection[str]) -> list[tuple[Layer, str]]:
    """Layers that :func:`inventory` does not have, and other words for those that it has, each with what it is."""
    layers = named_layers(model)
    state = {
        name: "" if name in known else "is frozen: trainable is False" if layer.weights else "has no weights"
        for name, layer in layers.items()
    }
    found = {name: reason for name, reason in state.items() if reason}
    names = {id(layer): name for name, layer in layers.items()}
    for word, layer in _other_names(model):
        if id(layer) in names and word not in state:
            name = names[id(layer)]
            found.setdefault(word, f"is called {name!r}" + (f", and {state[name]}" if state[name] else ""))
    return [(Layer(name, "", None, None, None, 0), reason) for name, reason in found.items()]


def _other_names(model: keras.Model) -> Iterator[tuple[str, keras.Layer]]:
    """What people call layers by: attributes of subclassed models and layers, and positions."""
    yield from ((str(index), layer) for index, layer in enumerate(model.layers))
    # On the engine torch a layer is a module as well, and keeps the layers that are its attributes in a dict.
    for word, value in {**vars(model), **vars(model).get("_modules", {})}.items():
        if isinstance(value, keras.Layer):
            yield word, value
        elif isinstance(value, list | tuple) and not word.startswith("_"):
            inside = [layer for layer in value if isinstance(layer, keras.Layer)]
            yield from ((f"{word}.{index}", layer) for index, layer in enumerate(inside))
            yield from ((word, layer) for layer in inside[:1])


def members(params: Any) -> Iterator[tuple[str, Variable]]:
    """The variables of one dict of a list of groups, as (name, variable); a layer stands for all of its own."""
    for item in params if isinstance(params, list | tuple) else [params]:
        if isinstance(item, keras.Layer):
            yield from ((v.path, v) for v in item.trainable_variables)
        elif isinstance(item, keras.Variable):
            yield item.path, item
        else:
            raise InvalidInput(f"'params' holds Keras variables, layers or models, not {type(item).__name__}")


# Building -------------------------------------------------------------------------------------------------------------
def build(
    spec: Spec, resolved: Sequence[tuple[Spec, ParameterGroup]], native: bool | None, options: Mapping[str, Any]
) -> keras.optimizers.Optimizer:
    """See :func:`agnostic.optimizers.build`.

    Args:
        spec: of the whole, whose learning rate is the optimizer's.
        resolved: each group with its own specification.
        options: go to the constructor, such as ``name``.
    """
    moving = [(spec, group) for spec, group in resolved if group.trainable]
    if not moving:
        raise InvalidInput("there is nothing to optimize: every variable is frozen")
    exact = (
        len(resolved) == 1 and not obstacles(moving[0][0], "keras") and moving[0][0].learning_rate == spec.learning_rate
    )
    if isinstance(moving[0][0], Muon):
        # Keras moves everything but matrices by Adam there.
        exact = exact and all(len(v.shape) == 2 for _, v in moving[0][1].parameters)
    if _takes_norms(moving[0][0]) and any(_is_half(v) for _, v in moving[0][1].parameters):
        # Keras sums squares in the gradient's own type, and half precision holds few of them.
        exact = False
    if moving[0][0].ema_momentum is not None and keras.config.backend() == "jax":
        # Keras' own fails at the second fit(): see RuleOptimizer.finalize_variable_values.
        exact = False
    if native is None:
        native = exact
    if native and len(resolved) > 1:
        raise InvalidInput("Keras' own optimizers have no groups: leave native=True out to build ours")
    if native:
        own = moving[0][0]
        cls = getattr(keras.optimizers, own.natives["keras"].name)
        return cls(**keras_options(own), **options)
    groups = [
        {
            "kind": type(own).__name__,
            "options": {k: v for k, v in as_dict(own).items() if k != "learning_rate"},
            **_own_rate(own.learning_rate, spec.learning_rate),
            "variables": [v.path for _, v in group.parameters],
            "trainable": group.trainable,
        }
        for own, group in resolved
    ]
    return RuleOptimizer(groups, spec.learning_rate, **options)


def _takes_norms(spec: Spec) -> bool:
    return spec.clip_norm is not None or spec.clip_global_norm is not None or not rules.rule_of(spec).elementwise


def _is_half(variable: Variable) -> bool:
    return keras.backend.standardize_dtype(variable.dtype) in ("float16", "bfloat16")


def _own_rate(rate: Any, base: Any) -> dict[str, Any]:
    """How a group's rate follows from the optimizer's: a factor of it where both are numbers, else one of its own."""
    if rate is base or rate == base:
        return {"scale": 1.0}
    # No factor leads from a base of 0 to another rate.
    if isinstance(base, int | float) and isinstance(rate, int | float) and base > 0:
        return {"scale": float(rate / base)}
    return {"rate": float(rate) if isinstance(rate, int | float) else rate}


def keras_options(spec: Spec) -> dict[str, Any]:
    """The arguments of Keras' own class."""
    fields = as_dict(spec)
    found = {_KERAS_NAMES.get(k, k): v for k, v in fields.items() if k in _SAME_NAME or k in _KERAS_NAMES}
    rate = fields["learning_rate"]
    found["learning_rate"] = float(rate) if isinstance(rate, int | float) else rate
    if found.get("epsilon_1", 0.0) is None:
        found["epsilon_1"] = rules.MACHINE_EPSILON[keras.config.floatx()]
    if "momentum" in found:
        found["momentum"] = float(found["momentum"])
    if isinstance(spec, Muon):
        found["muon_a"], found["muon_b"], found["muon_c"] = spec.coefficients
        found["rms_rate"] = 0.2 if spec.scale == "match_rms_adamw" else None
        # Of the Adam inside; its own is fixed.
        del found["epsilon"]
    return {
        **found,
        "weight_decay": fields["weight_decay"] or None,
        "clipvalue": spec.clip_value,
        "clipnorm": spec.clip_norm,
        "global_clipnorm": spec.clip_global_norm,
        **_shared_options(spec),
    }


def _shared_options(spec: Spec) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if spec.ema_momentum is not None:
        found |= {"use_ema": True, "ema_momentum": spec.ema_momentum, "ema_overwrite_frequency": spec.ema_overwrite}
    if spec.accumulate > 1:
        if spec.ema_momentum is not None:
            raise InvalidInput("Keras averages at every call, not at every step: use accumulate or ema_momentum")
        found["gradient_accumulation_steps"] = spec.accumulate
    return found


@keras.saving.register_keras_serializable("agnostic")
class RuleOptimizer(keras.optimizers.Optimizer):
    """A keras.optimizers.Optimizer that moves each group of variables by the shared rule of its specification.

    ``learning_rate`` is the specification's. Groups of another rate follow it by a constant factor, so that callbacks
    move all of them; those that have a schedule of their own, or a number beside a schedule or a rate of 0, keep it.

    Args:
        groups: dicts of ``kind``, ``options`` (the specification but for its rate), ``scale`` (of the rate) or ``rate``
            (a number or a schedule of the group's own), ``variables`` (paths) and ``trainable``.
        learning_rate: a number or a Keras schedule.
        assignment: the index of the group of each variable, in the model's order; a model that is loaded may have other
            paths than the one that was saved. None: by their paths, when the optimizer is built.
    """

    def __init__(
        self,
        groups: Sequence[Mapping[str, Any]],
        learning_rate: Any,
        assignment: Sequence[int] | None = None,
        name: str = "rule_optimizer",
    ) -> None:
        specs = [_spec_of_config(group) for group in groups]
        rate = float(learning_rate) if isinstance(learning_rate, int | float) else learning_rate
        super().__init__(rate, name=name, **_shared_options(specs[0]))
        self._groups = [dict(group) for group in groups]
        self._specs = specs
        self._programs: Any = None
        self._pending: dict[str, Any] | None = None
        self._group_of = None if assignment is None else list(assignment)

    def __repr__(self) -> str:
        groups = []
        for spec, group in zip(self._specs, self._groups, strict=True):
            shown = replace(spec, {"learning_rate": self._shown_rate(group)})
            groups.append(f"{shown!r}: {counted(len(group['variables']), 'variable')}")
        return f"<RuleOptimizer: {display.listed(groups, width=160)}>"

    def _shown_rate(self, group: Mapping[str, Any]) -> Any:
        """The learning rate of a group now, without the digits that float32 adds; or its schedule."""
        base = self._learning_rate
        rate = group.get("rate")
        if rate is None and not isinstance(base, keras.Variable):
            return base
        number = group["scale"] * float(kops.convert_to_numpy(base)) if rate is None else rate
        return float(f"{number:.6g}") if isinstance(number, float) else number

    def build(self, variables: Sequence[Variable]) -> None:
        """Make the slots of every variable that moves."""
        if self.built:
            return
        if self._group_of is None:
            self._group_of = self._assign(variables)
        elif len(self._group_of) != len(variables):
            raise InvalidInput(
                f"the optimizer moves {counted(len(self._group_of), 'variable')}, the model has {len(variables)}"
            )
        super().build(variables)
        slots: list[dict[str, Variable]] = []
        for v, index in zip(variables, self._group_of, strict=True):
            spec = self._specs[index]
            own = rules.rule_of(spec).slots(spec, tuple(v.shape)) if self._groups[index]["trainable"] else {}
            scalars = rules.scalar_slots(spec)
            slots.append({name: self._slot(v, name, slot, name in scalars) for name, slot in own.items()})
        self._slots = slots
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._load(pending)

    def save_own_variables(self, store: Any) -> None:
        """Every array of the state, with what it belongs to: see :meth:`load_own_variables`."""
        super().save_own_variables(store)
        if self.built:
            # Such a file holds numbers alone.
            store[_NAMES] = np.frombuffer("\n".join(self._labels()).encode(), np.uint8)

    def load_own_variables(self, store: Any) -> None:
        """The state by the names of the variables, the numbers that Keras gives to unnamed layers left out.

        A state that is loaded before the optimizer knows its variables waits until it is built.

        Raises:
            InvalidInput: it belongs to other variables, or to another rule.
        """
        names = list(store.keys())
        found = {name: np.array(store[name]) for name in names}
        if self.built:
            self._load(found)
        elif len(found) > len(self.variables):
            self._pending = found
        else:
            super().load_own_variables(store)

    def _load(self, found: Mapping[str, Any]) -> None:
        if _NAMES not in found:
            raise InvalidInput(
                "the saved state does not say which variables it belongs to, as that of Keras' own optimizers: load it "
                "into the optimizer that it was saved from, and optimizers.convert() that"
            )
        places = _places(self._labels(), found[_NAMES].astype(np.uint8).tobytes().decode().split("\n"))
        for variable, place in zip(self.variables, places, strict=True):
            value = found[str(place)]
            if tuple(value.shape) != tuple(variable.shape):
                raise InvalidInput(
                    f"the saved {variable.path!r} has the shape {value.shape}, where {tuple(variable.shape)} was "
                    "expected"
                )
            variable.assign(value)

    def _labels(self) -> list[str]:
        """What each of :attr:`variables` is: the optimizer's own, or a rule, a slot and the path of a variable."""
        known: dict[int, str] = {}
        assert self._group_of is not None  # it is built
        for v, index, slots in zip(self._trainable_variables, self._group_of, self._slots, strict=True):
            kind = self._groups[index]["kind"]
            known |= {id(slot): f"{kind} {name} {v.path}" for name, slot in slots.items()}
        for word in ("_model_variables_moving_average", "_accumulated_gradients"):
            listed = getattr(self, word, ())
            known |= {id(x): f"{word} {v.path}" for x, v in zip(listed, self._trainable_variables, strict=False)}
        return [known.get(id(v), v.name) for v in self.variables]

    def _assign(self, variables: Sequence[Variable]) -> list[int]:
        where: dict[str, int] = {}
        for index, group in enumerate(self._groups):
            for path in group["variables"]:
                if where.setdefault(path, index) != index:
                    raise InvalidInput(f"two variables of different groups are called {path!r}: rename a layer")
        for v in variables:
            if v.path not in where:
                raise InvalidInput(
                    f"variable {v.path!r} is in no group: the optimizer was built for a model with other variables"
                )
        return [where[v.path] for v in variables]

    def _slot(self, v: Variable, name: str, slot: rules.StateArray, scalar: bool) -> Variable:
        # Keras' Constant goes through float32 in TensorFlow.
        def start(shape: Sequence[int], dtype: str | None = None) -> Any:
            return kops.cast(kops.convert_to_tensor(np.full(shape, slot.value)), dtype)

        if tuple(slot.shape) == tuple(v.shape) and not scalar:
            return self.add_variable_from_reference(v, name=name, initializer=start)
        return self.add_variable(slot.shape, start, slot.dtype or v.dtype, name=f"{v.path.replace('/', '_')}_{name}")

    def _filter_empty_gradients(
        self, grads: Sequence[Any], vars: Sequence[Variable]
    ) -> tuple[list[Any], list[Variable]]:
        """What Keras does first with gradients: those of frozen variables end here, as if they were not given.

        So neither norms, nor accumulation, nor a constraint see them, whatever numbers they hold.
        """
        moving = [(g, v) for g, v in zip(grads, vars, strict=True) if self._rule_of(v)[1] is not None]
        if not moving:
            return [], []
        given, variables = super()._filter_empty_gradients(*zip(*moving, strict=True))
        return [_gradient(g, v) for g, v in zip(given, variables, strict=True)], variables

    def _clip_gradients(self, grads: Sequence[Any]) -> list[Any]:
        return rules.clip(_OPS, self._specs[0], grads)

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        """Move one variable; frozen ones stay."""
        index, spec = self._rule_of(variable)
        if spec is None:
            return
        p = kops.stop_gradient(kops.convert_to_tensor(variable))
        g = kops.cast(_gradient(gradient, variable), _OPS.dtype(p))
        dtype = "float64" if _OPS.dtype(p) == "float64" else "float32"
        slots = self._slots[index]
        apart = rules.scalar_slots(spec)
        # Bias corrections need more digits than half precision has.
        t = kops.cast(self.iterations + 1, dtype)
        rate = kops.cast(self._rate_of(index, kops.cast(learning_rate, dtype)), dtype)
        scalars = {name: kops.convert_to_tensor(slots[name]) for name in apart}
        numbers, new = rules.rule_of(spec).numbers(_OPS, spec, t, rate, scalars)
        # Rules that take norms compute half precision in float32; the others in the parameter's type.
        inside = _OPS.dtype(p) if rules.rule_of(spec).elementwise else dtype
        now = {name: n if isinstance(n, float) else kops.cast(n, inside) for name, n in numbers.items()}
        state = {name: kops.convert_to_tensor(s) for name, s in slots.items() if name not in apart}
        moved, changed = rules.step(_OPS, spec, p, g, state, {**now, "outputs_last": True})
        self.assign(variable, moved)
        for name, value in {**changed, **new}.items():
            self.assign(slots[name], value)

    def _rule_of(self, variable: Variable) -> tuple[int, Spec | None]:
        """(the variable's index, its rule or None for one that stays)."""
        index = self._get_variable_index(variable)
        assert self._group_of is not None  # it is built
        group = self._group_of[index]
        spec = self._specs[group] if self._groups[group]["trainable"] else None
        if spec is not None and spec.weight_decay and not self._use_weight_decay(variable):
            spec = replace(spec, {"weight_decay": 0.0})
        return index, spec

    def _rate_of(self, index: int, learning_rate: Any) -> Any:
        """The learning rate of a variable, from the optimizer's."""
        assert self._group_of is not None  # it is built
        group = self._groups[self._group_of[index]]
        own = group.get("rate")
        if own is None:
            return learning_rate * group["scale"]
        # As Keras calls its own: with the count of calls, which is that of steps unless gradients are accumulated.
        return own if isinstance(own, float) else own(self._iterations)

    def _backend_update_step(self, grads: Sequence[Any], trainable_variables: Sequence[Variable], rate: Any) -> None:
        engine = engines.current()
        # Inside a stateless scope, a variable's value is not what it holds.
        if (
            engine.programs is None
            or engine.is_compiling()
            or any(v.value is not v._value for v in trainable_variables)
        ):
            super()._backend_update_step(grads, trainable_variables, rate)
            return
        t = int(kops.convert_to_numpy(self.iterations)) + 1
        base = float(kops.convert_to_numpy(rate))
        rates: dict[int, float] = {}
        programs: dict[Any, tuple[Any, dict[str, Any]]] = {}
        self._programs = self._programs or engine.programs()
        # All is prepared before a pass over the weights drives the interpreter's own data from the cache.
        moves = []
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            index, spec = self._rule_of(variable)
            if spec is None:
                continue
            if not rules.rule_of(spec).elementwise:
                self.update_step(gradient, variable, rate)
                continue
            slots, apart = self._slots[index], rules.scalar_slots(spec)
            scalars = {name: kops.convert_to_numpy(slots[name]) for name in apart}
            assert self._group_of is not None  # it is built
            group = self._group_of[index]
            if group not in rates:
                rates[group] = float(kops.convert_to_numpy(self._rate_of(index, base)))
            key = (spec, rates[group], *map(float, scalars.values()))
            if key not in programs:
                numbers, new = rules.python_numbers(spec, t, rates[group], scalars)
                programs[key] = self._programs.of(spec, numbers, [n for n in slots if n not in apart]), new
            program, new = programs[key]
            for name, value in new.items():
                slots[name].assign(value)
            p = variable.value
            moves.append((program, p, gradient.to(p.dtype), [slots[name].value for name in program.names]))
        scratch: dict[Any, Any] = {}
        for program, p, g, arrays in moves:
            program.apply(p, g, arrays, scratch)

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """Put the moving averages in the weights' place, as fit() does at its end."""
        super().finalize_variable_values(var_list)
        if self.use_ema:
            # On jax Keras leaves both in one buffer, and the next fit() may not give it to the compiled step twice.
            for v in var_list:
                v.assign(kops.copy(v))

    def get_config(self) -> dict[str, Any]:
        """Plain data, from which :meth:`from_config` makes the same optimizer."""
        return {
            # Keras wraps the lists and dicts that an optimizer holds in its own.
            "groups": [
                {**group, "options": dict(group["options"]), "variables": list(group["variables"])}
                for group in self._groups
            ],
            "learning_rate": super().get_config()["learning_rate"],
            "assignment": None if self._group_of is None else list(self._group_of),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> RuleOptimizer:
        """The optimizer of what :meth:`get_config` gave, schedules as objects or as data."""
        groups = [dict(group) for group in config["groups"]]
        for group in groups:
            if isinstance(group.get("rate"), Mapping):
                group["rate"] = keras.saving.deserialize_keras_object(group["rate"], custom_objects=custom_objects)
        made: RuleOptimizer = super().from_config({**config, "groups": groups}, custom_objects)
        return made


def _places(own: Sequence[str], saved: Sequence[str]) -> list[int]:
    """Where each label is among the saved ones.

    Layers without a name of their own are numbered on by Keras in the order in which they are made, and whether a path
    begins with the model depends on how it was made: where labels differ, those of the same layer and variable
    names, numbers left out, are paired in order.

    Raises:
        InvalidInput: labels are missing, or are left over.
    """
    if sorted(own) == sorted(saved):
        return [saved.index(label) for label in own]
    bare = [_bare(label) for label in own], [_bare(label) for label in saved]
    if sorted(bare[0]) != sorted(bare[1]):
        lacking = [label for label, x in zip(own, bare[0], strict=True) if x not in bare[1]] or ["nothing"]
        others = [label for label, x in zip(saved, bare[1], strict=True) if x not in bare[0]] or ["nothing"]
        raise InvalidInput(
            f"the saved state is that of other variables or of another rule: it has {others[0]!r} where the optimizer "
            f"has {lacking[0]!r}; build the optimizer that it was saved from"
        )
    where: dict[str, list[int]] = {}
    for index, label in enumerate(bare[1]):
        where.setdefault(label, []).append(index)
    return [where[label].pop(0) for label in bare[0]]


def _bare(label: str) -> str:
    what, _, path = label.rpartition(" ")
    return f"{what} {'/'.join(_NUMBER.sub('', part) for part in path.split('/')[-2:])}"


def _gradient(gradient: Any, variable: Variable) -> Any:
    """A gradient as a dense array of the engine: slices and sparse arrays may hold a row twice, and norms are of sums.

    Raises:
        InvalidInput: it is not of the variable's shape.
    """
    found = engines.current().dense(gradient)
    if not kops.is_tensor(found):
        found = kops.convert_to_tensor(found, variable.dtype)
    # A size that is known only when a traced function runs is None.
    if len(found.shape) != len(variable.shape) or any(
        n is not None and n != m for n, m in zip(found.shape, variable.shape, strict=True)
    ):
        raise InvalidInput(
            f"the gradient of {variable.path!r} has the shape {tuple(found.shape)}, and the variable "
            f"{tuple(variable.shape)}: give one gradient for each variable, in the same order"
        )
    return found


def _spec_of_config(group: Mapping[str, Any]) -> Spec:
    # JSON knows no tuples.
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in group["options"].items()}
    # The rate stands beside the specification: it is a factor, or follows a schedule.
    return make(KINDS[group["kind"]], {"learning_rate": 1.0, **options})


@contextlib.contextmanager
def averaged_weights(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """See :func:`agnostic.optimizers.averaged_weights`."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    if not optimizer.use_ema:
        raise InvalidInput("the optimizer keeps no average of the weights: build it with ema_momentum, such as 0.999")
    if not optimizer.built or not int(kops.convert_to_numpy(optimizer.iterations)):
        raise InvalidInput("there is no average of the weights before the first step")
    if id(optimizer) in _averaging:
        raise InvalidInput("the averages are in the weights' place already")
    own: list[tuple[Variable, Any]] = []
    _averaging.add(id(optimizer))
    try:
        for v, average in zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True):
            own.append((v, kops.copy(v.value)))
            # A copy: jax may not be given one buffer as two variables.
            v.assign(kops.copy(average.value))
        yield
    finally:
        for v, before in own:
            v.assign(before)
        _averaging.discard(id(optimizer))


# State ----------------------------------------------------------------------------------------------------------------
def _rate(optimizer: Any) -> Any:
    rate = optimizer._learning_rate
    return float(kops.convert_to_numpy(rate)) if isinstance(rate, keras.Variable) else rate


def spec_of_native(optimizer: Any) -> Spec:
    """The specification of one of Keras' own optimizers.

    Raises:
        InvalidInput: it is of a kind that has no specification.
    """
    # On the torch engine Keras makes a subclass of the same name.
    name = type(optimizer).__name__
    if name not in _KINDS or not type(optimizer).__module__.startswith("keras."):
        raise InvalidInput(f"{type(optimizer).__qualname__} has no specification; {', '.join(_KINDS)} have")
    cls = _KINDS[name]
    config = optimizer.get_config()
    native = cls.natives["keras"]
    options: dict[str, Any] = {field: allowed[0] for field, allowed in native.fixed.items()}
    for field in (*_SAME_NAME, *_KERAS_NAMES):
        if field in options or field not in cls.__dataclass_fields__:
            continue
        options[field] = config[_KERAS_NAMES.get(field, field)]
    if options.get("nesterov") and not options["momentum"]:
        # Keras lets it stand, and it does nothing.
        options["nesterov"] = False
    if cls is Muon:
        if config["exclude_layers"]:
            raise InvalidInput(
                "Muon with exclude_layers has no specification: give those layers a group with another rule"
            )
        options["coefficients"] = (config["muon_a"], config["muon_b"], config["muon_c"])
        if config["rms_rate"] not in (0.2, None):
            raise InvalidInput(f"Muon with rms_rate={config['rms_rate']} has no specification: 0.2 or None has")
        options["scale"] = "none" if config["rms_rate"] is None else "match_rms_adamw"
    options |= {
        "learning_rate": _rate(optimizer),
        "weight_decay": config["weight_decay"] or 0.0,
        "clip_value": config["clipvalue"],
        "clip_norm": config["clipnorm"],
        "clip_global_norm": config["global_clipnorm"],
        "clip_convention": "keras",
        "ema_momentum": config["ema_momentum"] if config["use_ema"] else None,
        "ema_overwrite": config["ema_overwrite_frequency"] if config["use_ema"] else None,
        "accumulate": config["gradient_accumulation_steps"] or 1,
    }
    return make(cls, options)


def read(optimizer: Any, model: keras.Model | None = None) -> Snapshot:
    """An optimizer and its state as data.

    Args:
        model: whose order and names the variables are given in; None: the optimizer's own order, and paths.

    Raises:
        InvalidInput: the optimizer is of a kind that has no specification, or belongs to another model.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    if model is None and not optimizer.built:
        raise InvalidInput("the optimizer has no variables yet: give the model that it is for")
    held = model.trainable_variables if model is not None and not optimizer.built else optimizer._trainable_variables
    names = {id(v): v.path for v in held}
    if model is not None:
        named = {id(v): name for name, v in inventory(model).parameters.items()}
        if not all(id(v) in named for v in held):
            raise InvalidInput("the optimizer holds variables that the model has not: give the model it was built for")
        names = {key: name for key, name in named.items() if key in names}
    ours = isinstance(optimizer, RuleOptimizer)
    rate = _rate(optimizer)
    groups: list[tuple[Spec, tuple[str, ...]]] = []
    spec_of: dict[int, Spec | None] = {}
    if ours:
        assigned = optimizer._group_of or optimizer._assign(held)
        for number, (group, spec) in enumerate(zip(optimizer._groups, optimizer._specs, strict=True)):
            if not group["trainable"]:
                continue
            own = group.get("rate")
            if own is None:
                own = rate * group["scale"] if isinstance(rate, float) else rate
            spec = replace(spec, {"learning_rate": own})
            inside = [v for v, index in zip(held, assigned, strict=True) if index == number]
            groups.append((spec, tuple(names[id(v)] for v in inside)))
            spec_of |= {id(v): spec for v in inside}
    else:
        spec = spec_of_native(optimizer)
        groups.append((spec, tuple(names[id(v)] for v in held)))
        spec_of = {id(v): spec for v in held}
    states = {}
    for index, v in enumerate(held):
        spec = spec_of.get(id(v))
        if spec is not None:
            states[names[id(v)]] = _read_state(optimizer, spec, v, index)
    shapes = {names[id(v)]: tuple(v.shape) for v in sorted(held, key=lambda v: list(names).index(id(v)))}
    ordered = {n: states[n] for n in shapes if n in states}
    return Snapshot(tuple(groups), ordered, shapes, outputs_last=True, learning_rate=rate)


def _read_state(optimizer: Any, spec: Spec, v: Variable, index: int) -> ParameterState:
    shape = tuple(v.shape)
    step = int(kops.convert_to_numpy(optimizer.iterations)) if optimizer.built else 0
    if step and spec.accumulate > 1 and int(kops.convert_to_numpy(optimizer._iterations)) % spec.accumulate:
        raise InvalidInput("gradients are being accumulated: convert after the step that they are accumulated for")
    if not step:
        return ParameterState(shape)
    if isinstance(optimizer, RuleOptimizer):
        slots = {name: _OPS.numpy(s.value) for name, s in optimizer._slots[index].items()}
    else:
        slots = {}
        for name, attribute in _NATIVE_STATE[type(spec).__name__].items():
            listed = getattr(optimizer, attribute, None)
            if listed:
                slots[name] = _OPS.numpy(listed[index].value)
        slots = _from_native(spec, shape, slots)
        if hasattr(optimizer, "_u_product"):
            slots["product"] = _OPS.numpy(optimizer._u_product.value)
    if optimizer.use_ema:
        slots["average"] = _OPS.numpy(optimizer._model_variables_moving_average[index].value)
    return ParameterState(shape, step, slots)


def _from_native(spec: Spec, shape: tuple[int, ...], slots: dict[str, Any]) -> dict[str, Any]:
    if "row" not in slots:
        return slots
    # Keras' factors lack the axis that they are means over, and a factored variable has a place for v as well.
    if len(shape) < 2:
        return {"square": slots["square"]}
    return {"row": slots["row"][..., None], "column": slots["column"][..., None, :]}


def _to_native(slots: Mapping[str, Any]) -> dict[str, Any]:
    if "row" not in slots:
        return dict(slots)
    return {"row": slots["row"][..., 0], "column": slots["column"][..., 0, :]}


def restore(optimizer: Any, snapshot: Snapshot, names: Mapping[int, str], parameters: Iterable[Variable]) -> None:
    """Put a snapshot's state into a newly built optimizer.

    Args:
        names: the snapshot's name of each variable, by ``id``; variables without one are not moved.
        parameters: all trainable variables of the model, in its order.
    """
    held = list(parameters)
    optimizer.build(held)
    steps = {state.step for state in snapshot.states.values()}
    if len(steps) > 1:
        some = {state.step: name for name, state in snapshot.states.items()}
        counts = ", ".join(f"{name!r} has made {step}" for step, name in some.items())
        raise InvalidInput(f"Keras counts the steps of all variables together, and here {counts}")
    step = next(iter(steps), 0)
    optimizer._iterations.assign(step * (optimizer.gradient_accumulation_steps or 1))
    for index, v in enumerate(held):
        state = snapshot.states.get(names.get(id(v), ""))
        if state is None or not state.step:
            continue
        slots = dict(state.slots)
        average = slots.pop("average", None)
        if average is not None:
            optimizer._model_variables_moving_average[index].assign(average)
        if isinstance(optimizer, RuleOptimizer):
            for name, value in slots.items():
                optimizer._slots[index][name].assign(value)
            continue
        table = _NATIVE_STATE[next(k for k, c in KINDS.items() if c is _KINDS[type(optimizer).__name__])]
        if "product" in slots:
            optimizer._u_product.assign(slots.pop("product"))
        for name, value in _to_native(slots).items():
            getattr(optimizer, table[name])[index].assign(np.asarray(value))
