"""Standard output for people: as wide as their terminal, and unbroken where it goes into a file or a pipe.

A log of continuous integration wraps by itself, and what reads it line by line wants whole lines. COLUMNS says otherwise.
"""

from __future__ import annotations

import os
import sys

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

__all__ = ["output", "print_indented"]


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
