"""What another library says, as part of a sentence of ours."""

from __future__ import annotations

__all__ = ["first_line"]


def first_line(error: BaseException, most: int = 160) -> str:
    """Return the first line of what `error` says, or its name; shortened to `most` characters and without its full stop.

    It may repeat what a file holds, so that no character is left in it which a terminal takes for a command.
    """
    line = (str(error).strip().splitlines() or [""])[0].strip().rstrip(".") or type(error).__name__
    line = "".join(one if one.isprintable() else f"[U+{ord(one):04X}]" for one in line[: most + 1])
    return line if len(line) <= most else f"{line[: most - 3]}..."
