"""The names of the two ways in which an update's value is sought; loads nothing heavy, for the command line."""

from __future__ import annotations

from enum import Enum

__all__ = ["Engine"]


class Engine(Enum):
    """How logits are computed while v* is sought."""

    LIVE = "live"
    REFERENCE = "reference"
