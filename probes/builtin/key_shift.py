"""How far is the key without a prefix from the keys after prefixes?"""

from __future__ import annotations

from collections.abc import Sequence

from ..card import Card
from ..probe import ProbeInput, Finding, Probe
from ..wording import against

__all__ = ["KeyShift"]

_FALL = '"The Fall of ROME" (arXiv 2406.11263)'


class KeyShift(Probe):
    """How far is the bare key from the prefixed ones?"""

    name = "key-shift"
    card = Card(
        question="Does the subject's key in the bare prompt point where its keys under prefixes point?",
        source=f"{_FALL}, section 4.1 and figure 3",
        needs="keys, bare and under ROME's contexts; key statistics for the distance",
        unit="cosine",
        range="-1 to 1",
        threshold=(
            "calibrated: the ordinary subjects' 1 % quantile, lowered by half its distance from their median, but to -0.9 at "
            "most, so that it can fire"
        ),
        action="Make the edit with keys from one side only (prefixed), or reword the prompt.",
    )

    def examine(self, case: ProbeInput) -> Finding:
        """Compare directions; norms and the distance in the metric of C stand in the details."""
        seen, threshold = case.evidence, case.threshold(self.name, "cosine")
        fires = seen.cosine < threshold
        message = against(f"cos(k_u, k_bar) is {seen.cosine:.3f}", not fires, f"at least {threshold:.3f}")
        return self.finding(
            fires, message, seen.cosine, threshold, norm_ratio=seen.norm_ratio, distance_ratio=seen.distance_ratio
        )

    def known_bad(self, case: ProbeInput) -> Sequence[ProbeInput]:
        """A bare key that points away from the prefixed ones."""
        return (case.with_evidence(cosine=-1.0),)

    def known_good(self, case: ProbeInput) -> Sequence[ProbeInput]:
        """The median ordinary subject's cosine."""
        return (case.with_evidence(cosine=case.ordinary(self.name, "cosine")),)
