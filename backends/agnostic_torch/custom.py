"""Operators that have no translation: as one node of a graph each, and what goes in and comes out of them.

An operator of ``torch.library`` is one node already, if it has a fake kernel; without one, the shapes that it gave in a
real run are what its fake kernel says. A ``torch.autograd.Function`` is followed into its forward, unless that cannot
be followed or somebody spells the function by name: then its forward is one operator, registered while a model is read.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from agnostic.patching import patched
from agnostic_torch.aten import Unreadable

Function = torch.autograd.Function
_NUMBERS = itertools.count()
SPACE = "agnostic_opaque_"
"""How the libraries begin that hold autograd functions while a model is read."""


# Autograd functions ---------------------------------------------------------------------------------------------------
def functions() -> dict[str, type[Function]]:
    """The user's classes of autograd functions, by module and name."""
    found: dict[str, type[Function]] = {}
    waiting = list(Function.__subclasses__())
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        if cls.__module__.partition(".")[0] != "torch":
            found[f"{cls.__module__}.{cls.__qualname__}"] = cls
    return found


def function_in(trace: TracebackType | None) -> str | None:
    """The autograd function whose forward raised an error, the outermost of several."""
    codes = {getattr(cls.forward, "__code__", None): name for name, cls in functions().items()}
    return next((codes[f.f_code] for f, _ in traceback.walk_tb(trace) if f.f_code in codes), None)


def named_functions(names: Collection[str]) -> set[str]:
    """The autograd functions that are spelled by one of the names: with their module, or without."""
    return {name for name in functions() if name in names or name.rpartition(".")[2] in names}


# Shapes of real runs --------------------------------------------------------------------------------------------------
Key = tuple[Any, ...]


def _key(args: Any) -> Key:
    """What an operator's shapes are looked up by: shapes and types of its tensors, and all else as it is."""
    leaves = pytree.tree_leaves(args)
    return tuple((tuple(x.shape), x.dtype) if isinstance(x, torch.Tensor) else repr(x) for x in leaves)


@dataclass
class _Seen(TorchDispatchMode):
    """What operators outside of torch gave in a run, by their names and what they were given."""

    found: dict[str, dict[Key, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        schema = getattr(func, "_schema", None)
        if schema is not None and not schema.name.startswith(("aten::", "prim", SPACE)):
            self.found.setdefault(schema.name, {})[_key((args, kwargs or {}))] = _shapes(result)
        return result


def _shapes(result: Any) -> Any:
    return pytree.tree_map_only(torch.Tensor, lambda x: torch.empty_like(x, device="meta"), result)


def _like(found: Mapping[Key, Any], args: Any) -> Any:
    shapes = found.get(_key(args))
    if shapes is None:
        raise RuntimeError("a custom operator is called otherwise than in a real run")
    device = next((x.device for x in pytree.tree_leaves(args) if isinstance(x, torch.Tensor)), torch.device("cpu"))
    return pytree.tree_map_only(torch.Tensor, lambda x: torch.empty_like(x, device=device), shapes)


def run_once(model: nn.Module, args: Any, kwargs: Mapping[str, Any], opaque: Collection[str]) -> Seen:
    """Run a model, and note the shapes that operators of strangers and autograd functions gave."""
    gave: dict[str, dict[Key, Any]] = {name: {} for name in opaque}

    def watching(name: str) -> Callable[..., Any]:
        def forward(original: Callable[..., Any], *given: Any) -> Any:
            result = original(*given)
            gave[name][_key(_operands(functions()[name], given))] = _shapes(result)
            return result

        return forward

    with torch.no_grad(), patched([(functions()[name], "forward", watching(name)) for name in opaque]), _Seen() as seen:
        model(*args, **kwargs)
    return Seen(seen.found, gave)


@dataclass(frozen=True)
class Seen:
    """Shapes of a real run: of operators, and of autograd functions, by name."""

    operators: Mapping[str, Mapping[Key, Any]]
    functions: Mapping[str, Mapping[Key, Any]]


def _operands(cls: type[Function], given: Sequence[Any]) -> tuple[Any, ...]:
    """The arguments of a forward without its context."""
    with_context = cls.setup_context is Function.setup_context
    return tuple(given[1:] if with_context else given)


# One node each --------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def registered(seen: Seen, called: dict[str, str], followed: set[str]) -> Iterator[None]:
    """Inside, operators have fake kernels by what they gave in a run, and autograd functions are operators.

    Args:
        seen: the run.
        called: is filled with the names of autograd functions by those of the operators that they are.
        followed: is filled with the names of those whose forward runs as it is.
    """
    with contextlib.ExitStack() as stack:
        for name, found in seen.operators.items():
            defined = torch._library.custom_ops.OPDEFS.get(name)
            if defined is not None and defined._abstract_fn is None:
                stack.enter_context(_registered(defined, _fake(found)))
            elif defined is None and not _has_shapes(name):
                library = stack.enter_context(torch.library._scoped_library(name.partition("::")[0], "FRAGMENT"))
                torch.library.register_fake(name, _fake(found), lib=library)
        patches: list[tuple[Any, str, Any]] = []
        space = f"{SPACE}{next(_NUMBERS)}"
        for number, (name, found) in enumerate(seen.functions.items()):
            library = stack.enter_context(torch.library._scoped_library(space, "FRAGMENT"))
            cls = functions()[name]
            called[f"{space}::f{number}"] = name
            patches.append((cls, "forward", _Opaque(library, f"f{number}", cls, found)))
        for name, cls in functions().items():
            if name not in seen.functions:
                patches.append((cls, "forward", _noting(name, followed)))
        stack.enter_context(patched(patches))
        yield


def _noting(name: str, followed: set[str]) -> Callable[..., Any]:
    def forward(original: Callable[..., Any], *given: Any) -> Any:
        followed.add(name)
        return original(*given)

    return forward


@contextlib.contextmanager
def _registered(defined: Any, fake: Callable[..., Any]) -> Iterator[None]:
    """Inside, an operator made by ``torch.library.custom_op`` has a fake kernel."""
    defined._abstract_fn = fake
    try:
        yield
    finally:
        defined._abstract_fn = None


def _fake(found: Mapping[Key, Any]) -> Callable[..., Any]:
    def fake(*args: Any, **kwargs: Any) -> Any:
        return _like(found, (args, kwargs))

    return fake


def _has_shapes(name: str) -> bool:
    """Whether torch can tell the shapes that an operator gives."""
    known = torch._library.simple_registry.singleton.find(name)
    keys = ("Meta", "CompositeImplicitAutograd")
    return known.fake_impl.kernel is not None or any(
        torch._C._dispatch_has_kernel_for_dispatch_key(name, key) for key in keys
    )


class _Opaque:
    """The forward of an autograd function as an operator of its own."""

    def __init__(self, library: torch.library.Library, name: str, cls: type[Function], found: Mapping[Key, Any]):
        self.library, self.name, self.cls, self.found = library, name, cls, found
        self.defined = False

    def __call__(self, original: Callable[..., Any], *given: Any) -> Any:
        operands = _operands(self.cls, given)
        context = given[: len(given) - len(operands)]
        if not self.defined:
            self._define(operands, lambda *args: original(*context, *args))
        return getattr(getattr(torch.ops, self.library.ns), self.name)(*operands)

    def _define(self, operands: Sequence[Any], forward: Callable[..., Any]) -> None:
        first = next(iter(self.found.values()))
        gives = "Tensor" if isinstance(first, torch.Tensor) else f"({', '.join(['Tensor'] * len(first))})"
        takes = ", ".join(
            f"{_kind(x)} {name}" for name, x in zip(_names(self.cls, len(operands)), operands, strict=True)
        )
        self.library.define(f"{self.name}({takes}) -> {gives}")
        self.library.impl(self.name, _without_gradients(forward), "CompositeExplicitAutograd")
        self.library.impl(self.name, _meta(self.found), "Meta")
        self.defined = True


def _without_gradients(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        with torch.no_grad():
            return forward(*args)

    return run


def _meta(found: Mapping[Key, Any]) -> Callable[..., Any]:
    def fake(*args: Any) -> Any:
        return _like(found, args)

    return fake


def _names(cls: type[Function], count: int) -> list[str]:
    """Names for the first parameters of a forward, without its context."""
    # The signature is the user's own also while the forward is replaced.
    known = [p.name for p in inspect.signature(cls.forward).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    known = known[1:] if cls.setup_context is Function.setup_context else known
    return [known[place] if place < len(known) else f"operand_{place}" for place in range(count)]


_KINDS = ((bool, "bool"), (int, "int"), (float, "float"), (str, "str"), (torch.Tensor, "Tensor"))


def _kind(x: Any) -> str:
    """The type of an argument in the language of torch's schemas."""
    if x is None:
        return "Tensor?"
    kind = next((name for known, name in _KINDS if isinstance(x, known)), None)
    if kind is not None:
        return kind
    if isinstance(x, list | tuple) and x and len({_kind(part) for part in x}) == 1:
        return f"{_kind(x[0])}[]"
    raise Unreadable(f"is given an argument of class {type(x).__name__}, which no operator can have")


# What goes in and comes out -------------------------------------------------------------------------------------------
class Watching(fx.Interpreter):
    """Runs a graph, and keeps what certain nodes were given and gave."""

    def __init__(self, graph: fx.GraphModule, wanted: Callable[[fx.Node], bool], kept: list[tuple[Any, Any]]) -> None:
        super().__init__(graph)
        self.wanted, self.kept = wanted, kept

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        if n.op == "call_function" and str(n.target).startswith("wrap_with"):
            inner = next(a for a in n.args if isinstance(a, fx.Node) and a.op == "get_attr")
            operands = [self.env[a] for a in n.args[n.args.index(inner) + 1 :] if isinstance(a, fx.Node)]
            return Watching(getattr(self.module, str(inner.target)), self.wanted, self.kept).run(*operands)
        if not self.wanted(n):
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        given = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
        result = super().run_node(n)
        self.kept.append((given, result))
        return result
