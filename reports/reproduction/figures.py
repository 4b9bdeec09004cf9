"""The pictures of a reproduction, in plotly's terms: points, lines and grids, each with a table that says the same in short.

A group's role (``group-1`` to ``group-6``) names its colour in the page's style sheet; symbols and dashes differ as well
and repeat at other steps, so that two groups of one colour still look different. Names, labels and titles come from
models and files, and plotly reads markup in them: they all go through `hover_text`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ..html.plotting import Figure, Mark, describe_thinning, hover_text, make_trace, render_figure, summarise_groups
from ..numbers import format_number
from ..text import count_noun
from .schema import Curves, Group, Heat, Scatter

__all__ = ["draw"]

_COLOURS = 6
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "star", "triangle-down")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_LONGEST_NAME, _LONGEST_TICK = 40, 22
_FEW_POINTS = 60
"""Up to so many points of a curve are marked."""
_HIGH = 18
"""From so many rows on, a grid gets more room."""
_MANY_GROUPS = 6
"""From so many groups on, the legend takes so much of a phone's picture that the picture gets more room."""
_MOST_DECADES = 7


def draw(picture: Scatter | Curves | Heat) -> Figure:
    """Return `picture` as a figure of the page."""
    if isinstance(picture, Heat):
        return _heat(picture)
    return _scatter(picture) if isinstance(picture, Scatter) else _curves(picture)


# ------------------------------------------------------------------------------------------------ points and lines


class _Drawable(NamedTuple):
    marks: list[Mark]
    undrawable: int


def _drawable(picture: Scatter | Curves, group: Group) -> _Drawable:
    """Return the marks of `group`, and how many have no place on a logarithmic axis."""
    log_x, log_y = isinstance(picture, Scatter) and picture.log_x, picture.log_y
    labels = group.labels or [""] * len(group.x)
    marks = [
        Mark(x, y, "<br>".join(_said(picture, group, label, x, y)), "")
        for x, y, label in zip(group.x, group.y, labels, strict=True)
        if not (log_x and x <= 0) and not (log_y and y <= 0)
    ]
    return _Drawable(marks, len(labels) - len(marks))


def _said(picture: Scatter | Curves, group: Group, label: str, x: float, y: float) -> Iterator[str]:
    yield hover_text(group.name)
    if label:
        yield hover_text(label)
    for title, value in ((picture.x_title, x), (picture.y_title, y)):
        if title:
            yield f"{hover_text(title)}: {format_number(value)}"


def _scatter(picture: Scatter) -> Figure:
    found = [_drawable(picture, group) for group in picture.groups]
    traces = [
        make_trace(hover_text(group.name, _LONGEST_NAME), _role(index), one.marks, _SYMBOLS[index % len(_SYMBOLS)])
        for index, (group, one) in enumerate(zip(picture.groups, found, strict=True))
    ]
    layout = {"xaxis": _axis(picture.x_title, picture.log_x), "yaxis": _axis(picture.y_title, picture.log_y)}
    return Figure(
        name=picture.name,
        title=picture.title,
        caption=picture.caption + _undrawable(found) + describe_thinning(traces),
        data=render_figure(traces, layout | {"showlegend": True}),
        columns=("Group", "Points", f"{picture.x_title or 'x'}, mean", f"{picture.y_title or 'y'}, mean"),
        rows=tuple((group.name, str(len(group.x)), _mean(group.x), _mean(group.y)) for group in picture.groups),
        high=len(picture.groups) >= _MANY_GROUPS,
    )


def _curves(picture: Curves) -> Figure:
    found = [_drawable(picture, group) for group in picture.groups]
    traces = [_curve(group, one.marks, n) for n, (group, one) in enumerate(zip(picture.groups, found, strict=True))]
    layout = {"xaxis": _axis(picture.x_title), "yaxis": _axis(picture.y_title, picture.log_y)}
    y = picture.y_title or "y"
    return Figure(
        name=picture.name,
        title=picture.title,
        caption=picture.caption + _undrawable(found) + describe_thinning(traces),
        data=render_figure(traces, layout | {"showlegend": True}),
        columns=("Group", "Points", f"{y}, smallest", "median", "largest"),
        rows=summarise_groups((group.name, group.y) for group in picture.groups),
        high=len(picture.groups) >= _MANY_GROUPS,
    )


def _curve(group: Group, marks: Sequence[Mark], index: int) -> dict[str, Any]:
    drawn = make_trace(
        hover_text(group.name, _LONGEST_NAME), _role(index), marks, _SYMBOLS[index % len(_SYMBOLS)], size=7
    )
    mode = "lines+markers" if len(marks) <= _FEW_POINTS else "lines"
    return drawn | {"mode": mode, "line": {"dash": _DASHES[index % len(_DASHES)]}}


def _role(index: int) -> str:
    return f"group-{index % _COLOURS + 1}"


def _axis(title: str, log: bool = False) -> dict[str, Any]:
    if not title:
        return {"showticklabels": False, "zeroline": False, "showgrid": False, "ticks": ""}
    axis = {"title": {"text": hover_text(title)}, "zeroline": False, "exponentformat": "power"}
    return axis | ({"type": "log"} if log else {})


def _undrawable(found: Iterable[_Drawable]) -> str:
    many = sum(one.undrawable for one in found)
    what = count_noun(many, "point is", "points are")
    return f" {what} zero or below and not drawn: the axis is logarithmic." if many else ""


def _mean(values: Sequence[float]) -> str:
    # Divided first: a sum of perplexities after collapse can exceed the largest float.
    return format_number(math.fsum(value / len(values) for value in values)) if values else "–"


# ----------------------------------------------------------------------------------------------------------- grids


def _heat(picture: Heat) -> Figure:
    gaps = _crosses(picture, "not measured", "x-thin-open", [one for one in _cells(picture) if one.value is None])
    unplaced = [one for one in _cells(picture) if picture.log and one.value is not None and one.value <= 0]
    zeros = _crosses(picture, "zero or below", "circle-open", unplaced)
    layout = {
        "xaxis": _labelled(picture.x_title, picture.x) | {"range": [-0.5, len(picture.x) - 0.5]},
        "yaxis": _labelled(picture.y_title, picture.y) | {"range": [len(picture.y) - 0.5, -0.5]},
        "showlegend": False,
    }
    notes = " A cross stands for what was not measured." if gaps["x"] else ""
    notes += " A ring stands for zero or below, which has no place among logarithmic colours." if zeros["x"] else ""
    return Figure(
        name=picture.name,
        title=picture.title,
        caption=picture.caption + notes,
        data=render_figure([_grid(picture), *(one for one in (gaps, zeros) if one["x"])], layout),
        columns=(picture.y_title or "Row", "Measured", "Smallest", "at", "Largest", "at"),
        rows=tuple(_extremes(picture, label, row) for label, row in zip(picture.y, picture.z, strict=True)),
        high=len(picture.y) >= _HIGH,
    )


class _Cell(NamedTuple):
    row: int
    column: int
    value: float | None


def _cells(picture: Heat) -> Iterator[_Cell]:
    for row, values in enumerate(picture.z):
        for column, value in enumerate(values):
            yield _Cell(row, column, value)


def _grid(picture: Heat) -> dict[str, Any]:
    values = [one.value for one in _cells(picture) if one.value is not None]
    colours = [[_colour(picture, value) for value in row] for row in picture.z]
    diverging = not picture.log and min(values, default=0) < 0 < max(values, default=0)
    bounds = {"zmin": -max(map(abs, values)), "zmax": max(map(abs, values))} if diverging else {}
    text = [[_told(picture, row, n, value) for n, value in enumerate(line)] for row, line in enumerate(picture.z)]
    return bounds | {
        "type": "heatmap", "meta": {"role": "group-1"} | ({"below": "group-2"} if diverging else {}),
        "x": list(range(len(picture.x))), "y": list(range(len(picture.y))), "z": colours, "text": text,
        "hoverinfo": "text", "hoverongaps": False, "colorbar": _bar(picture, colours),
    }  # fmt: skip


def _colour(picture: Heat, value: float | None) -> float | None:
    if value is None or not picture.log:
        return value
    return math.log10(value) if value > 0 else None


def _bar(picture: Heat, colours: list[list[float | None]]) -> dict[str, Any]:
    """Return the scale beside the grid; of logarithms it names the values."""
    title = {"title": {"text": hover_text(picture.z_title, _LONGEST_NAME)}}
    logarithms = [one for row in colours for one in row if one is not None]
    if not picture.log or not logarithms:
        return title
    low, high = math.ceil(min(logarithms)), math.floor(max(logarithms))
    at = list(range(low, high + 1, max(1, math.ceil((high - low) / _MOST_DECADES))))
    if len(at) < 2:
        ends = sorted({min(logarithms), max(logarithms)})
        return title | {"tickvals": ends, "ticktext": [format_number(10**one, 2) for one in ends]}
    return title | {"tickvals": at, "ticktext": [f"10<sup>{one}</sup>" for one in at]}


def _crosses(picture: Heat, name: str, symbol: str, cells: Sequence[_Cell]) -> dict[str, Any]:
    marks = [Mark(one.column, one.row, _told(picture, *one), "") for one in cells]
    return make_trace(name, "dim", marks, symbol, size=6) | {"marker": {"symbol": symbol, "size": 6}}


def _told(picture: Heat, row: int, column: int, value: float | None) -> str:
    places = ((picture.y_title, picture.y[row]), (picture.x_title, picture.x[column]))
    lines = [f"{hover_text(title)}: {hover_text(label)}" if title else hover_text(label) for title, label in places]
    return "<br>".join([*lines, f"{hover_text(picture.z_title)}: {format_number(value)}"])


def _labelled(title: str, labels: Sequence[str]) -> dict[str, Any]:
    # By position, and not by label: plotly would merge equal labels, and read some as numbers or dates.
    ticks = {"tickmode": "array", "tickvals": list(range(len(labels)))}
    axis = {"title": {"text": hover_text(title)}, "zeroline": False, "showgrid": False, "ticks": ""}
    return axis | ticks | {"ticktext": [hover_text(label, _LONGEST_TICK) for label in labels]}


def _extremes(picture: Heat, label: str, row: Sequence[float | None]) -> tuple[str, ...]:
    measured = [(value, at) for value, at in zip(row, picture.x, strict=True) if value is not None]
    if not measured:
        return (label, "0", *["–"] * 4)
    low, high = min(measured, key=lambda one: one[0]), max(measured, key=lambda one: one[0])
    return (label, str(len(measured)), format_number(low[0]), low[1], format_number(high[0]), high[1])
