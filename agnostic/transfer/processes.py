"""Transfer by specifications, in a process of its own that loads both models."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from agnostic.compare.traces import is_trace
from agnostic.contracts.weights import WEIGHTS
from agnostic.errors import AgnosticError, InvalidInput
from agnostic.files import atomic_path
from agnostic.models.forms import Input
from agnostic.models.specs import parse, require_files
from agnostic.processes import describe, raise_described, started
from agnostic.registry import Registration, engine_environment, get_backend, model_backend, registrations


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
    require_files(*(x for x in (source, target) if not is_trace(x)), weights=[weights])
    parsed = parse(target)
    owner = target_backend or parsed.backend
    if owner is not None:  # else the model itself says
        name = target if parsed.path is None else Path(target).name
        _check_format(get_backend(owner).registration, name, str(out))
    with atomic_path(out) as written, tempfile.TemporaryFile() as said:
        job = {
            "source": {"spec": source, "backend": source_backend, "weights": weights, "card": card},
            "target": {"spec": target, "backend": target_backend, "weights": None},
            "engine": engine, "device": device, "trust": trust, "size": size, "seed": seed, "out": str(out),
            "written": str(written),
        }  # fmt: skip
        with started(
            "from agnostic.transfer.processes import serve; serve()", environment=engine_environment(engine),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.close()
            for line in process.stdout:
                if not line.startswith(_MARK):
                    continue
                found: dict[str, Any] = json.loads(line.removeprefix(_MARK))
                raise_described(found)
                if "step" not in found:
                    return found
                advance(1)
            process.wait()
            said.seek(0)
            lines = [x for x in said.read().decode(errors="replace").splitlines() if x.strip()]
            last = lines[-1] if lines else f"exit code {process.returncode}"
            raise RuntimeError(f"the process that held the models ended: {last}")


# Inside --------------------------------------------------------------------------------------------------------------
def serve() -> None:
    """Do what the line on standard input says."""
    job = json.loads(sys.stdin.readline())
    with ExitStack() as scopes:
        try:
            answer = _done(job, scopes)
        except (AgnosticError, OSError) as error:
            answer = describe(error)
        _say(answer)


def _say(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(f"{_MARK}{json.dumps(answer)}\n")
    sys.stdout.flush()


def _check_size(size: tuple[int, int] | None, declared: Sequence[Input] | None, name: str) -> None:
    """Raise if the user's size is not that of the target's images."""
    own = next((x.size for x in declared or () if x.is_image and x.size), None)
    if size is not None and own is not None and tuple(own) != size:
        raise InvalidInput(
            f"{name} takes images of {own[0]} x {own[1]} pixels, not {size[0]} x {size[1]}: leave out size"
        )


def _done(job: Mapping[str, Any], scopes: ExitStack) -> dict[str, Any]:
    from agnostic.compare.feeding import stated
    from agnostic.transfer.sides import made
    from agnostic.transfer.verb import described, into, of_trace

    traced = is_trace(job["source"]["spec"])
    models = {}
    names = {}
    for which in ("target",) if traced else ("target", "source"):
        side, parsed = dict(job[which]), parse(job[which]["spec"])
        if which == "target" and parsed.path is None:
            side["weights"] = "random"  # they are overwritten: nothing is downloaded for that
        name = side["backend"] or parsed.backend
        has_engines = name is not None and bool(get_backend(name).registration.engines)
        models[which] = scopes.enter_context(_loaded(side, job, job["engine"] if has_engines else None))
        names[which] = Path(side["spec"]).name if parsed.path is not None else side["spec"]
        if which == "target":
            _check_format(model_backend(models["target"]).registration, names["target"], job["out"])
    target = models["target"]
    here = model_backend(target)
    _say({"step": 1})
    if traced:
        found = of_trace(job["source"]["spec"])
    else:
        source = models["source"]
        there = model_backend(source)
        size = None if job["size"] is None else tuple(job["size"])
        declared = stated(here, target)
        _check_size(size, declared, names["target"])
        inputs = made(there, source, size, job["seed"], declared)
        found = described(there, source, inputs, names["source"])
    _say({"step": 2})
    report = into(here, target, found, names["target"])
    _say({"step": 3})
    here[WEIGHTS].save(target, Path(job["written"]))
    _say({"step": 4})
    return {"text": str(report), "json": report.json()}


def _loaded(side: Mapping[str, Any], job: Mapping[str, Any], engine: str | None) -> Any:
    from agnostic.models.load import loaded

    options = {key: side[key] for key in ("backend", "weights", "card") if key in side}
    return loaded(side["spec"], device=job["device"], engine=engine, trust=job["trust"], **options)


def _check_format(owner: Registration, name: str, out: str) -> None:
    """Whether a backend's model can be written in that format, before anything long begins."""
    if out.endswith(formats()) and not out.endswith(owner.weight_files):
        raise InvalidInput(
            f"{name} is a model of {owner.title}, which cannot be written to {Path(out).name!r}: give a name "
            f"that ends in {', '.join(owner.weight_files[:-1])} or {owner.weight_files[-1]}"
        )
