"""For test suites: assertions on models, and the conformance kit that any backend is examined by."""

from agnostic.testing.conformance import Subject, run
from agnostic.testing.models import assert_same_model

__all__ = ["Subject", "assert_same_model", "run"]


def __dir__() -> list[str]:
    return sorted(__all__)
