"""The figures of one edit that a baseline keeps and that the gate compares, each with its name, its kind and its allowance.

A rate is kept as its counts, a perplexity ratio as a number. Null means that it was asked for and not measured; a metric that is
not there was not asked for (an edit without paraphrases has no generalization). Two protocols are never pooled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from pydantic import model_validator

from ..log.schema import Condition, EditRecord, HeadlineCheck, Protocol
from ..log.types import Count, Model, check_counts
from ..verdict.rates import perplexity_ratio, prefixed, served, unprefixed

__all__ = ["METRICS", "Figure", "Kind", "Metric", "Spec", "Tally", "figures_of", "measured", "siblings", "source_of"]


class Metric(StrEnum):
    """What can be held against a baseline; the name says check, condition, and the protocol where it is not the usual one."""

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


class Kind(StrEnum):
    """How a metric is compared: rates by percentage points, ratios relatively, the worst of ratios without an interval."""

    RATE = "rate"
    RATIO = "ratio"
    WORST = "worst"


@dataclass(frozen=True)
class Spec:
    """Where a metric comes from; `allowed` is how much worse it may be unless the user says otherwise (None: not judged)."""

    kind: Kind
    allowed: float | None
    check: HeadlineCheck = HeadlineCheck.PERPLEXITY
    protocol: Protocol | None = None
    condition: Condition | None = None


def _rate(check: HeadlineCheck, protocol: Protocol, condition: Condition, allowed: float | None) -> Spec:
    return Spec(Kind.RATE, allowed, check, protocol, condition)


_E, _G, _L = HeadlineCheck.EFFICACY, HeadlineCheck.GENERALIZATION, HeadlineCheck.LOCALITY
_EXACT, _MATCH, _PROBABILITY = Protocol.EXACT, Protocol.TOKEN_MATCH, Protocol.PROBABILITY
_BARE, _UNDER, _SERVED = Condition.UNPREFIXED, Condition.PREFIXED, Condition.SERVED

METRICS: dict[Metric, Spec] = {
    Metric.PERPLEXITY_RATIO: Spec(Kind.RATIO, 0.01),
    Metric.WORST_PERPLEXITY_RATIO: Spec(Kind.WORST, 0.05),
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
"""Every metric, in the order in which tables show them. Reasons for the allowances: docs/guide-gate.md."""


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


Figure: TypeAlias = Tally | float | None


def measured(figure: Figure) -> bool:
    """Return whether `figure` can be compared: a share of what could be judged says nothing about the rest."""
    if isinstance(figure, Tally):
        return figure.total > 0 and figure.not_judged == 0
    return figure is not None and math.isfinite(figure) and figure > 0


def siblings(metric: Metric) -> list[Metric]:
    """Return `metric`, then what is measured of the same check by the same protocol under the other condition."""
    same = [one for one, spec in METRICS.items() if _family(spec) == _family(METRICS[metric])]
    return sorted(same, key=lambda one: one is not metric)


def _family(spec: Spec) -> tuple[HeadlineCheck, Protocol | None]:
    return spec.check, spec.protocol


def source_of(metric: Metric) -> Metric:
    """Return the metric of single edits that `metric` is computed from: for the worst ratio, the ratio."""
    return Metric.PERPLEXITY_RATIO if METRICS[metric].kind is Kind.WORST else metric


def figures_of(record: EditRecord) -> dict[Metric, Figure]:
    """Return what was measured of one edit; of the worst ratio, which is no edit's own, there is nothing."""
    found: dict[Metric, Figure] = {}
    for metric, spec in METRICS.items():
        if spec.kind is Kind.RATE and _asked(record, spec):
            found[metric] = _tally(record, spec)
        elif spec.kind is Kind.RATIO and record.outcome in ("committed", "rolled-back"):
            found[metric] = perplexity_ratio(record)
    return found


def _asked(record: EditRecord, spec: Spec) -> bool:
    return any(
        (one.check, one.protocol, one.condition) == (spec.check, spec.protocol, spec.condition)
        for one in record.measurements
    )


def _tally(record: EditRecord, spec: Spec) -> Tally | None:
    pool = {_BARE: unprefixed, _SERVED: served}.get(spec.condition or _UNDER, prefixed)
    rate = pool([record], spec.check, spec.protocol)
    return Tally(**rate.model_dump(exclude={"rate"})) if rate.total else None
