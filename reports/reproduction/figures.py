"""The pictures of a reproduction for plotly: points, lines and grids, each with a short table of its numbers.

A group's role (``group-1`` to ``group-6``) names its colour in the page's style sheet. Symbols and dashes repeat at other
steps than colours, so that two groups of the same colour still look different. Names, labels and titles come from models
and files. Plotly reads markup in them, so they all go through `hover_text`.
"""

from __future__ import annotations

import math
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from ..html.plotting import Figure, Mark, describe_thinning, hover_text, make_trace, render_figure, summarise_groups
from ..numbers import format_number
from ..text import count_noun
from .schema import Curves, Group, Heat, Scatter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["draw"]

_COLOURS = 6
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "star", "triangle-down")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_LONGEST_NAME, _LONGEST_TICK = 40, 22
_MOST_MARKED_POINTS = 60
"""The most points of a curve that are marked."""
_TALL_GRID_ROWS = 18
"""A grid with this many rows or more is drawn higher."""
_MANY_GROUPS = 6
"""A picture with this many groups or more is drawn higher, since the legend fills much of a phone's picture."""
_MOST_DECADES = 7


def draw(picture: Scatter | Curves | Heat) -> Figure:
    """Return `picture` as a figure of the page."""
    if isinstance(picture, Heat):
        return _draw_heat(picture)
    return _draw_scatter(picture) if isinstance(picture, Scatter) else _draw_curves(picture)


# ------------------------------------------------------------------------------------------------ points and lines


class _PlacedMarks(NamedTuple):
    marks: list[Mark]
    omitted: int


def _place_marks(picture: Scatter | Curves, group: Group) -> _PlacedMarks:
    """Return the marks of `group`, and the number of points that have no place on a logarithmic axis."""
    log_x, log_y = isinstance(picture, Scatter) and picture.log_x, picture.log_y
    labels = group.labels or [""] * len(group.x)
    marks = [
        Mark(x, y, "<br>".join(_list_hover_lines(picture, group, label, x, y)), "")
        for x, y, label in zip(group.x, group.y, labels, strict=True)
        if not (log_x and x <= 0) and not (log_y and y <= 0)
    ]
    return _PlacedMarks(marks, len(labels) - len(marks))


def _list_hover_lines(picture: Scatter | Curves, group: Group, label: str, x: float, y: float) -> Iterator[str]:
    yield hover_text(group.name)
    if label:
        yield hover_text(label)
    for title, value in ((picture.x_title, x), (picture.y_title, y)):
        if title:
            yield f"{hover_text(title)}: {format_number(value)}"


def _draw_scatter(picture: Scatter) -> Figure:
    placements = [_place_marks(picture, group) for group in picture.groups]
    traces = [
        make_trace(
            hover_text(group.name, _LONGEST_NAME), _choose_role(index), placement.marks, _SYMBOLS[index % len(_SYMBOLS)]
        )
        for index, (group, placement) in enumerate(zip(picture.groups, placements, strict=True))
    ]
    layout = {"xaxis": _make_axis(picture.x_title, picture.log_x), "yaxis": _make_axis(picture.y_title, picture.log_y)}
    return Figure(
        name=picture.name,
        title=picture.title,
        caption=picture.caption + _describe_omitted_points(placements) + describe_thinning(traces),
        data=render_figure(traces, layout | {"showlegend": True}),
        columns=("Group", "Points", f"{picture.x_title or 'x'}, mean", f"{picture.y_title or 'y'}, mean"),
        rows=tuple(
            (group.name, str(len(group.x)), _format_mean(group.x), _format_mean(group.y)) for group in picture.groups
        ),
        high=len(picture.groups) >= _MANY_GROUPS,
    )


def _draw_curves(picture: Curves) -> Figure:
    placements = [_place_marks(picture, group) for group in picture.groups]
    traces = [
        _make_curve_trace(group, placement.marks, index)
        for index, (group, placement) in enumerate(zip(picture.groups, placements, strict=True))
    ]
    layout = {"xaxis": _make_axis(picture.x_title), "yaxis": _make_axis(picture.y_title, picture.log_y)}
    y = picture.y_title or "y"
    return Figure(
        name=picture.name,
        title=picture.title,
        caption=picture.caption + _describe_omitted_points(placements) + describe_thinning(traces),
        data=render_figure(traces, layout | {"showlegend": True}),
        columns=("Group", "Points", f"{y}, smallest", "median", "largest"),
        rows=summarise_groups((group.name, group.y) for group in picture.groups),
        high=len(picture.groups) >= _MANY_GROUPS,
    )


def _make_curve_trace(group: Group, marks: Sequence[Mark], index: int) -> dict[str, Any]:
    trace = make_trace(
        hover_text(group.name, _LONGEST_NAME), _choose_role(index), marks, _SYMBOLS[index % len(_SYMBOLS)], size=7
    )
    mode = "lines+markers" if len(marks) <= _MOST_MARKED_POINTS else "lines"
    return trace | {"mode": mode, "line": {"dash": _DASHES[index % len(_DASHES)]}}


def _choose_role(index: int) -> str:
    return f"group-{index % _COLOURS + 1}"


def _make_axis(title: str, log: bool = False) -> dict[str, Any]:
    if not title:
        return {"showticklabels": False, "zeroline": False, "showgrid": False, "ticks": ""}
    axis = {"title": {"text": hover_text(title)}, "zeroline": False, "exponentformat": "power"}
    return axis | ({"type": "log"} if log else {})


def _describe_omitted_points(placements: Iterable[_PlacedMarks]) -> str:
    omitted = sum(placement.omitted for placement in placements)
    subject = count_noun(omitted, "point is", "points are")
    return f" {subject} zero or below and not drawn: the axis is logarithmic." if omitted else ""


def _format_mean(values: Sequence[float]) -> str:
    # Each value is divided first: a sum of perplexities after collapse can exceed the largest float.
    return format_number(math.fsum(value / len(values) for value in values)) if values else "–"


# ----------------------------------------------------------------------------------------------------------- grids


def _draw_heat(picture: Heat) -> Figure:
    unmeasured = [cell for cell in _list_cells(picture) if cell.value is None]
    unplaced = [cell for cell in _list_cells(picture) if picture.log and cell.value is not None and cell.value <= 0]
    gaps = _make_mark_trace(picture, "not measured", "x-thin-open", unmeasured)
    zeros = _make_mark_trace(picture, "zero or below", "circle-open", unplaced)
    layout = {
        "xaxis": _make_label_axis(picture.x_title, picture.x) | {"range": [-0.5, len(picture.x) - 0.5]},
        "yaxis": _make_label_axis(picture.y_title, picture.y) | {"range": [len(picture.y) - 0.5, -0.5]},
        "showlegend": False,
    }
    notes = " A cross stands for what was not measured." if gaps["x"] else ""
    notes += " A ring stands for zero or below, which has no place among logarithmic colours." if zeros["x"] else ""
    return Figure(
        name=picture.name,
        title=picture.title,
        caption=picture.caption + notes,
        data=render_figure([_make_grid_trace(picture), *(trace for trace in (gaps, zeros) if trace["x"])], layout),
        columns=(picture.y_title or "Row", "Measured", "Smallest", "at", "Largest", "at"),
        rows=tuple(_list_extremes(picture, label, row) for label, row in zip(picture.y, picture.z, strict=True)),
        high=len(picture.y) >= _TALL_GRID_ROWS,
    )


class _Cell(NamedTuple):
    row: int
    column: int
    value: float | None


def _list_cells(picture: Heat) -> Iterator[_Cell]:
    for row, values in enumerate(picture.z):
        for column, value in enumerate(values):
            yield _Cell(row, column, value)


def _make_grid_trace(picture: Heat) -> dict[str, Any]:
    values = [cell.value for cell in _list_cells(picture) if cell.value is not None]
    colours = [[_scale_value(picture, value) for value in row] for row in picture.z]
    diverging = not picture.log and min(values, default=0) < 0 < max(values, default=0)
    bounds = {"zmin": -max(map(abs, values)), "zmax": max(map(abs, values))} if diverging else {}
    text = [
        [_format_hover(picture, row, column, value) for column, value in enumerate(values)]
        for row, values in enumerate(picture.z)
    ]
    return bounds | {
        "type": "heatmap",
        "meta": {"role": "group-1"} | ({"below": "group-2"} if diverging else {}),
        "x": list(range(len(picture.x))),
        "y": list(range(len(picture.y))),
        "z": colours,
        "text": text,
        "hoverinfo": "text",
        "hoverongaps": False,
        "colorbar": _make_colour_bar(picture, colours),
    }


def _scale_value(picture: Heat, value: float | None) -> float | None:
    if value is None or not picture.log:
        return value
    return math.log10(value) if value > 0 else None


def _make_colour_bar(picture: Heat, colours: list[list[float | None]]) -> dict[str, Any]:
    """Return the scale beside the grid. A scale of logarithms is labelled with the values."""
    title = {"title": {"text": hover_text(picture.z_title, _LONGEST_NAME)}}
    logarithms = [colour for row in colours for colour in row if colour is not None]
    if not picture.log or not logarithms:
        return title
    low, high = math.ceil(min(logarithms)), math.floor(max(logarithms))
    exponents = list(range(low, high + 1, max(1, math.ceil((high - low) / _MOST_DECADES))))
    if len(exponents) < 2:
        ends = sorted({min(logarithms), max(logarithms)})
        return title | {"tickvals": ends, "ticktext": [format_number(10**end, 2) for end in ends]}
    return title | {"tickvals": exponents, "ticktext": [f"10<sup>{exponent}</sup>" for exponent in exponents]}


def _make_mark_trace(picture: Heat, name: str, symbol: str, cells: Sequence[_Cell]) -> dict[str, Any]:
    marks = [Mark(cell.column, cell.row, _format_hover(picture, *cell), "") for cell in cells]
    return make_trace(name, "dim", marks, symbol, size=6) | {"marker": {"symbol": symbol, "size": 6}}


def _format_hover(picture: Heat, row: int, column: int, value: float | None) -> str:
    places = ((picture.y_title, picture.y[row]), (picture.x_title, picture.x[column]))
    lines = [f"{hover_text(title)}: {hover_text(label)}" if title else hover_text(label) for title, label in places]
    return "<br>".join([*lines, f"{hover_text(picture.z_title)}: {format_number(value)}"])


def _make_label_axis(title: str, labels: Sequence[str]) -> dict[str, Any]:
    # Ticks stand at positions, not at labels: plotly would merge equal labels, and read some as numbers or dates.
    ticks = {"tickmode": "array", "tickvals": list(range(len(labels)))}
    axis = {"title": {"text": hover_text(title)}, "zeroline": False, "showgrid": False, "ticks": ""}
    return axis | ticks | {"ticktext": [hover_text(label, _LONGEST_TICK) for label in labels]}


def _list_extremes(picture: Heat, label: str, row: Sequence[float | None]) -> tuple[str, ...]:
    measured = [(value, name) for value, name in zip(row, picture.x, strict=True) if value is not None]
    if not measured:
        return (label, "0", *["–"] * 4)
    low, high = min(measured, key=itemgetter(0)), max(measured, key=itemgetter(0))
    return (label, str(len(measured)), format_number(low[0]), low[1], format_number(high[0]), high[1])
