"""A reproduction as Markdown: for a job's summary, a pull request, or a page of documentation.

A pure function of `Reproduction`. Pictures are left out; what they show stands in the tables.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..markdown_escaping import escaped, grid
from ..numbers import format_number
from ..text import count_noun
from .schema import Cell, Experiment, Reproduction, Table, edited

__all__ = ["MOST_ROWS", "render_markdown"]

MOST_ROWS = 60
"""A table shows so many rows; the rest is in its files."""


def render_markdown(found: Reproduction, level: int = 1) -> str:
    """Return the reproduction as Markdown whose title is a heading of `level`."""
    return "\n".join(_lines(found, "#" * level)) + "\n"


def _lines(found: Reproduction, mark: str) -> Iterator[str]:
    yield f"{mark} The Fall of ROME on {escaped(found.model)}"
    yield ""
    yield (
        f"Layer {found.layer} of {found.layers}, {count_noun(found.requests, 'request')} of {escaped(found.source)}, seed "
        f"{found.seed}, C from {escaped(found.statistics)}. Edited: {escaped(edited(found.cases))}."
    )
    for one in found.experiments:
        yield from _experiment(one, f"{mark}#")


def _experiment(one: Experiment, mark: str) -> Iterator[str]:
    yield ""
    yield f"{mark} {one.number}. {escaped(one.title)}"
    yield ""
    yield f"{escaped(one.question)} (Source: {escaped(one.source)}.)"
    if one.skipped is not None:
        yield ""
        yield f"{one.standing.capitalize()}: {escaped(one.skipped)}"
    if one.claims:
        yield ""
        yield from grid(
            ["the paper", "here", "", "the same if"],
            [[*map(escaped, (claim.paper, claim.here, claim.agreement.value, claim.rule))] for claim in one.claims],
        )
    for table in one.tables:
        yield from _table(table)
    for note in one.notes:
        yield ""
        yield escaped(note)


def _table(table: Table) -> Iterator[str]:
    yield ""
    yield f"{escaped(table.title)}{f' ({len(table.rows)} rows)' if len(table.rows) > MOST_ROWS else ''}:"
    yield ""
    yield from grid(table.columns, [[*map(_cell, row)] for row in table.rows[:MOST_ROWS]])
    if len(table.rows) > MOST_ROWS:
        yield ""
        yield f"{count_noun(len(table.rows) - MOST_ROWS, 'more row is', 'more rows are')} in {table.name}.csv."
    if table.note:
        yield ""
        yield escaped(table.note)


def _cell(value: Cell) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return escaped(value) if isinstance(value, str) else format_number(value)
