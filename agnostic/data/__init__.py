"""Images from folders, sequences, and one order for several arrays."""

from agnostic.data.batches import Batches, SkippedFiles
from agnostic.data.folder import ImageFolder
from agnostic.data.images import UnreadableFile
from agnostic.data.imdb import load_imdb
from agnostic.data.order import Permuted, shuffle
from agnostic.data.sequences import Ragged, pad_sequences
from agnostic.data.weights import class_weights

__all__ = [
    "Batches",
    "ImageFolder",
    "Permuted",
    "Ragged",
    "SkippedFiles",
    "UnreadableFile",
    "class_weights",
    "load_imdb",
    "pad_sequences",
    "shuffle",
]


def __dir__() -> list[str]:
    return sorted(__all__)
