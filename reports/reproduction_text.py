"""A reproduction as Markdown: for a job's summary, a pull request, or a page of documentation.

A pure function of `Reproduction`. Pictures are left out; what they show stands in the tables.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from .numbers import number
from .reproduction import Cell, Experiment, Reproduction, Table, edited
from .text import counted, visible

__all__ = ["MOST_ROWS", "render_markdown"]

MOST_ROWS = 60
"""A table shows so many rows; the rest is in its files."""
_MARKS = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]|#"})


def render_markdown(found: Reproduction, level: int = 1) -> str:
    """Return the reproduction as Markdown whose title is a heading of `level`."""
    return "\n".join(_lines(found, "#" * level)) + "\n"


def _lines(found: Reproduction, mark: str) -> Iterator[str]:
    yield f"{mark} The Fall of ROME on {_text(found.model)}"
    yield ""
    yield (
        f"Layer {found.layer} of {found.layers}, {counted(found.requests, 'request')} of {_text(found.source)}, seed "
        f"{found.seed}, C from {_text(found.statistics)}. Edited: {_text(edited(found.cases))}."
    )
    for one in found.experiments:
        yield from _experiment(one, f"{mark}#")


def _experiment(one: Experiment, mark: str) -> Iterator[str]:
    yield ""
    yield f"{mark} {one.number}. {_text(one.title)}"
    yield ""
    yield f"{_text(one.question)} (Source: {_text(one.source)}.)"
    if one.skipped is not None:
        yield ""
        yield f"Not run: {_text(one.skipped)}"
    if one.claims:
        yield ""
        yield from _grid(
            ["the paper", "here", "", "the same if"],
            [[claim.paper, claim.here, claim.agreement.value, claim.rule] for claim in one.claims],
        )
    for table in one.tables:
        yield from _table(table)
    for note in one.notes:
        yield ""
        yield _text(note)


def _table(table: Table) -> Iterator[str]:
    yield ""
    yield f"{_text(table.title)}{f' ({len(table.rows)} rows)' if len(table.rows) > MOST_ROWS else ''}:"
    yield ""
    yield from _grid(table.columns, table.rows[:MOST_ROWS])
    if len(table.rows) > MOST_ROWS:
        yield ""
        yield f"{len(table.rows) - MOST_ROWS} more rows are in {table.name}.csv."
    if table.note:
        yield ""
        yield _text(table.note)


def _grid(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Iterator[str]:
    yield "| " + " | ".join(map(_text, columns)) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(map(_cell, row)) + " |"


def _cell(value: Cell) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _text(value) if isinstance(value, str) else number(value)


def _text(text: str) -> str:
    """Return text that no reader of Markdown takes for a mark, in one line."""
    return html.escape(visible(text).replace("\n", " "), quote=False).translate(_MARKS)
