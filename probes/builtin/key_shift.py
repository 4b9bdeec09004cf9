"""How far is the key without a prefix from the keys after prefixes?"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..card import Card
from ..probe import CalibrationRule, Finding, Probe, ProbeInput
from ..wording import compare_with_bound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["KeyShift"]

_FALL = '"The Fall of ROME" (arXiv 2406.11263)'
_SMALLEST_THRESHOLD = -0.9
"""Below -1 the probe could never fire, and a key that points away from the others is ordinary in no model."""


def _threshold(quantiles: Mapping[str, float]) -> float:
    return max(quantiles["0.01"] - (quantiles["median"] - quantiles["0.01"]) / 2, _SMALLEST_THRESHOLD)


class KeyShift(Probe):
    """How far is the key without a prefix from the keys after prefixes?"""

    name = "key-shift"
    card = Card(
        question="Does the subject's key with no prefix point where its keys after prefixes point?",
        source=f"{_FALL}, section 4.1 and figure 3",
        needs="keys, with no prefix and under ROME's contexts; key statistics for the distance",
        unit="cosine",
        range="-1 to 1",
        threshold=(
            "calibrated: the ordinary subjects' 1 % quantile, lowered by half its distance from their median, but to -0.9 at "
            "most, so that it can fire"
        ),
        action="Let the guard rewrite the edit with keys from one side at each site, or reword the prompt.",
    )

    calibrated: ClassVar[Mapping[str, CalibrationRule]] = {
        "cosine": CalibrationRule(
            read=lambda evidence: evidence.cosine,
            threshold=_threshold,
            description=f"the 1 % quantile less half its distance from the median, {_SMALLEST_THRESHOLD:g} at least",
        )
    }
    figures = frozenset({"cosine"})

    def examine(self, probe_input: ProbeInput) -> Finding:
        """Compare directions; norms and the distance in the metric of C stand in the details."""
        evidence, threshold = probe_input.evidence, probe_input.threshold(self.name, "cosine")
        fires = evidence.cosine < threshold
        message = compare_with_bound(
            f"cos(k_u, k_bar) is {evidence.cosine:.3f}", not fires, f"at least {threshold:.3f}"
        )
        return self.finding(
            fires,
            message,
            evidence.cosine,
            threshold,
            norm_ratio=evidence.norm_ratio,
            distance_ratio=evidence.distance_ratio,
        )

    def known_bad(self, probe_input: ProbeInput) -> Sequence[ProbeInput]:
        """A key without a prefix that points away from the prefixed keys."""
        return (probe_input.with_evidence(cosine=-1.0),)

    def known_good(self, probe_input: ProbeInput) -> Sequence[ProbeInput]:
        """The median ordinary subject's cosine."""
        return (probe_input.with_evidence(cosine=probe_input.ordinary(self.name, "cosine")),)
