"""Is the subject the first token of the input?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..card import Card
from ..probe import Finding, Probe, ProbeInput

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FirstToken"]

_FALL = '"The Fall of ROME" (arXiv 2406.11263)'


class FirstToken(Probe):
    """Is the subject's last token the first token of the input?"""

    name = "first-token"
    card = Card(
        question="Is the subject's last token the very first token of the input, after special tokens are counted?",
        source=f"{_FALL}, section 4.2",
        needs="the tokenizer's ids of the prompt",
        unit="token index",
        range="0 to the prompt's length",
        threshold="index 0; no calibration, since the first token sees nothing but itself in causal attention",
        action="Let the guard rewrite the edit, and serve it with a prefix where it needs one; or word the prompt so that "
        "something precedes.",
    )
    figures = frozenset({"keys.position"})

    def examine(self, probe_input: ProbeInput) -> Finding:
        """Ask the ids, not the text: with a BOS the index is never 0."""
        position = probe_input.evidence.keys.position
        message = (
            "the subject is the first token of the input: its key is the attention sink's"
            if position.is_first_token
            else f"the subject's last token is token {position.last} of the input"
        )
        return self.finding(position.is_first_token, message, float(position.last), 0.0)

    def known_bad(self, probe_input: ProbeInput) -> Sequence[ProbeInput]:
        """The subject as the first token."""
        keys = probe_input.evidence.keys
        return (probe_input.with_evidence(keys=replace(keys, position=replace(keys.position, first=0, last=0))),)
