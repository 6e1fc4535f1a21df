"""Images from folders, sequences, and one order for several arrays."""

from agnostic.data.imdb import load_imdb
from agnostic.data.order import Permuted, shuffle
from agnostic.data.sequences import Ragged, pad_sequences

__all__ = ["Permuted", "Ragged", "load_imdb", "pad_sequences", "shuffle"]
