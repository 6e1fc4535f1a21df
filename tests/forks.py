"""Processes for tests of commands that start some: forks of one that has imported the frameworks already.

Importing Keras with an engine takes longer than what such a process does then. `prepared_processes` lets what
`agnostic.processes.started` starts be a fork of a process that has imported Keras with the engine asked for (PyTorch,
where none is), and `run_prepared` runs code so. All else is as in a fresh process: standard streams, inherited
descriptors, environment, folder, arguments and exit code are those asked for, and it ends with its parent. Tests of
`started` itself and of what is there before any import start real processes. TensorFlow cannot be forked.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from agnostic import processes
from tests.engines import ROOT, environment, spare_time

IMPORTS = {"torch": ("torch", "keras"), "jax": ("torch", "keras"), "": ("torch",)}
"""What a process has imported, by ``KERAS_BACKEND``."""


@pytest.fixture
def prepared_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `agnostic.processes.started` starts is a fork of a process with imports."""
    monkeypatch.setattr(processes, "subprocess", SimpleNamespace(Popen=_popen))


def run_prepared(
    code: str, *arguments: str, cwd: os.PathLike[str], variables: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """What :func:`subprocess.run` returns of Python code, with both outputs as text.

    Args:
        code: what is executed.
        arguments: its ``sys.argv[1:]``.
        cwd: the current folder.
        variables: of the environment, beside those of this process.
    """
    command = [sys.executable, "-c", code, *arguments]
    child = _popen(
        command, env=environment(variables), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    out, err = child.communicate()
    return subprocess.CompletedProcess(command, child.returncode, out, err)


def _popen(command: Sequence[str], **options: Any) -> Any:
    engine = options["env"].get("KERAS_BACKEND", "")
    # Where it is that of this process, the other one may still choose another before it imports Keras.
    name = "" if engine == os.environ.get("KERAS_BACKEND") else engine
    _, option, *rest = command
    if option != "-c" or name not in IMPORTS or sys.platform != "linux":
        return subprocess.Popen(command, **options)
    if name not in _templates:
        _templates[name] = _Template(name)
    return _Fork(_templates[name], rest, **options)


# In the process that asks ---------------------------------------------------------------------------------------------
class _Template:
    """A process that has imported, and forks; it ends when its socket is closed, as by the end of this process."""

    def __init__(self, name: str) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        variables = {"OMP_NUM_THREADS": "1", **({"KERAS_BACKEND": name} if name else {})}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.forks", str(theirs.fileno()), *IMPORTS[name]],
            env=environment(variables), cwd=ROOT, pass_fds=(theirs.fileno(),),
        )  # fmt: skip
        theirs.close()

    def fork(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """Let it fork; ``descriptors`` are those that the fork gets."""
        text = json.dumps(request).encode()
        socket.send_fds(self.socket, [len(text).to_bytes(4, "big")], list(descriptors))
        self.socket.sendall(text)


_templates: dict[str, _Template] = {}


class _Fork:
    """A forked process, with as much of :class:`subprocess.Popen` as `agnostic.processes` and its callers use."""

    returncode: int | None

    def __init__(
        self, template: _Template, code: Sequence[str], *, env: Mapping[str, str], text: bool,
        cwd: os.PathLike[str] | None = None, pass_fds: Sequence[int] = (), stdin: Any = None, stdout: Any = None,
        stderr: Any = None,
    ) -> None:  # fmt: skip
        assert text
        self._template, self.returncode = template, None
        with contextlib.ExitStack() as theirs:
            self.stdin, given = _stream(stdin, "w", 0, theirs)
            self.stdout, out = _stream(stdout, "r", 1, theirs)
            self.stderr, err = _stream(stderr, "r", 2, theirs)
            reading, writing = os.pipe()
            theirs.callback(os.close, writing)
            request = {
                "code": code[0], "arguments": list(code[1:]), "environment": dict(env), "parent": os.getpid(),
                "folder": os.fspath(cwd or os.getcwd()), "descriptors": list(pass_fds),
            }  # fmt: skip
            template.fork(request, [writing, given, out, err, *pass_fds])
        self._said = open(reading)  # noqa: SIM115 - open as long as the process runs
        self.pid = int(self._said.readline())

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        if self.returncode is None and select.select([self._said], [], [], 0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, when it has ended."""
        if self.returncode is None:
            if not select.select([self._said], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def _end(self) -> None:
        line = self._said.readline()
        assert line, f"the process that waits for {self.pid} ended first; its parent: {self._template.process.poll()}"
        self.returncode = os.waitstatus_to_exitcode(int(line))
        self._said.close()

    def kill(self) -> None:
        """End it."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def communicate(self, *, timeout: float | None = None) -> tuple[str | None, str | None]:
        """Both outputs, when it has ended."""
        streams = (self.stdout, self.stderr)
        found: dict[int, str] = {}

        def read(number: int, stream: IO[str]) -> None:
            found[number] = stream.read()

        readers = [threading.Thread(target=read, args=(n, x)) for n, x in enumerate(streams) if x is not None]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        return found.get(0), found.get(1)


def _stream(kind: Any, mode: str, number: int, theirs: contextlib.ExitStack) -> tuple[IO[str] | None, int]:
    """Our end of a standard stream, and the descriptor that the process gets."""
    if kind is None:
        return None, number
    if kind == subprocess.DEVNULL:
        descriptor = os.open(os.devnull, os.O_RDWR)
        theirs.callback(os.close, descriptor)
        return None, descriptor
    if kind == subprocess.PIPE:
        reading, writing = os.pipe()
        own, other = (writing, reading) if mode == "w" else (reading, writing)
        theirs.callback(os.close, other)
        return open(own, mode), other
    return None, kind if isinstance(kind, int) else kind.fileno()


# In the process that forks --------------------------------------------------------------------------------------------
def _serve(own: socket.socket) -> None:
    """Fork for each request, until the other end is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for the forks
    while True:
        head, descriptors, _, _ = socket.recv_fds(own, 4, 64)
        if not head:
            return
        text = b""
        while len(text) < int.from_bytes(head, "big"):
            text += own.recv(int.from_bytes(head, "big") - len(text))
        if os.fork() == 0:
            own.close()
            _watch(json.loads(text), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _watch(request: Mapping[str, Any], said: int, *descriptors: int) -> None:
    """Fork once more, say which process it is, and how it ended."""
    processes.end_with(os.getppid())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(said)
        _become(request, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    os.write(said, f"{pid}\n".encode())
    os.write(said, f"{os.waitpid(pid, 0)[1]}\n".encode())
    os._exit(0)


def _become(request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    """Be as a fresh process would, execute the code, and end."""
    # It ends with the process that asked for it by way of the two between; `end_with` asks who the parent is.
    processes.end_with(os.getppid())
    os.getppid = lambda: request["parent"]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    inherited = request["descriptors"]
    # First out of the way of the numbers that they get.
    high = [fcntl.fcntl(x, fcntl.F_DUPFD, max([2, *inherited]) + 1) for x in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    for descriptor, number in zip(high, [0, 1, 2, *inherited], strict=True):
        os.dup2(descriptor, number, inheritable=True)
        os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = open(number, "w" if number else "r", buffering=1 if number == 2 else -1)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    before = set(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    own = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:] = list(dict.fromkeys(["", *own, *(x for x in sys.path if x and x not in before)]))
    sys.argv = ["-c", *request["arguments"]]
    code = 1
    try:
        exec(compile(request["code"], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102 - as python -c
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - as the interpreter, which prints whatever ends it
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        atexit._run_exitfuncs()
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in sys.argv[2:]:
        importlib.import_module(module)
    spare_time()
    # A fork has one thread only: whatever waits for another would wait for ever.
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "importing started threads"
    _serve(socket.socket(fileno=int(sys.argv[1])))
