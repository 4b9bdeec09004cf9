"""Does the edited model say the target?"""

from collections.abc import Sequence

from ...probes.card import Card
from ...probes.forward.low_rank import LowRankUpdate
from ...probes.keys.prefixes import list_special_tokens
from ...probes.requests.request import EditRequest
from ..check import Bench, Check, CheckResult, EditUnderTest, Measurement, Outcome
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


class Efficacy(Check[UneditedScores]):
    """Does the edited model say the target?"""

    name = "efficacy"
    card = Card(
        question="Does the edited model continue the edit's own prompt with the new target?",
        source="arXiv 2202.05262 section 3.2; families of prefixes are this project's",
        needs="logits of the prompt: bare, after held-out prefixes of each family, after each special token, and as served",
        unit="share",
        range="0 to 1",
        threshold="min_efficacy of the policy, exact: prefixed for edits that need a prefix, unprefixed for others; served "
        "is shown, and judged where the policy has require_served",
        action="An edit that does not take is not safe but useless; reword the prompt or edit another layer.",
    )

    def prepare(
        self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[LowRankUpdate] = ()
    ) -> list[UneditedScores]:
        """Run the prompts after every held-out prefix, and after every special token, once."""
        texts = [
            [*add_held_out_prefixes(bench, [request.prompt], None), *self._special(bench, request)]
            for request in requests
        ]
        rows = [build_target_rows(bench, some, request) for some, request in zip(texts, requests, strict=True)]
        return score_unedited(bench, rows)

    @staticmethod
    def _special(bench: Bench, request: EditRequest) -> list[ConditionText]:
        return [ConditionText(f"{SPECIAL}{token}", token + request.prompt) for token in list_special_tokens(bench.lm)]

    def measure(self, bench: Bench, edit: EditUnderTest[UneditedScores]) -> CheckResult:
        """Judge the exact protocol under the condition that the edit was made for."""
        state = edit.state
        rates = measure_rates(self, state.prompts, state.score_again(), state.before)
        unprefixed = next(rate for rate in rates if (rate.condition, rate.protocol) == ("unprefixed", "exact"))
        token = f"{SPECIAL}{begin_of_text_token(bench.lm)}"
        after_token = next((rate for rate in rates if (rate.condition, rate.protocol) == (token, "exact")), None)
        judged = self._judge(bench, rates, edit.needs_prefix)
        return CheckResult([*judged, measure_served(bench, edit, unprefixed, after_token)])

    def known_bad(self, bench: Bench, edit: EditUnderTest[UneditedScores]) -> CheckResult:
        """The unedited model, which does not say the target."""
        state = edit.state
        rates = measure_rates(self, state.prompts, state.before, state.before)
        return CheckResult(self._judge(bench, rates, needs_prefix=False))

    def _judge(self, bench: Bench, rates: list[Measurement], needs_prefix: bool) -> list[Measurement]:
        condition = "prefixed" if needs_prefix else "unprefixed"
        if condition not in {rate.condition for rate in rates}:
            message = "there is no held-out prefix to test the edit with"
            rates.append(
                self.measurement(
                    self.name, None, Outcome.UNMEASURED, condition=condition, protocol="exact", message=message
                )
            )
        return [judge_rate(rate, condition, bench.limits.efficacy, "prompts") for rate in rates]
