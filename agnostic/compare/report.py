"""What a comparison found: a table, the first place where two models part, and why."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agnostic import display
from agnostic.compare.noise import THRESHOLD
from agnostic.compare.page import write
from agnostic.compare.results import Diagnosis, Divergence, Finding, Pictures, Row, floors, name_of
from agnostic.text import counted, printable

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two models, layer by layer.

    Attributes:
        a, b: what is known of each: class, spec, backend, engine, versions, dtype, training, preprocessing.
        table: a row for each place, in the order in which B runs.
        divergences: the places where B does something else, in that order; what only shows an earlier error is none.
        unmatched_a, unmatched_b: layers without a partner.
        output: the rows of what the models return.
        weights: how many layers with weights are matched, and how many of them hold other numbers.
        notes: sentences on what could not be measured.
        remarks: sentences on what differs inside although the outputs agree.
        pictures: of some layers.
        inputs: what each model was called with, as text.
        strict: whether models that differ inside are different although their outputs agree.
        classes: for outputs (N, classes): whether the highest-scoring class changed, as a sentence.

    Example:
        >>> found = ag.compare(model, copy.deepcopy(model), images)
        >>> found
        <Comparison: the same: ...>
        >>> found.html("report.html")
    """

    a: Mapping[str, Any]
    b: Mapping[str, Any]
    table: tuple[Row, ...]
    divergences: tuple[Divergence, ...]
    unmatched_a: tuple[str, ...] = ()
    unmatched_b: tuple[str, ...] = ()
    output: tuple[Row, ...] = ()
    weights: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()
    pictures: tuple[Pictures, ...] = field(default=(), repr=False)
    remarks: tuple[str, ...] = ()
    inputs: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    strict: bool = False
    classes: str = ""

    @property
    def first_divergence(self) -> Divergence | None:
        """Where the models part; None where they are the same."""
        return self.divergences[0] if self.divergences else None

    @property
    def diagnosis(self) -> Diagnosis:
        """Why, at the first divergence."""
        return Diagnosis(self.divergences[0].findings if self.divergences else ())

    @property
    def same(self) -> bool:
        """Whether no output differs by more than arithmetic explains; with ``strict``, whether nothing does."""
        return not self.divergences and not (self.strict and self.remarks)

    @property
    def matches(self) -> tuple[tuple[str, str], ...]:
        """The layers that were matched: (A's, B's)."""
        return tuple((x.a, x.b) for x in self.table)

    @property
    def unmatched(self) -> dict[str, tuple[str, ...]]:
        """The layers without a partner, of ``"a"`` and ``"b"``."""
        return {"a": self.unmatched_a, "b": self.unmatched_b}

    def __repr__(self) -> str:
        why = f" ({self.diagnosis.mistake})" if self.diagnosis.mistake else ""
        return f"<Comparison: {display.shortened(headline(self), 200)}{display.shortened(why)}>"

    def __str__(self) -> str:
        return text(self)

    def _repr_html_(self) -> str:
        notes = [f"A: {name_of(self.a)}", f"B: {name_of(self.b)}"]
        for found in self.divergences[:5]:
            best = found.findings[0] if found.findings else ""
            notes.append(f"{found.where}, {floors(found.error)} noise floors: {best}")
        rows = [(x.a, x.b, x.kind, floors(x.distance), _MARKS.get(x.verdict, "")) for x in [*self.table, *self.output]]
        return display.table(headline(self), ("A", "B", "kind", "distance", ""), rows, notes)

    def html(self, path: str | os.PathLike[str], *, command: str = "") -> None:
        """Write one page that shows all of it; it needs no other file.

        Args:
            path: of the file.
            command: that made the comparison, to be shown.

        Raises:
            InvalidInput: the file cannot be written.
        """
        write(self, headline(self), path, command)

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures, as JSON can carry it; an infinite number is the text ``"inf"``.

        Returns:
            Lists, dicts, texts, numbers and None.
        """
        first = self.first_divergence
        plain: dict[str, Any] = _plain(
            {
                "same": self.same,
                "first_divergence": None if first is None else asdict(first),
                "divergences": [asdict(x) for x in self.divergences],
                "table": [asdict(x) for x in self.table],
                "output": [asdict(x) for x in self.output],
                "unmatched": self.unmatched,
                "weights": {"layers": self.weights[0], "differ": self.weights[1]},
                "a": dict(self.a),
                "b": dict(self.b),
                "notes": list(self.notes),
                "remarks": list(self.remarks),
                "inputs": {"a": list(self.inputs[0]), "b": list(self.inputs[1])},
                "strict": self.strict,
                "classes": self.classes,
                "threshold": THRESHOLD,
            }
        )
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else str(float(value))
    return value.item() if isinstance(value, np.generic) else value


def save(comparison: Comparison, folder: Path) -> None:
    """Write a comparison for another process to read; see :func:`restore`."""
    (folder / "comparison.json").write_text(json.dumps(comparison.to_json()))
    arrays: dict[str, Array] = {}
    about = []
    for i, x in enumerate(comparison.pictures):
        arrays[f"{i}a"], arrays[f"{i}b"] = x.a, x.b
        about.append({"layer": x.layer, "channels": x.channels})
    (folder / "pictures.json").write_text(json.dumps(about))
    np.savez(folder / "pictures.npz", **arrays)  # type: ignore[arg-type]


def restore(folder: Path) -> Comparison:
    """What :func:`save` wrote."""
    x = json.loads((folder / "comparison.json").read_text())
    with np.load(folder / "pictures.npz", allow_pickle=False) as arrays:
        pictures = tuple(
            Pictures(p["layer"], tuple(p["channels"]), arrays[f"{i}a"], arrays[f"{i}b"])
            for i, p in enumerate(json.loads((folder / "pictures.json").read_text()))
        )
    return Comparison(
        x["a"], x["b"], tuple(map(_row, x["table"])), tuple(map(_divergence, x["divergences"])),
        tuple(x["unmatched"]["a"]), tuple(x["unmatched"]["b"]), tuple(map(_row, x["output"])),
        (x["weights"]["layers"], x["weights"]["differ"]), tuple(x["notes"]), pictures, tuple(x["remarks"]),
        (tuple(x["inputs"]["a"]), tuple(x["inputs"]["b"])), x["strict"], x["classes"],
    )  # fmt: skip


def _number(x: Any) -> Any:
    return float(x) if isinstance(x, str) else x


def _row(x: Mapping[str, Any]) -> Row:
    distance, error, floor, scale, alone = (_number(x[k]) for k in ("distance", "error", "floor", "scale", "alone"))
    return Row(x["a"], x["b"], x["kind"], tuple(x["shape"]), distance, error, floor, scale, x["verdict"], alone)


def _divergence(x: Mapping[str, Any]) -> Divergence:
    findings = tuple(
        Finding(
            f["mistake"],
            f["sentence"],
            f["fix"],
            _number(f["before"]),
            _number(f["after"]),
            proven=f["proven"],
            place_a=f["place_a"],
            place_b=f["place_b"],
        )
        for f in x["findings"]
    )
    return Divergence(x["a"], x["b"], x["kind"], x["after"], _number(x["error"]), findings)


WORST = 6
"""How many rows of the greatest errors a long table shows beside its ends and its culprits."""


_OTHER = {"a": "B", "b": "A"}
_MARKS = {"layer": "<- differs", "code": "<- other input", "shows": "(shows it)", "inside": "(inside)"}
"""What stands behind a row, by its verdict."""


# As text -------------------------------------------------------------------------------------------------------------
def headline(x: Comparison) -> str:
    """The result in one sentence."""
    first = x.first_divergence
    if first is None:
        inner = f"{counted(len(x.remarks), 'difference')} inside"
        if x.remarks and x.strict:
            return (
                f"different: the outputs agree, and there is {inner}"
                if len(x.remarks) == 1
                else (f"different: the outputs agree, and there are {inner}")
            )
        if x.remarks:
            return f"the same: the outputs differ by no more than arithmetic explains ({inner}: see the remarks)"
        return "the same: the outputs differ by no more than arithmetic explains"
    return f"different: first at {first.where}, by {floors(first.error)} noise floors"


def text(x: Comparison, limit: int = 32, width: int | None = None) -> str:
    """The table and the diagnosis as text.

    Args:
        limit: how many rows are shown; of a longer table those around culprits, the first, the last and the worst.
        width: of a line of the table, where there is a bound; names are shortened to it.
    """
    lines = [f"A: {name_of(x.a)}", f"B: {name_of(x.b)}", ""]
    rows = [*x.table, *x.output]
    cells: list[Sequence[str]] = [("A", "B", "kind", "distance", "")]
    last = -1
    for i in [*_shown(rows, limit), len(rows)]:
        if left := rows[last + 1 : i]:
            cells.append((_left_out(left), *[""] * 4))
        last = i
        if i < len(rows):
            row = rows[i]
            mark = _MARKS.get(row.verdict, "")
            cells.append((row.a or "(no layer)", row.b, row.kind, floors(row.distance), mark))
    lines += _columns(cells, width)
    lines.append("distance: of what the layers return, in noise floors (what one rounding does to it)")
    for side, given in zip("AB", x.inputs, strict=True):
        if given:
            lines.append(f"{side} was called with {', '.join(given)}")
    for which, names in x.unmatched.items():
        if names:
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            other = {"a": "B", "b": "A"}[which]
            lines.append(
                f"in {which.upper()} alone, without a partner in {other}: {', '.join(map(repr, names[:8]))}{more}"
            )
    lines += [f"note: {note}" for note in x.notes]
    lines += [f"remark: {remark}" for remark in x.remarks]
    lines += ["", headline(x)]
    if x.classes:
        lines.append(x.classes)
    if x.weights[1]:
        lines.append(f"the weights differ: in {x.weights[1]} of {x.weights[0]} matched layers that have any")
    for i, found in enumerate(x.divergences[:5]):
        best = found.findings[0] if found.findings else None
        if i:
            lines.append(f"then at {found.where}, by {floors(found.error)} noise floors")
        if best is not None:
            lines.append(f"  {best.mistake}: {best.sentence}")
            lines += [f"  {side} at {place}" for side, place in (("A", best.place_a), ("B", best.place_b)) if place]
            if best.fix:
                start, *rest = best.fix.split("\n")
                lines += [f"  fix: {start}", *(f"       {line}" for line in rest)]
            how = ", as B was run without it" if best.proven else ""
            lines.append(f"  error {floors(best.before)} noise floors, {floors(best.after)} after the fix{how}")
    if len(x.divergences) > 5:
        lines.append(f"and {len(x.divergences) - 5} places more")
    return "\n".join(map(printable, lines))


NARROWEST = 9
"""To how few letters a layer's name is shortened."""


def _columns(cells: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    """The cells below each other; one alone in its line takes as much as it needs."""
    cells = [tuple(map(printable, c)) for c in cells]
    widths = [max(len(c[k]) for c in cells if c[1] or k) for k in range(5)]
    if width is not None:
        room = width - sum(widths[2:]) - 2 * 4
        if room < 3 * NARROWEST:  # then rather without the kinds
            cells, room = [(*c[:2], "", *c[3:]) for c in cells], room + widths[2]
            widths[2] = 0
        # Half of the room each; what the shorter one leaves is the other's.
        first = min(widths[0], max(room // 2, room - widths[1]))
        widths[:2] = max(first, NARROWEST), max(min(widths[1], room - first), NARROWEST)
    for c in cells:
        if not c[1]:
            yield c[0]
            continue
        names = (_short(c[k], widths[k]).ljust(widths[k]) for k in (0, 1))
        yield "  ".join((*names, c[2].ljust(widths[2]), c[3].rjust(widths[3]), c[4])).rstrip()


def _short(name: str, width: int) -> str:
    """A name without its middle: the end tells layers apart."""
    if len(name) <= width:
        return name
    start = max(1, (width - 1) // 5)
    return f"{name[:start]}~{name[len(name) - (width - 1 - start) :]}"


def _left_out(rows: Sequence[Row]) -> str:
    showing = sum(row.verdict == "shows" for row in rows)
    culprits = sum(row.verdict in ("layer", "code") for row in rows)
    parts = [f"{n} {what}" for n, what in ((culprits, "that differ"), (showing, "that show it")) if n]
    rest = len(rows) - showing - culprits
    if rest or not parts:
        parts.append(f"{rest} the same")
    return f"... {' and '.join(parts)}" if len(parts) < 3 else f"... {', '.join(parts)}"


def _shown(rows: Sequence[Row], limit: int) -> list[int]:
    """Which rows are shown: of a long table the ends, what is around culprits, and the greatest errors of layers."""
    if len(rows) <= limit:
        return list(range(len(rows)))
    wanted: dict[int, None] = dict.fromkeys((0, 1, len(rows) - 2, len(rows) - 1))
    for i, row in enumerate(rows):
        if row.verdict in ("layer", "code"):
            wanted.update(dict.fromkeys(k for k in range(i - 2, i + 3) if 0 <= k < len(rows)))
        if len(wanted) >= limit:
            break
    worst = sorted(range(len(rows)), key=lambda i: -(rows[i].distance or 0.0))
    worst = [i for i in worst if (rows[i].distance or 0.0) > 0]
    wanted.update(dict.fromkeys(worst[: max(0, min(WORST, limit - len(wanted)))]))
    return sorted(wanted)
