"""Pages with generated parts: each part stands between two comments, and all else of a page is written by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

__all__ = ["filled", "parts_of", "table"]

# The second pair of comments keeps the prose lint off the text between them.
_HEAD, _FOOT = "<!-- vale off -->", "<!-- vale on -->"
_END = "<!-- end of generated part -->"
_PART = re.compile(rf"^<!-- generated: ([\w-]+) -->\n(?:.*?)^{re.escape(_END)}$", re.DOTALL | re.MULTILINE)


def parts_of(page: str) -> list[str]:
    """Return the names of a page's generated parts, in order."""
    return [found[1] for found in _PART.finditer(page)]


def filled(page: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """Return `page` with each generated part written anew.

    Raises:
        KeyError: a part that nobody generates.
    """

    def fill(found: re.Match[str]) -> str:
        text = parts[found[1]]().strip()
        return f"<!-- generated: {found[1]} -->\n{_HEAD}\n\n{text}\n\n{_FOOT}\n{_END}"

    return _PART.sub(fill, page)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table; a pipe in a cell is escaped."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("|", "\\|")).strip()
