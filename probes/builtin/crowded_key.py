"""Would the update reach other subjects in the same prompt?"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..card import Card
from ..probe import CalibrationRule, Finding, Level, Probe, ProbeInput
from ..wording import compare_with_bound
from ._known_bad import SPOILING_FACTOR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["CrowdedKey"]


class CrowdedKey(Probe):
    """Would the update reach other subjects in the same prompt?"""

    name = "crowded-key"
    card = Card(
        question="How much of the published update would reach other subjects in the same prompt?",
        source="ROME (arXiv 2202.05262), equation 2, for the share of one key; the mean over a kind is this project's",
        needs="keys of other subjects in the prompt, after one prefix; key statistics",
        unit="share of the update",
        range="0 upwards, 1 where the others take as much of the update as the subject",
        threshold="calibrated: the ordinary subjects' 99 % quantile",
        action="Expect leaks of editors that take the published direction; choose one that holds other subjects: local.",
    )
    calibrated: ClassVar[Mapping[str, CalibrationRule]] = {
        "share": CalibrationRule(
            read=lambda evidence: evidence.crowding,
            threshold=lambda quantiles: quantiles["0.99"],
            description="the 99 % quantile",
        )
    }
    figures = frozenset({"crowding"})

    def examine(self, probe_input: ProbeInput) -> Finding:
        """Compare the mean share of the most crowded kind; a subject that cannot be replaced is not asked about."""
        evidence, threshold = probe_input.evidence, probe_input.threshold(self.name, "share")
        share, kind = evidence.crowding, evidence.crowded_kind
        if share is None:
            return Finding(
                probe=self.name,
                level=Level.OK,
                message="not asked: no other subject was put in the subject's place",
                threshold=threshold,
                unit=self.card.unit,
            )
        fires = share > threshold
        of_kind = f" of the kind {kind.value!r}" if kind else ""
        message = compare_with_bound(
            f"other subjects{of_kind} would take {share:.3f} of the published update",
            not fires,
            f"at most {threshold:.3f}",
        )
        return self.finding(fires, message, share, threshold, kind=kind and kind.value)

    def known_bad(self, probe_input: ProbeInput) -> Sequence[ProbeInput]:
        """The median ordinary subject's share, a thousand times as large."""
        return (probe_input.with_evidence(crowding=probe_input.ordinary(self.name, "share") * SPOILING_FACTOR),)

    def known_good(self, probe_input: ProbeInput) -> Sequence[ProbeInput]:
        """The median ordinary subject's share."""
        return (probe_input.with_evidence(crowding=probe_input.ordinary(self.name, "share")),)
