"""Does the edited model say the target?"""

from collections.abc import Sequence
from typing import Any

from ...probes.card import Card
from ...probes.forward.low_rank import RankOne
from ...probes.keys.prefixes import list_special_tokens
from ...probes.requests.request import EditRequest
from ..check import Bench, Check, CheckResult, Measurement, Outcome
from ..served_answer import begin_of_text_token, measure_served
from ._answers import (
    SPECIAL,
    ConditionText,
    UneditedScores,
    add_held_out_prefixes,
    build_target_rows,
    judge_rate,
    measure_rates,
    score_unedited,
)

__all__ = ["Efficacy"]


class Efficacy(Check):
    """Does the edited model say the target?"""

    name = "efficacy"
    card = Card(
        question="Does the edited model continue the edit's own prompt with the new target?",
        source="arXiv 2202.05262 section 3.2; families of prefixes are this project's",
        needs="logits of the prompt: bare, after held-out prefixes of each family, after each special token, and as served",
        unit="share",
        range="0 to 1",
        threshold="min_efficacy of the policy, exact: unprefixed for edits made so, prefixed for rewritten ones; served is "
        "shown, and judged where the policy has require_served",
        action="An edit that does not take is not safe but useless; reword the prompt or edit another layer.",
    )

    def prepare(
        self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[RankOne] = ()
    ) -> list[UneditedScores | None]:
        """Run the prompts under every held-out prefix, and after every special token, once."""
        texts = [[*add_held_out_prefixes(bench, [one.prompt], None), *self._special(bench, one)] for one in requests]
        return score_unedited(
            bench, [build_target_rows(bench, some, one) for some, one in zip(texts, requests, strict=True)]
        )

    @staticmethod
    def _special(bench: Bench, request: EditRequest) -> list[ConditionText]:
        return [ConditionText(f"{SPECIAL}{token}", token + request.prompt) for token in list_special_tokens(bench.lm)]

    def measure(self, bench: Bench, request: EditRequest, before: Any, needs_prefix: bool) -> CheckResult:
        """Judge the exact protocol under the condition that the edit was made for."""
        rates = measure_rates(self.name, before.asked, before.now(), before.before)
        bare = next(rate for rate in rates if (rate.condition, rate.protocol) == ("unprefixed", "exact"))
        token = f"{SPECIAL}{begin_of_text_token(bench.lm)}"
        after = next((rate for rate in rates if (rate.condition, rate.protocol) == (token, "exact")), None)
        return CheckResult(
            [*self._judged(bench, rates, needs_prefix), measure_served(bench, request, bare, needs_prefix, after)]
        )

    def known_bad(self, bench: Bench, request: EditRequest, before: Any) -> CheckResult:
        """The unedited model, which does not say the target."""
        rates = measure_rates(self.name, before.asked, before.before, before.before)
        return CheckResult(self._judged(bench, rates, needs_prefix=False))

    def _judged(self, bench: Bench, rates: list[Measurement], needs_prefix: bool) -> list[Measurement]:
        judged = "prefixed" if needs_prefix else "unprefixed"
        if judged not in {rate.condition for rate in rates}:
            nothing = "there is no held-out prefix to test the edit under"
            rates.append(Measurement(self.name, self.name, None, Outcome.UNMEASURED, judged, "exact", message=nothing))
        return [judge_rate(rate, judged, bench.limits.efficacy, "prompts") for rate in rates]
