"""A figure held to its bound, in words that nobody takes for the opposite: what was measured, where it lies, what is allowed."""

from __future__ import annotations

__all__ = ["against"]


def against(measured: str, holds: bool, allowed: str) -> str:
    """Return one clause: ``ratio 0.004, outside the bound (at least 0.0228)``."""
    return f"{measured}, {'inside' if holds else 'outside'} the bound ({allowed})"
