"""Standard output for people: as wide as their terminal, and unbroken where it goes into a file or a pipe.

A log of continuous integration wraps by itself, and what reads it line by line wants whole lines. COLUMNS says otherwise.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

__all__ = ["align_columns", "output", "print_indented"]

_WIDEST = 100_000
"""Columns of a table that is never cut: a CI log is narrow for rich, and is read line by line."""


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command line, which knows the exit codes; rich would end with 1, a closed gate."""
        raise


def output() -> Console:
    """Return the console of standard output; it does not wrap outside a terminal, unless COLUMNS gives a width."""
    return _Output(soft_wrap=not sys.stdout.isatty() and "COLUMNS" not in os.environ)


def print_indented(console: Console, text: str, by: int = 2) -> None:
    """Print plain `text` with all its lines indented, also those that a narrow terminal breaks it into."""
    if console.soft_wrap:
        console.print(Text(" " * by + text))
    else:
        console.print(Padding(Text(text), (0, 0, 0, by), expand=False))


def align_columns(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Return one line for each row of cells, in columns as wide as a terminal draws them; columns `right` are set right.

    Cells hold no line breaks. Characters of East Asian scripts take two places.
    """
    table = Table.grid(padding=(0, 2, 0, 0))
    for index in range(max(map(len, rows), default=0)):
        table.add_column(justify="right" if index in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    drawn = Console(width=_WIDEST, force_terminal=False, color_system=None).render_lines(table, pad=False)
    return ["".join(segment.text for segment in line).rstrip() for line in drawn]
