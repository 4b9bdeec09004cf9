"""Checks measure a model with one edit in it against the same model without it.

`prepare` runs on the unedited model, for edits that come together. Then each edit is applied, measured by `measure`, and
undone. A measurement that is NaN or that could not be taken has the outcome UNMEASURED, which is never a pass.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import torch

from ..probes.errors import EditguardError, InputError
from ..probes.forward.partial import PlainRows, Row, Rows, Stem, get_first_logits
from ..probes.model.site_change import combine_norms
from ..probes.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..probes.card import Card
    from ..probes.forward.low_rank import LowRankUpdate
    from ..probes.forward.prefix_cache import PrefixCache
    from ..probes.keys.prefixes import ContextPrefixes
    from ..probes.model.language_model import LanguageModel
    from ..probes.model.site import EditSite
    from ..probes.model.stored_weight import StoredWeight
    from ..probes.requests.request import EditRequest

__all__ = [
    "CHECKS",
    "Bench",
    "Check",
    "CheckResult",
    "ComparedMetric",
    "EditUnderTest",
    "GeneratedText",
    "Limits",
    "Measurement",
    "Origin",
    "Outcome",
    "PromptAnswer",
    "State",
    "list_single_edit_checks",
    "judge",
]


State = TypeVar("State")
"""What a check knows of the unedited model for one request."""


class Outcome(Enum):
    """Verdict of one measurement; INFO is shown and not judged."""

    PASS = "pass"
    FAIL = "fail"
    UNMEASURED = "unmeasured"
    INFO = "info"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds that the checks judge by; they come from the policy."""

    perplexity_ratio: float
    efficacy: float
    locality: float
    entropy_ratio: float
    relative_update: float
    accumulated_ratio: float
    """Largest perplexity ratio of a sequence of kept edits, against the model before the first one."""
    accumulated_update: float
    """Largest norm of all that such a sequence added to the weight, over the norm of the weight before."""
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
    """Largest share of prompts about other subjects whose answer may change, near ties left out."""
    near_tie: float = 0.0
    """Lead of the old answer over the second choice, in nats, under which another answer is a near tie."""
    first_word_leaks: float = 1.0
    """Largest share of other words at the start of the prompt that may say the new target."""
    other_fact_leaks: float = 1.0
    """Largest share of prompts about the subject's other facts that may say the new target."""
    other_fact_flips: float = 1.0
    """Largest share of prompts about the other facts whose answer may change, near ties left out."""
    repeats: float = 1.0
    """Largest share of texts that may repeat themselves after the target, where they did not before."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The model before the first edit of a sequence, with which the model is compared after each edit."""

    perplexity: float
    """Mean over the corpus."""
    weights: dict[str, StoredWeight] = field(default_factory=dict)
    """The weight of each site that an edit was computed for, as it was before the first edit, by path."""

    def add(self, weights: Iterable[StoredWeight]) -> None:
        """Add the weights of sites that no edit was written to so far; those that are there stay as they are."""
        for weight in weights:
            self.weights.setdefault(weight.site.path, weight)

    def distance(self) -> float:
        """Return how far the model is from here: the root of the sum of the squares of each site's ||W - W_0|| / ||W_0||."""
        return combine_norms(weight.relate(weight.distance()) for weight in self.weights.values())


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One figure of one check, with its counts: passed, failed, not judged and total."""

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
    """The text before the prompt, where one of several was chosen to serve the edit."""

    @property
    def total(self) -> int:
        """All prompts that were asked, judged or not."""
        return self.passed + self.failed + self.not_judged


class GeneratedText(NamedTuple):
    """The text after a prompt before the edit and with it, for people to read."""

    prompt: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class PromptAnswer:
    """The answers to a prompt that the edit must not change, under one condition.

    `editguard.suites.answer_outcomes` says what the results mean.
    """

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
    """Kullback-Leibler divergence of the next token's distribution from that before the edit, in nats."""


class CheckResult(NamedTuple):
    """The answer of one check about one edit."""

    measurements: Sequence[Measurement]
    generations: Sequence[GeneratedText] = ()
    prompts: Sequence[PromptAnswer] = ()


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The model and the settings that checks work with: the same for every request of a run that edits the same sites."""

    lm: LanguageModel
    prefixes: ContextPrefixes
    corpus: tuple[str, ...]
    limits: Limits
    weights: tuple[StoredWeight, ...]
    """The unedited weights of the sites that are edited, from the lowest layer up."""
    prefix_cache: PrefixCache | None = None
    """States of the prefixes that enter the lowest edited layer in the unedited model, so that they are run once."""
    memo: dict[str, Any] = field(default_factory=dict)
    """What checks compute once in a run."""
    dtype: torch.dtype | None = None
    """Dtype of the checks' matrix products, with sums in fp32; None for the dtype of the weights."""
    origin: Origin | None = None
    """The model before the first edit of a sequence; None where each edit is undone."""

    @property
    def sites(self) -> tuple[EditSite, ...]:
        """The sites that are edited, from the lowest layer up."""
        return tuple(weight.site for weight in self.weights)

    @property
    def lowest_site(self) -> EditSite:
        """The site from which partial passes run: no edit of `sites` changes anything below it."""
        return self.weights[0].site

    @property
    def plain(self) -> bool:
        """Whether every figure is taken by ordinary passes of whole texts, the reference for the faster way."""
        return self.lm.plain

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which checks run the model."""
        return nullcontext() if self.dtype is None else torch.autocast(self.lm.device.type, self.dtype)

    @property
    def exact(self) -> bool:
        """Whether two ways to compute the same figure round alike, to fp32."""
        return self.dtype is None and self.lm.dtype in (torch.float32, torch.float64)

    def stem(self, rows: Sequence[Row]) -> Rows:
        """Return the stem of `rows` in the unedited model, for `prepare`. Its later passes run from the lowest edited site.

        It continues from the cached states of the prefixes. The first stem of a run proves that the model's upper layers can
        run alone. Raises `EditguardError` where the model is edited.
        """
        for weight in self.weights:
            if not weight.is_current:
                raise EditguardError(
                    f"A check asks for a stem while an edit is in {weight.site.path}; take stems in prepare, where the model is "
                    "unedited."
                )
        if self.plain:
            return PlainRows(self.lm, rows)
        # In half precision the two ways round differently, and an edit that changes nothing would seem to change tokens.
        cache = self.prefix_cache if self.exact else None
        stem = Stem(self.lm, self.lowest_site, rows, cache, verify="stem" not in self.memo)
        if bool(torch.isfinite(get_first_logits(stem)).all()):
            self.memo["stem"] = True
        return stem


@dataclass(frozen=True, kw_only=True)
class EditUnderTest(Generic[State]):
    """The edit that is in the model while a check measures it."""

    request: EditRequest
    state: State
    """What the check's own `prepare` returned for this request."""
    needs_prefix: bool = False
    """Whether the edit is only meant to act after a prefix."""


@dataclass(frozen=True, kw_only=True)
class ComparedMetric:
    """A figure of a check of another package that the gate compares with a baseline, under the name ``CHECK/NAME``.

    It is taken from the measurements of this `metric`, `condition` and `protocol`. Raises `InputError` for a value that the
    log would not hold.
    """

    name: str
    """Lower-case letters, digits and ``-``; the gate writes the check's name and ``/`` before it."""
    metric: str
    condition: str = "unprefixed"
    protocol: Literal["exact", "token-match", "probability"] | None = None
    kind: Literal["rate", "ratio"] = "rate"
    """A ``rate`` is `Measurement.passed` over `Measurement.total`, compared in percentage points.

    A ``ratio`` is `Measurement.value`, a number over 0, compared relatively by its geometric mean.
    """
    better: Literal["higher", "lower"] = "higher"
    """The direction of improvement."""
    allowance: float | None = None
    """How much worse it may be, as a share of 1; None: shown and not judged."""

    def __post_init__(self) -> None:
        """Raises `InputError` for a wrong name or allowance."""
        if not re.fullmatch("[a-z0-9-]+", self.name):
            raise InputError(
                f"The metric name {self.name!r} may hold lower-case letters, digits and '-' only; rename it."
            )
        most = 1.0 if self.kind == "rate" else math.inf
        if self.allowance is not None and not (0 <= self.allowance <= most and math.isfinite(self.allowance)):
            raise InputError(
                f"The allowance {self.allowance} of the metric {self.name!r} is not a share of 1; give 0.05 for 5 %, or None."
            )


class Check(ABC, Generic[State]):
    """One question about an edited model. Subclass it to add a check.

    A class sets `name` and `card` and implements two methods. `prepare` is called once on the unedited model, for all edits
    that come together, and returns one state for each request. Then each edit is written in turn, `measure` is called with
    its state, and the edit is undone. `State` is the type of a state, which the check chooses. Where `prepare` may find
    nothing to ask about a request, the state is None there: ``class Locality(Check[Neighbours | None])``. ::

        class Tone(Check[list[int]]):
            name = "tone"
            card = Card(question="Is the model still polite?", ...)
            metrics = (ComparedMetric(name="polite", metric="polite", allowance=0.05),)

            def prepare(self, bench, requests, updates=()):
                return [count_polite(bench.lm, request) for request in requests]

            def measure(self, bench, edit):
                polite = count_polite(bench.lm, edit.request)
                share = sum(polite) / len(polite)
                outcome = judge(share, share >= 0.9)
                counts = {"passed": sum(polite), "failed": len(polite) - sum(polite)}
                return CheckResult([self.measurement("polite", share, outcome, unit="share", **counts)])

    A package names the class as an entry point ``tone = "package.module:Tone"`` in the group ``editguard.checks``.
    """

    name: ClassVar[str]
    card: ClassVar[Card]
    metrics: ClassVar[tuple[ComparedMetric, ...]] = ()
    """Figures that the gate compares. Those of editguard's own checks stand in `editguard.reports.gate.metrics` instead."""
    of_model: ClassVar[bool] = False
    """Whether it asks about the model alone, so that edits that are in it together share one answer."""
    of_sequence: ClassVar[bool] = False
    """Whether it asks about edits that were kept before, and has nothing to say about a single edit."""

    @abstractmethod
    def prepare(
        self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[LowRankUpdate] = ()
    ) -> list[State]:
        """Measure the unedited model, before any edit is applied: return one state for each request.

        `updates` are what will be written for them, where that is already computed. They may make `measure` faster, and must
        not change what it judges.
        """

    @abstractmethod
    def measure(self, bench: Bench, edit: EditUnderTest[State]) -> CheckResult:
        """Measure the model with `edit` in it."""

    def with_drafts(self, bench: Bench, requests: Sequence[EditRequest], states: Sequence[State]) -> Sequence[State]:
        """Return the `states` with guesses of what the model as it is now will write, where `measure` writes texts.

        Called in a model that holds all edits, so that their texts are written in one batch. A guess may make `measure` faster,
        and must not change what it judges.
        """
        return states

    def known_bad(self, bench: Bench, edit: EditUnderTest[State]) -> CheckResult | None:
        """Judge evidence that must fail, on the unedited model and by the rule of `measure`.

        Every audit calls it for its known-bad control. All that is judged must fail, or the audit is void. A check that returns
        None is not controlled, and the audit says so.
        """
        return None

    def known_good(self, bench: Bench, edit: EditUnderTest[State]) -> CheckResult | None:
        """Judge evidence that must pass, on the unedited model and by the rule of `measure`.

        The known-good control is a sound edit, at which most checks have something to judge. An audit calls this only for a
        check that judged nothing there. Without evidence such a check voids the audit.
        """
        return None

    def measurement(
        self,
        metric: str,
        value: float | None,
        outcome: Outcome,
        *,
        condition: str = "unprefixed",
        protocol: str | None = None,
        baseline: float | None = None,
        threshold: float | None = None,
        unit: str = "",
        passed: int = 0,
        failed: int = 0,
        not_judged: int = 0,
        message: str = "",
    ) -> Measurement:
        """Return a measurement of this check; a value that is not finite becomes None."""
        return Measurement(
            check=self.name,
            metric=metric,
            value=value if value is not None and math.isfinite(value) else None,
            outcome=outcome,
            condition=condition,
            protocol=protocol,
            baseline=baseline,
            threshold=threshold,
            unit=unit,
            passed=passed,
            failed=failed,
            not_judged=not_judged,
            message=message,
        )


CHECKS: Registry[Check[Any]] = Registry("checks", f"{__package__}.checks", base=Check)


def list_single_edit_checks() -> tuple[str, ...]:
    """Return the names of the checks that judge a single edit, sorted."""
    return tuple(name for name, cls in CHECKS if not cls.of_sequence)


def judge(value: float, passes: bool) -> Outcome:
    """Return the outcome for `value`: UNMEASURED where it is not finite, else PASS or FAIL."""
    if not math.isfinite(value):
        return Outcome.UNMEASURED
    return Outcome.PASS if passes else Outcome.FAIL
