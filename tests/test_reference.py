"""The reference: every public object is documented, its arguments by name, and its examples run."""

from __future__ import annotations

import ast
import copy
import dataclasses
import doctest
import functools
import importlib
import inspect
import pkgutil
import re
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import agnostic as ag

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"

RETURNED = (
    "agnostic.layers.Layer", "agnostic.layers.Layers", "agnostic.taps.records.Activations",
    "agnostic.taps.stored.Stored", "agnostic.visualization.images.Images", "agnostic.compare.report.Comparison",
    "agnostic.compare.results.Divergence", "agnostic.compare.results.Diagnosis", "agnostic.compare.results.Row",
    "agnostic.compare.results.Finding", "agnostic.program.nodes.Program", "agnostic.program.nodes.Node",
    "agnostic.program.nodes.Leaf", "agnostic.program.nodes.Value", "agnostic.optimizers.groups.ParameterGroup",
    "agnostic.optimizers.snapshot.Snapshot", "agnostic.optimizers.snapshot.ParameterState",
    "agnostic.data.batches.Loaded", "agnostic.augmentation.iterators.NumpyArrayIterator",
    "agnostic.augmentation.iterators.DirectoryIterator", "agnostic.augmentation.iterators.DataFrameIterator",
    "agnostic.transfer.report.TransferRow", "agnostic.gradients.per_sample", "agnostic.gradients.jacobian",
)  # fmt: skip
"""What is public by its module alone: above all classes of values that public functions return."""

TYPES = ("ops.Array", "ops.Axis", "objectives.FindClass", "objectives.OUTPUT", "optimizers.KINDS")
"""Types and constants, which a text below them explains: Python keeps none at run time."""

WITHOUT_EXAMPLE = {"data.load_imdb": "the file is not shipped", "ops.Array": "any", "objectives.FindClass": "a type"}
"""What of ``__all__`` shows no example, and why."""


def public() -> dict[str, Any]:
    """Every public object by its name below ``agnostic``: what ``__all__`` names, and the methods of classes."""
    found: dict[str, Any] = {}
    for name in ag.__all__:
        value = getattr(ag, name)
        found[name] = value
        if isinstance(value, ModuleType):
            found |= {f"{name}.{x}": getattr(value, x) for x in value.__all__}
    found |= {path.removeprefix("agnostic."): _at(path) for path in RETURNED}
    methods = {
        f"{name}.{key}": method
        for name, cls in found.items()
        if inspect.isclass(cls)
        for key, method in vars(cls).items()
        if not key.startswith("_")
        and not isinstance(method, property | functools.cached_property)
        and inspect.isroutine(_plain(method))
    }
    return {**found, **methods}


def _at(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _plain(method: Any) -> Any:
    return method.__func__ if isinstance(method, classmethod | staticmethod) else method


PUBLIC = public()
NAMED = {name: x for name, x in PUBLIC.items() if inspect.isclass(x) or inspect.isroutine(_plain(x))}


def documented(name: str) -> tuple[Any, str, str]:
    """An object, its docstring (that of the method that it overrides, where it has none), and its class' docstring."""
    value = _plain(PUBLIC[name])
    owner = PUBLIC.get(name.rpartition(".")[0])
    around = inspect.getdoc(owner) or "" if inspect.isclass(owner) else ""
    doc = inspect.getdoc(value) or ""
    if not doc and inspect.isclass(owner):
        bound = getattr(owner, name.rpartition(".")[2])
        doc = inspect.getdoc(bound) or ""
    return value, doc, around


def faults(name: str) -> Iterator[str]:
    """What a docstring lacks."""
    value, doc, around = documented(name)
    if name in TYPES:
        return
    if not doc:
        yield "has no docstring"
        return
    if inspect.isclass(value):
        if dataclasses.is_dataclass(value):
            yield from _unnamed(value, doc, [x.name for x in dataclasses.fields(value) if x.init])
        return
    if not inspect.isroutine(value):
        return
    inherited = not value.__doc__
    if inherited:  # what its base says holds
        return
    signature = inspect.signature(value)
    parameters = [x for x in signature.parameters if x not in ("self", "cls")]
    yield from _unnamed(value, doc, parameters, around)
    returns = signature.return_annotation not in (None, "None") and "and return a new" not in around
    if returns and not re.search(r"^(Returns|Yields):", doc, re.M):
        yield "has no Returns"
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(value))))
    if any(isinstance(x, ast.Raise) and x.exc is not None for x in ast.walk(tree)) and "Raises:" not in doc:
        yield "raises, and has no Raises"


def _unnamed(value: Any, doc: str, parameters: list[str], around: str = "") -> Iterator[str]:
    bases = [inspect.getdoc(x) or "" for x in getattr(value, "__mro__", ())[1:-1]]
    sections = re.findall(r"^(?:Args|Attributes):\n((?:[ ].*\n?|\n)+)", "\n".join([doc, *bases, ""]), re.M)
    for parameter in parameters:
        explained = re.search(rf"^ +(?:[\w*]+, )*\*{{0,2}}{parameter}(?:, [\w*]+)*: ", "\n".join(sections), re.M)
        if not (explained or f"``{parameter}``" in around):
            yield f"does not say what {parameter} is"


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_object_is_documented(name: str) -> None:
    assert list(faults(name)) == []


# Formulas have a source -----------------------------------------------------------------------------------------------
FORMULA = re.compile(r"``[^`]*(?:\w \*\* |sqrt\(|exp\(|log\()[^`]*``")
"""A formula in a docstring, beside its examples and the lists of arguments."""

SECTION = re.compile(r"^(?:Args|Attributes|Returns|Raises|Example):\n(?:[ ].*\n?|\n)+", re.M)


def computed() -> dict[str, Any]:
    """What computes by a formula, or shows one: above all optimizers, objectives, parameterizations and recipes."""
    from agnostic.optimizers import specs
    from agnostic.visualization import objectives, parameterization, recipes, robustness

    found: dict[str, Any] = {f"optimizers.{kind}": cls for kind, cls in specs.KINDS.items()}
    for name in objectives.__all__:
        cls = getattr(objectives, name)
        if inspect.isclass(cls) and issubclass(cls, objectives.LayerTerm | objectives.TotalVariation):
            found[f"objectives.{name}"] = cls
    del found["objectives.LayerTerm"]  # which the others inherit from
    found |= {f"objectives.{name}": getattr(objectives, name) for name in objectives.names()}
    found |= {f"recipes.{name}": getattr(recipes, name) for name in recipes.names()}
    for module in (parameterization, robustness):
        own = {name: x for name, x in vars(module).items() if inspect.isclass(x) and x.__module__ == module.__name__}
        found |= {f"{module.__name__}.{name}": x for name, x in own.items() if not getattr(x, "_is_protocol", False)}
    del found["agnostic.visualization.robustness.Whole"]  # the image as it is
    for name in NAMED:
        # A method of Ops is one operation on arrays: its formula is what its name means.
        if not name.startswith("ops.Ops."):
            prose = re.sub(
                r"^(?:Args|Attributes|Returns|Raises|Example):\n(?:[ ].*\n?|\n)+", "", documented(name)[1], flags=re.M
            )
            found |= {name: PUBLIC[name]} if FORMULA.search(prose) else {}
    return found


COMPUTED = computed()


@pytest.mark.parametrize("name", COMPUTED)
def test_a_formula_has_a_source(name: str) -> None:
    doc = inspect.getdoc(COMPUTED[name]) or ""
    assert re.search(r"^Source: \S", doc, re.M), "give it a line 'Source: ...'"


def test_what_computes_is_found() -> None:
    expected = {"optimizers.LAMB", "objectives.Neuron", "objectives.total_variation", "recipes.maco", "ops.safe_log"}
    assert expected <= COMPUTED.keys()
    assert "agnostic.visualization.parameterization.Fourier" in COMPUTED


MODULES = (
    "augmentation.warp",
    "augmentation.color",
    "reference.warp",
    "reference.resampling",
    "visualization.colormap",
)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_of_formulas_has_a_source(name: str) -> None:
    assert re.search(r"^(?: |#)*Source: \S", inspect.getsource(importlib.import_module(f"agnostic.{name}")), re.M)


# Examples -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [x for x in NAMED if x.count(".") < 2 and not x.startswith("ops.Ops.")])
def test_every_public_function_and_class_has_an_example(name: str) -> None:
    owner = PUBLIC.get(name.rpartition(".")[0])
    if inspect.isclass(owner) or name in WITHOUT_EXAMPLE:
        return  # a method is shown with its class
    assert ">>>" in documented(name)[1]


# The examples run -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the set-up of docs/reference/index.md defines, in a folder of its own."""
    torch = pytest.importorskip("torch")
    (code,) = re.findall(r"^```python\n(.*?)^```$", (REFERENCE / "index.md").read_text(), re.M | re.S)
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        folder = tmp_path_factory.mktemp("examples")
        patch.chdir(folder)
        exec(compile(code, str(REFERENCE / "index.md"), "exec"), names)  # noqa: S102 - our own text
        yield names


EXAMPLES = [name for name, value in NAMED.items() if ">>>" in (getattr(_plain(value), "__doc__", "") or "")]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name: str, start: dict[str, Any]) -> None:
    value = _plain(PUBLIC[name])
    # Each example by itself: a model that one of them changes is whole again for the next.
    names = {**start, "model": copy.deepcopy(start["model"]), **vars(importlib.import_module(value.__module__))}
    names |= {key: start[key] for key in ("ag", "np", "copy", "images")}
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(value) or "", names, name, None, None)
    failures: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ag.data.SkippedFiles)
        runner.run(test, out=failures.append)
    assert not failures, "".join(failures)


# The pages ------------------------------------------------------------------------------------------------------------


def _shown() -> set[str]:
    return {x for page in REFERENCE.glob("*.md") for x in re.findall(r"^::: agnostic\.(\S+)", page.read_text(), re.M)}


def test_what_the_reference_shows_is_there() -> None:
    for path in _shown():
        assert pkgutil.resolve_name(f"agnostic.{path}") is not None


def test_every_public_object_is_on_a_page_of_the_reference() -> None:
    shown, due = _shown(), set()
    for name, value in PUBLIC.items():
        if not isinstance(value, ModuleType) and not inspect.isclass(PUBLIC.get(name.rpartition(".")[0])):
            home = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}".removeprefix("agnostic.")
            due.add(name if name in shown or home not in shown else home)
    assert due - shown == set(), "give each of them a line ':::' on its page of docs/reference"
