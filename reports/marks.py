"""Markdown's building blocks: text in which no reader finds a mark, and tables."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from .text import visible

__all__ = ["escaped", "grid"]

_MARKS = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]|#"})


def escaped(text: str) -> str:
    """Return text that no reader of Markdown takes for a mark, in one line."""
    return html.escape(visible(text).replace("\n", " "), quote=False).translate(_MARKS)


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a table's lines; cells are taken as they stand, so escape them first."""
    yield "| " + " | ".join(map(escaped, columns)) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
