"""Checks: what is measured on a model with one edit in it, against the same model without.

Order: `expect` for edits that come together; then for each of them `prepare` on the unedited model, the edit is applied,
`measure`, the edit is undone. A measurement that is NaN or that could not be taken has the verdict UNMEASURED, which is
never a pass.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, NamedTuple

import torch

from ..probes.card import Card
from ..probes.model import LanguageModel
from ..probes.partial import Row, Stem
from ..probes.prefix_cache import PrefixCache
from ..probes.prefixes import ContextPrefixes
from ..probes.registry import Registry
from ..probes.requests import EditRequest
from ..probes.site import EditSite

__all__ = ["CHECKS", "Bench", "Check", "Generated", "Limits", "Measurement", "Measured", "Outcome", "judge"]


class Outcome(Enum):
    """Verdict of one measurement; INFO is shown and not judged."""

    PASS = "pass"
    FAIL = "fail"
    UNMEASURED = "unmeasured"
    INFO = "info"


@dataclass(frozen=True)
class Limits:
    """Bounds that the checks judge by; they come from the policy."""

    perplexity_ratio: float
    efficacy: float
    locality: float
    entropy_ratio: float
    relative_update: float


@dataclass(frozen=True)
class Measurement:
    """One figure with its counts: passed / failed / not judged / total."""

    check: str
    metric: str
    value: float | None
    outcome: Outcome
    condition: str = "unprefixed"
    protocol: str | None = None
    baseline: float | None = None
    threshold: float | None = None
    unit: str = ""
    passed: int = 0
    failed: int = 0
    not_judged: int = 0
    message: str = ""

    @property
    def total(self) -> int:
        """All that was asked for."""
        return self.passed + self.failed + self.not_judged


class Generated(NamedTuple):
    """A text before and after the edit, for people to look at."""

    prompt: str
    before: str
    after: str


class Measured(NamedTuple):
    """What one check brings."""

    measurements: Sequence[Measurement]
    generations: Sequence[Generated] = ()


@dataclass(frozen=True)
class Bench:
    """What checks work with; the same for every request of a run. `memo` keeps what checks compute once."""

    lm: LanguageModel
    site: EditSite
    prefixes: ContextPrefixes
    corpus: tuple[str, ...]
    limits: Limits
    weight: torch.Tensor
    """The unedited W [d_model, d_ff], fp32."""
    known: PrefixCache | None = None
    """States of the prefixes in the unedited model, so that they are not run for every request."""
    memo: dict[str, Any] = field(default_factory=dict)

    def stem(self, rows: Sequence[Row]) -> Stem:
        """Return the stem of `rows`; the first one of a run proves that the model's upper layers can run alone."""
        found = Stem(self.lm, self.site, rows, self.known, verify="stem" not in self.memo)
        self.memo["stem"] = True
        return found


class Check(ABC):
    """One question about an edited model."""

    name: ClassVar[str]
    card: ClassVar[Card]

    def expect(self, bench: Bench, requests: Sequence[EditRequest]) -> None:  # noqa: B027  (an offer, no duty)
        """Measure of the unedited model what is better measured for several requests at once; `prepare` follows for each."""

    @abstractmethod
    def prepare(self, bench: Bench, request: EditRequest) -> Any:
        """Measure what is needed of the unedited model; called before the edit is applied."""

    @abstractmethod
    def measure(self, bench: Bench, request: EditRequest, before: Any, needs_prefix: bool) -> Measured:
        """Measure the edited model; `needs_prefix` says that the edit is only meant to act behind a prefix."""


CHECKS: Registry[Check] = Registry("checks")


def judge(value: float, passes: bool) -> Outcome:
    """Return the verdict on `value`: UNMEASURED where it is not finite, else PASS or FAIL."""
    if not math.isfinite(value):
        return Outcome.UNMEASURED
    return Outcome.PASS if passes else Outcome.FAIL
