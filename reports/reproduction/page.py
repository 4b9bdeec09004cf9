"""The page of a reproduction: statements of the paper, the results here, and their numbers and pictures.

A pure function of `Reproduction`, the content of ``reproduction.json``. The module `figures` draws the pictures.
The module `tables` writes the same tables as files.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from ..html.page import render_page
from ..numbers import format_number
from .figures import draw
from .schema import Agreement, Cell, Claim, Experiment, Reproduction, Table, describe_cases

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..html.plotting import Figure

__all__ = ["MOST_ROWS", "render_reproduction"]

MOST_ROWS = 1000
"""The most rows of a table on the page. The rest is in its files."""

_MOST_UNFOLDED_ROWS = 25
"""A table with more rows is folded."""

_LONGEST_SHORT_TEXT = 24
"""A column with a longer text may break its lines."""


def render_reproduction(reproduction: Reproduction) -> str:
    """Return the reproduction as one self-contained HTML page."""
    sections = [_build_section(experiment) for experiment in reproduction.experiments]
    return render_page(
        "reproduction.html.j2",
        [figure for section in sections for figure in section.figures],
        filters={"duration": _format_duration},
        r=reproduction,
        edited=describe_cases(reproduction.cases),
        sections=sections,
        tally=_count_agreements(claim for experiment in reproduction.experiments for claim in experiment.claims),
        without=Counter(
            experiment.standing for experiment in reproduction.experiments if experiment.skipped is not None
        ),
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


class _TableView(NamedTuple):
    table: Table
    columns: list[_Column]
    rows: list[list[str]]
    folded: bool


class _Section(NamedTuple):
    experiment: Experiment
    tally: _Tally
    tables: list[_TableView]
    figures: list[Figure]


def _build_section(experiment: Experiment) -> _Section:
    return _Section(
        experiment,
        _count_agreements(experiment.claims),
        tables=[_format_table(table) for table in experiment.tables],
        figures=[draw(picture) for picture in experiment.pictures],
    )


def _count_agreements(claims: Iterable[Claim]) -> _Tally:
    counts = Counter(claim.agreement for claim in claims)
    return _Tally(agree=counts[Agreement.YES], differ=counts[Agreement.NO], open=counts[Agreement.OPEN])


def _format_table(table: Table) -> _TableView:
    columns = [
        _Column(title, _choose_column_class([row[index] for row in table.rows]))
        for index, title in enumerate(table.columns)
    ]
    rows = [[_format_cell(cell) for cell in row] for row in table.rows[:MOST_ROWS]]
    return _TableView(table, columns, rows, folded=len(table.rows) > _MOST_UNFOLDED_ROWS)


def _choose_column_class(cells: Sequence[Cell]) -> str:
    """Return the class of a column: ``n`` for numbers, ``prose`` for long texts."""
    texts = [cell for cell in cells if isinstance(cell, str | bool)]
    if not texts:
        return "n"
    return "prose" if any(isinstance(text, str) and len(text) > _LONGEST_SHORT_TEXT for text in texts) else ""


def _format_cell(value: Cell) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else format_number(value)


def _format_duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
