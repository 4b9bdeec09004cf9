"""What another library says, as part of a sentence of ours."""

from __future__ import annotations

__all__ = ["first_line"]


def first_line(error: BaseException, most: int = 160) -> str:
    """Return the first line of what `error` says, or its name; shortened to `most` characters and without its full stop.

    It may repeat what a file holds, so that no character is left in it which a terminal takes for a command.
    """
    text = str(error).strip().splitlines()
    line = text[0].strip().rstrip(".") if text else type(error).__name__
    line = line if len(line) <= most else f"{line[: most - 3]}..."
    return "".join(one if one.isprintable() else f"[U+{ord(one):04X}]" for one in line)
