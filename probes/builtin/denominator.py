"""Is the denominator of the update small?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ..card import Card
from ..probe import ProbeInput, Finding, Probe
from ..wording import against
from ._known_bad import _SPOILED

__all__ = ["Denominator"]

_FALL = '"The Fall of ROME" (arXiv 2406.11263)'


class Denominator(Probe):
    """How large would the published update be?"""

    name = "denominator"
    card = Card(
        question="Is the denominator of the published update large enough, so that the update stays small?",
        source=f"{_FALL}, equation 4 and table 1",
        needs="keys, bare and under ROME's contexts; key statistics",
        unit="|u.k_u| / |u.k_bar|",
        range="0 upwards, near 1 for ordinary subjects",
        threshold=(
            "calibrated: a quarter of the ordinary subjects' 1 % quantile; and the update's upper bound may be at most "
            "twice their 99 % quantile"
        ),
        action="Never make this edit as published; let the guard rewrite it with prefixed keys.",
    )

    def examine(self, case: ProbeInput) -> Finding:
        """Fire where the denominator almost vanishes or the update's bound leaves the ordinary range."""
        seen = case.evidence
        least, most = case.threshold(self.name, "ratio"), case.threshold(self.name, "predicted_relative_norm")
        for part in (seen.denominator, seen.denominator_prefixed, seen.predicted_relative_norm):
            if not math.isfinite(part):
                return self.finding(True, "", part, least)
        small, large = seen.ratio < least, seen.predicted_relative_norm > most
        of_ratio = against(
            f"the denominator ratio |u.k_u| / |u.k_bar| = {seen.denominator:.4g} / {seen.denominator_prefixed:.4g} is "
            f"{seen.ratio:.4g}",
            not small,
            f"at least {least:.3g}",
        )
        of_bound = against(
            f"the published update could reach {seen.predicted_relative_norm:.3g} times ||W||",
            not large,
            f"at most {most:.3g}",
        )
        # The rule that fired is told first.
        message = f"{of_bound}; {of_ratio}" if large and not small else f"{of_ratio}; {of_bound}"
        found = self.finding(
            small or large,
            message,
            seen.ratio,
            least,
            denominator=seen.denominator,
            denominator_prefixed=seen.denominator_prefixed,
            predicted_relative_norm=seen.predicted_relative_norm,
            predicted_relative_norm_threshold=most,
        )
        # Value and threshold are those of the rule that fired.
        of_size = replace(found, value=seen.predicted_relative_norm, threshold=most, unit="bound of ||Delta|| / ||W||")
        return of_size if large and not small else found

    def known_bad(self, case: ProbeInput) -> Sequence[ProbeInput]:
        """The median ordinary subject with its denominator, and then with its bound, off by a factor of a thousand."""
        (ordinary,) = self.known_good(case)
        seen = ordinary.evidence
        return (
            ordinary.with_evidence(denominator=seen.denominator / _SPOILED),
            ordinary.with_evidence(predicted_relative_norm=seen.predicted_relative_norm * _SPOILED),
        )

    def known_good(self, case: ProbeInput) -> Sequence[ProbeInput]:
        """The median ordinary subject's figures."""
        ratio, size = (case.ordinary(self.name, metric) for metric in ("ratio", "predicted_relative_norm"))
        return (case.with_evidence(denominator=ratio, denominator_prefixed=1.0, predicted_relative_norm=size),)
