"""A screen: few contexts settle the clear cases, and only the close ones are measured under all of them.

The mean over few contexts stands for the mean over all.
The empty context has the same weight in both means, since its key is of another kind.
The null sample shows how far a figure from few contexts lies from the figure from all.
The margin is twice the largest difference, and a factor of four at least: the sample is small and holds no dangerous edit.
An edit is clear when it would be decided alike at both ends of its margins.

The screen bounds the figures in `SCREENED_FIGURES`, and a probe declares the figures that it decides by (`Probe.figures`).
The rules of the built-in probes are monotonic, so exact figures within the margins decide the same.
That the exact figures lie within the margins is measured, not proved (docs/research/performance.md).
A probe that declares nothing, or a figure that the screen does not bound, could be settled wrongly; then the screen is
refused. The screen does not ask whether the model says the target already, which is a notice only.
Nor does it compute the keys of other subjects: the share that these take may be anything, so that a policy that acts on it
has every edit measured in full.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .evidence import Evidence
    from .probe import Probe

__all__ = ["SCREENED_FIGURES", "Margins", "bracket_evidence", "measure_margins", "require_screened_figures"]

SCREENED_FIGURES = frozenset(
    {
        # Moved by their margins.
        "cosine",
        "predicted_relative_norm",
        "ratio",
        # Exact under few contexts, since they need no context.
        "keys.no_prefix_key",
        "keys.no_prefix_value",
        "keys.position",
        "sink_similarity",
        # Not measured: anything from nothing on.
        "crowding",
    }
)
"""The figures of `Evidence` that the screen bounds."""

_ANY_SHARE = 1e300
"""A share beyond every threshold, and finite."""
_SAFETY_FACTOR = 2.0
_SMALLEST_LOG_MARGIN = math.log(4.0)
_LARGEST_MARGIN = 100.0
"""In units of a logarithm. A larger margin means that the sample shows nothing; below it what is finite stays finite."""


@dataclass(frozen=True)
class Margins:
    """How far figures from few contexts may lie from those of all."""

    ratio: float
    """Difference of the logarithm of |u . k_u| / |u . k_bar|."""
    size: float
    """Difference of the logarithm of the update's upper bound."""
    cosine: float
    """Difference of cos(k_u, k_bar)."""

    @property
    def settle(self) -> bool:
        """Whether the margins are small enough that an edit can be clear at all."""
        return all(margin <= _LARGEST_MARGIN for margin in (self.ratio, self.size, self.cosine))


def require_screened_figures(probes: Iterable[tuple[str, type[Probe]]]) -> None:
    """Raise `InputError` for a probe that decides by figures which the screen does not bound, or declares none."""
    for name, probe in probes:
        if probe.figures is None:
            reason = "does not declare the figures that it decides by (Probe.figures)"
        elif unbounded := sorted(probe.figures - SCREENED_FIGURES):
            reason = f"decides by {', '.join(unbounded)}, which few contexts do not bound"
        else:
            continue
        raise InputError(
            f"The probe {name!r} {reason}, so a screen could settle its answer wrongly; leave --screen out, or uninstall the "
            "probe's package."
        )


def measure_margins(few: Sequence[Evidence], full: Sequence[Evidence]) -> Margins:
    """Return the margins from the same requests' evidence under few and under all contexts."""

    def largest(differences: list[float], least: float = 0.0) -> float:
        # Without a difference that can be compared, nothing is clear.
        if not all(map(math.isfinite, differences)):
            return math.inf
        return max(_SAFETY_FACTOR * max(differences), least)

    pairs = list(zip(few, full, strict=True))
    return Margins(
        ratio=largest([_log_difference(a.ratio, b.ratio) for a, b in pairs], _SMALLEST_LOG_MARGIN),
        size=largest(
            [_log_difference(a.predicted_relative_norm, b.predicted_relative_norm) for a, b in pairs],
            _SMALLEST_LOG_MARGIN,
        ),
        cosine=largest([abs(a.cosine - b.cosine) for a, b in pairs]),
    )


def bracket_evidence(evidence: Evidence, by: Margins) -> tuple[Evidence, Evidence]:
    """Return the worst and the best that the exact evidence may be."""

    def moved(sign: int) -> Evidence:
        return replace(
            evidence,
            denominator=evidence.denominator * math.exp(sign * by.ratio),
            predicted_relative_norm=evidence.predicted_relative_norm * math.exp(-sign * by.size),
            cosine=evidence.cosine + sign * by.cosine,
            crowding=0.0 if sign > 0 else _ANY_SHARE,
        )

    return moved(-1), moved(1)


def _log_difference(first: float, second: float) -> float:
    return abs(math.log(first / second)) if first > 0 and second > 0 else math.inf
