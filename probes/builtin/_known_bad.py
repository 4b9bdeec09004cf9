"""How far known-bad evidence lies from ordinary evidence."""

from __future__ import annotations

__all__ = ["SPOILING_FACTOR"]

SPOILING_FACTOR = 1000.0
"""Factor between known-bad and ordinary evidence: far beyond any ordinary subject's, and no rounding."""
