"""The built-in probes, checks and editors, from their cards; a plug-in of another package has its own documentation."""

from __future__ import annotations

from dataclasses import fields

from editguard.audit.editors.base import EDITORS
from editguard.audit.policy import Policy
from editguard.probes.card import Card
from editguard.probes.probe import PROBES
from editguard.suites.check import CHECKS

from .pages import table

__all__ = ["checks", "editors", "probes"]

_TITLES = {
    "question": "Question",
    "source": "Source",
    "needs": "Needs",
    "unit": "Unit",
    "range": "Range",
    "threshold": "Threshold",
    "action": "Action",
}


def probes() -> str:
    """Return a section for each probe, with the default action of the policy."""
    rules = Policy().rules
    return "\n\n".join(
        _section(name, cls, cls.card, ("Default decision", f"`{rules[name]}`")) for name, cls in PROBES if _ours(cls)
    )


def checks() -> str:
    """Return a section for each check."""
    return "\n\n".join(_section(name, cls, cls.card) for name, cls in CHECKS if _ours(cls))


def editors() -> str:
    """Return a row for each editor."""
    rows = [
        (
            f"`{name}`",
            cls.question,
            "after a prefix only" if cls.needs_prefix else "with and without a prefix",
            f"`{_home(cls)}`",
        )
        for name, cls in EDITORS
        if _ours(cls)
    ]
    return table(("editor", "keys and value", "acts", "class"), rows)


def _section(name: str, cls: type[object], card: Card, *more: tuple[str, str]) -> str:
    rows = [(_TITLES[field.name], getattr(card, field.name)) for field in fields(Card)]
    return f"## {name}\n\n`{_home(cls)}`\n\n{table(('', ''), [*rows, *more])}"


def _ours(cls: type[object]) -> bool:
    return cls.__module__.startswith("editguard.")


def _home(cls: type[object]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
