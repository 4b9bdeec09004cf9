"""The names of the two engines of the search for a value. The module loads nothing heavy, for the command line."""

from __future__ import annotations

from enum import Enum

__all__ = ["Engine"]


class Engine(Enum):
    """The way in which logits are computed during the search for v*."""

    LIVE = "live"
    REFERENCE = "reference"
