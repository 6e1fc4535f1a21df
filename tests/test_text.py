"""Text from strangers is shown, and never acts."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agnostic import cli
from agnostic.cli import common
from agnostic.errors import InvalidInput
from agnostic.text import counted, printable, printable_lines, type_named, with_article

HOSTILE = "a\x1b]0;title\x07b\x9b2Jc\u202edcba\u2066e\ud800f\x00\r\x7f\u200b[red]g[/red]\x85"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("layer1.0.conv 3 × 3 é 漢", "layer1.0.conv 3 × 3 é 漢"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\u202egnp", r"\u202egnp"),
        ("\ud83d", r"\ud83d"),
        ("\x9b\x7f\u2028", r"\x9b\x7f\u2028"),
        (Path("a\x07"), r"a\x07"),
    ],
)
def test_what_is_shown(given: object, shown: str) -> None:
    assert printable(given) == shown


@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_nothing_that_acts_is_left(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert printable(shown) == shown
    assert printable_lines(text).count("\n") == text.count("\n")


def _printed(command: Any, monkeypatch: pytest.MonkeyPatch, encoding: str = "utf-8") -> tuple[int, str, str]:
    """The exit code of a command, and what it printed on streams of an encoding."""
    module = SimpleNamespace(register=lambda app: app.command(name="probe")(command))
    monkeypatch.setitem(sys.modules, "agnostic.cli.probe", module)
    monkeypatch.setattr(cli, "COMMANDS", ("probe", "doctor"))
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, errors=e) for e in ("strict", "backslashreplace"))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    code = cli.main(["probe"])
    for stream in (out, err):
        stream.flush()
    return code, out.buffer.getvalue().decode(encoding), err.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_command_prints_no_hostile_name(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> None:
        common.say(HOSTILE)
        common.print_table([HOSTILE], [[HOSTILE]])
        common.print_json({HOSTILE: HOSTILE})
        common.say("é")
        raise InvalidInput(f"no layer {HOSTILE}")

    code, out, err = _printed(command, monkeypatch, encoding)
    assert code == 2
    assert (out + err).replace("\n", "").isprintable()
    assert err.count("\n") == 1
    assert out.count("[red]g[/red]") == 5  # no markup is obeyed
    assert ("é" in out) == (encoding == "utf-8")


def test_a_defect_and_a_missing_file_are_told_without_raw_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (RuntimeError(HOSTILE), FileNotFoundError(2, HOSTILE, HOSTILE), KeyboardInterrupt(HOSTILE)):

        def command(error: BaseException = error) -> None:
            raise error

        _, out, err = _printed(lambda: command(), monkeypatch)
        assert out == ""
        assert err[-1] == "\n"
        assert err[:-1].isprintable()


def test_memory_that_does_not_suffice_is_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> None:
        raise MemoryError("Unable to allocate 7.5 TiB")

    code, _, err = _printed(command, monkeypatch)
    assert code == 2
    assert "there is not enough memory (Unable to allocate 7.5 TiB)" in err


def test_an_error_shows_no_raw_name_in_a_traceback() -> None:
    assert str(InvalidInput(f"no layer {HOSTILE}")).isprintable()


def test_a_count_and_its_noun_agree() -> None:
    assert [counted(n, "image") for n in (0, 1, 9999, 10_000)] == [
        "0 images",
        "1 image",
        "9999 images",
        "10,000 images",
    ]
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]


def test_the_article_of_a_name():
    for name in ("Image", "int", "LSTM", "UpSampling2D", "SGD", "Adam", "NCHW", "object"):
        assert with_article(name) == f"an {name}"
    for name in ("Tensor", "uint8", "str", "ndarray", "GRU", "ReLU", "user", ""):
        assert with_article(name) == f"a {name}"
    assert type_named(3) == "an int"
