"""Convert an optimizer from one framework to the other, in the middle of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agnostic.contracts.optimizers import OPTIMIZERS
from agnostic.errors import InvalidInput, UnknownName
from agnostic.optimizers import specs
from agnostic.optimizers.build import describe
from agnostic.optimizers.groups import inventory_of
from agnostic.optimizers.inventory import Inventory, ParameterGroup
from agnostic.optimizers.snapshot import ParameterLayout, Snapshot, carried
from agnostic.optimizers.specs import Spec, obstacles, replace
from agnostic.registry import Facts, get_backend, optimizer_backend
from agnostic.text import counted, type_named

ParameterPairs = Mapping[str, tuple[str, ParameterLayout]]


def convert(
    optimizer: Any,
    to: str,
    model: Any,
    *,
    source: Any = None,
    pairs: ParameterPairs | None = None,
    native: bool | None = None,
    allow: Sequence[str] = (),
) -> Any:
    """Convert an optimizer to the other framework: hyperparameters, groups, momenta and step counts.

    Transfer the weights to ``model`` first: then the next steps are the same. The new optimizer is the framework's own
    class if that is exact, else ours with the shared update rule.

    Args:
        optimizer: torch.optim.Optimizer or keras.optimizers.Optimizer, before its first step or after any.
        to: ``"torch"`` or ``"keras"``.
        model: the model of ``to`` that the new optimizer updates.
        source: the model that ``optimizer`` belongs to. Its parameter order is used for pairing; without it, the order
            in the optimizer.
        pairs: target name -> (source name, :class:`agnostic.optimizers.snapshot.ParameterLayout` from source to
            target). None: both models' trainable parameters are paired in order; layouts follow from names and
            shapes.
        native: as for :func:`build`.
        allow: settings that may differ, by the names in the error.

    Returns:
        torch.optim.Optimizer or keras.optimizers.Optimizer.

    Raises:
        InvalidInput: no exact form exists; the message says which setting differs, and by how much after 5 steps of the
            standard problem of :mod:`agnostic.reference.optimizers`. Or the parameters of the two cannot be paired.

    Example:
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        >>> again = ag.optimizers.convert(optimizer, "torch", model)
        >>> type(again).__name__
        'Adam'
    """
    target = inventory_of(model)
    if target.backend != to:
        raise InvalidInput(f"the model to optimize is one of {target.backend}, and to={to!r}")
    snapshot = read(optimizer, source)
    for term in allow:
        if term not in specs.TERMS:
            raise UnknownName(f"no term {term!r} to allow; there are {', '.join(specs.TERMS)}")
    chosen = pair(snapshot, target) if pairs is None else pairs
    moved = _carried(snapshot, target, chosen, allow)
    frozen = tuple((name, p) for name, p in target.parameters.items() if name not in moved.states)
    resolved = [
        (spec, ParameterGroup({}, tuple((name, target.parameters[name]) for name in names)))
        for spec, names in moved.groups
    ]
    if frozen:
        resolved.append((moved.groups[0][0], ParameterGroup({}, frozen, trainable=False)))
    if native:
        for spec, _ in resolved:
            if wrong := [term for term in obstacles(spec, to) if term not in allow]:
                raise InvalidInput(
                    f"{to}'s own {type(spec).__name__} has no exact form of this: {measured(spec, to, wrong)}; "
                    f"leave out native=True, or allow={tuple(wrong)}"
                )
        resolved = [(_native_form(spec, to), group) for spec, group in resolved]
    backend = get_backend(to)[OPTIMIZERS]
    whole = replace(resolved[0][0], {"learning_rate": moved.learning_rate})
    built = backend.build(whole, resolved, native, {})
    names = {id(p): name for name, p in target.parameters.items()}
    backend.restore(built, moved, names, list(target.parameters.values()))
    return built


def read(optimizer: Any, model: Any = None) -> Snapshot:
    """Read an optimizer in the middle of training as plain data.

    Args:
        optimizer: torch.optim.Optimizer or keras.optimizers.Optimizer.
        model: the model whose names and order of parameters are used.

    Returns:
        Specifications, states and shapes by parameter name, as NumPy arrays.

    Raises:
        InvalidInput: no backend knows the optimizer, or its class has no specification.

    Example:
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> ag.optimizers.read(optimizer, model)
        <Snapshot at step 0: SGD(learning_rate=0.1, momentum=0.9) of 6 parameters>
    """
    return optimizer_backend(optimizer)[OPTIMIZERS].read(optimizer, model)


def measured(spec: Spec, framework: str, terms: Sequence[str]) -> str:
    """The terms as text, each with what it is worth on the standard problem."""
    from agnostic.reference.optimizers import difference

    native = spec.natives.get(framework)
    found = []
    for term in terms:
        text = describe([term])
        if native is not None and term in native.fixed and term != "iteration_dtype":
            probe = replace(spec, {"learning_rate": 1.0, **dict.fromkeys(("ema_momentum", "ema_overwrite"))})
            if term == "product_dtype" or getattr(spec, "iteration_dtype", "") != "bfloat16":
                size = difference(probe, replace(probe, {term: native.fixed[term][0]}))
                text += f", {size:.1e} after 5 steps"
        found.append(text)
    return "; ".join(found)


def _native_form(spec: Spec, framework: str) -> Spec:
    """The specification with the conventions that a framework has; for terms that are allowed to differ."""
    native = spec.natives[framework]
    wrong = {name: native.fixed[name][0] for name in obstacles(spec, framework) if name in native.fixed}
    return replace(spec, wrong)


# Pairing --------------------------------------------------------------------------------------------------------------
def pair(snapshot: Snapshot, target: Inventory) -> ParameterPairs:
    """Target name -> (source name, layout): by name where all names are the same, else by order.

    Raises:
        InvalidInput: the numbers of parameters differ, or two shapes do in every known layout.
    """
    names = list(snapshot.shapes)
    if len(names) != len(target.parameters):
        raise InvalidInput(
            f"the optimizer knows {counted(len(names), 'parameter')} and the model has {len(target.parameters)} "
            "to move: "
            "give source=, the optimizer's own model, or pairs="
        )
    last = get_backend(target.backend).facts.kernels_last
    found = {}
    origins = list(target.parameters) if set(names) == set(target.parameters) else names
    if origins is names and len(snapshot.groups) > 1 and not snapshot.in_order:
        raise InvalidInput(
            "the optimizer has several groups, whose order is not that of the model: give source=, the optimizer's own "
            "model, or pairs="
        )
    for (name, parameter), origin in zip(target.parameters.items(), origins, strict=True):
        shape, wanted = snapshot.shapes[origin], tuple(parameter.shape)
        # Where kernels are (..., inputs, outputs), their names say what they are.
        named = name if last else origin
        kind = named.replace("/", ".").rpartition(".")[2].partition("#")[0]
        layout = _layout(shape, wanted, kind if snapshot.outputs_last != last else "", snapshot.outputs_last)
        if layout is None:
            raise InvalidInput(f"{origin!r} {shape} and {name!r} {wanted} are not the same parameter: give pairs=")
        found[name] = (origin, layout)
    return found


def _layout(shape: tuple[int, ...], wanted: tuple[int, ...], kind: str, from_last: bool) -> ParameterLayout | None:
    """The layout that takes ``shape`` to ``wanted``, or None; ``kind`` is the name of the one whose
    outputs come last.

    Raises:
        InvalidInput: the order of gates in recurrent layers differs between the frameworks.
    """
    same = tuple(range(len(shape)))
    if kind == "recurrent_kernel":
        raise InvalidInput("the order of gates in recurrent layers differs between the frameworks: give pairs=")
    # A vector has one layout; a table of embeddings is (entries, features) in both.
    if len(shape) < 2 or "kernel" not in kind:
        return ParameterLayout(shape, same, shape) if shape == wanted else None
    # (O, I, ...) to (..., I, O), and back.
    axes = (same[-1], same[-2], *same[:-2]) if from_last else (*same[2:], 1, 0)
    if tuple(shape[a] for a in axes) == wanted:
        return ParameterLayout(shape, axes, wanted)
    # A depthwise kernel: (channels * multiplier, 1, ...), and (..., channels, multiplier).
    here, there = (wanted, shape) if from_last else (shape, wanted)
    if len(here) != len(there) or (here[0], here[1], *here[2:]) != (there[-2] * there[-1], 1, *there[:-2]):
        return None
    if from_last:
        return ParameterLayout(shape, (*same[-2:], *same[:-2]), wanted)
    return ParameterLayout((*there[-2:], *here[2:]), (*same[2:], 0, 1), wanted)


# Exactness ------------------------------------------------------------------------------------------------------------
def _carried(snapshot: Snapshot, target: Inventory, pairs: ParameterPairs, allow: Sequence[str]) -> Snapshot:
    facts = get_backend(target.backend).facts
    to_last = facts.kernels_last
    crossing = snapshot.outputs_last != to_last
    back = {origin: (name, layout) for name, (origin, layout) in pairs.items()}
    groups, states = [], {}
    for spec, origins in snapshot.groups:
        _number(spec.learning_rate, facts)
        names = []
        for origin in origins:
            if origin not in back:
                raise InvalidInput(f"pairs has no entry for {origin!r}, which the optimizer updates")
            name, layout = back[origin]
            state = snapshot.states[origin]
            if crossing:
                _check_layout(spec, origin, state.shape)
            states[name] = carried(state, layout)
            names.append(name)
        groups.append((_portable(spec, crossing, allow), tuple(names)))
    ordered = {name: states[name] for name in target.parameters if name in states}
    shapes = {name: tuple(parameter.shape) for name, parameter in target.parameters.items()}
    rate = _number(snapshot.learning_rate, facts)
    return Snapshot(tuple(groups), ordered, shapes, to_last, rate)


def _number(rate: Any, facts: Facts) -> Any:
    """A learning rate that the target can follow."""
    if isinstance(rate, int | float) or facts.rate_schedules:
        return rate
    raise InvalidInput(
        f"the learning rate follows {type_named(rate)}, which only Keras can evaluate: convert a copy whose rate "
        "is a number, and put a torch.optim.lr_scheduler on the result"
    )


def _check_layout(spec: Spec, name: str, shape: tuple[int, ...]) -> None:
    if isinstance(spec, specs.Adafactor) and len(shape) > 2:
        raise InvalidInput(
            f"Adafactor has no exact form of {name!r} {shape} in the other framework: its factors are means over the "
            "last two axes, which are (H, W) in PyTorch's layout of a convolution and (inputs, outputs) in Keras', and "
            "differ by the size of the steps themselves; give the convolutions a group with another rule"
        )


def _portable(spec: Spec, crossing: bool, allow: Sequence[str]) -> Spec:
    if crossing and isinstance(spec, specs.Muon) and spec.iteration_dtype == "bfloat16":
        if "iteration_dtype" not in allow:
            raise InvalidInput(
                "Muon has no exact form in the other framework: PyTorch iterates in bfloat16, whose rounding "
                "depends on how products are fused, 8e-4 per unit step; allow=('iteration_dtype',) iterates in the "
                "parameters' type"
            )
        return replace(spec, {"iteration_dtype": "parameter"})
    return spec
