"""State dicts of optimizers made to fit: parameters by name, PyTorch's own slots by ours, or why they do not fit."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from agnostic.errors import InvalidInput, nearest
from agnostic.optimizers import rules
from agnostic.optimizers.specs import Spec
from agnostic.text import counted, type_named

Tensor = torch.Tensor

NATIVE_STATE: Mapping[str, Mapping[str, str]] = {
    "SGD": {"momentum": "momentum_buffer"},
    "RMSprop": {"square": "square_avg", "mean": "grad_avg", "momentum": "momentum_buffer"},
    "Adagrad": {"sum": "sum"},
    "Adadelta": {"square": "square_avg", "delta": "acc_delta"},
    "Adam": {"mean": "exp_avg", "square": "exp_avg_sq", "largest": "max_exp_avg_sq"},
    "AdamW": {"mean": "exp_avg", "square": "exp_avg_sq", "largest": "max_exp_avg_sq"},
    "Adamax": {"mean": "exp_avg", "largest": "exp_inf"},
    "NAdam": {"mean": "exp_avg", "square": "exp_avg_sq", "product": "mu_product"},
    "RAdam": {"mean": "exp_avg", "square": "exp_avg_sq"},
    "Adafactor": {"row": "row_var", "column": "col_var", "square": "variance"},
    "Muon": {"momentum": "momentum_buffer"},
}
"""torch.optim's names of the slots, by its class."""

# What is put around a model, or a part of it, adds a component to the names of parameters.
_OUTSIDE = "module"
_ANYWHERE = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})

# Counts that belong to no rule: of steps, and of gradients since the last one.
_COUNTS = ("step", "calls")


def reordered(state_dict: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A state dict in the order of an optimizer's groups and parameters; the state dict itself is left alone.

    Args:
        groups: of the optimizer. Where these and the saved ones have ``param_names``, parameters are matched by name,
            whatever DataParallel, torch.compile and FSDP put before it; else by position, as torch.optim does.

    Raises:
        InvalidInput: it is no state dict of an optimizer, or the groups or the names are others.
    """
    _check_form(state_dict)
    saved = [dict(group) for group in state_dict["param_groups"]]
    if len(saved) != len(groups):
        raise InvalidInput(
            f"the state has {counted(len(saved), 'group')} of parameters and the optimizer {len(groups)}: build it "
            "with the groups that the state was saved with"
        )
    if all("param_names" in group for group in (*saved, *groups)):
        known = _matched([n for g in groups for n in g["param_names"]], [n for g in saved for n in g["param_names"]])
        saved = [_group_of(group["param_names"], saved, known) for group in groups]
    for index, (own, other) in enumerate(zip(groups, saved, strict=True)):
        if len(own["params"]) != len(other["params"]):
            raise InvalidInput(
                f"group {index} has {counted(len(other['params']), 'parameter')} in the state and "
                f"{len(own['params'])} in the "
                "optimizer: build it for the parameters that the state was saved for"
            )
    return {**state_dict, "param_groups": saved, "state": dict(state_dict["state"])}


def _check_form(state_dict: Any) -> None:
    given = state_dict if isinstance(state_dict, Mapping) else {}
    groups: Any = given.get("param_groups")
    listed = isinstance(given.get("state"), Mapping) and isinstance(groups, list | tuple)
    if listed and all(isinstance(group, Mapping) and "params" in group for group in groups):
        return
    inside = [key for key, value in given.items() if isinstance(value, Mapping) and "param_groups" in value]
    what = f"a dict of {_listed(list(given))}" if given else f"{type_named(state_dict)} without entries"
    hint = f": give its entry {inside[0]!r}" if inside else ""
    raise InvalidInput(
        f"what an optimizer's state_dict() returned was expected, with 'state' and 'param_groups', not {what}{hint}"
    )


def _matched(own: Sequence[str], saved: Sequence[str]) -> dict[str, str]:
    """Own name -> saved name, of all.

    Raises:
        InvalidInput: they are not the same, with or without what wrappers add.
    """
    if set(own) == set(saved):
        return {name: name for name in own}
    bare = {_bare(name): name for name in saved}
    if len(bare) == len(saved) == len(own) and {_bare(name) for name in own} == bare.keys():
        return {name: bare[_bare(name)] for name in own}
    lacking = [name for name in own if _bare(name) not in bare]
    others = sorted(bare[name] for name in bare.keys() - set(map(_bare, own)))
    hint = nearest(lacking[0], others) if lacking else ""
    raise InvalidInput(
        f"the state was saved for other parameters: it has {_listed(others)} where the optimizer has "
        f"{_listed(lacking)}{hint}; build the optimizer for the model that the state was saved for, or rename the "
        "'param_names' of the state"
    )


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "nothing"
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _bare(name: str) -> str:
    parts = [part for part in name.split(".") if part not in _ANYWHERE]
    while len(parts) > 1 and parts[0] == _OUTSIDE:
        parts = parts[1:]
    return ".".join(parts)


def _group_of(names: Sequence[str], saved: Iterable[Mapping[str, Any]], known: Mapping[str, str]) -> dict[str, Any]:
    """The saved group of these parameters, in their order."""
    wanted = {known[name] for name in names}
    for group in saved:
        numbers = dict(zip(group["param_names"], group["params"], strict=True))
        if numbers.keys() == wanted:
            return {**group, "param_names": list(names), "params": [numbers[known[name]] for name in names]}
    raise InvalidInput(
        f"parameter {names[0]!r} shared its group with others when the state was saved: build the optimizer with the "
        "groups that it was saved with"
    )


# Other classes --------------------------------------------------------------------------------------------------------
def saved_by(group: Mapping[str, Any], states: Iterable[Mapping[str, Any]]) -> list[str]:
    """The classes of torch.optim that a group of a state dict may come from: it does not say so."""
    accepted = {name: set(inspect.signature(getattr(torch.optim, name)).parameters) for name in _classes()}
    # What it keeps in its groups and does not take.
    accepted["AdamW"].add("decoupled_weight_decay")
    # Schedulers leave keys of their own.
    keys = set(group) & (set.union(*accepted.values()) - {"params"})
    slots = {slot for state in states for slot, value in state.items() if value is not None and slot != "step"}
    return [
        name
        for name in accepted
        if _TELLING[name] <= keys <= accepted[name]
        and slots <= set(NATIVE_STATE[name].values())
        and not (name == "AdamW" and group.get("decoupled_weight_decay") is False)
    ]


def _classes() -> list[str]:
    return [name for name in NATIVE_STATE if hasattr(torch.optim, name)]


_ADAM = frozenset({"lr", "betas", "eps", "weight_decay"})
_TELLING: Mapping[str, frozenset[str]] = {
    "SGD": frozenset({"lr", "momentum", "dampening", "nesterov"}),
    "RMSprop": frozenset({"lr", "alpha", "eps", "centered", "momentum"}),
    "Adagrad": frozenset({"lr", "lr_decay", "eps"}),
    "Adadelta": frozenset({"lr", "rho", "eps"}),
    "Adam": _ADAM | {"amsgrad"},
    "AdamW": _ADAM | {"amsgrad"},
    "Adamax": _ADAM,
    "NAdam": _ADAM | {"momentum_decay"},
    "RAdam": _ADAM,
    "Adafactor": frozenset({"lr", "beta2_decay", "d"}),
    "Muon": frozenset({"lr", "momentum", "ns_coefficients"}),
}
"""The hyperparameters that distinguish the classes of torch.optim, in every version."""


def named_class(names: Sequence[str]) -> str:
    """The classes as text."""
    return f"torch.optim's {' or '.join(names)}" if names else "a class that has no specification"


def translated(state: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One parameter's state, by our names of the slots, from that of a class of torch.optim."""
    if not state:
        return {}
    ours = {theirs: slot for slot, theirs in NATIVE_STATE[name].items()}
    found = {ours.get(slot, slot): value for slot, value in state.items() if value is not None}
    # SGD and Muon count no steps: nothing in them depends on the count, but whether there was a first one.
    return {"step": 1.0, **found}


# Slots ----------------------------------------------------------------------------------------------------------------
def scalars_of(spec: Spec, p: Tensor, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The counts and the scalar slots of a parameter as they are kept: on the processor, in types of their own.

    Args:
        state: its values are tensors on any device or, in old checkpoints, Python numbers.
    """
    slots = rules.rule_of(spec).slots(spec, tuple(p.shape))
    types = dict.fromkeys(_COUNTS, torch.float32)
    for name in rules.scalar_slots(spec):
        dtype = slots[name].dtype
        types[name] = p.dtype if dtype is None else getattr(torch, dtype)
    return {name: _on_processor(state[name], dtype) for name, dtype in types.items() if name in state}


def _on_processor(value: Any, dtype: torch.dtype) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", dtype, copy=True)
    return torch.tensor(value, dtype=dtype, device="cpu")


def check_state(name: str, p: Tensor, spec: Spec, state: Mapping[str, Any]) -> None:
    """Refuse a parameter's state that is not that of a specification.

    Args:
        name: of the parameter, for an error.

    Raises:
        InvalidInput: a slot is missing, is unknown, has another shape, or has no values.
    """
    if not state:
        return
    slots = rules.rule_of(spec).slots(spec, tuple(p.shape))
    expected: dict[str, tuple[int, ...]] = {slot: tuple(wanted.shape) for slot, wanted in slots.items()}
    # These need not be there.
    others: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(_COUNTS, ()),
        "average": tuple(p.shape),
        "accumulated": tuple(p.shape),
    }
    for slot in (*expected, *(key for key in state if key not in expected)):
        value, wanted = state.get(slot), expected.get(slot, others.get(slot))
        found = tuple(value.shape) if isinstance(value, Tensor) else () if isinstance(value, int | float) else None
        if wanted is None:
            raise InvalidInput(
                f"the state of parameter {name!r} holds {slot!r}, which {type(spec).__name__} does not keep"
            )
        if found != wanted:
            raise InvalidInput(
                f"the saved {slot!r} of parameter {name!r} {tuple(p.shape)} is {found}, where {wanted} was "
                "expected: the state was saved for other parameters, or for these in another order"
            )
        if isinstance(value, Tensor) and value.device.type == "meta" != p.device.type:
            raise InvalidInput(f"the saved {slot!r} of parameter {name!r} is on the meta device and has no values")
