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
from agnostic.compare.diagnosis import Finding
from agnostic.compare.noise import THRESHOLD
from agnostic.text import counted, printable

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Row:
    """One place of both models.

    Attributes:
        a, b: the layers there, each with the number of its call from the second on; ``""`` for what A has no layer for.
        kind: of the layer.
        shape: of its output, channels last.
        glue: how far what B's code hands to the layer is from what A's layer received, given what ran before.
        isolated: how far B's output for A's inputs is from A's.
        propagated: how far B's output is from A's, each from the model's own input on.
        error: the isolated error as a root mean square, in the activation's own unit.
        floor: the noise floor, in the same unit.
        scale: the root mean square of A's output.

    ``glue``, ``isolated`` and ``propagated`` are in units of the noise floor; None where it was not measured.
    """

    a: str
    b: str
    kind: str
    shape: tuple[int, ...]
    glue: float | None
    isolated: float | None
    propagated: float | None
    error: float | None
    floor: float
    scale: float

    @property
    def verdict(self) -> str:
        """``"layer"`` or ``"glue"`` for a culprit, ``"victim"`` for one that shows an earlier error, or ``"same"``."""
        if self.glue is not None and self.glue > THRESHOLD:
            return "glue"
        if self.isolated is not None and self.isolated > THRESHOLD:
            return "layer"
        return "victim" if self.propagated is not None and self.propagated > THRESHOLD else "same"


@dataclass(frozen=True, repr=False)
class Divergence:
    """A place where B does something else than A.

    Attributes:
        a, b: the layers' names. For ``"glue"``, the layers that the differing array goes into. At the end, ``a`` is
            ``"output"``, and ``b`` the last layer, behind which the code differs.
        kind: ``"layer"``: the layer, fed the same, returns something else; ``"glue"``: the code before it differs;
            ``"gradient"``, ``"update"``: what is learned from one batch differs.
        after: for ``"glue"``: B's layer before it; ``"input"`` at the start.
        error: in units of the noise floor.
        findings: the mistakes that were tried, the one that explains the error first.
    """

    a: str
    b: str
    kind: str
    after: str
    error: float
    findings: tuple[Finding, ...] = ()

    def __repr__(self) -> str:
        why = f": {display.shortened(self.findings[0], 200)}" if self.findings else ""
        return f"<Divergence at {display.shortened(self.where, 90)}{why}>"

    def __str__(self) -> str:
        return self.b

    @property
    def where(self) -> str:
        """The place, as text."""
        if self.kind == "glue" and self.after == self.b:
            return f"between {self.after!r} and the output"
        if self.kind == "glue":
            return f"between {self.after!r} and {self.b!r}"
        what = {"gradient": "the gradients of ", "update": "the update of "}.get(self.kind, "")
        return f"{what}layer {self.b!r}"


class Diagnosis(tuple[Finding, ...]):
    """The findings at the first divergence, the best first."""

    __slots__ = ()

    @property
    def mistake(self) -> str | None:
        """The key of the best explanation; None where there is no difference."""
        return self[0].mistake if self else None

    def __repr__(self) -> str:
        return f"<Diagnosis: {display.shortened(self, 300)}>"

    def __str__(self) -> str:
        return str(self[0]) if self else "no difference"


@dataclass(frozen=True)
class Pictures:
    """The activations of one layer for the first sample, side by side.

    Attributes:
        layer: B's name.
        channels: which.
        a, b: (channels, H, W), float32.
        isolated: whether B was fed A's inputs.
    """

    layer: str
    channels: tuple[int, ...]
    a: Array
    b: Array
    isolated: bool


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
        isolated: whether the layers could be judged alone.

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
    isolated: bool = True
    remarks: tuple[str, ...] = ()

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
        """Whether nothing differs by more than arithmetic explains."""
        return not self.divergences

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
        rows = [
            (x.a, x.b, x.kind, floors(x.glue), floors(x.isolated), floors(x.propagated), _MARKS.get(x.verdict, ""))
            for x in [*self.table, *self.output]
        ]
        return display.table(headline(self), ("A", "B", "kind", "before", "alone", "all", ""), rows, notes)

    def html(self, path: str | os.PathLike[str]) -> None:
        """Write one page that shows all of it; it needs no other file.

        Args:
            path: of the file.

        Raises:
            InvalidInput: the file cannot be written.
        """
        from agnostic.compare.page import write

        write(self, path)

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
                "table": [{**asdict(x), "verdict": x.verdict} for x in self.table],
                "output": [{**asdict(x), "verdict": x.verdict} for x in self.output],
                "unmatched": self.unmatched,
                "weights": {"layers": self.weights[0], "differ": self.weights[1]},
                "a": dict(self.a),
                "b": dict(self.b),
                "notes": list(self.notes),
                "remarks": list(self.remarks),
                "isolated": self.isolated,
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
        about.append({"layer": x.layer, "channels": x.channels, "isolated": x.isolated})
    (folder / "pictures.json").write_text(json.dumps(about))
    np.savez(folder / "pictures.npz", **arrays)  # type: ignore[arg-type]


def restore(folder: Path) -> Comparison:
    """What :func:`save` wrote."""
    x = json.loads((folder / "comparison.json").read_text())
    with np.load(folder / "pictures.npz", allow_pickle=False) as arrays:
        pictures = tuple(
            Pictures(p["layer"], tuple(p["channels"]), arrays[f"{i}a"], arrays[f"{i}b"], p["isolated"])
            for i, p in enumerate(json.loads((folder / "pictures.json").read_text()))
        )
    return Comparison(
        x["a"], x["b"], tuple(map(_row, x["table"])), tuple(map(_divergence, x["divergences"])),
        tuple(x["unmatched"]["a"]), tuple(x["unmatched"]["b"]), tuple(map(_row, x["output"])),
        (x["weights"]["layers"], x["weights"]["differ"]), tuple(x["notes"]), pictures, x["isolated"],
        tuple(x["remarks"]),
    )  # fmt: skip


def _number(x: Any) -> Any:
    return float(x) if isinstance(x, str) else x


def _row(x: Mapping[str, Any]) -> Row:
    return Row(
        x["a"], x["b"], x["kind"], tuple(x["shape"]),
        *(_number(x[k]) for k in ("glue", "isolated", "propagated", "error", "floor", "scale")),
    )  # fmt: skip


def _divergence(x: Mapping[str, Any]) -> Divergence:
    findings = tuple(
        Finding(
            f["mistake"],
            f["sentence"],
            f["fix"],
            _number(f["before"]),
            _number(f["after"]),
            tuple(f.get("tried", ())),
            proven=f["proven"],
            place_a=f["place_a"],
            place_b=f["place_b"],
        )
        for f in x["findings"]
    )
    return Divergence(x["a"], x["b"], x["kind"], x["after"], _number(x["error"]), findings)


WORST = 6
"""How many rows of the greatest errors a long table shows beside its ends and its culprits."""


_MARKS = {"layer": "<- differs", "glue": "<- other input", "victim": "(shows it)"}
"""What stands behind a row, by its verdict."""


# As text -------------------------------------------------------------------------------------------------------------
def floors(x: float | None) -> str:
    """A number of noise floors, short."""
    if x is None:
        return ""
    return f"{x:.1f}" if x < 100 else f"{x:.1e}".replace("e+0", "e").replace("e+", "e")


def name_of(about: Mapping[str, Any]) -> str:
    """A model as text: ``torchvision:resnet50 (torch 2.15)``."""
    versions = ", ".join(f"{k} {v}" for k, v in about.get("versions", {}).items())
    return f"{about.get('spec') or about.get('class')} ({versions or about.get('backend')})"


def headline(x: Comparison) -> str:
    """The result in one sentence."""
    first = x.first_divergence
    if first is None:
        if x.remarks:
            inner = counted(len(x.remarks), "layer")
            return f"the same: the outputs differ by no more than arithmetic explains ({inner} inside: see the remarks)"
        return f"the same: no layer of {len(x.table)} differs by more than arithmetic explains"
    return f"different: first at {first.where}, by {floors(first.error)} noise floors"


def text(x: Comparison, limit: int = 32, width: int | None = None) -> str:
    """The table and the diagnosis as text.

    Args:
        limit: how many rows are shown; of a longer table those around culprits, the first, the last and the worst.
        width: of a line of the table, where there is a bound; names are shortened to it.
    """
    lines = [f"A: {name_of(x.a)}", f"B: {name_of(x.b)}", ""]
    rows = [*x.table, *x.output]
    cells: list[Sequence[str]] = [("A", "B", "kind", "before", "alone", "all", "")]
    last = -1
    for i in [*_shown(rows, limit), len(rows)]:
        if left := rows[last + 1 : i]:
            cells.append((_left_out(left), *[""] * 6))
        last = i
        if i < len(rows):
            row = rows[i]
            mark = _MARKS.get(row.verdict, "")
            errors = (floors(row.glue), floors(row.isolated), floors(row.propagated))
            cells.append((row.a or "(no layer)", row.b, row.kind, *errors, mark))
    lines += _columns(cells, width)
    lines.append(
        "errors in noise floors: of what goes in (before), of the layer on A's inputs (alone), of both runs (all)"
    )
    for which, names in x.unmatched.items():
        if names:
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            lines.append(f"without a partner in {which.upper()}: {', '.join(map(repr, names[:8]))}{more}")
    lines += [f"note: {note}" for note in x.notes]
    lines += [f"remark: {remark}" for remark in x.remarks]
    lines += ["", headline(x)]
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
    widths = [max(len(c[k]) for c in cells if c[1] or k) for k in range(7)]
    if width is not None:
        room = width - sum(widths[2:]) - 2 * 6
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
        numbers = (c[k].rjust(widths[k]) for k in (3, 4, 5))
        yield "  ".join((*names, c[2].ljust(widths[2]), *numbers, c[6])).rstrip()


def _short(name: str, width: int) -> str:
    """A name without its middle: the end tells layers apart."""
    if len(name) <= width:
        return name
    start = max(1, (width - 1) // 5)
    return f"{name[:start]}~{name[len(name) - (width - 1 - start) :]}"


def _left_out(rows: Sequence[Row]) -> str:
    victims = sum(row.verdict == "victim" for row in rows)
    culprits = sum(row.verdict in ("layer", "glue") for row in rows)
    parts = [f"{n} {what}" for n, what in ((culprits, "that differ"), (victims, "that show it")) if n]
    rest = len(rows) - victims - culprits
    if rest or not parts:
        parts.append(f"{rest} the same")
    return f"... {' and '.join(parts)}" if len(parts) < 3 else f"... {', '.join(parts)}"


def _shown(rows: Sequence[Row], limit: int) -> list[int]:
    """Which rows are shown: of a long table the ends, what is around culprits, and the greatest errors of layers."""
    if len(rows) <= limit:
        return list(range(len(rows)))
    wanted: dict[int, None] = dict.fromkeys((0, 1, len(rows) - 2, len(rows) - 1))
    for i, row in enumerate(rows):
        if row.verdict in ("layer", "glue"):
            wanted.update(dict.fromkeys(k for k in range(i - 2, i + 3) if 0 <= k < len(rows)))
        if len(wanted) >= limit:
            break
    worst = sorted(range(len(rows)), key=lambda i: -max(rows[i].glue or 0.0, rows[i].isolated or 0.0))
    worst = [i for i in worst if max(rows[i].glue or 0.0, rows[i].isolated or 0.0) > 0]
    wanted.update(dict.fromkeys(worst[: max(0, min(WORST, limit - len(wanted)))]))
    return sorted(wanted)
