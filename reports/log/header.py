"""Parts of a log's header: model, statistics, prefixes, thresholds, cards. The rules of the log are in `schema`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .types import Count, Model

__all__ = [
    "MEASUREMENT_SOURCE",
    "BaselineValue",
    "CardRecord",
    "DeclaredMetric",
    "ModelInfo",
    "PrefixRecord",
    "SkippedRequest",
    "Statistics",
    "ThresholdRecord",
]


class ModelInfo(Model):
    """The audited model: `ref` is the user's name for it, `fingerprint` a hash over all its weights."""

    ref: str
    fingerprint: str
    architecture: str
    parameters: Count
    dtype: str
    device: str
    adds_bos: bool
    layers: Count


class Statistics(Model):
    """Provenance of C, the second moment of the keys; `tokens` and `sha256` are null where they are not recorded."""

    source: str
    method: str
    tokens: Count | None
    condition_number: float | None
    regularisation: float | None
    sha256: str | None


class PrefixRecord(Model):
    """One prefix. Its role: it makes edits (`edit`), averages keys (`key`) or is kept for testing (`held-out`)."""

    family: str
    text: str
    role: Literal["edit", "held-out", "key"]


class ThresholdRecord(Model):
    """A threshold that was in force, its origin (`how`), and the size of the null sample behind it.

    `quantiles` of the null sample, by name ("0.05", "median").
    """

    probe: str
    metric: str
    value: float | None
    how: str
    sample_size: Count
    quantiles: dict[str, float] = Field(default_factory=dict)


MEASUREMENT_SOURCE = "measurement"
"""Source of a finding that no probe made: a fault of the measurement itself."""


class DeclaredMetric(Model):
    """A metric that a check lets the gate compare with a baseline, under the name ``CHECK/NAME``.

    It is taken from the check's measurements of this `metric`, `condition` and `protocol`. A ``rate`` is passed over total, a
    ``ratio`` is the measured value. `better` is the direction of improvement. `allowance` is how much worse it may be, as a
    share of 1; null: it is shown and not judged.
    """

    name: str = Field(pattern=r"^[^/]+/[a-z0-9-]+$")
    metric: str
    condition: str
    protocol: Literal["exact", "token-match", "probability"] | None = None
    kind: Literal["rate", "ratio"]
    better: Literal["higher", "lower"]
    allowance: float | None = Field(default=None, ge=0)

    @property
    def check(self) -> str:
        """The name of the check that declares it."""
        return self.name.partition("/")[0]


class CardRecord(Model):
    """The card of a probe or check that was in force: its question, and what a person does when it fires.

    The kind ``audit`` is that of findings that no probe made: faults of the measurement itself.
    """

    kind: Literal["probe", "check", "audit"]
    name: str
    question: str
    source: str
    needs: str
    unit: str
    range: str
    threshold: str
    action: str
    metrics: list[DeclaredMetric] = Field(default_factory=list)
    """What the gate can compare of it, beside the metrics of editguard's own checks."""


class BaselineValue(Model):
    """One figure of the unedited model, e.g. `PERPLEXITY`."""

    metric: str
    value: float | None


class SkippedRequest(Model):
    """A request that was not valid, and that the user let the audit skip; `where` is a file and line."""

    where: str
    field: str
    message: str
