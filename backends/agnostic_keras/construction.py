"""Where in the user's source a layer was made, and what it is called there, which Keras does not keep.

A functional model runs no line of the user's, so the lines at which a layer was made and an operation was called are
all that it has: those of the calls that have their arguments. A layer of a class of the user's has the name of its
attribute.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras.src.models import Functional
from keras.src.ops.operation import Operation
from keras.src.utils.naming import to_snake_case

from agnostic_keras import rereading
from agnostic_keras.graph_lines import GraphCall, graph_calls, may_make
from agnostic_keras.layers import named_layers

LARGEST = 1 << 20
"""Bytes of a file that is read for it."""

Place = tuple[str, int]


@dataclass(frozen=True)
class _Call:
    """A call in a source file.

    Attributes:
        name: of what is called, without what stands before its last dot.
        line: where it stands.
        positional: the arguments without a name.
        keywords: those with one.
        more: whether others come out of a list or a dict.
    """

    name: str
    line: int
    positional: tuple[ast.expr, ...]
    keywords: Mapping[str, ast.expr]
    more: bool

    def makes(self, layer: keras.Layer) -> bool:
        """Whether it may have made a layer of that class: of that name, with those arguments."""
        config = _arguments(layer)
        if config is None or not self._names(layer):
            return False
        names, defaults = _parameters(type(layer))  # type: ignore[arg-type]
        if len(self.positional) > len(names):
            return False
        own = {**dict(zip(names, self.positional, strict=False)), **self.keywords}
        own.pop("name", None)
        if not own.keys() <= config.keys():
            return False
        rest = {key: x for key, x in config.items() if key not in own}
        by_default = all(key in defaults and _plain(x) == _plain(defaults[key]) for key, x in rest.items())
        return (self.more or by_default) and all(_agrees(x, config[key]) for key, x in own.items())

    def _names(self, layer: keras.Layer) -> bool:
        """Whether a layer has the name that is written, or one by Keras where none is."""
        if "name" in self.keywords:
            return _agrees(self.keywords["name"], layer.name)
        kind = to_snake_case(type(layer).__name__)
        return self.more or re.fullmatch(rf"{re.escape(kind)}(_\d+)?", layer.name) is not None


def _arguments(layer: keras.Layer) -> Mapping[str, Any] | None:
    """What a layer was made with, but for its name; None where Keras does not keep it, as of objects."""
    given = getattr(layer, "_auto_config", None)
    return None if given is None else given.config


@functools.lru_cache(maxsize=256)
def _parameters(kind: type) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """The names that arguments of a layer have by their place, and the defaults."""
    known = list(inspect.signature(kind.__init__).parameters.values())[1:]  # type: ignore[misc]
    names = tuple(x.name for x in known if x.kind in (x.POSITIONAL_ONLY, x.POSITIONAL_OR_KEYWORD))
    return names, {x.name: x.default for x in known if x.default is not x.empty}


def _agrees(written: ast.expr, value: Any) -> bool:
    """Whether an expression may have a value; only constants tell."""
    if isinstance(written, ast.JoinedStr):
        parts = [re.escape(str(x.value)) if isinstance(x, ast.Constant) else ".*" for x in written.values]
        return isinstance(value, str) and re.fullmatch("".join(parts), value) is not None
    try:
        found = ast.literal_eval(written)
    except ValueError:
        return True
    return bool(_plain(found) == _plain(value))


def _plain(x: Any) -> Any:
    return tuple(map(_plain, x)) if isinstance(x, list | tuple) else x


def places(model: keras.Layer) -> dict[int, Place]:
    """Where layers were made and operations called, by identity; those of which that is not certain are left out.

    A model that was loaded, or made by a library, has layers that no line of the user's makes, perhaps beside some that
    look as if one did: so all layers of a graph must have been made in one file, or none is said to be.

    Args:
        model: the layers of its graphs, and of those inside.
    """
    named = named_layers(model)
    graphs = {"": model, **named}
    groups: dict[str, list[keras.Layer]] = {}
    for name, layer in named.items():
        parent = name.rpartition(".")[0]
        inside = isinstance(graphs.get(parent), Functional | keras.Sequential)
        if inside and not isinstance(layer, keras.layers.InputLayer | Functional | keras.Sequential):
            groups.setdefault(parent, []).append(layer)
    found: dict[int, Place] = {}
    texts = dict(_sources()) if groups else {}
    calls: dict[str, list[tuple[str, _Call]]] = {}
    for file, text in texts.items():
        for call in _calls(text):
            calls.setdefault(call.name, []).append((file, call))
    for parent, layers in groups.items():
        made = _of_graph(layers, calls)
        files = {file for _, lines in made for file, _ in lines}
        if len(files) == 1 and isinstance(graph := graphs[parent], Functional):
            [file] = files
            made = _by_operands(made, graph, file, texts[file])
        found |= _one_each(made)
    return found


def called(model: keras.Layer) -> dict[str, str]:
    """What the user's classes call their layers that Keras named, by path: attributes, with a number in a list.

    Keras counts the layers of a class in a process, ``dense_12``; in a layer of its own, they count from one there.
    """
    named = named_layers(model)
    owners = {"": model, **named}
    attributes: dict[str, dict[int, str]] = {}
    found = {}
    for path, layer in named.items():
        parent, _, name = path.rpartition(".")
        owner, kind = owners[parent], to_snake_case(type(layer).__name__)
        if re.fullmatch(rf"{re.escape(kind)}(_\d+)?(#\d+)?", name) is None or isinstance(owner, Functional):
            continue
        if any(map(rereading.is_ours, type(owner).__mro__)):
            continue  # a port gives each layer its name
        if type(owner).__module__.partition(".")[0] != "keras":
            own = attributes.setdefault(parent, dict(_attributes(owner)))
            if id(layer) in own:
                found[path] = own[id(layer)]
        elif parent:
            found[path] = kind
    return found


def _attributes(owner: keras.Layer) -> Iterator[tuple[int, str]]:
    """The layers that an object has as attributes, and in lists, by their identities; the first name last."""
    held = {**getattr(owner, "_modules", {}), **vars(owner)}  # a layer is a torch module on that engine
    for name, value in reversed(held.items()):
        if not name.startswith("_"):
            yield from _within(name, value)


def _within(name: str, value: Any) -> Iterator[tuple[int, str]]:
    if isinstance(value, keras.Layer):
        yield id(value), name
    elif isinstance(value, list | tuple):
        for place, part in enumerate(value):
            yield from _within(f"{name}_{place}" if isinstance(part, list | tuple) else f"{name}-{place}", part)


def _by_operands(
    made: Sequence[tuple[Operation, Sequence[Place]]], graph: Functional, file: str, text: str
) -> list[tuple[Operation, Sequence[Place]]]:
    """The places that the layers of a graph may have, and its other operations, by where their operands come from."""
    calls: dict[str, list[GraphCall]] = {}
    for call in graph_calls(text):
        calls.setdefault(call.name, []).append(call)
    own = dict(made)
    for operation in graph.operations:
        if isinstance(operation, keras.Layer) and len(own.get(operation, ())) < 2:
            continue
        alike = [
            (call.likeness(operation), call.line)
            for name in may_make(operation) for call in calls.get(name, ())
            if operation not in own or (file, call.line) in own[operation]
        ]  # fmt: skip
        best = max((count for count, _ in alike), default=-1)
        if best >= 0:
            own[operation] = [(file, line) for line in sorted({line for count, line in alike if count == best})]
    return list(own.items())


def _of_graph(
    layers: Sequence[keras.Layer], calls: Mapping[str, Sequence[tuple[str, _Call]]]
) -> list[tuple[Operation, Sequence[Place]]]:
    """The places that the layers of one graph may have, by calls under the name of what is called."""
    made = [
        (layer, list(dict.fromkeys(
            (file, call.line) for file, call in calls.get(type(layer).__name__, ()) if call.makes(layer)
        )))
        for layer in layers if _arguments(layer) is not None
    ]  # fmt: skip
    files = [{file for file, _ in lines} for _, lines in made]
    common = set.intersection(*files) if files else set()
    if len(common) != 1:
        return []
    return [(layer, [x for x in lines if x[0] in common]) for layer, lines in made]


def _one_each(made: Sequence[tuple[Operation, Sequence[Place]]]) -> dict[int, Place]:
    """The place of each operation, of those that it may have."""
    groups: dict[tuple[Place, ...], list[Operation]] = {}
    for operation, lines in made:
        groups.setdefault(tuple(lines), []).append(operation)
    found: dict[int, Place] = {}
    for places_, members in groups.items():
        if len(places_) == 1:
            found |= {id(operation): places_[0] for operation in members}
        elif len(places_) == len(members):
            # As many lines as operations: the first made is the first written.
            found |= {id(x): place for x, place in zip(sorted(members, key=_number), sorted(places_), strict=True)}
    return found


def _number(operation: Operation) -> int:
    """Which operation of its class it is, by the name that Keras gave it."""
    match = re.search(r"_(\d+)$", operation.name)
    return int(match[1]) if match else 0


def _sources() -> Iterator[tuple[str, str]]:
    """The files and cells that the user has loaded and that speak of Keras, with their text."""
    foreign = tuple({os.path.realpath(x) + os.sep for x in (
        *sysconfig.get_paths().values(), *site.getsitepackages(), os.path.dirname(__file__),
        os.path.dirname(sys.modules["agnostic"].__file__ or ""),
    ) if x and os.path.realpath(x) != os.path.realpath(sys.prefix)})  # fmt: skip
    names = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    for name in dict.fromkeys([*filter(None, names), *linecache.cache]):
        if not isinstance(name, str) or "site-packages" in name or os.path.realpath(name).startswith(foreign):
            continue
        cell = name.startswith("<") and name in linecache.cache
        if not cell and not (name.endswith(".py") and os.path.isfile(name) and os.path.getsize(name) <= LARGEST):
            continue
        text = "".join(linecache.getlines(name))
        if "keras" in text or "layers." in text:
            yield name, text


@functools.lru_cache(maxsize=64)
def _calls(text: str) -> tuple[_Call, ...]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return ()
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        keywords = {x.arg: x.value for x in node.keywords if x.arg is not None}
        positional = tuple(x for x in node.args if not isinstance(x, ast.Starred))
        more = len(keywords) < len(node.keywords) or len(positional) < len(node.args)
        found.append(_Call(name, node.lineno, positional, keywords, more))
    return tuple(found)
