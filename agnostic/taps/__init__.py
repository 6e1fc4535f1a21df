"""What a model's layers return: records, the verbs that make them, and records on disk."""

from agnostic.taps.stored import open_record as open

__all__ = ["open"]


def __dir__() -> list[str]:
    return sorted(__all__)
