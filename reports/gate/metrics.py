"""The figures of one edit that a baseline keeps and that the gate compares, each with its name, its kind and its allowance.

`METRICS` are those of editguard's own checks. A check of another package declares its own in the log's header, under names
``CHECK/NAME`` (`declared_specs`), so that no reader needs that package.

A rate is kept as its counts, a perplexity ratio as a number. Null means that it was requested and not measured. A missing metric
was not requested: an edit without paraphrases has no generalization. Two protocols are never pooled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import model_validator

from ..log.types import Condition, Count, HeadlineCheck, Model, Protocol, check_counts
from ..verdict.rates import perplexity_ratio, prefixed_rate, served_rate, unprefixed_rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..log.header import DeclaredMetric
    from ..log.schema import EditRecord, MeasurementRecord

__all__ = [
    "METRICS",
    "AnyMetricSpec",
    "DeclaredSpec",
    "Metric",
    "MetricKind",
    "MetricSpec",
    "MetricValue",
    "Tally",
    "declared_specs",
    "is_declared_name",
    "is_measured",
    "metric_values",
    "related_metrics",
    "source_metric",
]


class Metric(StrEnum):
    """A figure that is compared with a baseline. Its name gives check, condition, and a protocol that is not the usual one."""

    PERPLEXITY_RATIO = "perplexity-ratio"
    WORST_PERPLEXITY_RATIO = "worst-perplexity-ratio"
    EFFICACY_UNPREFIXED = "efficacy-unprefixed"
    EFFICACY_PREFIXED = "efficacy-prefixed"
    EFFICACY_SERVED = "efficacy-served"
    GENERALIZATION_UNPREFIXED = "generalization-unprefixed"
    GENERALIZATION_PREFIXED = "generalization-prefixed"
    LOCALITY_UNPREFIXED = "locality-unprefixed"
    LOCALITY_PREFIXED = "locality-prefixed"
    ANSWERS_UNPREFIXED = "answers-unprefixed"
    ANSWERS_PREFIXED = "answers-prefixed"
    EFFICACY_UNPREFIXED_TOKEN_MATCH = "efficacy-unprefixed-token-match"
    EFFICACY_PREFIXED_TOKEN_MATCH = "efficacy-prefixed-token-match"
    EFFICACY_UNPREFIXED_PROBABILITY = "efficacy-unprefixed-probability"
    EFFICACY_PREFIXED_PROBABILITY = "efficacy-prefixed-probability"
    GENERALIZATION_UNPREFIXED_TOKEN_MATCH = "generalization-unprefixed-token-match"
    GENERALIZATION_PREFIXED_TOKEN_MATCH = "generalization-prefixed-token-match"
    GENERALIZATION_UNPREFIXED_PROBABILITY = "generalization-unprefixed-probability"
    GENERALIZATION_PREFIXED_PROBABILITY = "generalization-prefixed-probability"


class MetricKind(StrEnum):
    """How a metric is compared: rates by percentage points, ratios relatively, the worst of ratios without an interval."""

    RATE = "rate"
    RATIO = "ratio"
    WORST = "worst"


@dataclass(frozen=True)
class MetricSpec:
    """The source of a metric; `allowed` is its default allowance as a share of 1 (None: not judged)."""

    kind: MetricKind
    allowed: float | None
    check: HeadlineCheck = HeadlineCheck.PERPLEXITY
    protocol: Protocol | None = None
    condition: Condition | None = None

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller figure is the better one, as for a perplexity ratio."""
        return self.kind is not MetricKind.RATE


@dataclass(frozen=True)
class DeclaredSpec:
    """How a metric of a check of another package is compared; `allowed` as in `MetricSpec`."""

    kind: MetricKind
    allowed: float | None
    better: Literal["higher", "lower"]

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller figure is the better one."""
        return self.better == "lower"


AnyMetricSpec: TypeAlias = MetricSpec | DeclaredSpec


def _rate(check: HeadlineCheck, protocol: Protocol, condition: Condition, allowed: float | None) -> MetricSpec:
    return MetricSpec(MetricKind.RATE, allowed, check, protocol, condition)


_E, _G, _L = HeadlineCheck.EFFICACY, HeadlineCheck.GENERALIZATION, HeadlineCheck.LOCALITY
_EXACT, _MATCH, _PROBABILITY = Protocol.EXACT, Protocol.TOKEN_MATCH, Protocol.PROBABILITY
_BARE, _UNDER, _SERVED = Condition.UNPREFIXED, Condition.PREFIXED, Condition.SERVED

METRICS: dict[Metric, MetricSpec] = {
    Metric.PERPLEXITY_RATIO: MetricSpec(MetricKind.RATIO, 0.01),
    Metric.WORST_PERPLEXITY_RATIO: MetricSpec(MetricKind.WORST, 0.05),
    Metric.EFFICACY_UNPREFIXED: _rate(_E, _EXACT, _BARE, 0.05),
    Metric.EFFICACY_PREFIXED: _rate(_E, _EXACT, _UNDER, 0.02),
    Metric.EFFICACY_SERVED: _rate(_E, _EXACT, _SERVED, None),
    Metric.GENERALIZATION_UNPREFIXED: _rate(_G, _EXACT, _BARE, 0.1),
    Metric.GENERALIZATION_PREFIXED: _rate(_G, _EXACT, _UNDER, 0.1),
    Metric.LOCALITY_UNPREFIXED: _rate(_L, _MATCH, _BARE, 0.05),
    Metric.LOCALITY_PREFIXED: _rate(_L, _MATCH, _UNDER, 0.05),
    Metric.ANSWERS_UNPREFIXED: _rate(_L, _EXACT, _BARE, 0.1),
    Metric.ANSWERS_PREFIXED: _rate(_L, _EXACT, _UNDER, 0.1),
    Metric.EFFICACY_UNPREFIXED_TOKEN_MATCH: _rate(_E, _MATCH, _BARE, None),
    Metric.EFFICACY_PREFIXED_TOKEN_MATCH: _rate(_E, _MATCH, _UNDER, None),
    Metric.EFFICACY_UNPREFIXED_PROBABILITY: _rate(_E, _PROBABILITY, _BARE, None),
    Metric.EFFICACY_PREFIXED_PROBABILITY: _rate(_E, _PROBABILITY, _UNDER, None),
    Metric.GENERALIZATION_UNPREFIXED_TOKEN_MATCH: _rate(_G, _MATCH, _BARE, None),
    Metric.GENERALIZATION_PREFIXED_TOKEN_MATCH: _rate(_G, _MATCH, _UNDER, None),
    Metric.GENERALIZATION_UNPREFIXED_PROBABILITY: _rate(_G, _PROBABILITY, _BARE, None),
    Metric.GENERALIZATION_PREFIXED_PROBABILITY: _rate(_G, _PROBABILITY, _UNDER, None),
}
"""Every metric, in the order in which tables show them. The pages about the gate give reasons for the allowances."""


class Tally(Model):
    """Passed, failed, not judged and total of one edit."""

    passed: Count
    failed: Count
    not_judged: Count
    total: Count

    @model_validator(mode="after")
    def _adds_up(self) -> Tally:
        check_counts(self.passed, self.failed, self.not_judged, self.total)
        return self


MetricValue: TypeAlias = Tally | float | None


def is_measured(value: MetricValue) -> bool:
    """Return whether `value` can be compared; a rate with prompts that were not judged cannot."""
    if isinstance(value, Tally):
        return value.total > 0 and value.not_judged == 0
    return value is not None and math.isfinite(value) and value > 0


def is_declared_name(metric: str) -> bool:
    """Return whether `metric` is written as one that a check of another package declares."""
    return "/" in metric


def declared_specs(*sides: Iterable[DeclaredMetric]) -> dict[str, DeclaredSpec]:
    """Return how each declared metric is compared; if two sides declare it differently, the last one counts."""
    return {
        metric.name: DeclaredSpec(MetricKind(metric.kind), metric.allowance, metric.better)
        for side in sides
        for metric in side
    }


def related_metrics(metric: str) -> list[str]:
    """Return `metric`, then the metrics of the same check and protocol under other conditions."""
    if is_declared_name(metric):
        return [metric]
    own = METRICS[Metric(metric)]
    same = [name.value for name, spec in METRICS.items() if _family(spec) == _family(own)]
    return sorted(same, key=lambda name: name != metric)


def _family(spec: MetricSpec) -> tuple[HeadlineCheck, Protocol | None]:
    return spec.check, spec.protocol


def source_metric(metric: str) -> str:
    """Return the metric of single edits behind `metric`: for the worst ratio, the ratio."""
    return Metric.PERPLEXITY_RATIO.value if metric == Metric.WORST_PERPLEXITY_RATIO else metric


def metric_values(record: EditRecord, declared: Sequence[DeclaredMetric] = ()) -> dict[str, MetricValue]:
    """Return the measured figures of one edit. The worst ratio is no edit's own and is left out.

    `declared` are the metrics that the log's header declares beside `METRICS`.
    """
    values: dict[str, MetricValue] = {}
    for metric, spec in METRICS.items():
        if spec.kind is MetricKind.RATE and _is_requested(record, spec):
            values[metric.value] = _tally(record, spec)
        elif spec.kind is MetricKind.RATIO and record.outcome in ("committed", "rolled-back", "judged"):
            values[metric.value] = perplexity_ratio(record)
    for declaration in declared:
        if rows := _rows(record, declaration):
            values[declaration.name] = _declared_figure(declaration, rows)
    return values


def _rows(record: EditRecord, declaration: DeclaredMetric) -> list[MeasurementRecord]:
    source = (declaration.check, declaration.metric, declaration.condition, declaration.protocol)
    return [row for row in record.measurements if (row.check, row.metric, row.condition, row.protocol) == source]


def _declared_figure(declaration: DeclaredMetric, rows: Sequence[MeasurementRecord]) -> MetricValue:
    """Return the counts of all rows together, or the worst of their values; None if one was not measured."""
    if declaration.kind == "rate":
        counts = {name: sum(getattr(row, name) for row in rows) for name in ("passed", "failed", "not_judged", "total")}
        return Tally(**counts) if counts["total"] else None
    values = [row.value for row in rows if row.value is not None]
    if len(values) < len(rows):
        return None
    return max(values) if declaration.better == "lower" else min(values)


def _is_requested(record: EditRecord, spec: MetricSpec) -> bool:
    return any(
        (measurement.check, measurement.protocol, measurement.condition) == (spec.check, spec.protocol, spec.condition)
        for measurement in record.measurements
    )


def _tally(record: EditRecord, spec: MetricSpec) -> Tally | None:
    pool = {_BARE: unprefixed_rate, _SERVED: served_rate}.get(spec.condition or _UNDER, prefixed_rate)
    rate = pool([record], spec.check, spec.protocol)
    return Tally(**rate.model_dump(exclude={"rate"})) if rate.total else None
