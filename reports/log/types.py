"""Names and models that all parts of the log's schema share. The rules of the log are in `schema`."""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Final, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "DENOMINATOR",
    "EXACT_PERPLEXITY",
    "PERPLEXITY",
    "PERPLEXITY_RATIO",
    "SCHEMA_VERSION",
    "Condition",
    "Count",
    "HeadlineCheck",
    "Model",
    "Point",
    "Protocol",
    "Rate",
    "Scalar",
    "check_counts",
    "json_sha256",
]

SCHEMA_VERSION: Final = 2
"""Version of the log; it grows when a reader of the older one would misread the newer. Older logs are read (`upgrade`)."""

DRIFT = "accumulated-drift"
"""Check of edits in sequence, and its two metrics: perplexity over that before the first edit, ||W - W_0|| / ||W_0||."""
DRIFT_RATIO, DRIFT_NORM = "perplexity-ratio", "relative-norm"
PERPLEXITY_RATIO = "ratio"
"""Metric of the check ``perplexity`` that decides about collapse: edited over unedited, 1.0 is unchanged."""

PERPLEXITY = "perplexity"
"""Metric in `Header.baseline` of the unedited model's own perplexity, the ratio's denominator."""

EXACT_PERPLEXITY = "perplexity-exact"
"""Metric in `Header.baseline`: the same in the weights' own dtype, where the checks computed in another one."""

DENOMINATOR = "denominator"
"""Probe in `Header.thresholds` whose threshold is compared with |u . k_u| (metric ``denominator``), or against that over
its value under prefixes, |u . k_bar| (metric ``ratio``)."""

Scalar: TypeAlias = bool | int | float | str | None
Count = Annotated[int, Field(ge=0)]


def json_sha256(value: object) -> str:
    """Hash of a JSON value: of its text with sorted keys. Raises `ValueError` for NaN and infinity."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


class HeadlineCheck(StrEnum):
    """Names of the checks that the digest pools into headline figures."""

    EFFICACY = "efficacy"
    GENERALIZATION = "generalization"
    LOCALITY = "locality"
    PERPLEXITY = "perplexity"


class Condition(StrEnum):
    """Under which prefix a measurement was made; a prefix family `f` is written ``family:f``.

    ``served`` is the model as its users meet it: after the prefix that an edit needs, and bare where it needs none.
    """

    UNPREFIXED = "unprefixed"
    PREFIXED = "prefixed"
    SERVED = "served"
    FAMILY = "family:"


class Protocol(StrEnum):
    """How an answer is judged; figures of two protocols are never pooled."""

    EXACT = "exact"
    TOKEN_MATCH = "token-match"
    PROBABILITY = "probability"


class Point(NamedTuple):
    """A key projected to two dimensions."""

    x: float
    y: float


class Model(BaseModel):
    """Frozen, closed to unknown fields, and without NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Rate(Model):
    """Passed, failed, not judged and total; `rate` is passed over total, so that what was not judged never helps."""

    passed: Count
    failed: Count
    not_judged: Count
    total: Count
    rate: float | None = None

    @model_validator(mode="after")
    def _adds_up(self) -> Rate:
        check_counts(self.passed, self.failed, self.not_judged, self.total)
        return self


def check_counts(passed: int, failed: int, not_judged: int, total: int) -> None:
    """Raise `ValueError` unless the first three add up to `total`."""
    if passed + failed + not_judged != total:
        raise ValueError(f"total is {total}, but passed + failed + not judged are {passed} + {failed} + {not_judged}")
