"""Text that a file from a stranger may hold, to be shown and never obeyed."""

from __future__ import annotations

import random

_MARKUP = (
    "<script>document.title='run'</script>", "<img src=x onerror=\"document.title='run'\">", "</style><script>run()",
    "\"><svg onload=document.title='run'>", "' onmouseover='run()", "--></title><body onload=run()>", "{{ 7*7 }}",
    "{% include 'base.html' %}", "&lt;b&gt;", "javascript:document.title='run'", "</td></table><h1>forged</h1>",
    "<iframe srcdoc=\"<script>parent.document.title='run'</script>\">", "<base href=//evil>",
    "<meta http-equiv=refresh>",
    "<a href=javascript:run()>x</a>", "[red]markup[/red]", "<![CDATA[", "<!--", "\\u003cscript\\u003e",
)  # fmt: skip
_CHARACTERS = (
    "\x00\x07\x08\t\n\r\x1b\x7f\x85\x9b\u200b\u200e\u202e\u2028\u2066\ufeff\ud800\udfff\U000e0041<>&\"'`=/\\é漢"
)
_TERMINAL = ("\x1b[2J\x1b[H", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\", "\x9b31m", "\x1bP$q\x1b\\")


def text(rng: random.Random) -> str:
    """A hostile text, up to some hundred characters long."""
    parts = rng.choices((*_MARKUP, *_TERMINAL, *_CHARACTERS, "layer1.0", "x" * 99), k=rng.randint(1, 5))
    return "".join(parts)
