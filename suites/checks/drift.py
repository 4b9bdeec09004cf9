"""How far did the weights move?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ...probes.card import Card
from ...probes.forward.low_rank import RankOne
from ...probes.requests.request import EditRequest
from ...probes.wording import compare_with_bound
from ..check import Bench, Check, CheckResult, Measurement, Outcome, judge

__all__ = ["Drift"]


class Drift(Check):
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
        """Nothing: the bench holds the unedited weight."""
        return [None] * len(requests)

    def measure(self, bench: Bench, request: EditRequest, before: Any, needs_prefix: bool) -> CheckResult:
        """Judge the drift that is really in the weights."""
        change = (bench.site.matrix(torch.float64) - bench.weight.double()).norm()
        relative = float(change / bench.weight.double().norm())
        each = float(change) / bench.weight.numel()
        info = Measurement(
            self.name, "drift-per-entry", each if math.isfinite(each) else None,
            Outcome.INFO if math.isfinite(each) else Outcome.UNMEASURED, "weights", unit="||W'-W||_F / entries",
        )  # fmt: skip
        return CheckResult([self._verdict(bench, relative), info])

    def known_bad(self, bench: Bench, request: EditRequest, before: Any) -> CheckResult:
        """An edit that was rounded away, and one of a thousand times the weight's norm."""
        return CheckResult([self._verdict(bench, relative) for relative in (0.0, 1000.0)])

    def _verdict(self, bench: Bench, relative: float) -> Measurement:
        bound = bench.limits.relative_update
        holds = 0 < relative <= bound
        message = compare_with_bound(f"the weight moved by {relative:.3g} of its norm", holds, f"over 0, at most {bound:g}")
        return Measurement(
            self.name, "relative-drift", relative if math.isfinite(relative) else None, judge(relative, holds), "weights",
            baseline=0.0, threshold=bound, unit="ratio", message=message,
        )  # fmt: skip
