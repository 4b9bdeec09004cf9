"""Checks: what is measured on a model with one edit in it, against the same model without.

Order: `prepare` on the unedited model, for edits that come together; then for each of them the edit is applied, `measure`,
the edit is undone. A measurement that is NaN or that could not be taken has the verdict UNMEASURED, which is never a pass.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, NamedTuple

import torch

from ..probes.card import Card
from ..probes.errors import EditguardError
from ..probes.forward.low_rank import RankOne
from ..probes.forward.partial import PlainRows, Row, Stem
from ..probes.forward.prefix_cache import PrefixCache
from ..probes.keys.prefixes import ContextPrefixes
from ..probes.model.language_model import LanguageModel
from ..probes.model.site import EditSite
from ..probes.registry import Registry
from ..probes.requests.request import EditRequest

__all__ = [
    "CHECKS",
    "Bench",
    "Check",
    "GeneratedText",
    "Limits",
    "CheckResult",
    "Measurement",
    "Origin",
    "Outcome",
    "PromptAnswer",
    "list_single_edit_checks",
    "judge",
]


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
    accumulated_ratio: float
    """Of a sequence of kept edits, against the model before the first one."""
    accumulated_update: float
    served: bool = False
    """Whether an edit must say its target as it would be served."""
    neighbour_answers: float = 0.0
    """Least share of neighbours whose answer stays; 0: shown, not judged."""
    generalization: float = 0.0
    """Least share of paraphrases that give the target; 0: shown, not judged."""
    leaks: float = 0.0
    """Largest share of prompts about other subjects that may say the new target."""
    target_rise: float = 1.0
    """Rise of the target's probability after such a prompt from which the prompt counts as a leak."""
    flips: float = 1.0
    """Largest share of prompts about other subjects that may be answered otherwise, near ties left out."""
    near_tie: float = 0.0
    """Lead of the old answer over the second choice, in nats, under which another answer is a near tie."""
    other_fact_leaks: float = 1.0
    """Largest share of prompts about the subject's other facts that may say the new target."""
    other_fact_flips: float = 1.0
    """Largest share of them that may be answered otherwise, near ties left out."""
    repeats: float = 1.0
    """Largest share of texts that may repeat themselves after the target, where they did not before."""


class Origin(NamedTuple):
    """The model before the first edit of a sequence: what all that was kept since is held against."""

    perplexity: float
    """Mean over the corpus."""
    weight: torch.Tensor
    """W [d_model, d_ff] at the site, fp32."""


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
    prefix: str | None = None
    """What was put before the prompt, where one text of several was found to serve."""

    @property
    def total(self) -> int:
        """All that was asked for."""
        return self.passed + self.failed + self.not_judged


class GeneratedText(NamedTuple):
    """A text before and after the edit, for people to look at."""

    prompt: str
    before: str
    after: str


class PromptAnswer(NamedTuple):
    """A prompt that the edit must not change, under one condition; see `editguard.suites.answer_outcomes` for the results."""

    role: str
    """``neighbour``, ``made-neighbour``, ``other-fact`` or ``made-other-fact``."""
    condition: str
    prompt: str
    before: str
    after: str
    result: str
    """``kept``, ``near-tie``, ``flip``, ``leak`` or ``unmeasured``."""
    margin: float | None
    """Lead of the first choice over the second before the edit, in nats."""
    target_before: float | None
    target_after: float | None
    """Probability of the new target's first tokens."""
    divergence: float | None
    """Of the next token's distribution from that before the edit, in nats."""


class CheckResult(NamedTuple):
    """What one check brings."""

    measurements: Sequence[Measurement]
    generations: Sequence[GeneratedText] = ()
    prompts: Sequence[PromptAnswer] = ()


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
    dtype: torch.dtype | None = None
    """Dtype of the checks' matrix products, with sums in fp32; None for that of the weights."""
    origin: Origin | None = None
    """Where edits are kept one after the other; None where each is undone."""

    @property
    def plain(self) -> bool:
        """Whether every figure is taken by ordinary passes of whole texts: the reference that the fast way is held to."""
        return self.lm.plain

    def computing(self) -> AbstractContextManager[object]:
        """Return the context in which checks run the model."""
        return nullcontext() if self.dtype is None else torch.autocast(self.lm.device.type, self.dtype)

    @property
    def exact(self) -> bool:
        """Whether two ways to the same figure round alike, to fp32."""
        return self.dtype is None and self.lm.dtype in (torch.float32, torch.float64)

    def stem(self, rows: Sequence[Row]) -> Stem | PlainRows:
        """Return the stem of `rows` in the unedited model; for `prepare`, since it goes on from the prefixes' states.

        The first one of a run proves that the model's upper layers can run alone. Raises `EditguardError` where the
        model is edited.
        """
        if not torch.equal(self.site.matrix(), self.weight):
            raise EditguardError(
                f"A check asks for a stem of {self.site.path} while an edit is in it; stems belong into prepare, where the model "
                "is the unedited one."
            )
        if self.plain:
            return PlainRows(self.lm, rows)
        # In half precision the two ways round differently, and an edit that changes nothing would seem to change tokens.
        known = self.known if self.exact else None
        found = Stem(self.lm, self.site, rows, known, verify="stem" not in self.memo)
        if bool(torch.isfinite(found.first).all()):
            self.memo["stem"] = True
        return found


class Check(ABC):
    """One question about an edited model."""

    name: ClassVar[str]
    card: ClassVar[Card]
    of_sequence: ClassVar[bool] = False
    """Whether it asks about edits that were kept before, and has nothing to say of one that is made alone."""

    @abstractmethod
    def prepare(self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[RankOne] = ()) -> list[Any]:
        """Measure what is needed of the unedited model, before any edit is applied: one state for each request.

        `updates` are what will be written for them, where that is known: to prepare by, never to judge by.
        """

    @abstractmethod
    def measure(self, bench: Bench, request: EditRequest, before: Any, needs_prefix: bool) -> CheckResult:
        """Measure the edited model; `needs_prefix` says that the edit is only meant to act behind a prefix."""

    def known_bad(self, bench: Bench, request: EditRequest, before: Any) -> CheckResult | None:
        """Judge what must not pass, on the unedited model and by the rule of `measure`: in every audit, or it is void.

        `before` is the state of `prepare`. All that is judged must fail. A check that returns None is not controlled, and
        the audit says so.
        """
        return None


CHECKS: Registry[Check] = Registry("checks", f"{__package__}.checks")


def list_single_edit_checks() -> tuple[str, ...]:
    """Return the names of the checks that have something to say of an edit that is made alone."""
    return tuple(name for name, cls in CHECKS if not cls.of_sequence)


def judge(value: float, passes: bool) -> Outcome:
    """Return the verdict on `value`: UNMEASURED where it is not finite, else PASS or FAIL."""
    if not math.isfinite(value):
        return Outcome.UNMEASURED
    return Outcome.PASS if passes else Outcome.FAIL
