"""Untrusted text (names in files, messages of other libraries), made safe for a terminal or a page."""

from __future__ import annotations

import re


def printable(value: object) -> str:
    r"""Text on one line, without control characters.

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


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``"1 image"``, ``"2 images"``, ``"1000 images"``, ``"10,000 images"``.

    Args:
        plural: where it is not the noun and an s, such as ``"classes"``.
    """
    digits = f"{number:,}" if number >= 10_000 else f"{number}"
    return f"{digits} {noun if number == 1 else plural or noun + 's'}"


_SPELT = frozenset("AEFHILMNORSX")  # letters whose names begin with a vowel


def with_article(noun: object) -> str:
    """``"a Tensor"``, ``"an Image"``, ``"an LSTM"``, ``"a uint8"``: a name with the article that it is read with."""
    word = str(noun)
    if word[:1].isupper() and word[1:2].isupper():
        vowel = word[0] in _SPELT  # an abbreviation is spelt
    else:
        vowel = word[:1].lower() in {*"aeio"} or (
            word[:1].lower() == "u" and not re.match("uint|uni|use|us[ui]", word.lower())
        )
    return f"{'an' if vowel else 'a'} {word}"


def type_named(value: object) -> str:
    """The class of a value with its article, such as ``"an Image"``."""
    return with_article(type(value).__name__)
