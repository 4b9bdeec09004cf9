"""Measurements and texts as the log holds them: of an edit, or of an edited model as a whole."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from .types import Condition, Count, Model, check_counts

__all__ = ["Generation", "MeasurementRecord"]


class MeasurementRecord(Model):
    """A measurement of one check on the edited model, with its counts and the verdict of its threshold.

    A `PERPLEXITY_RATIO` that is null was measured and is not finite: the model collapsed. A check that could not measure it
    leaves it out.
    """

    check: str
    metric: str
    condition: str = Condition.UNPREFIXED.value
    protocol: Literal["exact", "token-match", "probability"] | None = None
    value: float | None
    baseline: float | None = None
    threshold: float | None = None
    unit: str = ""
    passed: Count = 0
    failed: Count = 0
    not_judged: Count = 0
    total: Count = 0
    verdict: Literal["pass", "fail", "unmeasured", "info"]
    message: str = ""

    @model_validator(mode="after")
    def _honest(self) -> MeasurementRecord:
        check_counts(self.passed, self.failed, self.not_judged, self.total)
        if self.value is None and self.verdict == "pass":
            raise ValueError("verdict 'pass' has no value, but an unmeasured quantity is 'unmeasured' and never passes")
        return self


class Generation(Model):
    """The model's text after one prompt, before the edit and after it (null: no edit was made)."""

    prompt: str
    before: str
    after: str | None = None
