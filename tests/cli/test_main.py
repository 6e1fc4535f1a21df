"""agnostic.cli.main: every end of a command is an exit code, and every error one sentence."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

import agnostic
from agnostic import cli
from agnostic.cli import common
from agnostic.errors import AgnosticError, InvalidInput, UnknownName

ROOT = Path(__file__).parents[2]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Makes a function the program's only command but one, under the name ``probe``."""

    def put(function: Callable[..., None]) -> None:
        module = SimpleNamespace(register=lambda app: app.command(name="probe")(function))
        monkeypatch.setitem(sys.modules, "agnostic.cli.probe", module)
        monkeypatch.setattr(cli, "COMMANDS", ("probe", "doctor"))

    return put


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (InvalidInput("no channel 9: 'a' has 8"), 2, "agnostic: no channel 9: 'a' has 8\n"),
        (UnknownName("no layer 'x' [torch]"), 2, "agnostic: no layer 'x' [torch]\n"),
        (FileNotFoundError(2, "No such file or directory", "a.pth"), 2, "no such file or directory: 'a.pth'\n"),
        (OSError(28, "No space left on device"), 2, "agnostic: no space left on device\n"),
        (KeyboardInterrupt(), 130, "agnostic: interrupted\n"),
        (KeyboardInterrupt("3 of 8 are kept"), 130, "agnostic: interrupted: 3 of 8 are kept\n"),
        (ZeroDivisionError("by 0"), 70, "a defect in agnostic, not in its use (ZeroDivisionError: by 0)"),
        (AssertionError(), 70, "(AssertionError)"),
    ],
)
def test_an_error_is_one_sentence_and_a_code(
    install: Any, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, sentence: str
) -> None:
    install(raising(error))
    assert cli.main(["probe"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("error", [AgnosticError("a"), OSError("b"), ValueError("c")])
def test_debug_lets_the_traceback_through_wherever_it_stands(install: Any, place: int, error: Exception) -> None:
    install(raising(error))
    arguments = ["probe"]
    arguments.insert(place, "--debug")
    with pytest.raises(type(error)):
        cli.main(arguments)


def test_a_command_chooses_its_exit_code(install: Any) -> None:
    install(raising(typer.Exit(1)))
    assert cli.main(["probe"]) == 1


def test_a_command_that_ends_returns_0(install: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def command(name: str) -> None:
        print(f"hello {name}")

    install(command)
    assert cli.main(["probe", "you"]) == 0
    assert capsys.readouterr() == ("hello you\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["doctr"], ["doctr", "Did you mean 'doctor'", "agnostic --help"]),
        (["doctor", "--jso"], ["--jso", "--json", "agnostic doctor --help"]),
        (["doctor", "extra"], ["extra"]),
        (["--nonsense"], ["--nonsense"]),
    ],
)
def test_wrong_use_is_one_sentence_and_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("agnostic: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def test_nothing_to_do_shows_the_help_and_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage: agnostic" in err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"agnostic {agnostic.__version__}\n"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert cli.main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"Usage: agnostic {command}" in out
    assert f"Example:\n    agnostic {command}" in out


def test_the_command_files_and_the_list_agree() -> None:
    files = {path.stem for path in (ROOT / "agnostic" / "cli").glob("*.py") if "\ndef register(" in path.read_text()}
    assert files == set(cli.COMMANDS)


def test_help_imports_no_framework_and_no_numpy() -> None:
    program = (
        "import sys; from agnostic.cli import main; code = main(['--help'])\n"
        "heavy = {'torch', 'torchvision', 'keras', 'jax', 'tensorflow', 'numpy', 'scipy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def start(command: str) -> subprocess.Popen[str]:
    """A process that runs a command with this body."""
    program = (
        "import sys, time, types, agnostic.cli as cli\n"
        f"def command():\n{textwrap.indent(textwrap.dedent(command), '    ')}\n"
        "probe = types.SimpleNamespace(register=lambda app: app.command('probe')(command))\n"
        "sys.modules['agnostic.cli.probe'] = probe\n"
        "cli.COMMANDS = ('probe', 'doctor')\n"
        "sys.exit(cli.main(['probe']))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores SIGINT, and hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_a_reader_that_leaves_is_no_error() -> None:
    process = start("for _ in range(100_000): print('a line of some length')")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "a line of some length\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == cli.BROKEN_PIPE


@pytest.mark.parametrize(("signal_", "code"), [(signal.SIGTERM, cli.TERMINATED), (signal.SIGINT, cli.INTERRUPTED)])
def test_a_signal_leaves_no_half_written_file(tmp_path: Path, signal_: signal.Signals, code: int) -> None:
    process = start(
        f"""
        from agnostic.files import atomic_path
        with atomic_path({str(tmp_path / "a.png")!r}) as temporary:
            temporary.write_text("half")
            print("writing", flush=True)
            time.sleep(3000)
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    assert list(tmp_path.iterdir()) != []
    process.send_signal(signal_)
    assert "Traceback" not in process.communicate()[1]
    assert process.returncode == code
    assert list(tmp_path.iterdir()) == []


def test_the_handler_of_the_signal_is_put_back(install: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    install(raising(InvalidInput("no")))
    cli.main(["probe"])
    assert signal.getsignal(signal.SIGTERM) is before


# common ---------------------------------------------------------------------------------------------------------------


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    common.print_json({"path": Path("a/b"), "name": "[torch]", "values": (1, 2.5, None)})
    assert json.loads(capsys.readouterr().out) == {"path": "a/b", "name": "[torch]", "values": [1, 2.5, None]}
    with pytest.raises(ValueError, match="JSON"):
        common.print_json(float("nan"))
    with pytest.raises(TypeError, match="set"):
        common.print_json({1})


def test_progress_is_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with common.progress("drawing", 3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")


def test_progress_shows_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with common.progress("drawing [torch]", 3) as advance:
        advance(3)
    out, err = capsys.readouterr()
    assert out == ""
    assert "drawing [torch]" in err
    assert "3/3" in err
