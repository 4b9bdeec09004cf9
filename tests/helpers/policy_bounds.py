"""The numbers of a policy, the side on which each is stricter, and the values that it may take."""

from __future__ import annotations

from editguard.audit.policy import Policy

__all__ = ["NUMBERS_WITHOUT_BOUND", "legal_range", "number_fields", "stricter_side"]

NUMBERS_WITHOUT_BOUND = {"collapse_ratio"}
"""Numbers that define a word and forbid nothing: neither side lets more edits pass."""


def number_fields() -> list[str]:
    """Return the names of the policy's numbers."""
    return [name for name, field in Policy.model_fields.items() if field.annotation is float]


def stricter_side(name: str) -> str | None:
    """Return the side on which a bound is stricter, ``lower`` or ``higher``; None for a number that is not a bound."""
    extra = Policy.model_fields[name].json_schema_extra
    return str(extra["stricter"]) if isinstance(extra, dict) else None


def legal_range(name: str) -> tuple[float, float]:
    """Return the least and the greatest value that the policy takes for a bound."""
    rules = {type(rule).__name__: rule for rule in Policy.model_fields[name].metadata}
    least = rules["Ge"].ge if "Ge" in rules else rules["Gt"].gt + 1e-9
    return least, rules["Le"].le if "Le" in rules else 1e9
