"""Numbers as a reader meets them: few digits, no false precision, and no rate without its counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .log.types import Rate

__all__ = ["UNMEASURED", "format_counts", "format_number", "format_percent", "format_ratio"]

UNMEASURED = "not measured"
"""Text for a quantity that is null."""

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_THIN = "\u202f"


def format_number(value: float | None, digits: int = 4) -> str:
    """Return `value` with `digits` significant digits, as a power of ten under 0.001 and from 10 000 on."""
    if value is None:
        return UNMEASURED
    if isinstance(value, int):
        return f"{value:,}".replace(",", _THIN)
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        short = f"{value:.{digits}g}"
        return f"{value:,.0f}".replace(",", _THIN) if abs(value) >= 1000 or "e" in short else short
    mantissa, exponent = f"{value:.{digits - 2}e}".split("e")
    return f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def format_ratio(value: float | None) -> str:
    """Return a ratio near 1 with three decimals, so that a column of them lines up; others as `format_number` does."""
    return f"{value:.3f}" if value is not None and 0.1 <= abs(value) < 10 else format_number(value)


def format_percent(value: float | None) -> str:
    """Return a share as per cent; only 1 and 0 are printed as 100 % and 0 %."""
    if value is None:
        return UNMEASURED
    digits = f"{100 * value:.1f}".removesuffix(".0")
    if digits == "100" and value < 1:
        digits = "> 99.9"
    elif digits == "0" and value > 0:
        digits = "< 0.1"
    return f"{digits}{_THIN}%"


def format_counts(value: Rate) -> str:
    """Return passed / failed / not judged / total."""
    return f"{value.passed} / {value.failed} / {value.not_judged} / {value.total}"
