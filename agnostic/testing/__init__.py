"""The conformance kit: any backend, ours or a third party's, is examined by the same checks."""

from agnostic.testing.conformance import Subject, run

__all__ = ["Subject", "run"]
