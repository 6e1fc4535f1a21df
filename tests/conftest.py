"""What all tests share: the backends, one after the other, as far as they are installed."""

from __future__ import annotations

import importlib.metadata
import os
import re
from typing import Any

import hypothesis
import pytest

from agnostic.registry import Backend, get_backend, registrations
from tests.engines import spare_time
from tests.forks import prepared_processes  # noqa: F401 - for all files
from tests.schedule import place, scope

# With a worker of pytest-xdist per core, more threads than one only get into each other's way; processes inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Most of jax's time in a test is the compiling of programs that run once: each operation with each new shape is one.
# Without optimizations and by the older emitters of XLA it takes half the time. tests/parity has jax as its users have
# it. A cache on disk would serve a second run only, and XLA refuses what it holds on some processors (jax#38445).
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")  # a hundred frames of pytest in each operation
FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 --xla_cpu_prefer_vector_width=128"


def are_known() -> bool:
    """Whether all that reads these flags here is of a release that was seen to know them; others end the process."""
    # jaxlib 0.12 has one emitter only, and no flag for it.
    for name, known in (("jaxlib", (0, 10)), ("tensorflow", (2, 21)), ("tensorflow-cpu", (2, 21))):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if tuple(map(int, re.findall(r"\d+", version)[:2])) != known:
            return False
    return True


if are_known():
    os.environ.setdefault("XLA_FLAGS", FLAGS)

# Two frameworks in one process may abort it, so one backend is tested a process; this names another.
NAMES = tuple(os.environ.get("AGNOSTIC_TEST_BACKENDS", "torch").split(","))

# Tests say nothing of time, which a busy machine stretches; scripts/bench does.
hypothesis.settings.register_profile("agnostic", deadline=None)
hypothesis.settings.load_profile("agnostic")


@pytest.fixture(params=NAMES, scope="session")
def backend(request: pytest.FixtureRequest) -> Backend:
    """A backend."""
    pytest.importorskip(registrations()[request.param].requires)
    return get_backend(request.param)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A worker is given a scope of tests/schedule.py at once."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    return Scheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, then those with slow tests."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (place(item.path), item.path not in slow))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """The files have imported most of what they need."""
    spare_time()
