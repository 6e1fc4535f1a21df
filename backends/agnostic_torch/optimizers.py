"""Native PyTorch optimizers of specifications: torch.optim's own where they are exact, else ours on the rules."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from agnostic import display
from agnostic.errors import InvalidInput
from agnostic.layers import Layer
from agnostic.models.aliases import aliases_of
from agnostic.optimizers import rules
from agnostic.optimizers.build import describe
from agnostic.optimizers.groups import FIELD_ALIASES, SHARED, renamed
from agnostic.optimizers.inventory import Inventory, ParameterGroup
from agnostic.optimizers.snapshot import ParameterState, Snapshot
from agnostic.optimizers.specs import KINDS, Spec, as_dict, make, obstacles, replace
from agnostic.text import counted
from agnostic_torch import checkpoints
from agnostic_torch.checkpoints import NATIVE_STATE
from agnostic_torch.fusion import FusedUpdate, FusedUpdates
from agnostic_torch.layers import family, unwrap
from agnostic_torch.ops import TorchOps

Tensor = torch.Tensor

# Smaller parameters are moved together: a call of an operation costs as much as a few thousand elements.
_SMALL = 2**14
_TOGETHER = 16

_OUR_NAMES = {ours: theirs for theirs, ours in FIELD_ALIASES.items()}
_SAME_NAME = ("weight_decay", "momentum", "dampening", "nesterov", "centered", "lr_decay", "amsgrad", "momentum_decay")


# Parameters -----------------------------------------------------------------------------------------------------------
def inventory(model: nn.Module) -> Inventory:
    """The parameters of a model that take a gradient, and the layers that hold them."""
    model = unwrap(model)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    modules = dict(model.named_modules())
    leaves = [(name, type(m).__name__) for name, m in modules.items() if not list(m.children())]
    aliases = aliases_of(family(model), leaves)
    layers = []
    for name, module in modules.items():
        own = tuple(n for n in parameters if n.startswith(f"{name}."))
        if name and own:
            layers.append((_layer(name, type(module).__name__, aliases.get(name, ())), own))
    layers += [(_layer(name, "Parameter"), (name,)) for name in parameters]
    return Inventory(parameters, layers, "torch", lambda: _absent(model, {layer.name for layer, _ in layers}))


def _absent(model: nn.Module, known: Collection[str]) -> list[tuple[Layer, str]]:
    """Layers and parameters that :func:`inventory` does not have, each with why."""
    first = {id(p): name for name, p in model.named_parameters()}
    every = dict(model.named_parameters(remove_duplicate=False))
    kinds = {name: type(m).__name__ for name, m in model.named_modules(remove_duplicate=False) if name}
    found = []
    for name, kind in {**kinds, **dict.fromkeys(every, "Parameter")}.items():
        own = {n: p for n, p in every.items() if n == name or n.startswith(f"{name}.")}
        if name not in known:
            others = dict.fromkeys(repr(first[id(p)]) for n, p in own.items() if p.requires_grad and first[id(p)] != n)
            reason = "has no parameters"
            if others:
                reason = f"is tied, its parameters go by their first names: choose {' and '.join(others)}"
            elif own:
                reason = "is frozen: requires_grad is False"
            found.append((_layer(name, kind), reason))
    return found


def _layer(name: str, kind: str, aliases: tuple[str, ...] = ()) -> Layer:
    return Layer(name, kind, None, None, None, 0, aliases=aliases)


def members(params: Any) -> Iterator[tuple[str, Tensor]]:
    """The parameters of one dict of a list of groups, as (name, parameter)."""
    if isinstance(params, nn.Module):
        yield from params.named_parameters()
        return
    for index, p in enumerate([params] if isinstance(params, Tensor) else params):
        # torch.optim takes (name, parameter) as well.
        named = (f"{index}", p) if isinstance(p, Tensor) else p
        if not (isinstance(named, tuple) and len(named) == 2 and isinstance(named[1], Tensor)):
            raise InvalidInput(f"'params' holds tensors, not {type(p).__name__}")
        yield named


# Building -------------------------------------------------------------------------------------------------------------
def build(
    spec: Spec, resolved: Sequence[tuple[Spec, ParameterGroup]], native: bool | None, options: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """See :func:`agnostic.optimizers.build`.

    Args:
        spec: of the whole: what a group that is added later follows.
        resolved: each group with its own specification.
        options: go to torch.optim's constructor, such as ``fused=True``.
    """
    resolved = [(spec, group) for spec, group in resolved if group.trainable]
    if not resolved:
        raise InvalidInput("there is nothing to optimize: every parameter is frozen")
    kinds = {type(own).natives["torch"].name if "torch" in own.natives else None for own, _ in resolved}
    exact = len(kinds) == 1 and not any(obstacles(own, "torch") for own, _ in resolved)
    if native is None:
        native = exact
    if not native:
        if options:
            raise InvalidInput(f"{', '.join(options)}: for torch.optim's own class, and this one is built on our rule")
        found = [{"params": _named(resolved, group), **group_options(own)} for own, group in resolved]
        return RuleOptimizer(found, group_options(spec))
    (name,) = kinds
    cls: Callable[..., torch.optim.Optimizer] = getattr(torch.optim, str(name))
    accepted = inspect.signature(cls).parameters
    found = []
    for own, group in resolved:
        found.append({"params": _named(resolved, group), **_accepted(own, accepted)})
    # Where every group has another rule than the whole, the first one's options are the defaults.
    whole = spec if type(spec) is type(resolved[0][0]) and not obstacles(spec, "torch") else resolved[0][0]
    optimizer = cls(found, **_accepted(whole, accepted), **options)
    # Adagrad starts every group from its constructor's argument, not from the group's.
    for own_group in optimizer.param_groups:
        if "initial_accumulator_value" in own_group:
            for p in own_group["params"]:
                optimizer.state[p]["sum"].fill_(own_group["initial_accumulator_value"])
    optimizer.register_load_state_dict_pre_hook(_checked_native)
    return optimizer


def _checked_native(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """A state dict that fits one of torch.optim's own optimizers that we built, which would take any."""
    saved, name = checkpoints.reordered(state_dict, optimizer.param_groups), type(optimizer).__name__
    for group in saved["param_groups"]:
        if "kind" in group:
            raise InvalidInput(
                f"the state was saved by our rule of {group['kind']}, and this optimizer is torch.optim's {name}: "
                "build it with native=False"
            )
        states = [saved["state"].get(number, {}) for number in group["params"]]
        found = checkpoints.saved_by(group, states)
        if name not in found:
            raise InvalidInput(
                f"the state was saved by {checkpoints.named_class(found)}, and this optimizer is torch.optim's {name}: "
                "build the one that it was saved by"
            )
    return saved


def _accepted(spec: Spec, accepted: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in torch_options(spec).items() if name in accepted}


def _named(resolved: Sequence[tuple[Spec, ParameterGroup]], group: ParameterGroup) -> list[Any]:
    """The parameters of a group, with their names where all groups have real ones; see :func:`members`."""
    names = [name for _, g in resolved for name, _ in g.parameters]
    real = len(set(names)) == len(names) and not any(name.isdigit() for name in names)
    return list(group.parameters) if real else [p for _, p in group.parameters]


def torch_options(spec: Spec) -> dict[str, Any]:
    """The fields by PyTorch's names, those that it has no name for left out."""
    fields = as_dict(spec)
    if not isinstance(fields["learning_rate"], int | float):
        raise InvalidInput(
            f"PyTorch's learning rate is a number, not {type(fields['learning_rate']).__name__}: "
            "put a torch.optim.lr_scheduler on the built optimizer"
        )
    kind = type(spec).__name__
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "rho":
            found["alpha" if kind == "RMSprop" else "rho"] = value
        elif name in _OUR_NAMES or name in _SAME_NAME:
            found[_OUR_NAMES.get(name, name)] = value
    if "beta_1" in fields:
        found["betas"] = (fields["beta_1"], fields["beta_2"])
    if "epsilon_1" in fields:
        found["eps"] = (fields["epsilon_1"], fields["epsilon_2"])
    if fields["decay"] != "ratio":
        found["decoupled_weight_decay"] = fields["decay"] == "decoupled"
    if fields.get("scale") in ("original", "match_rms_adamw"):
        found["adjust_lr_fn"] = fields["scale"]
    return found


def group_options(spec: Spec) -> dict[str, Any]:
    """A parameter group of :class:`RuleOptimizer`: PyTorch's names, which schedulers look for, then our own."""
    known = torch_options(spec)
    rest = {k: v for k, v in as_dict(spec).items() if k not in renamed(known)}
    return {"kind": type(spec).__name__, **known, **rest}


def spec_of_group(group: Mapping[str, Any]) -> Spec:
    """The specification that a parameter group of :class:`RuleOptimizer` describes now."""
    cls = KINDS[group["kind"]]
    return make(cls, _options(cls, group))


def _options(cls: type[Spec], group: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a specification that a parameter group states."""
    known = {field.name for field in dataclasses.fields(cls)}
    options = {k: v for k, v in renamed(group).items() if k in known}
    return {**options, "learning_rate": float(options["learning_rate"])}


class _Moving(NamedTuple):
    """Parameters of a group that have a gradient."""

    spec: Spec
    parameters: list[Tensor]
    gradients: list[Tensor]


class RuleOptimizer(torch.optim.Optimizer):
    """A torch.optim.Optimizer that moves each group by the shared rule of its specification.

    Groups have PyTorch's names of hyperparameters (``lr``, ``betas``, ``momentum``), so that schedulers of the rate and
    of the momentum work. ``state_dict`` holds tensors, numbers and strings: it loads with ``weights_only=True``, and
    by the parameters' names where it has them.
    """

    def __init__(self, groups: Iterable[Mapping[str, Any]], defaults: Mapping[str, Any]) -> None:
        """``defaults`` are what a group that is added later follows."""
        self._specs: dict[int, tuple[dict[str, Any], Spec]] = {}
        self._programs, self.averaging = FusedUpdates(), False
        super().__init__([dict(group) for group in groups], dict(defaults))

    def __repr__(self) -> str:
        groups = (f"{spec_of_group(x)!r}: {counted(len(x['params']), 'parameter')}" for x in self.param_groups)
        return f"<RuleOptimizer: {display.listed(groups, width=160)}>"

    def __setstate__(self, state: dict[str, Any]) -> None:
        # What is not in the state dict is not copied.
        super().__setstate__(state)
        self._specs, self._programs, self.averaging = {}, FusedUpdates(), False

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """See :meth:`torch.optim.Optimizer.add_param_group`; by PyTorch's names or ours, or a ``spec``."""
        group = dict(param_group)
        known = group_options(group.pop("spec")) if "spec" in group else self.defaults
        options = {**known, **{name: value for name, value in group.items() if name in known}}
        fields = {field.name for field in dataclasses.fields(KINDS[options["kind"]])}
        if own := {name: group.pop(name) for name in fields & group.keys() - known.keys()}:
            options = group_options(replace(spec_of_group(options), own))
        # PyTorch wants names for all groups or for none.
        given = list(members(group["params"]))
        names = [name for name, _ in given]
        numbered = any(map(str.isdigit, names))
        if "param_names" in self.param_groups[0] if self.param_groups else not numbered:
            group["param_names"] = [f"{len(self.param_groups)}.{name}" if name.isdigit() else name for name in names]
        super().add_param_group({**options, **group, "params": [p for _, p in given]})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See :meth:`torch.optim.Optimizer.load_state_dict`; parameters of other order are found by their names.

        What DataParallel, torch.compile and FSDP put before names does not count. Without names on both sides,
        positions and shapes must fit. The state of torch.optim's own class of the same kind is taken where this
        optimizer computes the same; hyperparameters come with the state, as in PyTorch.

        Raises:
            InvalidInput: the state is that of another rule, of other parameters or groups, or of other shapes.
        """
        saved = checkpoints.reordered(state_dict, self.param_groups)
        kept: list[tuple[Tensor, dict[str, Tensor]]] = []
        for index, (own, other) in enumerate(zip(self.param_groups, saved["param_groups"], strict=True)):
            states = {number: saved["state"].get(number, {}) for number in other["params"]}
            if "kind" not in other:
                other, states = _from_native(own, other, states)
                saved["param_groups"][index] = other
            if other["kind"] != own["kind"]:
                raise InvalidInput(
                    f"the state was saved by {other['kind']}, and this optimizer is {own['kind']}: build "
                    f"{other['kind']} to go on with it, or start {own['kind']} without it"
                )
            spec = spec_of_group(other)
            names = own.get("param_names", range(len(own["params"])))
            for name, p, number in zip(names, own["params"], other["params"], strict=True):
                checkpoints.check_state(str(name), p, spec, states[number])
                scalars = checkpoints.scalars_of(spec, p, states[number])
                kept.append((p, scalars))
                # PyTorch would cast them to the parameter's type and move them to its device.
                saved["state"][number] = {k: v for k, v in states[number].items() if k not in scalars}
        super().load_state_dict(saved)
        for p, scalars in kept:
            if scalars:
                self.state[p].update(scalars)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; see :meth:`torch.optim.Optimizer.step`."""
        if self.averaging:
            raise InvalidInput("the averages are in the weights' place: make steps outside of averaged_weights()")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = []
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            moving.append(_Moving(self._spec(group), parameters, [p.grad for p in parameters]))
        if any(g.is_sparse or g.is_complex() for part in moving for g in part.gradients):
            raise InvalidInput("our rules move dense real parameters: use a torch.optim optimizer for these")
        shared = moving[0].spec
        if shared.accumulate > 1:
            moving = [self._accumulated(part, shared.accumulate) for part in moving]
        if moving := [part for part in moving if part.parameters]:
            ops = TorchOps(moving[0].parameters[0].device)
            # Norms are of the gradients as they come, in their own type.
            clipped = iter(rules.clip(ops, shared, [g for part in moving for g in part.gradients]))
            self._move(
                _Moving(
                    spec, ps, [g if g.dtype == p.dtype else g.to(p.dtype) for p, g in zip(ps, clipped, strict=False)]
                )
                for spec, ps, _ in moving
            )
            if shared.ema_momentum is not None:
                self._average(shared, [p for part in moving for p in part.parameters])
        return loss

    def _accumulated(self, part: _Moving, calls: int) -> _Moving:
        ready = _Moving(part.spec, [], [])
        for p, g in zip(part.parameters, part.gradients, strict=True):
            state = self.state[p]
            if "accumulated" not in state:
                state["accumulated"], state["calls"] = torch.zeros_like(p), torch.tensor(0.0, device="cpu")
            state["accumulated"] += g
            state["calls"] += 1
            if int(state["calls"]) == calls:
                ready.parameters.append(p)
                ready.gradients.append(state["accumulated"] / calls)
                state["accumulated"].zero_()
                state["calls"].zero_()
        return ready

    def _spec(self, group: Mapping[str, Any]) -> Spec:
        """The group's specification; the one of the step before, if no scheduler has changed it."""
        options = {k: v for k, v in group.items() if k != "params"}
        known = self._specs.get(id(group))
        if known is None or known[0] != options:
            known = self._specs[id(group)] = (options, spec_of_group(group))
        return known[1]

    def _move(self, moving: Iterable[_Moving]) -> None:
        counts: list[Tensor] = []
        # All is prepared before anything is done: a pass over the weights drives the interpreter's own data from the
        # cache, and a group took three times as long to prepare after one.
        alone: list[tuple[FusedUpdate, Tensor, Tensor]] = []
        together: dict[Any, tuple[FusedUpdate, list[Tensor], list[Tensor]]] = {}
        for index, (spec, parameters, gradients) in enumerate(moving):
            names, elementwise = rules.scalar_slots(spec), rules.rule_of(spec).elementwise
            # The same for all parameters of a group, but for those that are younger or have other scalar state.
            known: dict[Any, tuple[dict[str, float], FusedUpdate | None]] = {}
            for p, g in zip(parameters, gradients, strict=True):
                state = self._state(spec, p)
                counts.append(state["step"])
                step = state["step"].item()
                scalars = {name: TorchOps().numpy(state[name]) for name in names}
                key = (step, *map(float, scalars.values()))
                if key not in known:
                    numbers, new = rules.python_numbers(spec, int(step) + 1, spec.learning_rate, scalars)
                    program = self._programs.of(spec, numbers, self._arrays(spec, p)) if elementwise else None
                    known[key] = ({**numbers, **{f"new {name}": float(value) for name, value in new.items()}}, program)
                now, program = known[key]
                for name in names:
                    state[name].fill_(now[f"new {name}"])
                if program is None:
                    arrays = {name: state[name] for name in self._arrays(spec, p)}
                    moved, changed = rules.step(TorchOps(p.device), spec, p, g, arrays, now)
                    p.copy_(moved)
                    for name, value in changed.items():
                        arrays[name].copy_(value)
                elif program.is_sums or p.numel() <= _SMALL:
                    _, ps, gs = together.setdefault((index, key, p.dtype, p.device), (program, [], []))
                    ps.append(p)
                    gs.append(g)
                else:
                    alone.append((program, p, g))
        # A number would be made a tensor for each of them.
        torch._foreach_add_(counts, torch.tensor(1.0, device="cpu"), alpha=1.0)
        scratch: dict[torch.dtype, list[Tensor]] = {}
        for program, p, g in alone:
            state = self.state[p]
            program.apply(p, g, [state[name] for name in program.names], scratch)
        for program, ps, gs in together.values():
            self._move_together(program, ps, gs)

    def _state(self, spec: Spec, p: Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self.state[p]
        if "step" not in state:
            # On the processor, whatever the default device is: their values are read at every step.
            state["step"] = torch.tensor(0.0, device="cpu")
            scalars = rules.scalar_slots(spec)
            for name, slot in rules.rule_of(spec).slots(spec, tuple(p.shape)).items():
                dtype = p.dtype if slot.dtype is None else getattr(torch, slot.dtype)
                if name in scalars:
                    state[name] = torch.full((), slot.value, dtype=dtype, device="cpu")
                elif slot.shape == p.shape:
                    state[name] = torch.full_like(p, slot.value)
                else:
                    state[name] = p.new_full(slot.shape, slot.value)
        return state

    @staticmethod
    def _arrays(spec: Spec, p: Tensor) -> list[str]:
        return [n for n in rules.rule_of(spec).slots(spec, tuple(p.shape)) if n not in rules.scalar_slots(spec)]

    def _move_together(self, program: FusedUpdate, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Sums in one call for all; else small parameters as one long one."""
        slots = [[self.state[p][name] for p in parameters] for name in program.names]
        if program.is_sums:
            program.apply_each(parameters, gradients, *slots)
            return
        for first in range(0, len(parameters), _TOGETHER):
            lists = [x[first : first + _TOGETHER] for x in (parameters, gradients, *slots)]
            p, g, *arrays = map(_flatten_dense_tensors, lists)
            program(p, g, *arrays)
            for targets, value in zip((lists[0], *lists[2:]), (p, *arrays), strict=True):
                torch._foreach_copy_(list(targets), list(_unflatten_dense_tensors(value, targets)))

    def _average(self, spec: Spec, moved: Iterable[Tensor]) -> None:
        m = spec.ema_momentum
        assert m is not None
        for p in moved:
            state = self.state[p]
            state["average"] = m * state["average"] + (1 - m) * p if "average" in state else p.clone()
            if spec.ema_overwrite is not None and int(state["step"]) % spec.ema_overwrite == 0:
                p.copy_(state["average"])

    @torch.no_grad()
    def finalize(self) -> None:
        """Put the moving average of the weights in their place, as Keras does at the end of fit()."""
        for group in self.param_groups:
            for p in group["params"]:
                if "average" in self.state[p]:
                    p.copy_(self.state[p]["average"])


@contextlib.contextmanager
def averaged_weights(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """See :func:`agnostic.optimizers.averaged_weights`."""
    averages = [(p, s["average"]) for p, s in optimizer.state.items() if "average" in s]
    if not isinstance(optimizer, RuleOptimizer) or all(g["ema_momentum"] is None for g in optimizer.param_groups):
        raise InvalidInput("the optimizer keeps no average of the weights: build it with ema_momentum, such as 0.999")
    if not averages:
        raise InvalidInput("there is no average of the weights before the first step")
    if optimizer.averaging:
        raise InvalidInput("the averages are in the weights' place already")
    own: list[tuple[Tensor, Tensor]] = []
    optimizer.averaging = True
    try:
        with torch.no_grad():
            for p, average in averages:
                own.append((p, p.clone()))
                p.copy_(average)
        yield
    finally:
        with torch.no_grad():
            for p, before in own:
                p.copy_(before)
        optimizer.averaging = False


# State ----------------------------------------------------------------------------------------------------------------
def spec_of_native(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> Spec:
    """The specification of one group of a torch.optim optimizer.

    Raises:
        InvalidInput: it is of a kind that has no specification, or maximizes.
    """
    name = type(optimizer).__name__
    if type(optimizer).__module__.partition(".")[0] != "torch" or name not in NATIVE_STATE:
        raise InvalidInput(f"{type(optimizer).__qualname__} has no specification; {', '.join(NATIVE_STATE)} have")
    return _spec_of_native(name, group)


def _spec_of_native(name: str, group: Mapping[str, Any]) -> Spec:
    if group.get("maximize"):
        raise InvalidInput(f"{name} with maximize=True has no specification: negate the loss")
    cls = KINDS[name]
    fixed = {field: allowed[0] for field, allowed in cls.natives["torch"].fixed.items()}
    return make(cls, {**fixed, **_options(cls, group)})


def _from_native(
    own: Mapping[str, Any], group: dict[str, Any], states: Mapping[Any, Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[Any, dict[str, Any]]]:
    """A group of torch.optim's own optimizer, and the states of its parameters, as ours of the same kind.

    Raises:
        InvalidInput: it is not known to be of that kind, or computes something else.
    """
    ours = spec_of_group(own)
    name, native = type(ours).__name__, ours.natives.get("torch")
    found = checkpoints.saved_by(group, states.values())
    if native is None or native.name not in found:
        raise InvalidInput(
            f"the state was saved by {checkpoints.named_class(found)}, and this optimizer is {name}: build the one "
            "that it was saved by"
        )
    theirs = _spec_of_native(native.name, group)
    wrong = [term for term in obstacles(ours, "torch") if term in native.fixed]
    if theirs.weight_decay and theirs.decay != ours.decay:
        wrong.append("decay")
    if wrong:
        raise InvalidInput(
            f"the state was saved by torch.optim's {native.name}, which computes something else than this optimizer: "
            f"{describe(wrong)}; build {name}.torch() to go on with it"
        )
    shared = {field: getattr(ours, field) for field in (*SHARED, *native.fixed) if field not in ("decay", "scale")}
    known = inspect.signature(getattr(torch.optim, native.name)).parameters
    rest = {k: v for k, v in group.items() if k not in known or k == "params"}
    return (
        {**rest, **group_options(replace(theirs, shared))},
        {number: checkpoints.translated(state, native.name) for number, state in states.items()},
    )


def read(optimizer: torch.optim.Optimizer, model: nn.Module | None = None) -> Snapshot:
    """An optimizer and its state as data.

    Args:
        model: whose order and names the parameters are given in; None: the order of the optimizer's groups, and the
            names that it was given, or numbers.
    """
    ours = isinstance(optimizer, RuleOptimizer)
    model = None if model is None else unwrap(model)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    if model is None:
        real = [name for group in optimizer.param_groups for name in group.get("param_names", ())]
        called = real if len(real) == len(held) else list(map(str, range(len(held))))
        names = {id(p): name for name, p in zip(called, held, strict=True)}
        shapes = {name: tuple(p.shape) for name, p in zip(called, held, strict=True)}
    else:
        names = {id(p): name for name, p in model.named_parameters()}
        moving = {id(p) for p in held}
        shapes = {n: tuple(p.shape) for n, p in model.named_parameters() if p.requires_grad or id(p) in moving}
        if not all(id(p) in names for p in held):
            raise InvalidInput("the optimizer holds parameters that the model has not: give the model it was built for")
    found = []
    states: dict[str, ParameterState] = {}
    for group in optimizer.param_groups:
        spec = spec_of_group(group) if ours else spec_of_native(optimizer, group)
        found.append((spec, tuple(names[id(p)] for p in group["params"])))
        for p in group["params"]:
            states[names[id(p)]] = _read_state(optimizer, spec, p)
    ordered = {name: states[name] for name in shapes if name in states}
    return Snapshot(tuple(found), ordered, shapes, False, _whole_rate(optimizer), model is not None)


def _whole_rate(optimizer: torch.optim.Optimizer) -> float:
    """The present rate of the whole: PyTorch keeps that of each group, and the default that it was made with."""
    rates = {float(group["lr"]) for group in optimizer.param_groups}
    if len(rates) == 1:
        return rates.pop()
    default = float(optimizer.defaults["lr"])
    # A scheduler says what it started from, and moves all groups by one factor.
    moved = [(group["lr"], group["initial_lr"]) for group in optimizer.param_groups if group.get("initial_lr")]
    return default * float(moved[0][0] / moved[0][1]) if moved else default


def _read_state(optimizer: torch.optim.Optimizer, spec: Spec, p: Tensor) -> ParameterState:
    state = optimizer.state.get(p, {})
    shape = tuple(p.shape)
    if not state:
        return ParameterState(shape)
    if int(state.get("calls", 0)):
        raise InvalidInput("gradients are being accumulated: convert after the step that they are accumulated for")
    ours = isinstance(optimizer, RuleOptimizer)
    theirs = {n: n for n in state} if ours else NATIVE_STATE[type(optimizer).__name__]
    slots = {
        name: TorchOps()
        .numpy(torch.as_tensor(state[their]))
        .astype(np.float64 if p.dtype == torch.float64 else np.float32)
        for name, their in theirs.items()
        if state.get(their) is not None and name not in ("step", "calls", "accumulated")
    }
    # SGD and Muon count no steps: nothing in them depends on the count, but whether there was a first one.
    return ParameterState(shape, int(state["step"]) if "step" in state else 1, slots)


@torch.no_grad()
def restore(
    optimizer: torch.optim.Optimizer, snapshot: Snapshot, names: Mapping[int, str], parameters: Iterable[Tensor]
) -> None:
    """Put a snapshot's state into a newly built optimizer.

    Args:
        names: the snapshot's name of each parameter, by ``id``.
        parameters: all trainable parameters of the model; Keras needs them.
    """
    ours = isinstance(optimizer, RuleOptimizer)
    for group in optimizer.param_groups:
        for p in group["params"]:
            known = snapshot.states[names[id(p)]]
            if not known.step:
                continue
            state = optimizer.state[p]
            kind = type(optimizer).__name__
            if ours or kind not in ("SGD", "Muon"):
                state["step"] = torch.tensor(float(known.step), device="cpu")
            table = {} if ours else NATIVE_STATE[kind]
            for name, value in known.slots.items():
                single = value.ndim == 0 and p.ndim > 0
                dtype = torch.float32 if name == "product" and not (ours and p.dtype == torch.float64) else p.dtype
                tensor = torch.tensor(np.array(value), dtype=dtype, device="cpu" if single else p.device)
                if value.shape == tuple(p.shape) and not single:
                    tensor = torch.empty_like(p).copy_(tensor)
                state[table.get(name, name)] = tensor
