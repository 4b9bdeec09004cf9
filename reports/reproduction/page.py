"""The page of a reproduction: what the paper says, what was seen here, and the numbers and pictures behind it.

A pure function of `Reproduction`, which is what ``reproduction.json`` holds. How pictures are drawn is in
`reproduction_figures`; the same tables as files are written by `tables`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..html.page import render_page
from ..html.plotting import Figure
from ..numbers import format_number
from .figures import draw
from .schema import Agreement, Cell, Claim, Experiment, Reproduction, Table, edited

__all__ = ["MOST_ROWS", "render_reproduction"]

MOST_ROWS = 1000
"""A table shows so many rows; the rest is in its files."""

_LONG = 25
"""A table with more rows than that is folded."""

_PROSE = 24
"""A column with a text longer than that may break its lines."""


def render_reproduction(found: Reproduction) -> str:
    """Return the reproduction as one self-contained HTML page."""
    sections = [_section(one) for one in found.experiments]
    return render_page(
        "reproduction.html.j2",
        [figure for section in sections for figure in section.figures],
        filters={"duration": _duration},
        r=found,
        edited=edited(found.cases),
        sections=sections,
        tally=_tally(claim for one in found.experiments for claim in one.claims),
        without=Counter(one.standing for one in found.experiments if one.skipped is not None),
    )


class _Tally(NamedTuple):
    agree: int
    differ: int
    open: int

    @property
    def total(self) -> int:
        return self.agree + self.differ + self.open


class _Column(NamedTuple):
    title: str
    kind: str


class _Shown(NamedTuple):
    table: Table
    columns: list[_Column]
    rows: list[list[str]]
    folded: bool


class _Section(NamedTuple):
    experiment: Experiment
    tally: _Tally
    tables: list[_Shown]
    figures: list[Figure]


def _section(experiment: Experiment) -> _Section:
    tables = [_shown(table) for table in experiment.tables]
    return _Section(experiment, _tally(experiment.claims), tables, [draw(one) for one in experiment.pictures])


def _tally(claims: Iterable[Claim]) -> _Tally:
    seen = [claim.agreement for claim in claims]
    return _Tally(*(seen.count(one) for one in (Agreement.YES, Agreement.NO, Agreement.OPEN)))


def _shown(table: Table) -> _Shown:
    columns = [_Column(title, _kind([row[index] for row in table.rows])) for index, title in enumerate(table.columns)]
    rows = [[_cell(one) for one in row] for row in table.rows[:MOST_ROWS]]
    return _Shown(table, columns, rows, folded=len(table.rows) > _LONG)


def _kind(cells: Sequence[Cell]) -> str:
    """Return the class of a column: ``n`` for numbers, ``prose`` for long texts."""
    texts = [one for one in cells if isinstance(one, str | bool)]
    if not texts:
        return "n"
    return "prose" if any(isinstance(one, str) and len(one) > _PROSE for one in texts) else ""


def _cell(value: Cell) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else format_number(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
