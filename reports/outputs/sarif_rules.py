"""The rules of a SARIF run: one for each probe and check of the log, and those of the audit itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..log.header import MEASUREMENT_SOURCE, CardRecord
from ..markdown_escaping import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..log.file import Log

__all__ = ["ERRORED", "FAILED", "NOT_RESTORED", "REFUSED", "finding_rule_id", "rule_id", "rules"]

REFUSED, FAILED, ERRORED, NOT_RESTORED = "edit/refused", "edit/failed", "edit/errored", "edit/not-restored"
_OWN = {
    REFUSED: (
        "The guard refused the edit for a reason that no probe gives.",
        "Read the reason. An update that is over the policy's bound is not made; choose another prompt, editor or layer.",
    ),
    FAILED: (
        "The edit failed, though each of its measurements passed or none was taken.",
        "Read the faults; what was not measured is never a pass.",
    ),
    ERRORED: (
        "The edit ended in an error.",
        "Read the error, correct the record or the options, and run the audit again.",
    ),
    NOT_RESTORED: (
        "After the edit was undone, the weights were not those before it.",
        "Do not use the model of that process, and report it as a fault of editguard.",
    ),
}
_LEVELS = {"refuse": "error", "rewrite": "warning", "allow": "note"}
"""Level of a finding by what the policy makes of it."""


def rule_id(kind: str, name: str) -> str:
    """Return the id of the rule of a probe or check; the two may share a name."""
    return f"{kind}/{name}"


def finding_rule_id(source: str) -> str:
    """Return the id of the rule of a finding's source: a probe, or the measurement itself, which is no probe."""
    return rule_id("audit" if source == MEASUREMENT_SOURCE else "probe", source)


def rules(log: Log) -> list[dict[str, Any]]:
    """Return one reporting descriptor for each probe, each check and each way an edit itself can end."""
    cards = {rule_id(card.kind, card.name): card for card in log.header.cards}
    missing = [name for name in _mentioned_rules(log) if name not in cards]
    return [
        *(_rule(name, card, _level(log, card)) for name, card in cards.items()),
        *(_audit_rule(name, f"{name.partition('/')[2]} has no card in this log.", "", "error") for name in missing),
        *(_audit_rule(name, text, action, "error") for name, (text, action) in _OWN.items()),
    ]


def _mentioned_rules(log: Log) -> Iterator[str]:
    """Yield the rules of all findings and measurements, each once; a log of an older version has no cards."""
    names: dict[str, None] = {}
    for record in log.edits:
        names |= dict.fromkeys(finding_rule_id(finding.probe) for finding in record.findings)
        names |= dict.fromkeys(rule_id("check", measurement.check) for measurement in record.measurements)
    yield from names


def _level(log: Log, card: CardRecord) -> str:
    actions = log.header.policy.get("rules")
    if card.kind != "probe" or not isinstance(actions, dict):
        return "error"
    return _LEVELS.get(str(actions.get(card.name, log.header.policy.get("unknown_probe"))), "error")


def _rule(name: str, card: CardRecord, level: str) -> dict[str, Any]:
    rows = {
        "What to do": card.action,
        "Threshold": card.threshold,
        "Unit": card.unit,
        "Range": card.range,
        "Needs": card.needs,
        "Source": card.source,
    }
    return {
        "id": name,
        "name": _pascal(name),
        "shortDescription": {"text": card.question},
        "fullDescription": {"text": f"{card.question} {card.action}"},
        "help": {
            "text": "\n\n".join([card.question, *(f"{title}: {text}" for title, text in rows.items())]),
            "markdown": "\n\n".join(
                [escaped(card.question), *(f"**{title}**: {escaped(text)}" for title, text in rows.items())]
            ),
        },
        "defaultConfiguration": {"level": level},
        "properties": {"tags": ["model editing", card.kind]},
    }


def _audit_rule(name: str, text: str, action: str, level: str) -> dict[str, Any]:
    return {
        "id": name,
        "name": _pascal(name),
        "shortDescription": {"text": text},
        "fullDescription": {"text": f"{text} {action}".strip()},
        "help": {"text": f"{text}\n\n{action}".strip()},
        "defaultConfiguration": {"level": level},
        "properties": {"tags": ["model editing", name.partition("/")[0]]},
    }


def _pascal(name: str) -> str:
    return "".join(part.capitalize() for part in name.replace("/", "-").split("-"))
