"""For test suites: assertions on models, and the conformance kit that any backend is examined by."""

from agnostic.testing.conformance import run
from agnostic.testing.models import assert_same_model
from agnostic.testing.subject import Subject

__all__ = ["Subject", "assert_same_model", "run"]


def __dir__() -> list[str]:
    return sorted(__all__)
