"""A screen: few contexts settle the clear cases, and only the close ones are measured under all of them.

The mean over few contexts stands for that over all: the empty one weighs in it what it weighs in the other, since its
key is of another kind. How far a figure from few contexts lies from that of all is seen on the null sample; the margin
is twice the largest difference, and a factor of four at least, since the sample is small and dangerous edits are not in
it. An edit is clear when it would be decided alike at both ends of its margins. The built-in probes' rules are
monotonic, so that exact figures within the margins decide the same; that they lie within is measured, not proved
(docs/performance.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .evidence import Evidence

__all__ = ["Margins", "ends", "margins"]

_SAFETY = 2.0
_LEAST = math.log(4.0)
_WIDEST = 100.0
"""A margin beyond it, in units of a logarithm, says that the sample shows nothing; what is finite stays finite below."""


@dataclass(frozen=True)
class Margins:
    """How far figures from few contexts may lie from those of all."""

    ratio: float
    """Of |u . k_u| / |u . k_bar|: difference of its logarithm."""
    size: float
    """Of the update's upper bound: difference of its logarithm."""
    cosine: float
    """Of cos(k_u, k_bar): difference."""

    @property
    def settle(self) -> bool:
        """Whether they say anything, so that an edit can be clear at all."""
        return all(margin <= _WIDEST for margin in (self.ratio, self.size, self.cosine))


def margins(few: Sequence[Evidence], full: Sequence[Evidence]) -> Margins:
    """Return the margins that the same requests' evidence under few and under all contexts gives."""

    def largest(differences: list[float], least: float = 0.0) -> float:
        # Where nothing can be said of the difference, nothing is clear.
        return max(_SAFETY * max(differences), least) if all(map(math.isfinite, differences)) else math.inf

    pairs = list(zip(few, full, strict=True))
    return Margins(
        ratio=largest([_log(a.ratio, b.ratio) for a, b in pairs], _LEAST),
        size=largest([_log(a.predicted_relative_norm, b.predicted_relative_norm) for a, b in pairs], _LEAST),
        cosine=largest([abs(a.cosine - b.cosine) for a, b in pairs]),
    )


def ends(evidence: Evidence, by: Margins) -> tuple[Evidence, Evidence]:
    """Return the worst and the best that the exact evidence may be."""

    def moved(sign: int) -> Evidence:
        return replace(
            evidence,
            denominator=evidence.denominator * math.exp(sign * by.ratio),
            predicted_relative_norm=evidence.predicted_relative_norm * math.exp(-sign * by.size),
            cosine=evidence.cosine + sign * by.cosine,
        )

    return moved(-1), moved(1)


def _log(one: float, other: float) -> float:
    return abs(math.log(one / other)) if one > 0 and other > 0 else math.inf
