"""How many examples a property is tried with: fewer in the everyday loop, all of them before a change lands."""

from __future__ import annotations

from hypothesis import settings

SHARE = 4
"""The everyday loop tries one example in this many."""


def count_examples(most: int) -> int:
    """Return `most`, or a quarter of it (at least five) under the profile ``fast``."""
    return max(5, most // SHARE) if settings.get_current_profile_name() == "fast" else most
