"""What an audit was made with, as its log's header tells it: model, statistics, prefixes, thresholds, cards.

`schema` re-exports them; look there for the rules of the log.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .types import Count, Model

__all__ = [
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
    """The model that was audited; `ref` as the user gave it, `fingerprint` a hash over all its weights."""

    ref: str
    fingerprint: str
    architecture: str
    parameters: Count
    dtype: str
    device: str
    adds_bos: bool
    layers: Count


class Statistics(Model):
    """Provenance of C, the second moment of the keys; `tokens` and `sha256` are null where none are known."""

    source: str
    method: str
    tokens: Count | None
    condition_number: float | None
    regularisation: float | None
    sha256: str | None


class PrefixRecord(Model):
    """One context prefix: made edits with (`edit`), averaged keys with (`key`) or kept for testing (`held-out`)."""

    family: str
    text: str
    role: Literal["edit", "held-out", "key"]


class ThresholdRecord(Model):
    """A threshold that was in force, how it was found, and the sample that it was found on.

    `quantiles` of the calibration sample, by name ("0.05", "median").
    """

    probe: str
    metric: str
    value: float | None
    how: str
    sample_size: Count
    quantiles: dict[str, float] = Field(default_factory=dict)


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
    """The card of a probe or check that was in force: what it asks, and what a human does about it when it fires."""

    kind: Literal["probe", "check"]
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
    """A request that was not valid and was left out on the user's word; `where` is a file and line."""

    where: str
    field: str
    message: str
