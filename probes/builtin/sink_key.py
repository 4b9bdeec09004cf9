"""Is the subject's key the attention sink's?"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..card import Card
from ..probe import CalibrationRule, Finding, Probe, ProbeInput
from ..wording import compare_with_bound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["SinkKey"]

_FALL = '"The Fall of ROME" (arXiv 2406.11263)'


class SinkKey(Probe):
    """Is the key without a prefix the attention sink's?"""

    name = "sink-key"
    card = Card(
        question="Is the subject's key with no prefix like other first tokens' keys, so that no edit there can be specific?",
        source=f"{_FALL}, section 4.2; attention sinks: arXiv 2309.17453",
        needs="the key with no prefix; the mean key of first tokens of other prompts",
        unit="cosine",
        range="-1 to 1",
        threshold="calibrated: half-way from the ordinary subjects' 99 % quantile to 1",
        action="Do not edit this key: every other first token shares it. Let the guard rewrite the edit.",
    )

    calibrated: ClassVar[Mapping[str, CalibrationRule]] = {
        "cosine": CalibrationRule(
            read=lambda evidence: evidence.sink_similarity,
            threshold=lambda quantiles: (quantiles["0.99"] + 1) / 2,
            description="half-way from the 99 % quantile to 1",
        )
    }
    figures = frozenset({"sink_similarity"})

    def examine(self, probe_input: ProbeInput) -> Finding:
        """Compare with the mean key of first tokens."""
        similarity, threshold = probe_input.evidence.sink_similarity, probe_input.threshold(self.name, "cosine")
        fires = similarity > threshold
        message = compare_with_bound(f"cos(k_u, sink) is {similarity:.3f}", not fires, f"at most {threshold:.3f}")
        return self.finding(fires, message, similarity, threshold)

    def known_bad(self, probe_input: ProbeInput) -> Sequence[ProbeInput]:
        """The sink's own key."""
        return (probe_input.with_evidence(sink_similarity=1.0),)

    def known_good(self, probe_input: ProbeInput) -> Sequence[ProbeInput]:
        """The median ordinary subject's cosine."""
        return (probe_input.with_evidence(sink_similarity=probe_input.ordinary(self.name, "cosine")),)
