"""Photos in .tar files as webdataset writes them: members of one base name are one sample."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agnostic.decoding import SUFFIXES
from agnostic.errors import InvalidInput
from agnostic.files import decoded_image, open_regular

_LABEL = "cls"


@dataclass(frozen=True)
class _Entry:
    """A sample: its name, the place of its image in a file, and its label."""

    name: str
    file: int
    start: int
    size: int
    label: int | None


@dataclass(frozen=True)
class TarImages:
    """The photos of several .tar files, which are not unpacked: each is read from its place.

    Attributes:
        paths: of the files.
        entries: of the samples, in order.
    """

    paths: tuple[Path, ...]
    entries: tuple[_Entry, ...]

    @classmethod
    def opened(cls, paths: Sequence[Path]) -> TarImages:
        """List the photos.

        Raises:
            InvalidInput: a file is missing, or no whole .tar file without compression; or there is no photo in them.
        """
        entries: list[_Entry] = []
        for number, path in enumerate(paths):
            prefix = f"{path.stem}/" if len(paths) > 1 else ""
            try:
                with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
                    entries += _entries(tar, number, prefix)
            except (tarfile.TarError, OSError, EOFError, ValueError) as error:
                if isinstance(error, InvalidInput):
                    raise
                raise InvalidInput(
                    f"cannot read {str(path)!r}: it is no whole .tar file without compression ({error})"
                ) from None
        if not entries:
            raise InvalidInput(f"{str(paths[0])!r} has no photos: members that end in {', '.join(SUFFIXES)}")
        return cls(tuple(paths), tuple(entries))

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def labeled(self) -> bool:
        """Whether samples have an integer in a member ``.cls``."""
        return any(x.label is not None for x in self.entries)

    def name(self, index: int) -> str:
        """The base name of a sample, after the name of its file if there are several."""
        return self.entries[index].name

    def label(self, index: int) -> int | None:
        """The label of a sample."""
        return self.entries[index].label

    def image(self, index: int) -> np.ndarray[Any, Any]:
        """(H, W, 3) uint8.

        Raises:
            InvalidInput: it is no image.
        """
        entry = self.entries[index]
        with open_regular(self.paths[entry.file]) as file:
            file.seek(entry.start)
            data = file.read(entry.size)
        return decoded_image(data, f"{entry.name!r} in {os.fspath(self.paths[entry.file])!r}")

    def digest(self) -> str:
        """Of names, lengths and labels."""
        digest = hashlib.blake2b(digest_size=16)
        for x in self.entries:
            digest.update(f"{x.name}\0{x.size}\0{x.label}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def _entries(tar: tarfile.TarFile, number: int, prefix: str) -> list[_Entry]:
    places: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    for member in tar:
        folder, _, last = member.name.rpartition("/")
        # The base name ends at the first dot of the last component, as in webdataset.
        base, dot, suffix = last.partition(".")
        if not member.isfile() or not dot or not base:
            continue
        base = f"{folder}/{base}" if folder else base
        if f".{suffix.lower()}" in SUFFIXES:
            places.setdefault(base, (member.offset_data, member.size))
        elif suffix == _LABEL and member.size < 32:
            text = (tar.extractfile(member) or io.BytesIO()).read().strip()
            if text.isdigit():
                labels[base] = int(text)
    return [_Entry(prefix + base, number, *place, labels.get(base)) for base, place in places.items()]
