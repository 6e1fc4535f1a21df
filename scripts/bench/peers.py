"""Speed of pictures of many channels against every other library that still installs, and the loops that people write.

    .venv/bin/python scripts/bench/peers.py --venvs FOLDER [--engine torch] [--count 64] [--steps 20] [--rounds 3]

Same work for all: VGG16 with random weights, the mean of one channel an image, so many steps, images of one size, one
processor thread. Two jobs: *classic* (raw pixels, normalized gradients) and *fourier* (a scaled spectrum in
decorrelated colours, preprocessing, Adam); the whole image is seen, so that a step is one pass forward and one back.
What a library cannot be asked for is its own: torch-lucent and faccent run the network to its end, horama sees a crop.

A library runs in a process of its own, in the environment FOLDER/NAME if there is one (``--install`` makes them). Ours
and one contestant take turns, round by round; medians of the processor's seconds and of the clock's are kept, and the
ratio of each pair. What is measured is kept in the folder ``--out`` at once, so that the
script can be stopped at any time. The fraction of the measured peak (a matrix product of the same type in our process)
is that of the multiplications which a step needs at least.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peers_job import Job
from report import add_option, headline, keep, spread

from agnostic.files import atomic_path

HERE = Path(__file__).parent
LIBRARIES = {
    "torch-lucent": ("torch-lucent==0.1.8", "kornia==0.4.1", "decorator", "ipython"),
    "flashtorch": ("flashtorch==0.1.3", "matplotlib", "importlib_resources"),
    "torch-dreams": ("torch-dreams==4.0.0",),
    "dreamlens": ("dreamlens==0.1.1",),
    "faccent": ("faccent==1.0.3", "kornia==0.4.1", "decorator", "einops", "matplotlib", "ipywidgets"),
    "horama": ("horama==0.3.0", "einops", "matplotlib"),
    "tf-keras-vis": ("tf-keras-vis==0.8.7", "deprecated", "imageio"),
    "xplique": ("xplique==2.0.2", "deprecated", "einops", "matplotlib", "tensorflow-probability", "tf-keras"),
}
# By engine and recipe: who can do the job, the loop that a competent user writes first.
CONTESTANTS = {
    ("torch", "classic"): (
        "batch loop", "batch loop bfloat16", "tutorial loop", "torch-lucent", "torch-lucent batch", "flashtorch",
    ),
    ("torch", "fourier"): (
        "batch loop", "batch loop bfloat16", "torch-lucent", "torch-lucent batch", "torch-dreams", "torch-dreams batch",
        "dreamlens", "dreamlens batch", "faccent", "horama",
    ),
    ("tensorflow", "classic"): ("batch loop", "keras.io loop", "tf-keras-vis", "tf-keras-vis batch"),
    ("tensorflow", "fourier"): ("xplique batch",),
    ("jax", "classic"): ("batch loop", "keras.io loop"),
}  # fmt: skip
OURS = ("ours float32", "ours default")


class Process:
    """A process that draws as one contestant or another when it is asked to."""

    def __init__(self, engine: str, library: str | None, venvs: Path | None) -> None:
        python = sys.executable
        if library and venvs and (venvs / library).is_dir():
            python = str(venvs / library / "bin" / "python")
        script = HERE / ("peers_torch.py" if engine == "torch" else "peers_keras.py")
        one = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        environment = {
            **os.environ, "KERAS_BACKEND": engine, "OMP_NUM_THREADS": "1", "XLA_FLAGS": one, "MPLBACKEND": "agg",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=environment,
        )  # fmt: skip
        self._said: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for said in self._process.stderr:
            self._said = [*self._said[-20:], said.strip()]

    def ask(self, **question: Any) -> dict[str, Any]:
        """The answer to one question; RuntimeError with the last words of a process that ended instead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self._process.wait()
            raise RuntimeError(next((x for x in reversed(self._said) if x), "no word"))
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def versus(home: Process, engine: str, job: Job, name: str, rounds: int, venvs: Path | None) -> dict[str, Any]:
    """Rounds of ours and of one contestant in turn: what each run took, the first ones apart.

    Args:
        home: the process of ours, which also runs what needs no library.
    """
    # Against a loop in bfloat16 only what ours does by default is the same work.
    own = [x for x in OURS if not (name.endswith("bfloat16") and x == "ours float32")]
    library = next((x for x in LIBRARIES if name.startswith(x)), None)
    other = Process(engine, library, venvs) if library else home
    try:
        places = [*((one, home) for one in own), (name, other)]
        first = {one: process.ask(run=one, job=asdict(job)) for one, process in places}
        runs: dict[str, list[dict[str, Any]]] = {one: [] for one, _ in places}
        for _ in range(rounds):
            for one, process in places:
                runs[one].append(process.ask(run=one, job=asdict(job)))
    finally:
        if other is not home:
            other.close()
    peaks = {dtype: home.ask(peak=dtype)["peak"] for dtype in ("float32", "bfloat16")}
    return {"first": first, "runs": runs, "peaks": peaks}


def line(found: dict[str, Any], job: Job, name: str) -> Iterator[str]:
    """What was measured of one contestant, and of ours beside it."""
    work = job.count * job.steps

    def middle(one: str, what: str) -> float:
        return statistics.median(x[what] for x in found["runs"][one])

    for one in (name, *(x for x in OURS if x in found["runs"])):
        processor, wall = (middle(one, x) / work * 1e3 for x in ("processor", "wall"))
        text = f"  {one:22s}{processor:8.1f} ms of processor, {wall:8.1f} ms of clock"
        text += f", first run {found['first'][one]['processor']:6.1f} s, {found['runs'][one][-1]['memory']:5.0f} MB"
        if one != name:
            each = zip(found["runs"][name], found["runs"][one], strict=True)
            ratio = statistics.median(a["processor"] / b["processor"] for a, b in each)
            peak = found["peaks"]["float32" if one.endswith("float32") else "bfloat16"]
            text += f", {ratio:5.2f} times ahead, {job.operations / (processor / 1e3) / peak:4.0%} of peak"
        yield text


def cases(found: dict[str, Any], engine: str, job: Job, name: str) -> dict[str, dict[str, Any]]:
    """The same as cases of the record; the peer is the contestant."""
    work, peer = job.count * job.steps / 1e3, statistics.median(x["processor"] for x in found["runs"][name])
    return {
        f"{engine}, {job.recipe}, {job.layer}, {one}" + ("" if one == name else f" beside {name}"): {
            **spread([x["processor"] / work for x in runs], "ms", over=peer / work),
            "wall": statistics.median(x["wall"] for x in runs) / work,
            "first": found["first"][one]["processor"],
            "memory": runs[-1]["memory"],
        }
        for one, runs in found["runs"].items()
    }


def install(venvs: Path) -> None:
    """An environment for each library, which sees the packages of this one behind its own."""
    for name, packages in LIBRARIES.items():
        if (venvs / name).is_dir():
            continue
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venvs / name)], check=True)
        python = str(venvs / name / "bin" / "python")
        code = "import site; print(site.getsitepackages()[0])"
        theirs, ours = (
            subprocess.run([x, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
            for x in (python, sys.executable)
        )
        (Path(theirs) / "zz_base.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
        # Not what it asks for: old libraries name versions of frameworks that are not to be measured.
        subprocess.run([*command, "--no-deps", packages[0]], check=True)
        if len(packages) > 1:
            subprocess.run([*command, *packages[1:]], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venvs", type=Path, help="folder with an environment for each library")
    parser.add_argument("--install", action="store_true", help="make the environments that are missing there")
    parser.add_argument("--out", type=Path, default=Path("pictures/peers"))
    parser.add_argument("--engine", action="append", choices=("torch", "tensorflow", "jax"), help="all by default")
    parser.add_argument("--recipe", action="append", choices=("classic", "fourier"), help="both by default")
    parser.add_argument("--only", action="append", help="a contestant; may be given several times")
    parser.add_argument("--layer", default="block3_conv1")
    parser.add_argument("--count", type=int, default=64, help="channels")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    add_option(parser)
    given = parser.parse_args()
    if given.install:
        if given.venvs is None:
            parser.error("--install needs --venvs FOLDER")
        install(given.venvs)
    print(headline(), flush=True)
    kept: dict[str, dict[str, Any]] = {}
    for (engine, recipe), names in CONTESTANTS.items():
        if engine not in (given.engine or (engine,)) or recipe not in (given.recipe or (recipe,)):
            continue
        job = Job(recipe, given.layer, given.count, given.steps, given.size)
        print(
            f"{engine}, {recipe}, {job.layer}, {job.count} channels, {job.steps} steps, {job.size} pixels", flush=True
        )
        home = Process(engine, None, None)
        for name in names:
            if given.only and name not in given.only:
                continue
            path = given.out / f"{engine}-{recipe}-{job.layer}-{job.count}-{job.steps}-{job.size}-{name}.json"
            if not path.exists():
                try:
                    found = versus(home, engine, job, name, given.rounds, given.venvs)
                except RuntimeError as error:  # a library that does not run is told, and not measured
                    print(f"  {name:22s}does not run: {error}", flush=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(path) as temporary:
                    Path(temporary).write_text(json.dumps(found))
            found = json.loads(path.read_text())
            print("\n".join(line(found, job, name)), flush=True)
            kept |= cases(found, engine, job, name)
        home.close()
    options = {"count": given.count, "steps": given.steps, "size": given.size, "layer": given.layer}
    keep("peers", kept, given.json, rounds=given.rounds, **options)


if __name__ == "__main__":
    main()
