"""For mkdocstrings: what our docstrings write otherwise than it reads."""

from __future__ import annotations

import re
from typing import Any

import griffe

# ":func:`capture`" is shown as code.
_ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):`~?([^`]+)`")
# Its name for a section of examples.
_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


class Roles(griffe.Extension):
    """Rewrites every docstring once, when it is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """See :class:`griffe.Extension`."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub("Examples:", _ROLE.sub(r"`\1`", obj.docstring.value))
