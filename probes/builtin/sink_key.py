"""Is the subject's key the attention sink's?"""

from __future__ import annotations

from collections.abc import Sequence

from ..card import Card
from ..probe import ProbeInput, Finding, Probe
from ..wording import against

__all__ = ["SinkKey"]

_FALL = '"The Fall of ROME" (arXiv 2406.11263)'


class SinkKey(Probe):
    """Is the bare key the attention sink's?"""

    name = "sink-key"
    card = Card(
        question="Is the subject's bare key like the keys of other first tokens, so that no edit there can be specific?",
        source=f"{_FALL}, section 4.2; attention sinks: arXiv 2309.17453",
        needs="the bare key; the mean key of first tokens of other prompts",
        unit="cosine",
        range="-1 to 1",
        threshold="calibrated: half-way from the ordinary subjects' 99 % quantile to 1",
        action="Do not edit this key: every other first token shares it. Let the guard rewrite the edit under prefixes.",
    )

    def examine(self, case: ProbeInput) -> Finding:
        """Compare with the mean key of first tokens."""
        seen, threshold = case.evidence.sink_similarity, case.threshold(self.name, "cosine")
        fires = seen > threshold
        message = against(f"cos(k_u, sink) is {seen:.3f}", not fires, f"at most {threshold:.3f}")
        return self.finding(fires, message, seen, threshold)

    def known_bad(self, case: ProbeInput) -> Sequence[ProbeInput]:
        """The sink's own key."""
        return (case.with_evidence(sink_similarity=1.0),)

    def known_good(self, case: ProbeInput) -> Sequence[ProbeInput]:
        """The median ordinary subject's cosine."""
        return (case.with_evidence(sink_similarity=case.ordinary(self.name, "cosine")),)
