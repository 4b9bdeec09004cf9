"""Probes: each asks one question about one requested edit and answers with a finding. None changes a weight.

`Thresholds` are calibrated on the model at hand, from the evidence of ordinary subjects; only where a question is one
of yes or no (is it the first token?) there is no threshold.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, ClassVar

from .card import Card
from .evidence import Evidence
from .model.language_model import LanguageModel
from .registry import Registry
from .requests.request import EditRequest

__all__ = ["PROBES", "ProbeInput", "Finding", "Level", "Probe", "Threshold", "run_probes"]

Scalar = str | int | float | bool | None


class Level(Enum):
    """How grave a finding is; the policy decides what follows from it."""

    OK = "ok"
    NOTICE = "notice"
    RISK = "risk"
    ERROR = "error"


@dataclass(frozen=True)
class Threshold:
    """A calibrated threshold with the sample behind it."""

    probe: str
    metric: str
    value: float
    how: str
    sample_size: int
    quantiles: Mapping[str, float]


@dataclass(frozen=True)
class Finding:
    """What a probe saw."""

    probe: str
    level: Level
    message: str
    value: float | None = None
    threshold: float | None = None
    unit: str = ""
    details: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class ProbeInput:
    """One request with all that a probe may read."""

    lm: LanguageModel
    request: EditRequest
    evidence: Evidence
    thresholds: Mapping[str, Threshold]
    """By ``probe/metric``."""

    def threshold(self, probe: str, metric: str) -> float:
        """Return the calibrated threshold of a probe's metric."""
        return self.thresholds[f"{probe}/{metric}"].value

    def ordinary(self, probe: str, metric: str) -> float:
        """Return the median of a probe's metric over the ordinary subjects of the null sample."""
        return self.thresholds[f"{probe}/{metric}"].quantiles["median"]

    def with_evidence(self, **changes: Any) -> ProbeInput:
        """Return the same case with other evidence: for the probes' controls."""
        return replace(self, evidence=replace(self.evidence, **changes))


class Probe(ABC):
    """One question about a requested edit."""

    name: ClassVar[str]
    card: ClassVar[Card]

    @abstractmethod
    def examine(self, case: ProbeInput) -> Finding:
        """Answer for one request; a number that is not finite is an ERROR, never OK."""

    def known_bad(self, case: ProbeInput) -> Sequence[ProbeInput]:
        """Return `case` spoiled in what this probe reads: it must fire at each, in every audit, or the audit is void.

        A probe that returns none is not controlled, and the audit says so.
        """
        return ()

    def known_good(self, case: ProbeInput) -> Sequence[ProbeInput]:
        """Return `case` with ordinary evidence instead: looked at where the probe fires at the known-good control itself."""
        return ()

    def finding(
        self, fires: bool, message: str, value: float, threshold: float | None = None, **details: Scalar
    ) -> Finding:
        """Return RISK or OK, or ERROR where `value` is NaN or infinite."""
        if not math.isfinite(value):
            return Finding(
                self.name, Level.ERROR, f"not measured: the value is {value}", None, threshold, self.card.unit
            )
        level = Level.RISK if fires else Level.OK
        return Finding(self.name, level, message, value, threshold, self.card.unit, _finite(details))


def _finite(details: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in details.items()
    }


PROBES: Registry[Probe] = Registry("probes", f"{__package__}.builtin")


def run_probes(case: ProbeInput) -> tuple[Finding, ...]:
    """Return the finding of every registered probe, sorted by name."""
    return tuple(probe().examine(case) for _, probe in PROBES)
