"""Pooling measurements into rates that keep their counts.

Two protocols are never pooled together, and what was not judged stays in the total: a rate is passed over total.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from ..log.schema import EditBody, MeasurementRecord
from ..log.types import DRIFT, DRIFT_RATIO, PERPLEXITY_RATIO, Condition, HeadlineCheck, Protocol, Rate

__all__ = [
    "is_judged",
    "make_rate",
    "mean_share",
    "mean_value",
    "measured_conditions",
    "perplexity_lost",
    "perplexity_ratio",
    "pool_rate",
    "prefix_families",
    "prefixed_rate",
    "served_rate",
    "unprefixed_rate",
]

_NO_PREFIX = f"{Condition.FAMILY.value}none"


def make_rate(passed: int, failed: int, not_judged: int) -> Rate:
    """Return the counts as a `Rate`; its rate is null where there was nothing to judge."""
    total = passed + failed + not_judged
    return Rate(
        passed=passed, failed=failed, not_judged=not_judged, total=total, rate=passed / total if total else None
    )


def pool_rate(
    records: Iterable[EditBody], check: HeadlineCheck, protocol: Protocol | None, wanted: Sequence[str]
) -> Rate:
    """Return the counts of `check` over all records, for one protocol (None: whatever it names) and some conditions."""
    found = [one for one in _measurements(records, check, protocol) if one.condition in wanted]
    return make_rate(sum(m.passed for m in found), sum(m.failed for m in found), sum(m.not_judged for m in found))


def unprefixed_rate(records: Sequence[EditBody], check: HeadlineCheck, protocol: Protocol | None) -> Rate:
    """Return the rate without any prefix: condition ``unprefixed_rate``, or the family ``none`` where that is logged."""
    rate = pool_rate(records, check, protocol, [Condition.UNPREFIXED.value])
    return rate if rate.total else pool_rate(records, check, protocol, [_NO_PREFIX])


def prefixed_rate(records: Sequence[EditBody], check: HeadlineCheck, protocol: Protocol | None) -> Rate:
    """Return the rate under prefixes: condition ``prefixed_rate``, or all families together where only those are logged."""
    rate = pool_rate(records, check, protocol, [Condition.PREFIXED.value])
    if rate.total:
        return rate
    return pool_rate(
        records, check, protocol, [Condition.FAMILY.value + name for name in prefix_families(records, check)]
    )


def served_rate(records: Sequence[EditBody], check: HeadlineCheck, protocol: Protocol | None) -> Rate:
    """Return the rate of the models as they would be served; without counts in logs written before that was measured."""
    return pool_rate(records, check, protocol, [Condition.SERVED.value])


def is_judged(record: EditBody, check: HeadlineCheck, protocol: Protocol, condition: Condition) -> bool:
    """Return whether the policy judges what `check` measured under `condition`; families of prefixes are ``prefixed_rate``."""
    found = _measurements([record], check, protocol)
    return any(one.verdict != "info" and _pooled_under(one.condition) is condition for one in found)


def _pooled_under(condition: str) -> Condition | None:
    """Return what a condition is counted under; None for one that no headline figure counts, such as one special token."""
    if condition in (Condition.UNPREFIXED, _NO_PREFIX):
        return Condition.UNPREFIXED
    if condition.startswith(Condition.FAMILY.value):
        return Condition.PREFIXED
    return Condition(condition) if condition in (Condition.PREFIXED, Condition.SERVED) else None


def prefix_families(records: Iterable[EditBody], check: HeadlineCheck) -> list[str]:
    """Return the prefix families that `check` was measured under, in order of appearance, without ``none``."""
    names = (
        c.removeprefix(Condition.FAMILY.value) for c in measured_conditions(records, check) if c.startswith("family:")
    )
    return [name for name in names if name != "none"]


def measured_conditions(records: Iterable[EditBody], check: HeadlineCheck) -> list[str]:
    """Return the conditions that `check` was measured under, in order of appearance."""
    return list(dict.fromkeys(one.condition for one in _measurements(records, check, None)))


def mean_share(records: Iterable[EditBody], check: HeadlineCheck, protocol: Protocol, condition: str) -> float | None:
    """Return the mean of the measured values, each weighted by its prompts; what was not judged counts as 0.

    For ``exact`` and ``probability`` that is the rate; for ``token-match``, whose counts are whole targets, it is the
    share of tokens.
    """
    found = [one for one in _measurements(records, check, protocol) if one.condition == condition and one.total]
    total = sum(one.total for one in found)
    return sum((one.value or 0.0) * (one.passed + one.failed) for one in found) / total if total else None


def mean_value(records: Iterable[EditBody], check: HeadlineCheck, wanted: Sequence[str]) -> float | None:
    """Return the mean of the measured values of `check`, for checks that log a share and no counts."""
    values = [
        one.value
        for one in _measurements(records, check, None)
        if one.condition in wanted and one.value is not None and one.total == 0
    ]
    return statistics.fmean(values) if values else None


def perplexity_ratio(record: EditBody) -> float | None:
    """Return the edited over the unedited perplexity, the worst where several texts were used.

    In a sequence the unedited model is that before the first edit, and not that on which the edit was made. None where it was
    not measured, and also where one of several was not.
    """
    ratios = [one.value for one in _ratios(record)]
    known = [ratio for ratio in ratios if ratio is not None]
    return max(known) if known and len(known) == len(ratios) else None


def perplexity_lost(record: EditBody) -> bool:
    """Whether a perplexity was taken after the edit and is not finite: a ratio of it is in the log, and null.

    What was not taken at all has no ratio in the log.
    """
    return any(one.value is None for one in _ratios(record))


def _ratios(record: EditBody) -> list[MeasurementRecord]:
    drift = [one for one in record.measurements if (one.check, one.metric) == (DRIFT, DRIFT_RATIO)]
    alone = [one for one in _measurements([record], HeadlineCheck.PERPLEXITY, None) if one.metric == PERPLEXITY_RATIO]
    return drift or alone


def _measurements(
    records: Iterable[EditBody], check: HeadlineCheck, protocol: Protocol | None
) -> Iterable[MeasurementRecord]:
    # Asked for once: an enum's value costs more than all else here.
    name, wanted = check.value, None if protocol is None else protocol.value
    for record in records:
        for one in record.measurements:
            if one.check == name and (wanted is None or one.protocol == wanted):
                yield one
