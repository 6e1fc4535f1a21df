"""Pages of HTML from the templates of this package: every value is escaped, and no script runs but our own."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agnostic.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).parent / "templates"


def render(
    template: str,
    values: Mapping[str, Any],
    *,
    style: str,
    script: str | None = None,
    filters: Mapping[str, Callable[..., Any]] | None = None,
) -> str:
    """A page that needs no other file.

    The browser is told (by a Content-Security-Policy) to load nothing, to run no script and to apply no style, but for
    the two given here, whose hashes it checks, and pictures inside the page. So even a value that got into the page as
    markup could not act. Values are escaped, and their control characters shown (:func:`agnostic.text.printable`).

    Args:
        template: a file of ``agnostic/templates`` that extends ``base.html``.
        values: by name; a sequence is shown by the template, not by itself.
        style: a file of the same folder: the style sheet.
        script: a file of the same folder: the only script; None for none.
        filters: functions of one value that the template may apply, by name.

    Returns:
        The page's text, which UTF-8 can encode.
    """
    from markupsafe import Markup

    environment = _environment().overlay()
    # An overlay shares its parent's filters: a copy, so that one page's do not become another's.
    environment.filters = {**environment.filters, **(filters or {})}
    # Ours, as is: neither holds a closing tag, which is tested.
    sheet, code = (_FOLDER / style).read_text("utf-8"), (_FOLDER / script).read_text("utf-8") if script else ""
    sources = {"default-src": "'none'", "style-src": _hashed(sheet), "img-src": "data:", "base-uri": "'none'"}
    if code:
        sources["script-src"] = _hashed(code)
    policy = "; ".join(f"{name} {source}" for name, source in {**sources, "form-action": "'none'"}.items())
    return environment.get_template(template).render(values, style=Markup(sheet), script=Markup(code), policy=policy)


def fragment(template: str, values: Mapping[str, Any]) -> str:
    """Part of a page, for a notebook: the template's text with every value escaped, as in :func:`render`.

    Args:
        template: a file of ``agnostic/templates`` that extends nothing.
        values: by name.
    """
    return _environment().get_template(template).render(values)


def _hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    """What is printed of a value; markup is only what a template made."""
    return value if hasattr(value, "__html__") else printable(value)
