"""How far edits that were kept one after the other have moved the model from where it was before the first of them.

Each edit of a sequence is judged against the model that it is made on, so that a hundred small damages pass one by one; what
they add up to is judged here: the corpus perplexity, and the norm of all that was added to the weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...probes.card import Card
from ...probes.forward.low_rank import RankOne
from ...probes.requests.request import EditRequest
from ...probes.wording import compare_with_bound
from ..check import Bench, Check, CheckResult, Measurement, judge
from .perplexity import Perplexity

__all__ = ["AccumulatedDrift"]

_SEQUENCE = "sequence"
"""Name of the condition."""


class AccumulatedDrift(Check):
    """Is the model still near to what it was before the first edit?"""

    name = "accumulated-drift"
    of_sequence = True
    card = Card(
        question="How far have all edits that were kept, with this one, moved the model from where it was before the first?",
        source="sequences of edits collapse models whose single edits do not: arXiv 2402.09656 and 2401.07453",
        needs="logits of the corpus, and the site's weight before the first edit",
        unit="perplexity ratio, and ||W - W_0||_F / ||W_0||_F",
        range="0 upwards, 1 and 0 for no change",
        threshold="max_accumulated_ratio (1.1) and max_accumulated_update (1.5) of the policy; the sequence ends there",
        action="Ship what was kept so far, or begin again with fewer edits; nothing more is added to this model.",
    )

    def prepare(self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[RankOne] = ()) -> list[Any]:
        """The corpus as it is run for the perplexity check."""
        return [Perplexity().baseline(bench)] * len(requests)

    def measure(self, bench: Bench, request: EditRequest, before: Any, needs_prefix: bool) -> CheckResult:
        """Judge both figures against the origin; an edit that is made alone has none."""
        if bench.origin is None:
            return CheckResult([])
        weight = bench.origin.weight
        moved = float((bench.site.matrix().double() - weight.double()).norm() / weight.double().norm())
        return self._judged(bench, before.after().mean / bench.origin.perplexity, moved)

    def known_bad(self, bench: Bench, request: EditRequest, before: Any) -> CheckResult | None:
        """A thousand times the perplexity of the origin, and a weight moved by a thousand times its norm."""
        return None if bench.origin is None else self._judged(bench, 1000.0, 1000.0)

    def _judged(self, bench: Bench, ratio: float, moved: float) -> CheckResult:
        told = (
            ("perplexity-ratio", ratio, bench.limits.accumulated_ratio, 1.0, "ratio", "times that before the first edit"),
            ("relative-norm", moved, bench.limits.accumulated_update, 0.0, "of ||W_0||", "of ||W_0|| from the first weight"),
        )  # fmt: skip
        return CheckResult(
            [
                Measurement(
                    self.name, metric, value if math.isfinite(value) else None, judge(value, value <= bound), _SEQUENCE,
                    baseline=base, threshold=bound, unit=unit,
                    message=compare_with_bound(f"{value:.4g} {what}", value <= bound, f"at most {bound:g}"),
                )
                for metric, value, bound, base, unit, what in told
            ]
        )  # fmt: skip
