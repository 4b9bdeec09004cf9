"""A reproduction as Markdown: for a job's summary, a pull request, or a page of documentation.

A pure function of `Reproduction`. Pictures are left out; the tables hold the same numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..markdown_escaping import escaped, grid
from ..numbers import format_number
from ..text import count_noun
from .schema import Cell, Experiment, Reproduction, Table, describe_cases

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MOST_ROWS", "render_markdown"]

MOST_ROWS = 60
"""The most rows of a table in the text. The rest is in its files."""


def render_markdown(reproduction: Reproduction, level: int = 1) -> str:
    """Return the reproduction as Markdown whose title is a heading of `level`."""
    return "\n".join(_write_lines(reproduction, "#" * level)) + "\n"


def _write_lines(reproduction: Reproduction, mark: str) -> Iterator[str]:
    yield f"{mark} The Fall of ROME on {escaped(reproduction.model)}"
    yield ""
    yield (
        f"Layer {reproduction.layer} of {reproduction.layers}, "
        f"{count_noun(reproduction.requests, 'request')} of {escaped(reproduction.source)}, "
        f"seed {reproduction.seed}, C from {escaped(reproduction.statistics)}. "
        f"Edited: {escaped(describe_cases(reproduction.cases))}."
    )
    for experiment in reproduction.experiments:
        yield from _write_experiment(experiment, f"{mark}#")


def _write_experiment(experiment: Experiment, mark: str) -> Iterator[str]:
    yield ""
    yield f"{mark} {experiment.number}. {escaped(experiment.title)}"
    yield ""
    yield f"{escaped(experiment.question)} (Source: {escaped(experiment.source)}.)"
    if experiment.skipped is not None:
        yield ""
        yield f"{experiment.standing.capitalize()}: {escaped(experiment.skipped)}"
    if experiment.claims:
        yield ""
        yield from grid(
            ["the paper", "here", "", "the same if"],
            [
                [*map(escaped, (claim.paper, claim.here, claim.agreement.value, claim.rule))]
                for claim in experiment.claims
            ],
        )
    for table in experiment.tables:
        yield from _write_table(table)
    for note in experiment.notes:
        yield ""
        yield escaped(note)


def _write_table(table: Table) -> Iterator[str]:
    yield ""
    yield f"{escaped(table.title)}{f' ({len(table.rows)} rows)' if len(table.rows) > MOST_ROWS else ''}:"
    yield ""
    yield from grid(table.columns, [[*map(_format_cell, row)] for row in table.rows[:MOST_ROWS]])
    if len(table.rows) > MOST_ROWS:
        yield ""
        yield f"{count_noun(len(table.rows) - MOST_ROWS, 'more row is', 'more rows are')} in {table.name}.csv."
    if table.note:
        yield ""
        yield escaped(table.note)


def _format_cell(value: Cell) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return escaped(value) if isinstance(value, str) else format_number(value)
