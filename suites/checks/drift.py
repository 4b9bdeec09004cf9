"""How far did the weights move?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ...probes.card import Card
from ...probes.model.site_change import combine_norms
from ...probes.wording import compare_with_bound
from ..check import Bench, Check, CheckResult, EditUnderTest, Measurement, Outcome, judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...probes.forward.low_rank import LowRankUpdate
    from ...probes.requests.request import EditRequest

__all__ = ["Drift"]


class Drift(Check[None]):
    """How far did the weights really move, after the cast to their dtype?"""

    name = "drift"
    card = Card(
        question="How far are the edited weights from those before, and did the cast to their dtype keep the edit?",
        source="||W'-W||_F, and over the number of entries as in arXiv 2403.07175",
        needs="the edited weights, before and after; the squares of several sites add up",
        unit="||W'-W||_F / ||W||_F",
        range="0 upwards",
        threshold="max_relative_update of the policy",
        action="A drift of 0 is an edit that was rounded away; a large one is a collapse.",
    )

    def prepare(
        self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[LowRankUpdate] = ()
    ) -> list[None]:
        """Return no state: the bench holds the unedited weights."""
        return [None] * len(requests)

    def measure(self, bench: Bench, edit: EditUnderTest[None]) -> CheckResult:
        """Judge the drift of the weights as they are written; show that of each site where several are edited."""
        distances = [weight.distance() for weight in bench.weights]
        by_site = {
            weight.site.path: weight.relate(distance) for weight, distance in zip(bench.weights, distances, strict=True)
        }
        entries = sum(weight.tensor.numel() for weight in bench.weights)
        per_entry = combine_norms(distances) / entries
        shown = [self._show("drift-per-entry", per_entry, "weights", "||W'-W||_F / entries")]
        if len(by_site) > 1:
            shown += [
                self._show("relative-drift", value, f"weights:{path}", "ratio") for path, value in by_site.items()
            ]
        return CheckResult([self._judge(bench, by_site), *shown])

    def known_bad(self, bench: Bench, edit: EditUnderTest[None]) -> CheckResult:
        """An edit that was rounded away at one site, and one of a thousand times the weight's norm."""
        paths = [site.path for site in bench.sites]
        rounded_away, huge = dict.fromkeys(paths, 0.1) | {paths[0]: 0.0}, dict.fromkeys(paths, 1000.0)
        return CheckResult([self._judge(bench, by_site) for by_site in (rounded_away, huge)])

    def _show(self, metric: str, value: float, condition: str, unit: str) -> Measurement:
        outcome = Outcome.INFO if math.isfinite(value) else Outcome.UNMEASURED
        return self.measurement(metric, value, outcome, condition=condition, unit=unit)

    def _judge(self, bench: Bench, by_site: Mapping[str, float]) -> Measurement:
        """Judge the whole, and that no site's change was rounded away."""
        relative, bound = combine_norms(by_site.values()), bench.limits.relative_update
        holds = min(by_site.values()) > 0 and relative <= bound
        text = f"the weight moved by {relative:.3g} of its norm"
        if len(by_site) > 1:
            each = ", ".join(f"{value:.3g} at {path}" for path, value in by_site.items())
            text = f"the weights moved by {relative:.3g} of their norms ({each})"
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
