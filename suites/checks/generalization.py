"""Does the edit hold in other words?"""

from collections.abc import Sequence
from typing import Any

from ...probes.card import Card
from ...probes.forward.low_rank import RankOne
from ...probes.requests.prompt_subjects import select_paraphrases
from ...probes.requests.request import EditRequest
from ..check import Bench, Check, CheckResult, Measurement, Outcome
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


class Generalization(Check):
    """Does the edit hold in other words?"""

    name = "generalization"
    card = Card(
        question="Does the edited model give the target when it is asked in other words?",
        source="arXiv 2202.05262 section 3.2 (paraphrase score)",
        needs="paraphrases in the request that name its subject",
        unit="share",
        range="0 to 1",
        threshold="min_generalization of the policy, exact: unprefixed for edits made so, prefixed for rewritten ones; 0, the "
        "default, shows and does not judge: the published figures for these edits are 13 % to 50 %",
        action="Where it matters, edit with paraphrases, or tell users that only the given wording was changed.",
    )

    def prepare(
        self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[RankOne] = ()
    ) -> list[UneditedScores | None]:
        """Run the paraphrases, bare and under one held-out prefix of some families; None where there are none."""
        texts = [add_held_out_prefixes(bench, select_paraphrases(request), FEW_FAMILIES) for request in requests]
        return score_unedited(
            bench,
            [build_target_rows(bench, some, one) if some else None for some, one in zip(texts, requests, strict=True)],
        )

    def measure(self, bench: Bench, request: EditRequest, before: Any, needs_prefix: bool) -> CheckResult:
        """Count, and judge where the policy has a bound: a request without paraphrases does not meet one."""
        condition, least = "prefixed" if needs_prefix else "unprefixed", bench.limits.generalization
        if before is None:
            return CheckResult([self._nothing(condition)] if least else [])
        rates = measure_rates(self.name, before.asked, before.now(), before.before)
        return CheckResult([judge_rate(rate, condition, least, "paraphrases") if least else rate for rate in rates])

    def known_bad(self, bench: Bench, request: EditRequest, before: Any) -> CheckResult | None:
        """The unedited model, which does not say the target, where paraphrases are judged."""
        if before is None or not bench.limits.generalization:
            return None
        rates = measure_rates(self.name, before.asked, before.before, before.before)
        least = bench.limits.generalization
        return CheckResult([judge_rate(rate, "unprefixed", least, "paraphrases") for rate in rates])

    def _nothing(self, condition: str) -> Measurement:
        message = "the policy has min_generalization, and the request has no paraphrase that names its subject"
        return Measurement(self.name, self.name, None, Outcome.UNMEASURED, condition, "exact", message=message)
