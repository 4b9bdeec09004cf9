"""Markdown's building blocks: text in which no reader finds a mark, and tables.

`escaped` is for text of any origin. Backslashes and entities keep it from being read as Markdown or HTML. Sites that
show Markdown also look for links, mentions, references and emoji in what was rendered (``www.``, ``@name``, ``#1``), and
know no escape for them: a zero-width space behind the sign keeps those apart.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from .text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["escaped", "grid"]

_MARKS = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]|#~$"})
_SIGNS = re.compile(r"([@#!$~%^:&](?=[\w/])|www(?=\.))", re.IGNORECASE)
_START = re.compile(r"^(\d+(?=[.)](?:\s|$))|)([-+=.)])")
_APART = "\u200b"


def escaped(text: str) -> str:
    """Return text that no reader of Markdown takes for a mark, in one line."""
    line = visible(text).replace("\n", " ").strip()
    apart = _SIGNS.sub(rf"\1{_APART}", line)
    return _START.sub(r"\1\\\2", html.escape(apart, quote=False).translate(_MARKS))


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a table's lines; cells are taken as they stand, so escape them first."""
    yield "| " + " | ".join(map(escaped, columns)) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
