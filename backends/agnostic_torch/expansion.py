"""What torch defines an operator by: the graph of simpler operators that it runs.

torch has many operators that are functions of others (``cosine_similarity``, ``lstm_cell``), and for many of the rest a
reference in simpler ones. So what :mod:`agnostic_torch.aten` has no words for is often said in those that it has.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch._decomp import decomposition_table
from torch._guards import detect_fake_mode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Expansion:
    """The operators that compute a call.

    Attributes:
        graph: takes the tensors of the call; its output is a list.
        placeholders: of the graph.
        operands: the nodes of the outer graph that stand for these.
        is_single: whether the call has one result rather than a tuple.
    """

    graph: fx.GraphModule
    placeholders: list[fx.Node]
    operands: list[fx.Node]
    is_single: bool


def expansion(node: fx.Node) -> Expansion | None:
    """What computes a call in a graph of ``torch.export``; None where torch has no simpler operators for it."""
    function = _definition(_functional(node.target))
    if function is None:
        return None
    leaves, structure = pytree.tree_flatten((_plain(node.args), _plain(node.kwargs)))
    places = [i for i, x in enumerate(leaves) if isinstance(x, fx.Node)]
    operands = [leaves[i] for i in places]
    tensors = [operand.meta.get("val") for operand in operands]
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        return None

    def run(*given: torch.Tensor) -> Any:
        args, kwargs = pytree.tree_unflatten(_replaced(leaves, places, given), structure)
        return function(*args, **kwargs)

    mode = detect_fake_mode(tensors)
    if mode is None:
        return None
    try:
        with mode, torch.no_grad(), silent("torch._subclasses.fake_tensor"):
            graph = make_fx(run)(*tensors)
    except (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError):
        # What looks at values raises one of many errors.
        return None
    if any(inner.target is node.target for inner in graph.graph.nodes):
        return None
    [output] = [inner for inner in graph.graph.nodes if inner.op == "output"]
    single = not isinstance(output.args[0], list | tuple)
    if single:
        output.args = ([output.args[0]],)
    return Expansion(graph, [inner for inner in graph.graph.nodes if inner.op == "placeholder"], operands, single)


def _functional(target: Any) -> Any:
    """The operator that gives what one in place writes; None where there is none."""
    schema = getattr(target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return target
    packet = getattr(torch.ops.aten, schema.name.partition("::")[2].rstrip("_"), None)
    return getattr(packet, schema.overload_name or "default", None)


def _definition(target: Any) -> Callable[..., Any] | None:
    if not isinstance(target, torch._ops.OpOverload):
        return None
    if target in decomposition_table:
        found: Callable[..., Any] = decomposition_table[target]
        return found
    implicit = torch._C.DispatchKey.CompositeImplicitAutograd
    return target.decompose if target.has_kernel_for_dispatch_key(implicit) else None


def _plain(x: Any) -> Any:
    """With lists that may be changed, unlike those of a graph."""
    if isinstance(x, dict):
        return {key: _plain(value) for key, value in x.items()}
    if isinstance(x, tuple | list):
        return type(x)(map(_plain, x)) if isinstance(x, tuple) else [_plain(part) for part in x]
    return x


def _replaced(leaves: list[Any], places: list[int], given: tuple[Any, ...]) -> list[Any]:
    found = list(leaves)
    for place, value in zip(places, given, strict=True):
        found[place] = value
    return found


@contextlib.contextmanager
def silent(*loggers: str) -> Iterator[None]:
    """Inside, loggers say nothing: what they would say of a failure is in the error."""
    found = [logging.getLogger(name) for name in loggers]
    before = [logger.disabled for logger in found]
    for logger in found:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, was in zip(found, before, strict=True):
            logger.disabled = was
