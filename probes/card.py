"""The card that every probe and check carries: what it asks, where it comes from, and what a human does about it."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["Card"]


@dataclass(frozen=True)
class Card:
    """A complete description of one probe or check, printed in reports and in the documentation.

    Every field must be filled; `incomplete` names those that are not, and a test over the registries
    refuses a plugin whose card is incomplete.
    """

    question: str
    """The question that it answers, as a question."""
    source: str
    """Paper and equation, or the public implementation, that defines it."""
    needs: str
    """What must be at hand: keys, statistics, logits, generations."""
    unit: str
    """Unit of the value, or "none"."""
    range: str
    """Range of the value."""
    threshold: str
    """The threshold, how it is found, and its reason."""
    action: str
    """What a human does about it when it fires."""

    def incomplete(self) -> tuple[str, ...]:
        """Return the names of the fields that are empty."""
        return tuple(field.name for field in fields(self) if not getattr(self, field.name).strip())
