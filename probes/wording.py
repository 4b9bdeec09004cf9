"""Clauses that several messages share: a figure beside its bound, another library's error in one line, a suggestion."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["compare_with_bound", "first_line", "suggest"]


def compare_with_bound(measured: str, holds: bool, allowed: str) -> str:
    """Return one clause: ``ratio 0.004, outside the bound (at least 0.0228)``."""
    return f"{measured}, {'inside' if holds else 'outside'} the bound ({allowed})"


def first_line(error: BaseException, most: int = 160) -> str:
    """Return the first line of the text of `error`, or the name of its class where it has no text.

    The line has at most `most` characters and no full stop.
    An error may repeat the content of a file, so each character that a terminal could take for a command is spelled out.
    """
    line = (str(error).strip().splitlines() or [""])[0].strip().rstrip(".") or type(error).__name__
    line = "".join(
        character if character.isprintable() else f"[U+{ord(character):04X}]" for character in line[: most + 1]
    )
    return line if len(line) <= most else f"{line[: most - 3]}..."


def suggest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that is spelled most like `name`; None where none is like it."""
    return next(iter(difflib.get_close_matches(name, list(names), n=1)), None)
