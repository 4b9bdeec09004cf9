"""Is the subject the first token of the input?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..card import Card
from ..probe import ProbeInput, Finding, Probe

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
        action="Let the edit be made under prefixes, and serve it with one; or word the prompt so that something precedes.",
    )

    def examine(self, case: ProbeInput) -> Finding:
        """Ask the ids, not the text: with a BOS the index is never 0."""
        position = case.evidence.keys.position
        message = (
            "the subject is the first token of the input: its key is the attention sink's"
            if position.is_first_token
            else f"the subject's last token is token {position.last} of the input"
        )
        return self.finding(position.is_first_token, message, float(position.last), 0.0)

    def known_bad(self, case: ProbeInput) -> Sequence[ProbeInput]:
        """The subject as the first token."""
        keys = case.evidence.keys
        return (case.with_evidence(keys=replace(keys, position=replace(keys.position, first=0, last=0))),)
