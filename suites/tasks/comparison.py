"""The base and the edited model on the same items: which answers were lost, which gained, and what that says.

Answers are paired by item. An item that both get right, or both get wrong, says nothing about a difference. McNemar's exact
test asks whether as many were lost as gained; an interval gives the range of losses that the items are compatible with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ...probes.errors import EditguardError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Interval", "PairedAnswers", "bound_change", "pair_answers", "compute_p_value"]

_CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A confidence interval of a difference of two shares, from -1 to 1."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class PairedAnswers:
    """Items by what both models answered."""

    both: int
    """Items that both models get right."""
    lost: tuple[int, ...]
    """Indices of the items that the base alone gets right."""
    gained: tuple[int, ...]
    """Indices of the items that the edited model alone gets right."""
    neither: int
    unmeasured: int
    """Items of which one model's logits are not finite."""

    @property
    def measured(self) -> int:
        """Items of which both models' answers are known."""
        return self.both + len(self.lost) + len(self.gained) + self.neither

    @property
    def before(self) -> int:
        """Items that the base gets right."""
        return self.both + len(self.lost)

    @property
    def after(self) -> int:
        """Items that the edited model gets right."""
        return self.both + len(self.gained)


def pair_answers(before: Sequence[bool | None], after: Sequence[bool | None]) -> PairedAnswers:
    """Return the paired answers of the base and of the edited model; raises `EditguardError` where the lengths differ."""
    if len(before) != len(after):
        raise EditguardError(
            f"The base answered {len(before)} items of a task and the edited model {len(after)}; answers are paired by "
            "item, so a task must give the same items twice."
        )
    pairs = list(zip(before, after, strict=True))
    return PairedAnswers(
        both=pairs.count((True, True)),
        lost=tuple(index for index, pair in enumerate(pairs) if pair == (True, False)),
        gained=tuple(index for index, pair in enumerate(pairs) if pair == (False, True)),
        neither=pairs.count((False, False)),
        unmeasured=sum(None in pair for pair in pairs),
    )


def compute_p_value(lost: int, gained: int) -> float:
    """Return the two-sided p-value of McNemar's exact test: are losses as likely as gains?

    Source: McNemar, Psychometrika 12 (1947) 153-157, with the binomial distribution in place of the chi-squared one.
    """
    from scipy.stats import binomtest

    return float(binomtest(lost, lost + gained, 0.5).pvalue) if lost + gained else 1.0


def bound_change(pairs: PairedAnswers, confidence: float = _CONFIDENCE) -> Interval:
    """Return the interval of the edited model's share of right answers minus the base's.

    Source: Newcombe, Statistics in Medicine 17 (1998) 2635-2650, method 10: Wilson's intervals of both shares, joined with
    their correlation, which is corrected for continuity. Raises `EditguardError` where no item was measured.
    """
    both, lost, gained, neither = pairs.both, len(pairs.lost), len(pairs.gained), pairs.neither
    count = pairs.measured
    if not count:
        raise EditguardError("No item of the task was measured by both models, so their shares have no interval.")
    new, old = pairs.after / count, pairs.before / count
    of_new, of_old = _bound_share(pairs.after, count, confidence), _bound_share(pairs.before, count, confidence)
    correlation = _correlate(both, lost, gained, neither)
    down = _join(new - of_new.low, of_old.high - old, correlation)
    up = _join(of_new.high - new, old - of_old.low, correlation)
    change = new - old
    return Interval(max(change - down, -1.0), min(change + up, 1.0))


def _bound_share(right: int, count: int, confidence: float) -> Interval:
    """Return Wilson's interval of one share."""
    from scipy.stats import binomtest

    bounds = binomtest(right, count).proportion_ci(confidence, method="wilson")
    return Interval(float(bounds.low), float(bounds.high))


def _correlate(both: int, lost: int, gained: int, neither: int) -> float:
    """Return the correlation of the two answers, drawn towards 0 where it is positive; 0 where it has no value."""
    product = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    if not product:
        return 0.0
    excess: float = both * neither - lost * gained
    if excess > 0:
        excess = max(excess - (both + lost + gained + neither) / 2, 0.0)
    return excess / math.sqrt(product)


def _join(one: float, other: float, correlation: float) -> float:
    # Rounding may bring the sum under 0 where the two are alike.
    return math.sqrt(max(one * one - 2 * correlation * one * other + other * other, 0.0))
