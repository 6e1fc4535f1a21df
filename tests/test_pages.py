"""Pages of HTML: nothing in them came from a file as markup, and a browser would run nothing of it if it had."""

from __future__ import annotations

import base64
import hashlib
import random
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agnostic import pages
from agnostic.compare.report import Comparison
from agnostic.compare.report import text as as_text
from agnostic.compare.results import Divergence, Finding, Pictures, Row
from agnostic.text import printable
from tests.fuzz import hostile

TEMPLATES = Path(pages.__file__).parent / "templates"


class Parsed(HTMLParser):
    """The elements of a page with the names of their attributes, and everything else by itself."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, ...]] = []
        self.values: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.others: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, *(name for name, _ in attrs)))
        self.values += [(name, value) for name, value in attrs if name in ("class", "http-equiv", "content", "alt")]

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}",))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.others.append(data)

    def handle_pi(self, data: str) -> None:
        self.others.append(data)

    def unknown_decl(self, data: str) -> None:
        self.others.append(data)


def comparison(name: Callable[[], Any]) -> Comparison:
    """Everything that a comparison may hold, every text by ``name``; also where a number was expected."""
    rows = [
        Row(name(), name(), name(), (1, name(), 3), x, 1e-3, 1e-6, 1.0, "layer") for x in (0.0, 1e4, float("inf"))
    ]  # fmt: skip
    finding = Finding(name(), name(), name(), 10.0, 1.0)
    places = tuple(Divergence(name(), name(), kind, name(), 1e4, (finding,)) for kind in ("layer", "code", "gradient"))
    about = {"class": name(), "spec": name(), "backend": name(), "versions": {name(): name()}}
    picture = Pictures(name(), (0, 1), np.zeros((2, 4, 4), np.float32), np.ones((2, 4, 4), np.float32))
    return Comparison(
        about, about, tuple(rows), places, (name(), name()), (name(),), (rows[0],), (3, 1), (name(), name()), (picture,)
    )


def page_of(found: Comparison, folder: Path) -> str:
    found.html(folder / "page.html")
    return (folder / "page.html").read_text("utf-8")


def test_no_text_of_a_comparison_becomes_markup(tmp_path: Path) -> None:
    benign, rng = Parsed(page_of(comparison(lambda: "name"), tmp_path)), random.Random(0)
    assert len(benign.elements) > 100
    for _ in range(40):
        seen: list[str] = []

        def name(seen: list[str] = seen) -> str:
            seen.append(hostile.text(rng))
            return seen[-1]

        found = comparison(name)
        parsed = Parsed(page_of(found, tmp_path))
        assert parsed.elements == benign.elements
        assert parsed.values == benign.values
        assert parsed.others == []
        shown = "".join(parsed.texts)
        assert printable(found.table[0].b) in shown
        assert shown.replace("\n", "").isprintable()
        assert all(line.isprintable() for line in as_text(found).split("\n"))


def test_a_browser_is_told_to_run_nothing(tmp_path: Path) -> None:
    page = page_of(comparison(lambda: "name"), tmp_path)
    policy = next(value or "" for name, value in Parsed(page).values if name == "content")
    style = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert len(style) == 1
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    assert page.index("Content-Security-Policy") < page.index("<title>")  # it holds for what follows it alone


def test_a_script_of_ours_is_allowed_by_its_hash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("base.html", "comparison.css"):
        (tmp_path / name).write_bytes((TEMPLATES / name).read_bytes())
    (tmp_path / "x.js").write_text("document.title = 1 < 2;")
    (tmp_path / "x.html").write_text(
        '{% extends "base.html" %}{% block title %}{{ x }}{% endblock %}{% block body %}{{ x | twice }}{% endblock %}'
    )
    monkeypatch.setattr(pages, "_FOLDER", tmp_path)
    pages._environment.cache_clear()
    try:
        page = pages.render(
            "x.html", {"x": "<a>\x1b"}, style="comparison.css", script="x.js", filters={"twice": lambda x: x + x}
        )
    finally:
        pages._environment.cache_clear()
    digest = base64.b64encode(hashlib.sha256(b"document.title = 1 < 2;").digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in page
    assert "<script>document.title = 1 < 2;</script>" in page
    assert r"&lt;a&gt;\x1b&lt;a&gt;\x1b" in page


def test_our_templates_leave_no_way_around_the_escaping() -> None:
    for path in TEMPLATES.iterdir():
        text = path.read_text("utf-8")
        if path.suffix != ".html":
            assert "</" not in text, f"{path.name} could end its own element"
            continue
        assert not re.search(r"\|\s*safe|autoescape|=\{\{|Markup", text), path.name
        assert not re.search(r"<[^>]*\son\w+=", text), path.name
        # A page's policy applies no style attribute. A notebook's fragment has no sheet; its styles are fixed texts.
        page = "{% extends" in text or path.name == "base.html"
        assert not re.search(r"<[^>]*\sstyle=" if page else r'\sstyle="[^"]*\{', text), path.name
        assert set(re.findall(r"(?:href|src)=\"([^\"]*)", text)) <= {
            f"data:image/png;base64,{{{{ {x} }}}}" for x in ("panel.png", "data")
        }
