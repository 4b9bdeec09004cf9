"""How far did the weights move?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ...probes.card import Card
from ...probes.wording import compare_with_bound
from ..check import Bench, Check, CheckResult, EditUnderTest, Measurement, Outcome, judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...probes.forward.low_rank import RankOne
    from ...probes.requests.request import EditRequest

__all__ = ["Drift"]


class Drift(Check[None]):
    """How far did the weights really move, after the cast to their dtype?"""

    name = "drift"
    card = Card(
        question="How far is the edited weight from the one before, and did the cast to its dtype keep the edit?",
        source="||W'-W||_F, and over the number of entries as in arXiv 2403.07175",
        needs="the edited weight, before and after",
        unit="||W'-W||_F / ||W||_F",
        range="0 upwards",
        threshold="max_relative_update of the policy",
        action="A drift of 0 is an edit that was rounded away; a large one is a collapse.",
    )

    def prepare(self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[RankOne] = ()) -> list[None]:
        """Return no state: the bench holds the unedited weight."""
        return [None] * len(requests)

    def measure(self, bench: Bench, edit: EditUnderTest[None]) -> CheckResult:
        """Judge the drift of the weights as they are written."""
        change = (bench.site.matrix(torch.float64) - bench.weight.double()).norm()
        relative = float(change / bench.weight.double().norm())
        per_entry = float(change) / bench.weight.numel()
        info = self.measurement(
            "drift-per-entry",
            per_entry,
            Outcome.INFO if math.isfinite(per_entry) else Outcome.UNMEASURED,
            condition="weights",
            unit="||W'-W||_F / entries",
        )
        return CheckResult([self._judge(bench, relative), info])

    def known_bad(self, bench: Bench, edit: EditUnderTest[None]) -> CheckResult:
        """An edit that was rounded away, and one of a thousand times the weight's norm."""
        return CheckResult([self._judge(bench, relative) for relative in (0.0, 1000.0)])

    def _judge(self, bench: Bench, relative: float) -> Measurement:
        bound = bench.limits.relative_update
        holds = 0 < relative <= bound
        text = f"the weight moved by {relative:.3g} of its norm"
        return self.measurement(
            "relative-drift",
            relative,
            judge(relative, holds),
            condition="weights",
            baseline=0.0,
            threshold=bound,
            unit="ratio",
            message=compare_with_bound(text, holds, f"over 0, at most {bound:g}"),
        )
