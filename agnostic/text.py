"""Text from strangers (names in files, messages of other libraries) as a terminal or a page may show it."""

from __future__ import annotations


def printable(value: object) -> str:
    r"""Text on one line, without a character that acts instead of being shown.

    Control characters (ESC starts the sequences that move a terminal's cursor, set its title or answer in the user's
    name), marks that turn the direction of the text around it, invisible ones, line ends and unpaired surrogates become
    their escape, as :func:`repr` shows them: ``\x1b``, ``\u202e``, ``\n``.

    Args:
        value: anything; its ``str`` is shown.

    Returns:
        Text for which :meth:`str.isprintable` is true; equal to what was given where that was already.
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def printable_lines(value: object) -> str:
    """The same for text of several lines, which it keeps."""
    return "\n".join(map(printable, str(value).split("\n")))
