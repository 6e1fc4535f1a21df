"""Parameter groups: hyperparameters by layer or parameter, the same in both frameworks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agnostic import display
from agnostic.contracts.optimizers import OPTIMIZERS
from agnostic.errors import InvalidInput, UnknownName
from agnostic.layers import select
from agnostic.optimizers.inventory import Inventory, ParameterGroup
from agnostic.optimizers.specs import Spec, make, replace
from agnostic.registry import get_backend, model_backend
from agnostic.renamed import old_names
from agnostic.text import counted

SHARED = (
    "clip_value",
    "clip_norm",
    "clip_global_norm",
    "clip_convention",
    "ema_momentum",
    "ema_overwrite",
    "accumulate",
)
"""Settings that act on all parameters together, and so cannot differ between groups."""

FIELD_ALIASES: Mapping[str, str] = {
    "lr": "learning_rate",
    "eps": "epsilon",
    "alpha": "rho",
    "initial_accumulator_value": "initial_accumulator",
    "beta2_decay": "beta_2_decay",
    "d": "clip_threshold",
    "ns_coefficients": "coefficients",
    "ns_steps": "steps",
}
"""PyTorch's names of fields, which lists of dicts are written in; those that hold two fields are in :func:`renamed`."""


@dataclass(frozen=True, repr=False)
class Groups:
    """The result of :func:`groups`: the groups of one model, with every parameter in exactly one of them.

    Attributes:
        groups: each with its options and its (name, parameter) pairs.
        backend: the backend's name.
        model: the model that they belong to; None for a list of dicts.

    Example:
        >>> len(ag.optimizers.groups(model, {"norm": {"learning_rate": 0.1}}).groups)
        2
    """

    groups: tuple[ParameterGroup, ...]
    backend: str
    model: Any = field(default=None, repr=False)

    def __repr__(self) -> str:
        groups = display.listed(f"{counted(len(x.parameters), 'parameter')} ({x.said})" for x in self.groups)
        return f"<{counted(len(self.groups), 'group')}: {groups}>"

    def _repr_html_(self) -> str:
        rows = [
            (i, x.said, len(x.parameters), display.listed((name for name, _ in x.parameters), 120))
            for i, x in enumerate(self.groups)
        ]
        title = counted(len(self.groups), "group")
        return display.table(title, ("", "options", "parameters", "names"), rows)


def groups(model: Any, rules: Mapping[str, Mapping[str, Any]], default: Mapping[str, Any] | None = None) -> Groups:
    """Set hyperparameters by layer or parameter.

    Args:
        model: a torch.nn.Module or keras.Model; a Keras model must be built.
        rules: options by selector. A selector is the name of a layer or parameter, a glob whose ``*`` stays within one
            component and whose ``**`` crosses them, or ``"kind:BatchNorm2d"``; components are separated by dots in
            PyTorch and slashes in Keras. The options are fields of the specification, by our names or PyTorch's,
            ``trainable=False`` to freeze, or ``spec`` for another rule. Where several selectors choose a parameter,
            the later one overrides the earlier one, option by option, or completely if it has a ``spec``.
        default: options of all parameters, which the rules override.

    Returns:
        Groups for :func:`build`: each trainable parameter is in one of them.

    Raises:
        UnknownName: a selector chooses no trainable parameters; the message says what is frozen, shared or has another
            name, or names the nearest layers.

    Example:
        >>> groups = ag.optimizers.groups(model, {"norm": {"weight_decay": 0.0}, "conv": {"trainable": False}})
        >>> groups
        <3 groups: 2 parameters (frozen), 2 parameters (weight_decay=0.0), 2 parameters (no options of its own)>
        >>> optimizer = ag.optimizers.build(ag.optimizers.AdamW(1e-3), groups)
    """
    inventory = inventory_of(model)
    chosen: dict[str, dict[str, Any]] = {name: renamed(default or {}) for name in inventory.parameters}
    for selector, options in rules.items():
        if not isinstance(selector, str):
            raise InvalidInput(f"parameters are chosen by a layer's name, a glob or 'kind:Conv2d', not by {selector!r}")
        for name in _under(inventory, selector, type(model).__name__):
            # Another rule has other options: the earlier options do not apply to it.
            chosen[name] = {**({} if "spec" in options else chosen[name]), **renamed(options)}
    return Groups(_collect(chosen, inventory.parameters), inventory.backend, model)


def _collect(options: Mapping[str, Mapping[str, Any]], parameters: Mapping[str, Any]) -> tuple[ParameterGroup, ...]:
    """Parameters of equal options together, in the order in which the options first appear."""
    found: list[tuple[Mapping[str, Any], list[tuple[str, Any]]]] = []
    for name, own in options.items():
        for other, members in found:
            if other == own:
                members.append((name, parameters[name]))
                break
        else:
            found.append((own, [(name, parameters[name])]))
    return tuple(
        ParameterGroup(
            {k: v for k, v in own.items() if k != "trainable"}, tuple(members), bool(own.get("trainable", True))
        )
        for own, members in found
    )


def _under(inventory: Inventory, selector: str, model: str) -> tuple[str, ...]:
    # Globs are written with dots: in Keras a slash separates.
    by_name = dict(zip((layer.name for layer, _ in inventory.layers), inventory.layers, strict=True))
    layers = [layer for layer, _ in inventory.layers]
    selector = selector.replace("/", ".")
    try:
        chosen = select(layers, selector, model=model)
    except UnknownName:
        _explain(inventory, selector, model)
        raise
    return tuple(dict.fromkeys(name for layer in chosen for name in by_name[layer.name][1]))


def _explain(inventory: Inventory, selector: str, model: str) -> None:
    """Raise for a selector of layers that are there and cannot be chosen: what they are, and why."""
    absent = inventory.absent()
    reasons = {layer.name: reason for layer, reason in absent}
    try:
        chosen = select([layer for layer, _ in absent], selector)
    except UnknownName:
        return
    said = "; ".join(f"{layer.name!r} {reasons[layer.name]}" for layer in chosen[:3])
    more = f"; and {len(chosen) - 3} more" if len(chosen) > 3 else ""
    raise UnknownName(f"nothing in {model} that can be trained is chosen by {selector!r}: {said}{more}")


def renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by the specifications' names, from those or PyTorch's."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if name == "betas":
            found["beta_1"], found["beta_2"] = value
        elif name == "eps" and isinstance(value, tuple | list):
            found["epsilon_1"], found["epsilon_2"] = value
        elif name == "decoupled_weight_decay":
            found["decay"] = "decoupled" if value else "coupled"
        elif name == "adjust_lr_fn":
            found["scale"] = value or "original"
        else:
            found[FIELD_ALIASES.get(name, name)] = value
    return found


def from_dicts(dicts: Iterable[Mapping[str, Any]], backend: str) -> Groups:
    """PyTorch's list of dicts: ``[{"params": base.parameters()}, {"params": head.parameters(), "lr": 1e-3}]``.

    Args:
        dicts: ``"params"`` holds native parameters, or one of them; in Keras, layers and models as well.
        backend: the backend of the parameters.

    Raises:
        InvalidInput: a dict has no ``"params"``, or a parameter is in two of them.
    """
    listing = get_backend(backend)[OPTIMIZERS].members
    found = []
    seen: dict[int, int] = {}
    for index, given in enumerate(dicts):
        if "params" not in given:
            raise InvalidInput(f"group {index} has no 'params': give the parameters of the group")
        members = tuple(listing(given["params"]))
        for name, parameter in members:
            if seen.setdefault(id(parameter), index) != index:
                raise InvalidInput(f"parameter {name!r} is in group {seen[id(parameter)]} and in group {index}")
        options = renamed({k: v for k, v in given.items() if k != "params"})
        trainable = bool(options.pop("trainable", True))
        found.append(ParameterGroup(options, members, trainable))
    return Groups(tuple(found), backend)


def resolve(spec: Spec, groups: Groups) -> list[tuple[Spec, ParameterGroup]]:
    """Each group with its own specification.

    Raises:
        InvalidInput: a group has a setting that applies to all parameters together.
        UnknownName: the specification has no such field.
    """
    found = []
    for group in groups.groups:
        options = dict(group.options)
        for name in SHARED:
            if name in options and options[name] != getattr(spec, name):
                raise InvalidInput(f"{name} applies to all parameters together: set it in the specification")
        own = options.pop("spec", spec)
        if own is not spec:
            shared = {name: getattr(spec, name) for name in SHARED}
            own = make(type(own), {**{k: v for k, v in vars(own).items() if k not in SHARED}, **shared})
        found.append((replace(own, options) if options else own, group))
    return found


def inventory_of(model: Any) -> Inventory:
    """The parameters and layers of a model of any backend.

    Raises:
        InvalidInput: no backend knows the model, or its backend builds no optimizers.
    """
    return model_backend(model)[OPTIMIZERS].inventory(model)


if not TYPE_CHECKING:
    __getattr__ = old_names(__name__, {"Group": "ParameterGroup"})
