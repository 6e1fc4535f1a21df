"""What all tests share: the backends, one after the other, as far as they are installed."""

from __future__ import annotations

import os

import pytest

from agnostic.backend import Backend, get_backend, registrations

# Two frameworks in one process may abort it, so one backend is tested a process; this names another.
NAMES = tuple(os.environ.get("AGNOSTIC_TEST_BACKENDS", "torch").split(","))


@pytest.fixture(params=NAMES, scope="session")
def backend(request: pytest.FixtureRequest) -> Backend:
    """A backend."""
    pytest.importorskip(registrations()[request.param].requires)
    return get_backend(request.param)
