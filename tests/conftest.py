"""What all tests share: the backends, one after the other, as far as they are installed."""

from __future__ import annotations

import os

import hypothesis
import pytest

from agnostic.registry import Backend, get_backend, registrations

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


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process is left with a long one while the other has ended."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
