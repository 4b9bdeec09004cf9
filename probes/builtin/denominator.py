"""Is the denominator of the update small?"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from ..card import Card
from ..probe import CalibrationRule, Finding, Probe, ProbeInput
from ..wording import compare_with_bound
from ._known_bad import SPOILING_FACTOR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Denominator"]

_FALL = '"The Fall of ROME" (arXiv 2406.11263)'
_BOUND_UNIT = "bound of ||Delta|| / ||W||"


class Denominator(Probe):
    """How large would the published update be?"""

    name = "denominator"
    card = Card(
        question="Is the denominator of the published update large enough, so that the update stays small?",
        source=f"{_FALL}, equation 4 and table 1",
        needs="keys, with no prefix and under ROME's contexts; key statistics",
        unit="|u.k_u| / |u.k_bar|",
        range="0 upwards, near 1 for ordinary subjects",
        threshold=(
            "calibrated: a quarter of the ordinary subjects' 1 % quantile; and the update's upper bound may be at most "
            "twice their 99 % quantile"
        ),
        action="Never make this edit as published; let the guard rewrite it with consistent keys.",
    )
    calibrated: ClassVar[Mapping[str, CalibrationRule]] = {
        "ratio": CalibrationRule(
            read=lambda evidence: evidence.ratio,
            threshold=lambda quantiles: quantiles["0.01"] / 4,
            description="a quarter of the 1 % quantile",
        ),
        "predicted_relative_norm": CalibrationRule(
            read=lambda evidence: evidence.predicted_relative_norm,
            threshold=lambda quantiles: quantiles["0.99"] * 2,
            description="twice the 99 % quantile",
        ),
    }
    figures = frozenset({"ratio", "predicted_relative_norm"})

    def examine(self, probe_input: ProbeInput) -> Finding:
        """Fire where the denominator almost vanishes or the update's bound leaves the ordinary range."""
        evidence = probe_input.evidence
        min_ratio = probe_input.threshold(self.name, "ratio")
        max_norm = probe_input.threshold(self.name, "predicted_relative_norm")
        for figure in (evidence.denominator, evidence.denominator_prefixed, evidence.predicted_relative_norm):
            if not math.isfinite(figure):
                return self.finding(True, "", figure, min_ratio)
        small = evidence.ratio < min_ratio
        large = evidence.predicted_relative_norm > max_norm
        ratio_clause = compare_with_bound(
            f"the denominator ratio |u.k_u| / |u.k_bar| = {evidence.denominator:.4g} / {evidence.denominator_prefixed:.4g} is "
            f"{evidence.ratio:.4g}",
            not small,
            f"at least {min_ratio:.3g}",
        )
        bound_clause = compare_with_bound(
            f"the published update could reach {evidence.predicted_relative_norm:.3g} times ||W||",
            not large,
            f"at most {max_norm:.3g}",
        )
        bound_alone_fires = large and not small
        # The rule that fired stands first.
        clauses = (bound_clause, ratio_clause) if bound_alone_fires else (ratio_clause, bound_clause)
        finding = self.finding(
            small or large,
            "; ".join(clauses),
            evidence.ratio,
            min_ratio,
            denominator=evidence.denominator,
            denominator_prefixed=evidence.denominator_prefixed,
            predicted_relative_norm=evidence.predicted_relative_norm,
            predicted_relative_norm_threshold=max_norm,
        )
        if bound_alone_fires:
            # Value and threshold are those of the rule that fired.
            return replace(finding, value=evidence.predicted_relative_norm, threshold=max_norm, unit=_BOUND_UNIT)
        return finding

    def known_bad(self, probe_input: ProbeInput) -> Sequence[ProbeInput]:
        """The median ordinary subject with its denominator, and then with its bound, off by a factor of a thousand."""
        (ordinary,) = self.known_good(probe_input)
        evidence = ordinary.evidence
        return (
            ordinary.with_evidence(denominator=evidence.denominator / SPOILING_FACTOR),
            ordinary.with_evidence(predicted_relative_norm=evidence.predicted_relative_norm * SPOILING_FACTOR),
        )

    def known_good(self, probe_input: ProbeInput) -> Sequence[ProbeInput]:
        """The median ordinary subject's figures."""
        ratio, norm = (probe_input.ordinary(self.name, metric) for metric in ("ratio", "predicted_relative_norm"))
        return (probe_input.with_evidence(denominator=ratio, denominator_prefixed=1.0, predicted_relative_norm=norm),)
