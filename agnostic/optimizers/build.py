"""Build native optimizers from specifications, in the framework of the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agnostic.contracts.optimizers import OPTIMIZERS
from agnostic.errors import InvalidInput
from agnostic.optimizers.groups import Groups, from_dicts, groups, resolve
from agnostic.optimizers.inventory import ParameterGroup
from agnostic.optimizers.specs import TERMS, Spec, obstacles
from agnostic.registry import get_backend, owner


def build(spec: Spec, model_or_groups: Any, *, native: bool | None = None, **options: Any) -> Any:
    """Build an optimizer in the framework of the model.

    The result is the framework's own class if that computes exactly what the specification says, else ours with the
    shared update rule. Both are a torch.optim.Optimizer or a keras.optimizers.Optimizer.

    Args:
        spec: the specification.
        model_or_groups: a model, what :func:`groups` returned, or PyTorch's list of dicts.
        native: True: the framework's own class or an error. False: our class.
        options: arguments of the framework's own class only, such as ``fused=True``.

    Returns:
        torch.optim.Optimizer or keras.optimizers.Optimizer.

    Raises:
        InvalidInput: ``native`` is True and the framework's own class differs; the message names the setting.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1)
        >>> type(ag.optimizers.build(ag.optimizers.SGD(0.1, momentum=0.9), model)).__module__
        'torch.optim.sgd'
        >>> spec = ag.optimizers.SGD(0.1, momentum=0.9, convention="keras")
        >>> type(ag.optimizers.build(spec, model)).__name__
        'RuleOptimizer'
    """
    if not isinstance(spec, Spec):
        raise InvalidInput(f"a specification such as Adam(1e-3) was expected, not {type(spec).__name__}")
    chosen = _groups(model_or_groups)
    resolved = resolve(spec, chosen)
    if native:
        for own, group in resolved:
            if group.trainable and (wrong := obstacles(own, chosen.backend)):
                raise InvalidInput(
                    f"the native {type(own).__name__} of {chosen.backend} computes something else: {describe(wrong)}; "
                    "leave out native=True to build ours"
                )
    return get_backend(chosen.backend)[OPTIMIZERS].build(spec, resolved, native, options)


def describe(terms: Iterable[str]) -> str:
    """Names of fields with their meaning."""
    return "; ".join("it has no such class" if t == "class" else f"{t} ({TERMS.get(t, t)})" for t in terms)


def _groups(given: Any) -> Groups:
    if isinstance(given, Groups):
        return given
    if isinstance(given, list | tuple):
        if not given or not all(isinstance(g, Mapping) for g in given):
            raise InvalidInput("groups are a list of dicts with 'params', what groups() returns, or a model")
        return from_dicts(given, _backend_of_parameters(given))
    return groups(given, {})


def _backend_of_parameters(dicts: Iterable[Mapping[str, Any]]) -> str:
    # The iterators that people write into these dicts can be read once: they become lists where they stand.
    for given in dicts:
        params = given.get("params", ())
        if hasattr(params, "__next__") and isinstance(given, dict):
            params = given["params"] = list(params)
        items = params if isinstance(params, list | tuple) else [params]
        for item in items:
            value = item[1] if isinstance(item, tuple) and len(item) == 2 else item
            # A layer or a model stands for its parameters.
            if (found := owner(value)) is not None:
                return found.name
    raise InvalidInput("the groups hold no parameter of a known framework: 'params' is a list of tensors or variables")


__all__ = ["Groups", "ParameterGroup", "build", "describe", "groups"]
