"""What all tests share: the backends, one after the other, as far as they are installed."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

from agnostic.registry import Backend, get_backend, registrations

# With a worker of pytest-xdist per core, more threads than one only get into each other's way; processes inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Most of jax's time in a test is LLVM optimizing programs that run once. tests/parity has jax as its users have it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

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


# What takes longest, the longest first: no worker is left with one of these while the others have ended. The order is
# all that depends on it. Those that ask for the engines' processes stand together.
LONGEST = (
    "keras/test_engines.py", "transfer/test_transfer.py", "parity/test_parity.py", "compare/test_faults.py",
    "optimizers/test_keras.py", "port/test_port_keras.py", "gradients/test_gradients.py",
    "compare/test_compare_keras.py", "optimizers/test_field_guide.py", "augmentation/test_augmentation.py",
    "test_docs_pages.py", "data/test_folder_keras.py",
)  # fmt: skip


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, then those with slow tests."""
    first = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (first.get(item.path, len(first)), item.path not in slow))
