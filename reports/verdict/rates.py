"""Pooling measurements into rates that keep their counts.

Two protocols are never pooled together. Prompts that were not judged stay in the total: a rate is passed over total.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from ..log.types import DRIFT, DRIFT_RATIO, PERPLEXITY_RATIO, Condition, HeadlineCheck, Protocol, Rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..log.schema import EditBody, MeasurementRecord, ModelRecord

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
    """Return the counts as a `Rate`; its rate is null if there was nothing to judge."""
    total = passed + failed + not_judged
    return Rate(
        passed=passed, failed=failed, not_judged=not_judged, total=total, rate=passed / total if total else None
    )


def pool_rate(
    records: Iterable[EditBody], check: HeadlineCheck, protocol: Protocol | None, counted_conditions: Sequence[str]
) -> Rate:
    """Return the counts of `check` over all records, for one protocol (None: all) and the given conditions."""
    measurements = [
        measurement
        for measurement in _measurements(records, check, protocol)
        if measurement.condition in counted_conditions
    ]
    return make_rate(
        sum(m.passed for m in measurements),
        sum(m.failed for m in measurements),
        sum(m.not_judged for m in measurements),
    )


def unprefixed_rate(records: Sequence[EditBody], check: HeadlineCheck, protocol: Protocol | None) -> Rate:
    """Return the rate without a prefix: of the condition ``unprefixed``, else of the family ``none``."""
    rate = pool_rate(records, check, protocol, [Condition.UNPREFIXED.value])
    return rate if rate.total else pool_rate(records, check, protocol, [_NO_PREFIX])


def prefixed_rate(records: Sequence[EditBody], check: HeadlineCheck, protocol: Protocol | None) -> Rate:
    """Return the rate after a prefix: of the condition ``prefixed``, else of all prefix families together."""
    rate = pool_rate(records, check, protocol, [Condition.PREFIXED.value])
    if rate.total:
        return rate
    return pool_rate(
        records, check, protocol, [Condition.FAMILY.value + name for name in prefix_families(records, check)]
    )


def served_rate(records: Sequence[EditBody], check: HeadlineCheck, protocol: Protocol | None) -> Rate:
    """Return the rate of the models as they would be served; older logs have no counts of it."""
    return pool_rate(records, check, protocol, [Condition.SERVED.value])


def is_judged(record: EditBody, check: HeadlineCheck, protocol: Protocol, condition: Condition) -> bool:
    """Return whether the policy judges `check` under `condition`; prefix families count as ``prefixed``."""
    measurements = _measurements([record], check, protocol)
    return any(
        measurement.verdict != "info" and _pooled_under(measurement.condition) is condition
        for measurement in measurements
    )


def _pooled_under(condition: str) -> Condition | None:
    """Return the condition of the headline figure that counts `condition`; None if none does, as for a special token."""
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
    return list(dict.fromkeys(measurement.condition for measurement in _measurements(records, check, None)))


def mean_share(records: Iterable[EditBody], check: HeadlineCheck, protocol: Protocol, condition: str) -> float | None:
    """Return the mean of the measured values, each weighted by its prompts; prompts that were not judged count as 0.

    For ``exact`` and ``probability`` it is the rate. For ``token-match``, which counts whole targets, it is the share of tokens.
    """
    measurements = [
        measurement
        for measurement in _measurements(records, check, protocol)
        if measurement.condition == condition and measurement.total
    ]
    total = sum(measurement.total for measurement in measurements)
    return (
        sum((measurement.value or 0.0) * (measurement.passed + measurement.failed) for measurement in measurements)
        / total
        if total
        else None
    )


def mean_value(records: Iterable[EditBody], check: HeadlineCheck, counted_conditions: Sequence[str]) -> float | None:
    """Return the mean of the measured values of `check`, for a check that logs a share and no counts."""
    values = [
        measurement.value
        for measurement in _measurements(records, check, None)
        if measurement.condition in counted_conditions and measurement.value is not None and measurement.total == 0
    ]
    return statistics.fmean(values) if values else None


def perplexity_ratio(record: EditBody | ModelRecord) -> float | None:
    """Return the edited over the unedited perplexity; of several texts, the worst.

    In a sequence the unedited model is the one before the first edit, not the one before this edit. None if it was not
    measured, or if one of several was not.
    """
    ratios = [measurement.value for measurement in _ratios(record)]
    finite = [ratio for ratio in ratios if ratio is not None]
    return max(finite) if finite and len(finite) == len(ratios) else None


def perplexity_lost(record: EditBody | ModelRecord) -> bool:
    """Return whether a perplexity was measured after the edit and is not finite: its ratio in the log is null.

    A perplexity that was not measured has no ratio in the log.
    """
    return any(measurement.value is None for measurement in _ratios(record))


def _ratios(record: EditBody | ModelRecord) -> list[MeasurementRecord]:
    drift = [
        measurement
        for measurement in record.measurements
        if (measurement.check, measurement.metric) == (DRIFT, DRIFT_RATIO)
    ]
    single = [
        measurement
        for measurement in _measurements([record], HeadlineCheck.PERPLEXITY, None)
        if measurement.metric == PERPLEXITY_RATIO
    ]
    return drift or single


def _measurements(
    records: Iterable[EditBody | ModelRecord], check: HeadlineCheck, protocol: Protocol | None
) -> Iterable[MeasurementRecord]:
    # Taken out of the loop: the value of an enum costs more than all else here.
    name, protocol_name = check.value, None if protocol is None else protocol.value
    for record in records:
        for measurement in record.measurements:
            if measurement.check == name and (protocol_name is None or measurement.protocol == protocol_name):
                yield measurement
