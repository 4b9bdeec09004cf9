"""Clauses that several messages share: a figure beside its bound, and the first line of another library's error."""

from __future__ import annotations

__all__ = ["against", "first_line"]


def against(measured: str, holds: bool, allowed: str) -> str:
    """Return one clause: ``ratio 0.004, outside the bound (at least 0.0228)``."""
    return f"{measured}, {'inside' if holds else 'outside'} the bound ({allowed})"


def first_line(error: BaseException, most: int = 160) -> str:
    """Return the first line of what `error` says, or its name; shortened to `most` characters and without its full stop.

    It may repeat what a file holds, so that no character is left in it which a terminal takes for a command.
    """
    line = (str(error).strip().splitlines() or [""])[0].strip().rstrip(".") or type(error).__name__
    line = "".join(one if one.isprintable() else f"[U+{ord(one):04X}]" for one in line[: most + 1])
    return line if len(line) <= most else f"{line[: most - 3]}..."
