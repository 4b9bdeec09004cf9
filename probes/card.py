"""The card that every probe and check carries: its question, its source, and what a person does about a finding."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["Card"]


@dataclass(frozen=True, kw_only=True)
class Card:
    """A complete description of one probe or check, printed in reports and in the documentation.

    Every field must be filled. `incomplete` names the empty fields, and a test over the registries refuses a plug-in whose
    card is incomplete.
    """

    question: str
    """The question that it answers, as a question."""
    source: str
    """Paper and equation, or the public implementation, that defines it."""
    needs: str
    """The inputs that it reads: keys, statistics, logits, generations."""
    unit: str
    """Unit of the value, or "none"."""
    range: str
    """Range of the value."""
    threshold: str
    """The threshold, where it comes from, and its reason."""
    action: str
    """What a person does when it fires."""

    def incomplete(self) -> tuple[str, ...]:
        """Return the names of the fields that are empty."""
        return tuple(field.name for field in fields(self) if not getattr(self, field.name).strip())
