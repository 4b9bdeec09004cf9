"""Probes: each asks one question about one requested edit and answers with a finding. None changes a weight.

A probe of another package is a subclass of `Probe`, registered by an entry point of the group ``editguard.probes``::

    class LongKey(Probe):
        "Is the subject's key unusually long?"

        name = "long-key"
        card = Card(question=..., source=..., needs=..., unit=..., range=..., threshold=..., action=...)
        calibrated = {
            "norm": CalibrationRule(
                read=lambda evidence: float(evidence.keys.no_prefix_key.norm()),
                threshold=lambda quantiles: 2 * quantiles["0.99"],
                description="twice the 99 % quantile",
            )
        }

        def examine(self, probe_input: ProbeInput) -> Finding:
            norm = float(probe_input.evidence.keys.no_prefix_key.norm())
            threshold = probe_input.threshold(self.name, "norm")
            return self.finding(norm > threshold, f"the key's norm is {norm:.3g}", norm, threshold)

The thresholds are calibrated on the model at hand, from the evidence of ordinary subjects.
A question of yes or no (is it the first token?) needs no threshold.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from .registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .card import Card
    from .evidence import Evidence
    from .model.language_model import LanguageModel
    from .requests.request import EditRequest

__all__ = [
    "MEASUREMENT_SOURCE",
    "PROBES",
    "CalibrationRule",
    "Finding",
    "Level",
    "Probe",
    "ProbeInput",
    "Threshold",
    "run_probes",
]

Scalar = str | int | float | bool | None

MEASUREMENT_SOURCE = "measurement"
"""Source of the findings about faults of the measurement itself (`measurement_faults`); no probe may have this name."""


class Level(Enum):
    """How grave a finding is; the policy decides what follows from it."""

    OK = "ok"
    NOTICE = "notice"
    RISK = "risk"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class CalibrationRule:
    """How a threshold of a probe follows from the null sample."""

    read: Callable[[Evidence], float | None]
    """Return the metric of one request; None where it was not asked of that request."""
    threshold: Callable[[Mapping[str, float]], float]
    """Return the threshold from the sample's quantiles, which are named as in `editguard.probes.calibration.QUANTILES`."""
    description: str
    """The rule in words, for the log."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A calibrated threshold with the sample that it comes from."""

    probe: str
    metric: str
    value: float
    rule: str
    """The rule in words."""
    sample_size: int
    quantiles: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The answer of one probe to one request."""

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
        """Return the calibrated threshold of a probe's metric.

        Raises `KeyError` for a metric that the probe does not declare in `Probe.calibrated`.
        """
        return self.thresholds[f"{probe}/{metric}"].value

    def ordinary(self, probe: str, metric: str) -> float:
        """Return the median of a probe's metric over the ordinary subjects of the null sample."""
        return self.thresholds[f"{probe}/{metric}"].quantiles["median"]

    def with_evidence(self, **changes: Any) -> ProbeInput:
        """Return the same input with other evidence, for the probes' controls."""
        return replace(self, evidence=replace(self.evidence, **changes))


class Probe(ABC):
    """One question about a requested edit."""

    name: ClassVar[str]
    card: ClassVar[Card]
    calibrated: ClassVar[Mapping[str, CalibrationRule]] = {}
    """The rule of each metric that has a calibrated threshold, by the metric's name."""
    figures: ClassVar[frozenset[str] | None] = None
    """The figures of `Evidence` by which the probe decides whether it fires; None where they are not declared.

    The screen settles only what is declared (`editguard.probes.screen`).
    A probe that declares a figure promises that its answer changes at most once as the figure grows.
    """

    @abstractmethod
    def examine(self, probe_input: ProbeInput) -> Finding:
        """Answer for one request; a number that is not finite is an ERROR, never OK."""

    def known_bad(self, probe_input: ProbeInput) -> Sequence[ProbeInput]:
        """Return `probe_input` with the evidence spoiled that this probe reads.

        The probe must fire at each input that is returned, in every audit, or the audit is void.
        A probe that returns no input is not controlled, and the audit reports that.
        """
        return ()

    def known_good(self, probe_input: ProbeInput) -> Sequence[ProbeInput]:
        """Return `probe_input` with ordinary evidence.

        The audit uses it where the probe fires at the known-good control itself.
        """
        return ()

    def finding(
        self, fires: bool, message: str, value: float, threshold: float | None = None, **details: Scalar
    ) -> Finding:
        """Return RISK where the probe fires, else OK; ERROR where `value` is NaN or infinite."""
        if not math.isfinite(value):
            return Finding(
                probe=self.name,
                level=Level.ERROR,
                message=f"not measured: the value is {value}",
                threshold=threshold,
                unit=self.card.unit,
            )
        return Finding(
            probe=self.name,
            level=Level.RISK if fires else Level.OK,
            message=message,
            value=value,
            threshold=threshold,
            unit=self.card.unit,
            details=_finite(details),
        )


def _finite(details: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in details.items()
    }


PROBES: Registry[Probe] = Registry("probes", f"{__package__}.builtin", base=Probe, reserved=(MEASUREMENT_SOURCE,))


def run_probes(probe_input: ProbeInput) -> tuple[Finding, ...]:
    """Return the finding of every registered probe, sorted by name."""
    return tuple(probe().examine(probe_input) for _, probe in PROBES)
