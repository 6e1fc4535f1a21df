"""Each side of a comparison in a process of its own, since two frameworks, or two engines, may not share one.

A side is told what to do by a file, and answers by files: a trace, or what a comparison found.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agnostic.compare.comparing import compare_records
from agnostic.compare.direct import against, trace_model
from agnostic.compare.inputs import Inputs
from agnostic.compare.report import Comparison, restore, save
from agnostic.compare.stored import opened
from agnostic.compare.traces import Trace, is_trace
from agnostic.compare.watching import receiver, sender, watched
from agnostic.errors import AgnosticError, InvalidInput
from agnostic.files import atomic_path, photos_below
from agnostic.models.inputs import Size
from agnostic.models.specs import require_files
from agnostic.npy import read_arrays
from agnostic.processes import describe, raise_described, started
from agnostic.temporary import temporary_folder

COUNT = 8
"""How many photos of a folder are taken unless more are asked for."""


@dataclass(frozen=True)
class SideSource:
    """A model that another process loads.

    Attributes:
        spec: what :func:`agnostic.load` takes.
        backend, engine, weights, trust, card: its options.
        device: where it lies and runs; None: where its framework puts it.
    """

    spec: str
    backend: str | None = None
    engine: str | None = None
    weights: str | None = None
    trust: bool = False
    device: str | None = None
    card: str | None = None

    def loaded(self) -> contextlib.AbstractContextManager[Any]:
        """The model, in this process; what runs inside runs on its device."""
        from agnostic.models.load import loaded

        return loaded(**vars(self))


@dataclass(frozen=True)
class Photos:
    """Image files that the first model's process reads, in the size that this model takes.

    Attributes:
        paths: of the files.
        size: height and width; None: the model's own, or 224.
    """

    paths: tuple[str, ...]
    size: Size | None = None

    def read(self, model: Any) -> np.ndarray[Any, Any]:
        """(N, H, W, C), uint8: the middle of each photo."""
        from agnostic.models.inputs import image_input
        from agnostic.models.preparing import resized_images
        from agnostic.registry import backend_of

        backend = backend_of(model)
        # Photos of several shapes become one batch, also for a model that takes any.
        size = self.size or image_input(backend, model).size
        return np.concatenate([resized_images(backend, model, path, size=size)[1] for path in self.paths])


def photos(folder: str | os.PathLike[str], count: int = COUNT, size: Size | None = None) -> Photos:
    """The first photos of a folder, in the order of their names; or one file.

    Raises:
        InvalidInput: no such folder, or no image in it.
    """
    path = Path(folder)
    if os.path.isfile(path):
        return Photos((str(path),), size)
    if os.path.exists(path) and not os.path.isdir(path):
        raise InvalidInput(f"{str(path)!r} is no folder of photos, and no photo")
    return Photos(tuple(str(path / name) for name in photos_below(path)[:count]), size)


def read_inputs(path: str | os.PathLike[str]) -> Any:
    """Inputs from a ``.npy`` file, or several by name from a ``.npz`` file; see :func:`agnostic.npy.read_arrays`.

    Raises:
        InvalidInput: it cannot be read.
    """
    return read_arrays(path)


def needs_process(x: Any) -> bool:
    """Whether a side is a specification, which a process of its own loads."""
    return isinstance(x, SideSource) or (isinstance(x, str | os.PathLike) and not is_trace(x))


def side(x: Any) -> SideSource:
    """A side of a specification."""
    return x if isinstance(x, SideSource) else SideSource(os.fspath(x))


# This process --------------------------------------------------------------------------------------------------------
def compare_in_processes(
    a: Any,
    b: Any,
    inputs: Any,
    *,
    map: Mapping[str, str] | None = None,
    keep: Path | None = None,
    strict: bool = False,
) -> Comparison:
    """See :func:`agnostic.compare.verbs.compare`; at least one side is a specification.

    Args:
        inputs: arrays, :class:`Photos`, or None where A is a trace.
        keep: where A's trace stays.
    """
    sides = [side(x) for x in (a, b) if needs_process(x)]
    require_files(*(x.spec for x in sides), weights=[x.weights for x in sides])
    with temporary_folder() as folder:
        path = keep or folder / "a.trace"
        if isinstance(a, str | os.PathLike) and is_trace(a):
            path = Path(a)
            Trace(path)  # before a model is loaded for it
            if inputs is not None and not is_trace(b):
                raise InvalidInput(f"the inputs are those of the trace {path}: leave out others")
        elif inputs is None:
            raise InvalidInput("there is nothing to compare the models on: give inputs")
        elif needs_process(a):
            trace_in_process(side(a), inputs, path)
        else:
            trace_model(a, inputs.read(a) if isinstance(inputs, Photos) else inputs, path)
        if isinstance(b, str | os.PathLike) and is_trace(b):
            return compare_records(opened(Trace(path)), opened(Trace(b)), map, strict=strict)
        if not needs_process(b):
            return against(opened(Trace(path)), b, map=map, strict=strict)
        out = folder / "found"
        out.mkdir()
        _run(
            {
                "do": "against",
                "trace": str(path),
                "side": vars(side(b)),
                "map": dict(map or {}),
                "out": str(out),
                "strict": strict,
            },
            folder,
        )
        return restore(out)


def trace_in_process(which: SideSource, inputs: Any, path: Path, options: Mapping[str, Any] | None = None) -> Path:
    """Record a model that another process loads."""
    require_files(which.spec, weights=[which.weights])
    # The other process writes into a folder of this one, which removes it whatever becomes of the other.
    with atomic_path(path) as written, temporary_folder() as folder:
        job = {"do": "trace", "side": vars(which), "path": str(written), "options": dict(options or {})}
        _run({**job, "inputs": _sent(inputs, folder)}, folder)
    return path


def _sent(inputs: Any, folder: Path) -> dict[str, Any]:
    """Inputs for another process, in a file."""
    if isinstance(inputs, Photos):
        return {"photos": [os.path.abspath(x) for x in inputs.paths], "size": inputs.size}
    if isinstance(inputs, Inputs):
        form, arrays = inputs.form, dict(inputs.arrays)
    elif isinstance(inputs, Mapping):
        form, arrays = "dict", {str(k): np.asarray(x) for k, x in inputs.items()}
    elif isinstance(inputs, tuple | list):
        form, arrays = "tuple", {str(i): np.asarray(x) for i, x in enumerate(inputs)}
    else:
        form, arrays = "array", {"0": np.asarray(inputs)}
    np.savez(folder / "inputs.npz", **arrays)  # type: ignore[arg-type]
    return {"form": form, "file": str(folder / "inputs.npz"), "keys": list(arrays)}


def _run(job: Mapping[str, Any], folder: Path) -> None:
    """Let another process do it.

    Raises:
        AgnosticError: what it raised there.
        OSError: what the system refused it.
    """
    task, answer = folder / "job.json", folder / "answer.json"
    answer.unlink(missing_ok=True)
    what = f"{'recording' if job['do'] == 'trace' else 'comparing'} {job['side']['spec']}"
    with receiver(what) as pipe:
        task.write_text(json.dumps({**job, "answer": str(answer), "progress": pipe}))
        with started(
            "import sys; from agnostic.compare.processes import main; main(sys.argv[1:])", [str(task)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=() if pipe is None else (pipe,),
        ) as child:  # fmt: skip
            _, said = child.communicate()
    found = json.loads(answer.read_text()) if answer.exists() else {}
    if child.returncode == 0 and "done" in found:
        return
    raise_described(found)
    last = [line for line in said.splitlines() if line.strip()][-1:] or ["it said nothing"]
    raise RuntimeError(f"the process of {job['side']['spec']} ended with {child.returncode}: {last[0]}")


# The other process ---------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def _answering(path: Path) -> Iterator[None]:
    try:
        yield
    except (AgnosticError, OSError) as error:
        path.write_text(json.dumps(describe(error)))
        raise SystemExit(1) from None
    except MemoryError:
        said = "the memory does not suffice for one layer of so many inputs: give fewer (--count)"
        path.write_text(json.dumps({"error": "InvalidInput", "message": said}))
        raise SystemExit(1) from None
    path.write_text(json.dumps({"done": True}))


def _received(given: Mapping[str, Any], model: Any) -> Any:
    if "photos" in given:
        return Photos(tuple(given["photos"]), given["size"]).read(model)
    with np.load(given["file"], allow_pickle=False) as arrays:
        found = {key: arrays[key] for key in given["keys"]}
    if given["form"] == "array":
        return found["0"]
    return tuple(found.values()) if given["form"] == "tuple" else found


def _update(given: Sequence[Any] | None, model: Any) -> tuple[Any, Any] | None:
    """An optimizer's text as the model's framework reads it, and the steps."""
    from agnostic.optimizers.text import specification
    from agnostic.registry import backend_of

    return None if given is None else (specification(given[0], backend_of(model).name), given[1])


def main(arguments: Sequence[str]) -> None:
    """Do what the file says."""
    job = json.loads(Path(arguments[0]).read_text())
    pipe = job["progress"]
    with _answering(Path(job["answer"])), watched(None if pipe is None else sender(pipe)):
        which = SideSource(**job["side"])
        with which.loaded() as model:
            if job["do"] == "trace":
                options = {**job["options"], "update": _update(job["options"].get("update"), model)}
                trace_model(model, _received(job["inputs"], model), job["path"], spec=which.spec, **options)
            else:
                record = opened(Trace(job["trace"]))
                found = against(record, model, map=job["map"], spec=which.spec, strict=job["strict"])
                save(found, Path(job["out"]))
