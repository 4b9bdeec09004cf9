"""Does the edit hold in other words?"""

from collections.abc import Sequence

from ...probes.card import Card
from ...probes.forward.low_rank import LowRankUpdate
from ...probes.requests.prompt_subjects import select_paraphrases
from ...probes.requests.request import EditRequest
from ..check import Bench, Check, CheckResult, EditUnderTest, Measurement, Outcome
from ._answers import (
    FEW_FAMILIES,
    UneditedScores,
    add_held_out_prefixes,
    build_target_rows,
    judge_rate,
    measure_rates,
    score_unedited,
)

__all__ = ["Generalization"]


class Generalization(Check[UneditedScores | None]):
    """Does the edit hold in other words?"""

    name = "generalization"
    card = Card(
        question="Does the edited model give the target when it is asked in other words?",
        source="arXiv 2202.05262 section 3.2 (paraphrase score)",
        needs="paraphrases in the request that name its subject",
        unit="share",
        range="0 to 1",
        threshold="min_generalization of the policy, exact: prefixed for edits that need a prefix, unprefixed for others; 0, the "
        "default, shows and does not judge: the published figures for these edits are 13 % to 50 %",
        action="Where it matters, edit with paraphrases, or tell users that only the given wording was changed.",
    )

    def prepare(
        self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[LowRankUpdate] = ()
    ) -> list[UneditedScores | None]:
        """Run the paraphrases, without a prefix and after one held-out prefix of some families; None where there are none."""
        texts = [add_held_out_prefixes(bench, select_paraphrases(request), FEW_FAMILIES) for request in requests]
        rows = [build_target_rows(bench, some, request) for some, request in zip(texts, requests, strict=True) if some]
        scores = iter(score_unedited(bench, rows))
        return [next(scores) if some else None for some in texts]

    def measure(self, bench: Bench, edit: EditUnderTest[UneditedScores | None]) -> CheckResult:
        """Count, and judge where the policy has a bound: a request without paraphrases does not meet one."""
        condition, least = "prefixed" if edit.needs_prefix else "unprefixed", bench.limits.generalization
        state = edit.state
        if state is None:
            return CheckResult([self._without_paraphrases(condition)] if least else [])
        rates = measure_rates(self, state.prompts, state.score_again(), state.before)
        return CheckResult([judge_rate(rate, condition, least, "paraphrases") if least else rate for rate in rates])

    def known_bad(self, bench: Bench, edit: EditUnderTest[UneditedScores | None]) -> CheckResult | None:
        """The unedited model, which does not say the target, where paraphrases are judged."""
        state, least = edit.state, bench.limits.generalization
        if state is None or not least:
            return None
        rates = measure_rates(self, state.prompts, state.before, state.before)
        return CheckResult([judge_rate(rate, "unprefixed", least, "paraphrases") for rate in rates])

    def _without_paraphrases(self, condition: str) -> Measurement:
        message = "the policy has min_generalization, and the request has no paraphrase that names its subject"
        return self.measurement(
            self.name, None, Outcome.UNMEASURED, condition=condition, protocol="exact", message=message
        )
