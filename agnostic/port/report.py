"""The report of a port: the verdict, the errors by layer, the remaining transposes, and the sizes that are fixed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

from agnostic.pages import render
from agnostic.port.check import TIMES_FLOOR, Found
from agnostic.port.sources import Draft
from agnostic.program import custom
from agnostic.registry import get_backend, registrations
from agnostic.renamed import old_names
from agnostic.text import counted
from agnostic.version import __version__


@dataclass(frozen=True)
class PortReport:
    """The result of a port and of its check.

    Attributes:
        draft: the written port.
        to: the name of the target's backend.
        free: the sizes of the inputs that may change.
        notes: remarks for the user.
        found: the errors of outputs and layers; () where nothing was run.
        command: the command that was called, as a user types it; ``""`` for the verb.
    """

    draft: Draft = field(repr=False)
    to: str
    free: str
    notes: tuple[str, ...]
    found: tuple[Found, ...] = field(repr=False)
    command: str = ""

    @property
    def is_same(self) -> bool:
        """Whether all outputs are within the source's float32 floor; False where nothing was run."""
        outputs = [x for x in self.found if not x.name]
        return bool(outputs) and all(x.is_same for x in outputs)

    @property
    def first(self) -> Found | None:
        """The first layer, in execution order, that is not within the floor."""
        return next((x for x in self.found if x.name and not x.is_same), None)

    @property
    def verdict(self) -> str:
        """One sentence."""
        name = self.draft.program.name
        if self.draft.stubs:
            left = list(dict.fromkeys(stub.function for stub in self.draft.stubs))
            return (
                f"{name} was written for {self.to}, and not run: {counted(len(left), 'function')} to fill in "
                f"({', '.join(left)}), which the test beside the source checks."
            )
        if not self.found:
            return f"{name} was written for {self.to}, and not run."
        outputs, layers = [x for x in self.found if not x.name], [x for x in self.found if x.name]
        worst = max(outputs, key=lambda x: x.error)
        numbers = f"the outputs differ by {worst.error:.1e}"
        if worst.floor:  # a framework that has no float64 of a model's layers tells none
            numbers += f", the source's own float32 by {worst.floor:.1e}"
        if self.is_same:
            agree = sum(x.is_same for x in layers)
            return (
                f"{name} computes the same in {self.to}: {numbers}; {agree} of {counted(len(layers), 'layer')} agree."
            )
        where = f"; the first layer that differs is {self.first.name!r}" if self.first else ""
        return f"{name} does not compute the same in {self.to}: {numbers}{where}."

    def __str__(self) -> str:
        moves = Counter(move.operator for move in self.draft.laid.moves)
        lines = [self.verdict, f"Free: {self.free}."]
        said = ", ".join(f"{count} for {operator}" for operator, count in moves.most_common())
        total = sum(moves.values())
        verb = "remains" if total == 1 else "remain"
        lines.append(f"{counted(total, 'transpose')} {verb}{': ' + said if said else ''}.")
        return "\n".join([*lines, *self.notes])

    def html(self) -> str:
        """The report as an HTML page: verdict, notes, errors by layer, and transposes with their reasons."""
        program = self.draft.program
        rows = [
            (x.name or f"output {x.partner}".strip(), ("given", "another")[x.case], f"{x.error:.1e}", f"{x.floor:.1e}",
             x.is_same)
            for x in sorted(self.found, key=lambda x: bool(x.name))
        ]  # fmt: skip
        moves = Counter((move.operator, move.module or "the model", move.node.place) for move in self.draft.laid.moves)
        stubs = [(stub.function, custom.name_of(stub.node), stub.reason, custom.where(stub.node))
                 for stub in self.draft.stubs]  # fmt: skip
        facts = [
            ("source", f"{program.name}, {_version(program.framework)}"),
            ("target", _version(self.to)),
            ("free", self.free),
            ("transposes", str(len(self.draft.laid.moves))),
            ("made by", self.command or f"agnostic.port(model, {self.to!r})"),
            ("with", f"agnostic {__version__}"),
        ]
        values: dict[str, Any] = {
            "title": f"{program.name} in {self.to}",
            "verdict": self.verdict,
            "same": self.is_same,
            "facts": facts,
            "notes": self.notes,
            "stubs": list(dict.fromkeys(stubs)),
            "rows": rows,
            "times": int(TIMES_FLOOR),
        }
        values["moves"] = [(operator, module, times, place) for (operator, module, place), times in moves.items()]
        return render("port.html", values, style="comparison.css")


def _version(backend: str) -> str:
    """A backend's framework with its version; the name alone where no package of that name is installed."""
    requires = get_backend(backend).registration.requires if backend in registrations() else backend
    try:
        return f"{requires} {metadata.version(requires)}"
    except metadata.PackageNotFoundError:
        return requires


if not TYPE_CHECKING:
    __getattr__ = old_names(__name__, {"Report": "PortReport"})
