"""How known-bad evidence is made."""

from __future__ import annotations

_SPOILED = 1000.0
"""Factor by which known-bad evidence is off: far beyond any ordinary subject's, and no rounding."""
