"""A comparison as one page of HTML that needs nothing else: the verdict, a plot of the errors, pictures, the table."""

from __future__ import annotations

import base64
import html
import io
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from agnostic.compare.noise import THRESHOLD
from agnostic.compare.report import Comparison, Divergence, Pictures, Row, floors, headline, name_of
from agnostic.files import atomic_path

Array = np.ndarray[Any, Any]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 1000, 300, 52, 24
_LOWEST = -2.0  # decades of noise floors

_STYLE = """
:root { color-scheme: light dark; --bg: #fcfcfb; --fg: #1c1f23; --soft: #626b75; --line: #dcdfe3; --card: #fff;
  --alone: #1668c7; --before: #8a4fc9; --all: #9aa4af; --bad: #c5221f; --good: #1b7f3b; --badbg: #fdecea; }
@media (prefers-color-scheme: dark) { :root { --bg: #14171a; --fg: #e6e8ea; --soft: #98a2ad; --line: #30363c;
  --card: #1b1f23; --alone: #6cb0ff; --before: #c59bf5; --all: #69737e; --bad: #ff7b72; --good: #5fd083;
  --badbg: #3a1d1c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 24px 20px 60px; background: var(--bg); color: var(--fg);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 34px 0 10px; }
h3 { font-size: 14px; margin: 18px 0 6px; } h3 .soft { font-weight: 400; }
code, td, .mono { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13px; overflow-wrap: anywhere; }
.soft { color: var(--soft); } .bad { color: var(--bad); } .good { color: var(--good); }
.verdict { border: 1px solid var(--line); border-left: 6px solid var(--good); background: var(--card);
  padding: 14px 18px; border-radius: 6px; margin: 18px 0; }
.verdict.differs { border-left-color: var(--bad); }
.verdict strong { font-size: 17px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 14px; margin: 10px 0 0; }
dt { color: var(--soft); }
dd { margin: 0; }
svg { display: block; width: 100%; min-width: 760px; height: auto; background: var(--card);
  border: 1px solid var(--line); border-radius: 6px; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
.grid { stroke: var(--line); } .limit { stroke: var(--bad); stroke-dasharray: 5 4; }
.legend { margin-bottom: 6px; }
.legend span { margin-right: 18px; } .dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%;
  margin-right: 6px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
td { white-space: nowrap; }
td:nth-child(-n+2) { white-space: normal; min-width: 14ch; max-width: 40ch; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 13px; }
th, td { padding: 3px 10px 3px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; } tr.layer td, tr.glue td { background: var(--badbg); }
tr.victim td.n:last-child { color: var(--bad); }
.pictures { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 8px; max-width: 820px; }
.pictures figure { margin: 0; } .pictures img { width: 100%; image-rendering: pixelated; border-radius: 4px;
  border: 1px solid var(--line); display: block; }
figcaption { color: var(--soft); font-size: 12px; }
"""


def write(comparison: Comparison, path: str | os.PathLike[str]) -> None:
    """See :meth:`agnostic.compare.report.Comparison.html`."""
    text = "\n".join(_page(comparison))
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _e(value: object) -> str:
    return html.escape(str(value), quote=True)


def _page(x: Comparison) -> Iterator[str]:
    a, b = name_of(x.a), name_of(x.b)
    yield f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_e(a)} and {_e(b)}</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{_STYLE}</style></head><body>"
    yield "<h1>Two versions of one model</h1>"
    yield f'<div class="mono"><span class="soft">A</span> {_e(a)}<br><span class="soft">B</span> {_e(b)}</div>'
    yield from _verdict(x)
    yield from _plot(x)
    yield from _activations(x)
    yield from _table(x)
    yield from _rest(x)
    yield "</body></html>"


def _verdict(x: Comparison) -> Iterator[str]:
    yield f'<div class="verdict{"" if x.same else " differs"}"><strong class="{"good" if x.same else "bad"}">'
    yield f"{_e(headline(x))}</strong>"
    if x.weights[1]:
        yield f"<div>The weights differ in {x.weights[1]} of {x.weights[0]} matched layers that have any.</div>"
    if x.divergences:
        yield from _diagnosis(x.divergences[0])
    yield "</div>"
    for other in x.divergences[1:6]:
        yield '<div class="verdict differs">'
        yield f"<strong>then at {_e(other.where)}, by {floors(other.error)} noise floors</strong>"
        yield from _diagnosis(other)
        yield "</div>"
    if len(x.divergences) > 6:
        yield f'<p class="soft">and {len(x.divergences) - 6} places more; see the table.</p>'


def _diagnosis(found: Divergence) -> Iterator[str]:
    if not found.findings:
        return
    best = found.findings[0]
    yield f"<dl><dt>mistake</dt><dd><code>{_e(best.mistake)}</code></dd><dt>what</dt><dd>{_e(best.sentence)}</dd>"
    if best.mend:
        yield f"<dt>mend</dt><dd>{_e(best.mend)}</dd>"
    yield f"<dt>error</dt><dd>{floors(best.before)} noise floors; {floors(best.after)} with the mend</dd></dl>"


# The plot ------------------------------------------------------------------------------------------------------------
def _plot(x: Comparison) -> Iterator[str]:
    rows = [*x.table, *x.output]
    if not rows:
        return
    values = [v for r in rows for v in (r.glue, r.isolated, r.propagated) if v and math.isfinite(v)]
    top = max(2.0, math.ceil(math.log10(max(values, default=1.0)) + 0.2))
    yield "<h2>Error of each layer, in noise floors</h2>"
    yield (
        '<p class="soft">One noise floor is what float32 alone does to a layer. Above the dashed line '
        f"({THRESHOLD:g} floors) arithmetic explains no more.</p>"
    )
    yield '<div class="legend">'
    for color, what in (("alone", "the layer, fed what A's was fed"), ("before", "what B's code hands to the layer"),
                        ("all", "both models from their inputs on")):  # fmt: skip
        yield f'<span><i class="dot" style="background: var(--{color})"></i>{what}</span>'
    yield f'</div><div class="scroll"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="errors by layer">'

    def up(value: float) -> float:
        decades = top + 0.1 if math.isinf(value) else math.log10(max(value, 10**_LOWEST))
        return (_HEIGHT - _BOTTOM) * (1 - (min(decades, top + 0.1) - _LOWEST) / (top + 0.2 - _LOWEST))

    for decade in range(int(_LOWEST), int(top) + 1, max(1, round((top - _LOWEST) / 8))):
        y = up(10.0**decade)
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_power(decade)}</text>'
    y = up(THRESHOLD)
    yield f'<line class="limit" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
    step = (_WIDTH - _LEFT - 12) / max(len(rows), 1)

    def across(i: int) -> float:
        return _LEFT + 6 + step * (i + 0.5)

    line = " ".join(f"{across(i):.1f},{up(r.propagated):.1f}" for i, r in enumerate(rows) if r.propagated is not None)
    yield f'<polyline points="{line}" fill="none" stroke="var(--all)" stroke-width="1.5"/>'
    radius = max(1.8, min(4.0, step / 2))
    for i, r in enumerate(rows):
        for value, color in ((r.propagated, "all"), (r.glue, "before"), (r.isolated, "alone")):
            if value is None or (color == "before" and not value):
                continue
            size = radius * (0.7 if color == "all" else 1)
            yield (
                f'<circle cx="{across(i):.1f}" cy="{up(value):.1f}" r="{size:.1f}" fill="var(--{color})">'
                f"<title>{_e(r.b)}: {floors(value)}</title></circle>"
            )
    first = next((i for i, r in enumerate(rows) if r.verdict in ("layer", "glue")), None)
    if first is not None:
        middle = across(first)
        anchor = "end" if middle > 0.7 * _WIDTH else "start"
        bottom = _HEIGHT - _BOTTOM
        yield f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="0" y2="{bottom}" stroke="var(--bad)" opacity=".35"/>'
        shift = -6 if anchor == "end" else 6
        yield (
            f'<text x="{middle + shift:.1f}" y="14" text-anchor="{anchor}" style="fill: var(--bad); font-weight: 600">'
            f"{_e(rows[first].b)}</text>"
        )
    end = "output" if rows[-1].kind == "output" else "output, gradients, updates"
    yield f'<text x="{_LEFT}" y="{_HEIGHT - 6}">first layer</text>'
    yield f'<text x="{_WIDTH - 6}" y="{_HEIGHT - 6}" text-anchor="end">{end}</text></svg></div>'


def _power(decade: int) -> str:
    digits = str(decade).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return {0: "1", 1: "10"}.get(decade, f"10{digits}")


# Pictures ------------------------------------------------------------------------------------------------------------
def _activations(x: Comparison) -> Iterator[str]:
    if not x.pictures:
        return
    yield "<h2>Activations of the first sample</h2>"
    yield "<p class=soft>The channels that differ most; A and B in one scale a channel, the difference in its own.</p>"
    for shown in x.pictures:
        how = "alone: on A's inputs" if shown.isolated else "both models from their inputs on"
        largest = float(np.nanmax(np.abs(np.where(np.isfinite(shown.a - shown.b), shown.a - shown.b, 0.0))))
        channels = ", ".join(map(str, shown.channels))
        yield f"<h3><code>{_e(shown.layer)}</code> <span class='soft'>{how}; channels {channels}</span></h3>"
        yield '<div class="pictures">'
        for title, image in _triptych(shown):
            yield (
                f'<figure><img alt="{title}" src="data:image/png;base64,{image}">'
                f"<figcaption>{title}{f', at most {largest:.3g}' if title == '|B - A|' else ''}</figcaption></figure>"
            )
        yield "</div>"


def _triptych(shown: Pictures) -> Iterator[tuple[str, str]]:
    from agnostic.visualization.colormap import colorize

    scaled = [_scaled(x, y) for x, y in zip(shown.a, shown.b, strict=True)]
    for title, i in (("A", 0), ("B", 1)):
        yield title, _png(_tiled([np.rint(pair[i] * 255).astype(np.uint8) for pair in scaled]))
    delta = [np.nan_to_num(np.abs(y - x), posinf=np.inf) for x, y in zip(shown.a, shown.b, strict=True)]
    largest = max(float(x[np.isfinite(x)].max(initial=0.0)) for x in delta)
    yield "|B - A|", _png(_tiled([colorize(x / largest if largest > 0 else x) for x in delta]))


def _scaled(a: Array, b: Array) -> tuple[Array, Array]:
    """One channel of both in [0, 1], by A's 1st and 99th percentile; what is no number is white."""
    finite = a[np.isfinite(a)]
    low, high = (float(np.percentile(finite, q)) for q in (1, 99)) if finite.size else (0.0, 1.0)
    high = high if high > low else low + 1.0
    first, second = (np.nan_to_num(np.clip((x - low) / (high - low), 0, 1), nan=1.0) for x in (a, b))
    return first, second


_TILE, _GAP, _GREY = 128, 4, 128


def _tiled(tiles: Sequence[Array]) -> Array:
    """Pictures (H, W) or (H, W, 3) as one, two in a row, with a grey line between.

    Small ones are enlarged first: the line would be as wide as their elements.
    """
    times = max(1, _TILE // max(tiles[0].shape[:2]))
    large = [x.repeat(times, 0).repeat(times, 1) for x in tiles]
    height, width = large[0].shape[:2]
    columns = 1 if len(large) == 1 else 2
    lines = -(-len(large) // columns)
    size = (lines * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP)
    out = np.full((*size, *large[0].shape[2:]), _GREY, np.uint8)
    for i, tile in enumerate(large):
        r, c = divmod(i, columns)
        out[r * (height + _GAP) :, c * (width + _GAP) :][:height, :width] = tile
    return out


def _png(pixels: Array) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


# The table -----------------------------------------------------------------------------------------------------------
def _table(x: Comparison) -> Iterator[str]:
    yield "<h2>All layers</h2>"
    yield (
        "<p class=\"soft\">In noise floors. Before: what B's code hands to the layer. Alone: the layer on A's inputs. "
        "All: both models from their inputs on.</p>"
    )
    yield '<div class="scroll"><table><thead><tr><th>A</th><th>B</th><th>kind</th><th>output</th>'
    yield '<th class="n">noise floor</th><th class="n">before</th><th class="n">alone</th><th class="n">all</th></tr>'
    yield "</thead><tbody>"
    for row in (*x.table, *x.output):
        yield _tr(row)
    yield "</tbody></table></div>"


def _tr(row: Row) -> str:
    shape = " × ".join(map(str, row.shape))
    relative = f"{row.floor / row.scale:.1e}" if row.scale else ""
    numbers = "".join(f'<td class="n">{floors(v)}</td>' for v in (row.glue, row.isolated, row.propagated))
    return (
        f'<tr class="{row.verdict}"><td>{_e(row.a or "(no layer)")}</td><td>{_e(row.b)}</td><td>{_e(row.kind)}</td>'
        f'<td>{shape}</td><td class="n">{relative}</td>{numbers}</tr>'
    )


def _rest(x: Comparison) -> Iterator[str]:
    for which, names in x.unmatched.items():
        if names:
            yield f"<h2>Without a partner in {which.upper()}</h2><p class='mono'>{_e(', '.join(names))}</p>"
    if x.notes:
        yield "<h2>Notes</h2><ul>" + "".join(f"<li>{_e(note)}</li>" for note in x.notes) + "</ul>"
