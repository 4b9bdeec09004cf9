"""How long work says how far it is: a callback that every stage is given."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "show_nothing"]

Progress = Callable[[str, int, int], None]
"""Called with the name of the stage, the steps done and the number of steps."""


def show_nothing(stage: str, done: int, total: int) -> None:
    """Take progress and show nothing of it."""
