"""A process per engine of Keras, started at its first use, in which tests and functions run.

Keras reads its engine once per process, and importing a framework takes longer than most tests. So one process per
engine serves every file of the tests that this process runs: `run_on_engine` runs test files there, and
`call_on_engine` calls a function. tests/schedule.py gives all tests of an engine to the same worker. `run_apart` runs
test files in a fresh process, with an environment of their own; `call_apart` calls a function in a fresh process of an
engine.

TensorFlow and triton, which PyTorch's compiler and optimizers import, abort a process that has both. Keras imports
TensorFlow whenever it saves, which takes 12 seconds. So the process of TensorFlow has no triton, and the others have no
TensorFlow. The process of jax computes in float64 only where a test file says so (`jax.enable_x64`).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from agnostic.processes import end_with

ROOT = Path(__file__).parents[1]
ENGINES = ("jax", "torch", "tensorflow")  # that which takes longest first


def run_on_engine(
    engine: str, *files: Path, needs: tuple[str, ...] = ("keras",), variables: Mapping[str, str] | None = None
) -> None:
    """Run test files in the process of an engine, and fail where one of them fails or one of them runs no test.

    Args:
        engine: ``"torch"``, ``"jax"`` or ``"tensorflow"``.
        files: files or folders of tests.
        needs: modules without which the test is skipped, beside the engine.
        variables: of the environment, beside ``KERAS_BACKEND``, while the files run.
    """
    call_on_engine(engine, "tests.engines:run_here", *map(str, files), needs=needs, variables=variables)


def run_apart(*files: Path, variables: Mapping[str, str] | None = None) -> None:
    """Run test files in a fresh process, and fail where one of them fails or one of them runs no test.

    Args:
        files: files or folders of tests.
        variables: of the environment, beside those of this process.
    """
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from tests.engines import run_here; run_here(*sys.argv[1:])",
         *map(str, files)],
        env=environment(variables), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:]


def call_on_engine(
    engine: str,
    function: str,
    *arguments: str,
    needs: tuple[str, ...] = ("keras",),
    variables: Mapping[str, str] | None = None,
) -> Any:
    """What a function returns that is called in the process of an engine.

    Args:
        engine: ``"torch"``, ``"jax"`` or ``"tensorflow"``.
        function: ``"package.module:name"``.
        arguments: of the function.
        needs: modules without which the test is skipped, beside the engine.
        variables: of the environment while the function runs.

    Returns:
        What JSON keeps of the function's result.
    """
    _skip_without(*needs, engine)
    if engine not in _running:
        _running[engine] = _Process(engine)
    process = _running[engine]
    try:
        return process.call(function, arguments, variables or {})
    finally:
        if process.has_ended:
            del _running[engine]


def call_apart(
    engine: str, function: str, *arguments: str, needs: tuple[str, ...] = ("keras",), variables: Mapping[str, str]
) -> Any:
    """What a function returns that is called in a fresh process of an engine, which ends after it.

    Args:
        engine: ``"torch"``, ``"jax"`` or ``"tensorflow"``.
        function: ``"package.module:name"``.
        arguments: of the function.
        needs: modules without which the test is skipped, beside the engine.
        variables: of the environment of the process from its start on.

    Returns:
        What JSON keeps of the function's result.
    """
    _skip_without(*needs, engine)
    process = _Process(engine, variables)
    try:
        return process.call(function, arguments, {})
    finally:
        process.close()


def _skip_without(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process that imports agnostic and the tests from this tree."""
    own = {**os.environ, **(variables or {})}
    paths = [str(ROOT), str(ROOT / "backends"), *filter(None, [own.get("PYTHONPATH")])]
    return {**own, "PYTHONPATH": os.pathsep.join(paths)}


# In the process that asks ---------------------------------------------------------------------------------------------
class _Process:
    """A process of one engine, which ends when its standard input does."""

    def __init__(self, engine: str, variables: Mapping[str, str] | None = None) -> None:
        self.engine, self.has_ended = engine, False
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process runs
        reading, writing = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.engines", str(writing), str(os.getpid())],
            env=environment({"KERAS_BACKEND": engine, "TF_CPP_MIN_LOG_LEVEL": "3", **(variables or {})}),
            cwd=ROOT, stdin=subprocess.PIPE, stdout=self.log, stderr=subprocess.STDOUT, pass_fds=(writing,),
        )  # fmt: skip
        os.close(writing)
        self.replies = open(reading, "rb")  # noqa: SIM115 - as above

    def call(self, function: str, arguments: Sequence[str], variables: Mapping[str, str]) -> Any:
        """What a function returns; its failure is a failure here."""
        try:
            reply = self._ask({"function": function, "arguments": arguments, "variables": dict(variables)})
        except EOFError as error:
            raise AssertionError(f"the process of {self.engine} ended:\n{self.close()}") from error
        assert reply["error"] is None, f"{reply['error']}\n{reply['output']}"
        return reply["result"]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request.

        Raises:
            EOFError: the process ended.
        """
        assert self.process.stdin is not None
        start = os.fstat(self.log.fileno()).st_size
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise EOFError from error
        line = self.replies.readline()
        if not line:
            raise EOFError
        return {**json.loads(line), "output": self.output(start)}

    def output(self, start: int = 0) -> str:
        """The end of what the process wrote from a place on."""
        size = os.fstat(self.log.fileno()).st_size
        start = max(start, size - 8000)
        return os.pread(self.log.fileno(), size - start, start).decode(errors="replace")

    def close(self) -> str:
        """End the process; return what it wrote last."""
        assert self.process.stdin is not None
        self.has_ended = True
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.replies.close()
        return self.output()


_running: dict[str, _Process] = {}


@atexit.register
def close_engines() -> None:
    """End the processes."""
    while _running:
        _running.popitem()[1].close()


# In the process that is asked -----------------------------------------------------------------------------------------
class _Counted:
    """A plug-in of pytest that counts tests that passed, by file."""

    def __init__(self) -> None:
        self.passed: Counter[Path] = Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        yield  # raises where the test fails or is skipped
        self.passed[item.path.resolve()] += 1


def run_here(*files: str) -> None:
    """Run test files in this process.

    Raises:
        AssertionError: a test failed, or a file (or all of a folder) ran none.
    """
    # Files that were run before may read the environment anew.
    for name in [name for name in sys.modules if name.startswith("tests.") and name != __name__]:
        del sys.modules[name]
    counted = _Counted()
    code = pytest.main(
        ["-q", "--disable-warnings", "-p", "no:cacheprovider", "-p", "no:xdist", *files], plugins=[counted]
    )
    sys.stdout.flush()
    assert code == pytest.ExitCode.OK, f"pytest ended with {code!r}"
    empty = [file for file in files if not any(ran.is_relative_to(Path(file).resolve()) for ran in counted.passed)]
    assert not empty, f"no test passed in {', '.join(empty)}"


@contextlib.contextmanager
def _variables(changed: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(changed)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    module, _, name = request["function"].partition(":")
    with _variables(request["variables"]):
        try:
            # What earlier requests left: names of layers that were taken, and what Keras keeps of models.
            if "keras" in sys.modules:
                sys.modules["keras"].backend.clear_session()
            result = getattr(importlib.import_module(module), name)(*request["arguments"])
        except BaseException as error:  # noqa: BLE001 - pytest's outcomes as well; the one who asked raises it
            return {"error": f"{type(error).__name__}: {error}\n{traceback.format_exc()}", "result": None}
    return {"error": None, "result": result}


class _Absent:
    """What Python asks for modules: one of them is there, and cannot be imported."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name == self.name else None

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        raise ModuleNotFoundError(f"{self.name} is kept out of this process", name=self.name)


def keep_out() -> None:
    """Keep triton out of a process of TensorFlow, and TensorFlow out of every other."""
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        sys.modules["triton"] = None  # type: ignore[assignment]
    else:
        # A None would not do: Keras looks for the name in sys.modules, and then takes what is there for TensorFlow.
        sys.meta_path.insert(0, _Absent("tensorflow"))


def import_keras() -> None:
    """Import Keras without scikit-learn and pandas, of which it has wrappers: they take a third of the time."""
    if importlib.util.find_spec("keras") is None:
        return
    absent = [_Absent("sklearn"), _Absent("pandas")]
    sys.meta_path[:0] = absent
    importlib.import_module("keras")
    for finder in absent:
        sys.meta_path.remove(finder)


@functools.cache
def spare_time() -> None:
    """Leave out what takes time in a process of tests alone, after its imports; once.

    The garbage collector walks a million objects of the frameworks again and again, for a tenth of the time. For each
    program that it compiles, jax makes an MLIR context, for a quarter of that time: one serves all. TensorFlow
    optimizes graphs that run once, for a seventh; tests/parity has it as its users do.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    if "jax" in sys.modules:
        # A function of jax's own: a release without it takes the time again.
        lowering: Any = importlib.import_module("jax._src.interpreters.mlir")
        if hasattr(lowering, "make_ir_context"):
            lowering.make_ir_context = functools.cache(lowering.make_ir_context)
    if "tensorflow" in sys.modules:
        optimize_graphs(False)


def optimize_graphs(wanted: bool) -> None:
    """Whether TensorFlow optimizes the graphs that it runs from now on."""
    importlib.import_module("tensorflow").config.optimizer.set_experimental_options(
        {"disable_meta_optimizer": not wanted}
    )


def _serve(replies: BinaryIO, parent: int) -> None:
    # Closing its input ends it between two requests, this also within one.
    if sys.platform == "linux":
        end_with(parent)
    keep_out()
    import_keras()
    spare_time()
    for line in sys.stdin.buffer:
        replies.write(json.dumps(_answer(json.loads(line))).encode() + b"\n")
        replies.flush()


if __name__ == "__main__":
    # Imported under its name, so that what it keeps is there once.
    with open(int(sys.argv[1]), "wb") as file:
        importlib.import_module("tests.engines")._serve(file, int(sys.argv[2]))
