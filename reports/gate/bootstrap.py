"""How sure a difference between two audits is: the paired bootstrap over edits.

Edits are drawn with replacement, each with both of its figures, and the difference is computed anew for each draw; the
interval holds the middle 90 % of what comes out, so that each of its ends is a one-sided bound at 95 %. Percentile interval:
B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13. The seed is fixed, so that the same two audits
give the same interval.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

__all__ = ["LEVEL", "RESAMPLES", "Interval", "paired_interval", "unchanged_share"]

RESAMPLES: Final = 10_000
LEVEL: Final = 0.95
"""Of each of the interval's two ends, one-sided."""
_CELLS = 2_000_000
"""Numbers drawn at once, so that thousands of edits do not fill the memory."""


class Interval(NamedTuple):
    """Ends of the middle 90 %."""

    low: float
    high: float


def paired_interval(
    columns: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the interval of a statistic of sums over edits.

    `columns` [n_edits, k] holds what is summed, a row an edit; `statistic` maps sums [resamples, k] to values
    [resamples]. Raises `ValueError` where there is no edit.
    """
    import numpy as np

    edits = len(columns)
    if edits == 0:
        raise ValueError("there is no edit to draw from")
    generator = np.random.default_rng(seed)
    block = max(1, _CELLS // edits)
    values = [
        statistic(columns[generator.integers(edits, size=(min(block, resamples - start), edits))].sum(axis=1))
        for start in range(0, resamples, block)
    ]
    low, high = np.quantile(np.concatenate(values), [1 - LEVEL, LEVEL])
    return Interval(float(low), float(high))


def unchanged_share(differences: np.ndarray) -> float | None:
    """Return the exact share of draws that hold no edit that changed; None where some became better and some worse.

    `differences` [n_edits]. Of n edits of which k changed it is ((n - k) / n)^n.
    """
    if (differences > 0).any() and (differences < 0).any():
        return None
    return float((differences == 0).mean() ** len(differences))
