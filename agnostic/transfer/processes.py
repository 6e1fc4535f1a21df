"""Transfer between two processes: each loads one model, and a recording in a file goes from the one to the other.

Such a process is told what to do by lines of JSON on its standard input, one at a time, and answers each with one line
on its standard output.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from agnostic.contracts.weights import WEIGHTS
from agnostic.errors import AgnosticError, InvalidInput
from agnostic.files import atomic_path
from agnostic.models.attached import attach, card_of
from agnostic.models.specs import require_files
from agnostic.processes import describe, raise_described, started
from agnostic.registry import engine_environment, get_backend, registrations
from agnostic.temporary import temporary_folder

if TYPE_CHECKING:
    from agnostic.transfer.access import InputSpec


def formats() -> tuple[str, ...]:
    """The suffixes of weight files that registered backends write."""
    return tuple(dict.fromkeys(x for registration in registrations().values() for x in registration.weight_files))


_MARK = "agnostic-answer:"
"""Before every answer: frameworks print as well."""


def between(
    source: str,
    target: str,
    out: Path,
    *,
    weights: str | None = None,
    source_backend: str | None = None,
    target_backend: str | None = None,
    engine: str | None = None,
    device: str | None = None,
    card: str | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    trust: bool = False,
    advance: Callable[[int], None] = lambda steps: None,
) -> dict[str, Any]:
    """Transfer by specifications, and write the target to a file.

    Args:
        source, target: specifications, as of :func:`agnostic.load`.
        out: ends in one of :func:`formats`.
        weights: of the source.
        engine: of Keras.
        device: the device of both, as in :func:`agnostic.models.load.loaded`.
        card: the path of a card that replaces the source's.
        size: height and width of the images, where the models take any; None: what their cards say.
        trust: as of :func:`agnostic.load`.
        advance: called after each of four steps.

    Returns:
        ``"text"``, the report as a table, and ``"json"``.

    Raises:
        AgnosticError: what either process raised.
    """
    require_files(source, target, weights=[weights])
    with atomic_path(out) as written, temporary_folder() as folder, _process(engine) as there, _process(engine) as here:
        # Both load at the same time.
        common = {"engine": engine, "device": device, "size": size, "trust": trust}
        there.ask("load", spec=source, backend=source_backend, weights=weights, card=card, **common)
        here.ask("load", spec=target, backend=target_backend, weights=None, fresh=True, **common)
        loaded = here.answer()
        there.answer()
        advance(1)
        here.ask("check", out=str(out))
        here.answer()
        there.ask("record", inputs=loaded["inputs"], seed=seed, path=str(folder / "recording"))
        there.answer()
        there.end()
        advance(1)
        here.ask("receive", path=str(folder / "recording"))
        report = here.answer()
        advance(1)
        # The other process writes into a folder of this one, which removes it whatever becomes of the other.
        here.ask("write", out=str(written))
        here.answer()
        advance(1)
    return report


class _Process:
    def __init__(self, process: subprocess.Popen[str], errors: IO[bytes]) -> None:
        self._process, self._errors = process, errors

    def ask(self, what: str, **arguments: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"what": what, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._died()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(_MARK):
                found: dict[str, Any] = json.loads(line.removeprefix(_MARK))
                raise_described(found)
                return found
        self._died()
        raise AssertionError

    def end(self) -> None:
        """Its memory is needed no longer."""
        self._process.kill()
        self._process.wait()

    def _died(self) -> None:
        self._process.wait()
        self._errors.seek(0)
        said = [line for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        last = said[-1] if said else f"exit code {self._process.returncode}"
        raise RuntimeError(f"the process that held a model ended: {last}")


@contextmanager
def _process(engine: str | None) -> Iterator[_Process]:
    with (
        tempfile.TemporaryFile() as said,
        started(
            "from agnostic.transfer.processes import serve; serve()", environment=engine_environment(engine),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said,
        ) as process,
    ):  # fmt: skip
        yield _Process(process, said)


# Inside -------------------------------------------------------------------------------------------------------------
class _Held:
    """The one model of a process."""

    def __init__(self, scopes: ExitStack) -> None:
        """Hold nothing yet; what a model needs around it stays open in ``scopes``."""
        self.model: Any = None
        self.name = ""
        self.inputs: list[InputSpec] | None = None
        self._scopes = scopes

    def load(
        self,
        spec: str,
        backend: str | None,
        weights: str | None,
        engine: str | None,
        device: str | None = None,
        card: str | None = None,
        size: list[int] | None = None,
        trust: bool = False,
        fresh: bool = False,
    ) -> Any:
        from agnostic.contracts.transfer import TRANSFER
        from agnostic.models.load import loaded
        from agnostic.models.specs import parse
        from agnostic.registry import model_backend

        parsed = parse(spec)
        if fresh and parsed.path is None:
            weights = "random"  # they are overwritten: nothing is downloaded for that
        name = backend or parsed.backend
        has_engines = name is not None and bool(get_backend(name).registration.engines)
        engine = engine if has_engines else None
        model = loaded(spec, device=device, backend=backend, engine=engine, weights=weights, trust=trust, card=card)
        self.model = self._scopes.enter_context(model)
        self.name = Path(spec).name if parsed.path is not None else spec
        self.access = model_backend(self.model)[TRANSFER].access(self.model)
        self.inputs = self._inputs(size)
        return {"inputs": self.inputs and [[list(x.shape), x.high] for x in self.inputs]}

    def _inputs(self, size: list[int] | None) -> list[InputSpec] | None:
        """The inputs of the model, with images of the requested size; None if the model does not declare them.

        Raises:
            InvalidInput: the model takes only another size.
        """
        card = card_of(self.model)
        if size is not None and card is not None:
            attach(self.model, replace(card, size=None))  # what it is usually given does not bind
        try:
            found = self.access.inputs()
        except InvalidInput:
            return None
        finally:
            if card is not None:
                attach(self.model, card)
        return found if size is None else [self._sized(x, (size[0], size[1])) for x in found]

    def _sized(self, spec: InputSpec, size: tuple[int, int]) -> InputSpec:
        if len(spec.shape) != 3:
            return spec
        from agnostic.transfer.access import InputSpec

        *own, channels = spec.shape
        if any(mine not in (None, asked) for mine, asked in zip(own, size, strict=True)):
            only = " x ".join("any" if n is None else str(n) for n in own)
            raise InvalidInput(f"{self.name} takes images of {only} pixels, not {size[0]} x {size[1]}: leave out size")
        return InputSpec((*size, channels), spec.high)

    def check(self, out: str) -> Any:
        """Whether the model can be written in that format, before anything long begins."""
        owner = registrations()[self.access.framework]
        if out.endswith(formats()) and not out.endswith(owner.weight_files):
            raise InvalidInput(
                f"{self.name} is a model of {owner.title}, which cannot be written to {Path(out).name!r}: give a name "
                f"that ends in {', '.join(owner.weight_files[:-1])} or {owner.weight_files[-1]}"
            )
        return {}

    def record(self, inputs: list[Any] | None, seed: int, path: str) -> Any:
        from agnostic.transfer.access import InputSpec
        from agnostic.transfer.recording import make_inputs, record, save

        theirs = None if inputs is None else [InputSpec(tuple(shape), high) for shape, high in inputs]
        first, second = theirs or self.inputs, self.inputs or theirs
        if first is None or second is None:
            self.access.inputs()  # raises what is missing
            raise AssertionError
        save(record(self.access, make_inputs(first, second, seed), self.name), Path(path))
        return {}

    def receive(self, path: str) -> Any:
        from agnostic.transfer.recording import load
        from agnostic.transfer.verb import into

        report = into(self.access, load(Path(path)), self.name)
        return {"text": str(report), "json": report.json()}

    def write(self, out: str) -> Any:
        from agnostic.registry import backend_of

        backend_of(self.model)[WEIGHTS].save(self.model, Path(out))
        return {}


def serve() -> None:
    """Do what the lines on standard input say."""
    with ExitStack() as scopes:
        held = _Held(scopes)
        for line in sys.stdin:
            asked: Mapping[str, Any] = json.loads(line)
            arguments = {key: value for key, value in asked.items() if key != "what"}
            try:
                answer = getattr(held, asked["what"])(**arguments)
            except (AgnosticError, OSError) as error:
                answer = describe(error)
            sys.stdout.write(f"{_MARK}{json.dumps(answer)}\n")
            sys.stdout.flush()
