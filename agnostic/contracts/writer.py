"""Capability: write programs as source of a framework. The implementing module imports no framework."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agnostic.contracts.capability import Capability

if TYPE_CHECKING:
    import numpy.typing as npt

    from agnostic.port.dialect import Dialect


class SourceWriter(Protocol):
    """How source and weights of a framework are written."""

    def dialect(self, channels_first: bool = False) -> Dialect:
        """The dialect: how source is written.

        Args:
            channels_first: images keep their channels before height and width.

        Raises:
            InvalidInput: the framework has no such layout.
        """

    def check_engine(self, engine: str | None, channels_first: bool) -> None:
        """Refuse an engine that cannot run such source here.

        Args:
            engine: what the port is run with; None: the framework's own choice.
            channels_first: as for the dialect.

        Raises:
            InvalidInput: the engine has no such layout.
        """

    def write_weights(self, arrays: Mapping[str, npt.NDArray[Any]], folder: Path, name: str) -> Path:
        """Write the file that ``make_model`` of the written source reads.

        Args:
            arrays: by the paths of the new model's variables.
            folder: the target folder.
            name: of the file, without its ending.
        """


WRITER: Capability[SourceWriter] = Capability("writer", SourceWriter, "write source")
