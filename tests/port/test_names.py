"""Names of a model never become code: whatever they are, the source holds no call that a plain model has not."""

from __future__ import annotations

import ast
import functools
import keyword

import pytest

import agnostic as ag
from agnostic.contracts.writer import WRITER
from agnostic.port.check import Found
from agnostic.port.report import PortReport
from agnostic.port.sources import drafted
from agnostic.program.builder import Builder, NodeOrigin
from agnostic.program.nodes import Program
from agnostic.registry import get_backend

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

HOSTILE = [
    "x; import os", "__import__('os')", "os.system('x')", "import", "None", "match", "self", "layers", "ops", "torch",
    "make_model", "print", "np", '"""', "'''", "\\", 'a"b', "a'b", "a\nimport os\nb", "a\r\n1/0", "{0}", "{x}", "%s",
    "\u0435val", "ａｂｃ", "\u202eabc", "a\u0000b", "µ", "ﬁ", "", ".", "..", "a.b", "1", "0x1f", "__class__",
    "__init__", "super", "#", "# noqa", "\\N{BULLET}", "f'{1}'", "\ud800", "a" * 300, "ª", "$(id)",
    "</script><script>alert(1)</script>",
]  # fmt: skip
NAMES = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=12), st.builds("".join, st.lists(
    st.sampled_from([*HOSTILE, "(", ")", "a", "_", " "]), max_size=4)))  # fmt: skip


def program(model: str, block: str, leaf: str, given: str, path: str, file: str, operator: str) -> Program:
    """A model with these names of itself, a block, a layer, an input, an output, a file and an operator."""
    # No framework has layers without a name, and dots part the names of a path.
    block, leaf = (name.replace(".", "_") or "_" for name in (block, leaf))
    builder = Builder()
    where = f"{block}.{leaf}"
    x = builder.leaf(given, "input", (2, 3), "float32")
    free = builder.leaf(f"{block}.{given}", "parameter", (3,), "float32")
    weight = builder.leaf(f"{where}.weight", "parameter", (3, 3), "float32")
    builder.origin = NodeOrigin(where, leaf, file, 1, ("", block, where))
    x = builder.emit("linear", x, weight, None)
    builder.origin = NodeOrigin(block, block, file, 2, ("", block))
    x = builder.emit("add", x, free)
    x = builder.emit(
        "custom", (x, operator), name=operator, shapes=(2, 3), arguments=(given, leaf), reason=file, dtype="float32"
    )
    builder.origin = NodeOrigin("", model, file, 3, ("",))
    x = builder.emit("activation", x, function="relu")
    return builder.program(model, "torch", {path: x}, {block: block, where: leaf})


def shape(source: str) -> tuple[set[str], set[str], set[str]]:
    """What a source can do: the kinds of its statements and expressions, what it imports, the methods it calls."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
    called = {node.func.attr for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
              and not (isinstance(node.func.value, ast.Name) and node.func.value.id == "self")}  # fmt: skip
    return {type(node).__name__ for node in nodes}, imported, called


PLAIN = ("Net", "block", "dense", "images", "", "net.py", "library::operator")
FORMS = (
    PLAIN,
    *(("Net", "block", leaf, given, *PLAIN[4:]) for leaf in ("dense", "@", "") for given in ("a.b", ".", "@")),
)
"""Names that are no identifiers are held by a helper, and a layer without a name of its own is a function."""


@functools.cache
def baseline(to: str) -> tuple[set[str], set[str], set[str]]:
    """What the sources of models with harmless names can do."""
    dialect = get_backend(to)[WRITER].dialect(False)
    found = [shape(drafted([program(*names)], dialect, stubs=True).written.text) for names in FORMS]
    kinds, imported, called = (set[str]().union(*parts) for parts in zip(*found, strict=True))
    return kinds, imported, called


@pytest.mark.parametrize("to", ["keras", "torch"])
@hypothesis.settings(max_examples=120, deadline=None, derandomize=True, database=None)
@hypothesis.given(names=st.tuples(NAMES, NAMES, NAMES, NAMES, NAMES, NAMES, NAMES))
def test_names_cannot_become_code(to: str, names: tuple[str, ...]) -> None:
    dialect = get_backend(to)[WRITER].dialect(False)
    plain = baseline(to)
    draft = drafted([program(*names)], dialect, stubs=True)
    source = draft.written.text
    kinds, imported, called = shape(source)
    # A result in a dict or tuple, and a name that is none of Python's, take these beside what the plain one has.
    assert kinds - plain[0] <= {"Dict", "Tuple", "List", "Call", "keyword", "Starred", "Subscript", "UnaryOp", "USub"}
    assert imported == plain[1]
    assert called - plain[2] <= {"add_module", "register_parameter", "register_buffer"}
    assert source.isascii() or "".join(source.split()).isprintable()
    for node in ast.walk(ast.parse(source)):
        names_here = [getattr(node, "name", None), getattr(node, "id", None), getattr(node, "arg", None)]
        assert not any(isinstance(name, str) and keyword.iskeyword(name) for name in names_here)
    # What a test of stubs and a page show is escaped as well.
    page = PortReport(draft, to, "nothing", (f"note {names[0]}",), (Found(names[1], names[2], 0, 0.0, 0.0),)).html()
    assert "<script>alert" not in page


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)
@hypothesis.given(name=NAMES)
def test_files_are_written_into_their_folder_alone(name: str) -> None:
    from agnostic.port.sources import file_name

    found = file_name(program(name, *PLAIN[1:]))
    assert found.isidentifier()
    assert found.isascii()
    assert not keyword.iskeyword(found)
    assert len(found) <= 100


def test_a_name_that_is_taken_is_not_taken_twice() -> None:
    """Layers whose names differ in what Python does not allow alone keep their own weights."""
    import torch

    model = torch.nn.ModuleDict({name: torch.nn.Linear(3, 3) for name in ("a b", "a_b", "a-b", "a;b")})
    stack = torch.nn.Sequential()
    for name, layer in model.items():
        stack.add_module(name, layer)
    found = ag.port(stack.eval(), "keras", torch.zeros(2, 3), check=False)
    assert len(found.arrays) == 8
    assert len({name.partition("/")[0] for name in found.arrays}) == 4
