"""The contracts: one protocol per file, and twin files in both backends with the same functions and parameters."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from agnostic import contracts, registry
from agnostic.contracts.capability import Capability

ROOT = Path(__file__).parents[1]
BACKENDS = ROOT / "backends"
OURS = ("torch", "keras")
TWINS = [(key, name) for key in contracts.ALL for name in OURS if key in registry.get_backend(name)]


def _functions(path: Path, inside: str | None = None) -> dict[str, ast.FunctionDef]:
    """The functions of a module, or the methods of one of its classes, by name."""
    tree: ast.Module | ast.ClassDef = ast.parse(path.read_text())
    if inside is not None:
        tree = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == inside)
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def _parameters(function: ast.FunctionDef) -> list[str]:
    """Each parameter by its name, with its default; ``*`` before those that have names only."""
    given = function.args
    defaults = [None] * (len(given.args) - len(given.defaults)) + [ast.unparse(x) for x in given.defaults]
    found = [x.arg + ("" if d is None else f"={d}") for x, d in zip(given.args, defaults, strict=True)]
    named = [
        x.arg + ("" if d is None else f"={ast.unparse(d)}")
        for x, d in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    return [x for x in found if x != "self"] + (["*", *named] if named else [])


@pytest.mark.parametrize(("key", "name"), TWINS, ids=lambda x: getattr(x, "name", x))
def test_twins_have_the_functions_of_the_contract(key: Capability[object], name: str) -> None:
    contract = _functions(ROOT / "agnostic" / "contracts" / f"{key.name}.py", key.contract.__name__)
    own = _functions(BACKENDS / f"agnostic_{name}" / f"{key.name}.py")
    assert list(contract) == list(key.members)
    for member, function in contract.items():
        assert member in own, f"agnostic_{name}.{key.name} has no {member}()"
        assert _parameters(own[member]) == _parameters(function), f"agnostic_{name}.{key.name}.{member}"


@pytest.mark.parametrize("name", OURS)
def test_a_capability_is_the_file_of_its_name(name: str) -> None:
    provides = registry.registrations()[name].provides
    assert provides == {key: f"agnostic_{name}.{key}" for key in provides}


def test_ours_provide_every_capability() -> None:
    for name in OURS:
        assert set(registry.registrations()[name].provides) == {key.name for key in contracts.ALL}


def test_every_contract_documents_its_functions() -> None:
    for key in contracts.ALL:
        for member in key.members:
            assert getattr(key.contract, member).__doc__, f"{key.name}.{member}"
            assert key.returns(member)


def test_an_owner_is_found_without_an_import() -> None:
    program = """
import sys
from agnostic import contracts, registry
assert registry.owner(object()) is None
assert registry.owner(3.5) is None
import numpy
assert registry.owner(numpy.zeros(2)) is None
assert not {'torch', 'keras', 'jax', 'tensorflow'} & set(sys.modules), sorted(sys.modules)
import torch
assert registry.owner(torch.zeros(2)).name == "torch"
assert registry.backend_of(torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)).name == "torch"
assert not {'keras', 'jax', 'tensorflow'} & set(sys.modules)
import jax
assert registry.owner(jax.numpy.zeros(2)).name == "keras"
assert 'keras' not in sys.modules
"""
    path = [str(ROOT), str(BACKENDS)]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{program}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# Cycles ---------------------------------------------------------------------------------------------------------------
CYCLES = (
    {"agnostic.program.nodes", "agnostic.program.text", "agnostic.program.vocabulary"},  # a program prints itself
)
"""Modules that import each other, most of them inside of functions; see [importlinter] in setup.cfg for the layers."""


def test_there_is_no_other_cycle_of_imports() -> None:
    # What only type checkers import counts as well.
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph(
        "agnostic", "agnostic_torch", "agnostic_keras", exclude_type_checking_imports=False, cache_dir=None
    )
    found = _components({module: graph.find_modules_directly_imported_by(module) for module in graph.modules})
    assert [sorted(cycle) for cycle in found if not any(cycle <= known for known in CYCLES)] == []
    gone = [sorted(known) for known in CYCLES if not any(cycle <= known for cycle in found)]
    assert gone == [], "there is no such cycle now: take it off the list"


def _components(edges: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules that reach each other, of two or more."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for module in edges[waiting.pop()] - seen:
                seen.add(module)
                waiting.append(module)
        return seen

    reach = {module: reached(module) for module in edges}
    cycles = {frozenset(b for b in reach[a] if a in reach[b]) for a in edges if a in reach[a]}
    return [set(cycle) for cycle in cycles]


def test_a_cycle_is_found() -> None:
    assert _components({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [{"b", "c"}]
