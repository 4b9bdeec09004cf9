"""How far a sequence of kept edits has moved the model from where it was before the first of them.

Each edit of a sequence is judged against the model that it is made on, so that a hundred small damages pass one by one.
Their sum is judged here: the corpus perplexity, and the norm of all that was added to the weights of all sites.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...probes.card import Card
from ...probes.wording import compare_with_bound
from ..check import Bench, Check, CheckResult, EditUnderTest, judge
from .perplexity import CorpusPerplexity, Perplexity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...probes.forward.low_rank import LowRankUpdate
    from ...probes.requests.request import EditRequest

__all__ = ["AccumulatedDrift"]

_SEQUENCE = "sequence"
"""Name of the condition."""


class AccumulatedDrift(Check[CorpusPerplexity]):
    """Is the model still near to what it was before the first edit?"""

    name = "accumulated-drift"
    of_sequence = True
    card = Card(
        question="How far have all edits that were kept, with this one, moved the model from where it was before the first?",
        source="sequences of edits collapse models whose single edits do not: arXiv 2402.09656 and 2401.07453",
        needs="logits of the corpus, and the weights before the first edit; the squares of several sites add up",
        unit="perplexity ratio, and ||W - W_0||_F / ||W_0||_F",
        range="0 upwards, 1 and 0 for no change",
        threshold="max_accumulated_ratio (1.1) and max_accumulated_update (1.5) of the policy; the sequence ends there",
        action="Ship what was kept so far, or begin again with fewer edits; nothing more is added to this model.",
    )

    def prepare(
        self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[LowRankUpdate] = ()
    ) -> list[CorpusPerplexity]:
        """Return the corpus as it is run for the perplexity check."""
        return [Perplexity().baseline(bench)] * len(requests)

    def measure(self, bench: Bench, edit: EditUnderTest[CorpusPerplexity]) -> CheckResult:
        """Judge both figures against the origin; a single edit has none, and nothing is judged."""
        if bench.origin is None:
            return CheckResult([])
        ratio = edit.state.score_again().mean / bench.origin.perplexity
        return self._judge(bench, ratio, bench.origin.distance())

    def known_bad(self, bench: Bench, edit: EditUnderTest[CorpusPerplexity]) -> CheckResult | None:
        """A thousand times the perplexity of the origin, and a weight moved by a thousand times its norm."""
        return None if bench.origin is None else self._judge(bench, 1000.0, 1000.0)

    def _judge(self, bench: Bench, ratio: float, distance: float) -> CheckResult:
        perplexity = self.measurement(
            "perplexity-ratio",
            ratio,
            judge(ratio, ratio <= bench.limits.accumulated_ratio),
            condition=_SEQUENCE,
            baseline=1.0,
            threshold=bench.limits.accumulated_ratio,
            unit="ratio",
            message=_message(f"{ratio:.4g} times that before the first edit", ratio, bench.limits.accumulated_ratio),
        )
        norm = self.measurement(
            "relative-norm",
            distance,
            judge(distance, distance <= bench.limits.accumulated_update),
            condition=_SEQUENCE,
            baseline=0.0,
            threshold=bench.limits.accumulated_update,
            unit="of ||W_0||",
            message=_message(
                f"{distance:.4g} of ||W_0|| from the first weight", distance, bench.limits.accumulated_update
            ),
        )
        return CheckResult([perplexity, norm])


def _message(text: str, value: float, bound: float) -> str:
    return compare_with_bound(text, value <= bound, f"at most {bound:g}")
