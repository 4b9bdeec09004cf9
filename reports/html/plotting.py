"""Marks, lines and tables that the report's figures are made of, in plotly's terms.

Traces, lines and labels carry a role (`meta` of a trace, `name` of a line) and no colour; the page's script gives each
role the colour of the reader's theme. Points are drawn as SVG: plotly's WebGL traces compile code at run time, which
the page's content security policy forbids. Thousands of those take seconds and hide each other: a trace draws at most
`MOST_POINTS`, the outermost always among them, and `describe_thinning` says so.
Plotly is imported when a figure is made.
"""

from __future__ import annotations

import html
import json
import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..log.schema import ControlRecord
from ..numbers import format_number
from ..text import count_noun, reads_from_right, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..verdict.edit_summary import EditSummary

__all__ = [
    "LONGEST_HOVER",
    "MOST_POINTS",
    "Figure",
    "Mark",
    "describe_omissions",
    "describe_thinning",
    "draw_line",
    "hover_text",
    "label_line",
    "make_count_axis",
    "make_log_axis",
    "make_mark",
    "make_trace",
    "render_figure",
    "summarise_groups",
    "thin",
]

MOST_POINTS = 1000
LONGEST_HOVER = 70
_CROWD = 300
_OUTERMOST = 10
_MOST_TICKS = 10
_PER_MARK = ("x", "y", "text", "customdata")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One picture: plotly's JSON (safe inside a script element), what to see in it, and the same as a table.

    A `high` one gets more room, for rows that are to be read one by one.
    """

    name: str
    title: str
    caption: str
    data: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    high: bool = False


class Mark(NamedTuple):
    """A point, what hovering over it says, and the anchor of the story that a click opens."""

    x: float
    y: float
    text: str
    anchor: str


def make_mark(story: EditSummary, x: float, y: float, message: str) -> Mark:
    """Return the mark of `story` at (x, y); hovering says its id, its edit and `message`."""
    record = story.record
    change = " → ".join(hover_text(text, LONGEST_HOVER // 2) for text in (record.subject, record.target_new))
    kind = "control" if isinstance(record, ControlRecord) else "edit"
    return Mark(x, y, "<br>".join((hover_text(record.id), change, hover_text(message))), f"{kind}-{story.slug}")


def hover_text(text: str, longest: int = LONGEST_HOVER) -> str:
    """Return `text` as one line that plotly shows as it is written, in hover text, names, titles and ticks."""
    # Plotly reads a few tags, links among them, unless they are escaped; it knows no &quot;, and would show that.
    shown = visible(text[: longest + 1]).replace("\n", " ")
    cut = shown if len(shown) <= longest else f"{shown[: longest - 1]}…"
    # Isolated by characters, for want of elements: two such texts in a line would change places.
    return html.escape(f"\u2068{cut}\u2069" if reads_from_right(cut) else cut, quote=False)


def make_trace(name: str, role: str, marks: Sequence[Mark], symbol: str, size: int = 9) -> dict[str, Any]:
    """Return plotly's scatter trace of `marks`; the page gives it the colour of `role`."""
    many = len(marks) > _CROWD
    size = max(3, round(size * 0.6)) if many else size
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "meta": {"role": role},
        "x": [point.x for point in marks],
        "y": [point.y for point in marks],
        "text": [point.text for point in marks],
        "customdata": [point.anchor for point in marks],
        "hoverinfo": "text",
        "marker": {"symbol": symbol, "size": size, "opacity": _choose_opacity(role, many)},
        "visible": bool(marks),
    }


def _choose_opacity(role: str, many: bool) -> float:
    return 0.45 if role == "prefixed" else 0.6 if many else 0.85


def thin(items: Sequence[T], most: int) -> list[T]:
    """Return at most `most` of `items`, evenly chosen."""
    if len(items) <= most:
        return list(items)
    return [items[index * len(items) // most] for index in range(most)]


def describe_thinning(traces: Sequence[dict[str, Any]]) -> str:
    """Return a note with the count of marks that are drawn, if not all are; otherwise an empty text."""
    total = sum(len(drawn["x"]) for drawn in traces)
    count = sum(min(len(drawn["x"]), MOST_POINTS) for drawn in traces)
    return f" Drawn are {count} of {total} marks." if count < total else ""


def make_count_axis(most: int) -> dict[str, Any]:
    """Return an axis that counts from 1 to `most`: its ticks are whole numbers, and few enough to be read."""
    steps = (nice * 10**power for power in range(12) for nice in (1, 2, 5))
    return {"tick0": 0, "dtick": next(step for step in steps if most / step <= _MOST_TICKS), "tickformat": "d"}


def make_log_axis(values: Sequence[float]) -> dict[str, Any]:
    """Return a logarithmic axis for `values` over 0: a tick a power of ten, and more where they span little over one."""
    wide = max(values) > 30 * min(values)
    return {"type": "log", "dtick": 1 if wide else "D2", "tickformat": ",~g"}


def draw_line(axis: str, at: float) -> dict[str, Any]:
    """Return a dashed line across the figure at the value `at` of `axis`."""
    other = "x" if axis == "y" else "y"
    segment = {"type": "line", "name": "bound", f"{axis}0": at, f"{axis}1": at, f"{other}0": 0, f"{other}1": 1}
    return segment | {f"{other}ref": "paper", "line": {"dash": "dash", "width": 1.5}}


def label_line(axis: str, at: float, text: str) -> dict[str, Any]:
    """Return the label of the line that `draw_line` returns."""
    label: dict[str, Any] = {"name": "bound", "text": text, "showarrow": False}
    if axis == "y":
        # Annotations on a log axis are placed by the logarithm, lines by the value.
        return label | {"xref": "paper", "x": 1, "y": math.log10(at), "xanchor": "right", "yanchor": "bottom"}
    return label | {"yref": "paper", "y": 1, "x": at, "xanchor": "left", "yanchor": "bottom"}


def summarise_groups(
    groups: Iterable[tuple[str, Sequence[float]]], shown: Callable[[float], str] = format_number
) -> tuple[tuple[str, ...], ...]:
    """Return one row a group: name, number, smallest, median and largest."""
    figures_of: list[Callable[[Sequence[float]], float]] = [min, statistics.median, max]
    return tuple(
        (name, str(len(values)), *(shown(f(values)) if values else "–" for f in figures_of)) for name, values in groups
    )


def describe_omissions(many: int, why: str) -> str:
    """Return a note with the count of edits that a figure leaves out, and why; an empty text for none."""
    return (
        f" {count_noun(many, 'edit has', 'edits have')} {why} and {'is' if many == 1 else 'are'} not drawn."
        if many
        else ""
    )


def _thin_trace(drawn: dict[str, Any]) -> dict[str, Any]:
    places = range(len(drawn["x"]))
    if len(places) <= MOST_POINTS:
        return {}
    outer = {place for axis in ("x", "y") for place in _find_outermost(drawn[axis])}
    inner = thin([place for place in places if place not in outer], MOST_POINTS - len(outer))
    places_drawn = sorted([*outer, *inner])
    return {axis: [drawn[axis][place] for place in places_drawn] for axis in _PER_MARK if axis in drawn}


def _find_outermost(values: Sequence[float | None]) -> list[int]:
    """Return the places of the lowest and the highest of `values`. A reader looks for these, so they stay."""
    ranked = sorted((value, place) for place, value in enumerate(values) if value is not None)
    return [place for _, place in (*ranked[:_OUTERMOST], *ranked[-_OUTERMOST:])]


def render_figure(traces: Sequence[dict[str, Any]], layout: dict[str, Any]) -> str:
    """Return the figure as JSON that is safe inside a script element, marks thinned to `MOST_POINTS` a trace."""
    import plotly.graph_objects as go

    thin_traces = [drawn | _thin_trace(drawn) if drawn["type"] == "scatter" else drawn for drawn in traces]
    # Through plotly's own classes, which refuse an attribute that does not exist.
    plain = go.Figure(data=thin_traces, layout=layout).to_plotly_json()
    plain["layout"].pop("template", None)
    return json.dumps(plain, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e")
