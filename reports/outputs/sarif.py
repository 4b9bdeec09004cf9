"""A log as SARIF 2.1.0, for code scanning and other readers of findings.

Each probe and each check is a rule, with help text from the cards in the log's header. Four rules of the audit itself cover the
rest. Results are the findings of probes (``warning`` if the edit was rewritten or made, ``error`` if it makes the audit fail,
``note`` for a notice), and measurements that did not pass. A void or unfinished audit is a notification of level ``error``. So
something is at level ``error`` if and only if the exit code is not 0.

Controls have no results: they are about the audit, and stand in the notifications. The log names the file of an edit and not its
line, so a location has no region.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..text import count_noun, shorten, visible
from ..verdict.digest import Digest, digest
from ..verdict.reasons import incomplete_reasons, void_reasons
from .sarif_results import location, results
from .sarif_rules import rules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..log.file import Log

__all__ = ["SCHEMA", "render_sarif"]

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_MOST = 4000
"""Characters of one text: readers show a few lines, and a log may hold texts of any length."""
_NAMED = 5
_NOTIFICATIONS = {
    "audit/void": "A control did not show what it must, so the checks prove nothing about the edits.",
    "audit/incomplete": "The audit did not finish, or records are missing.",
    "audit/skipped-records": "Wrong records of the file were left out on the user's word.",
}


def render_sarif(log: Log) -> str:
    """Return the audit as one SARIF log with one run; hidden characters stand there as ``[U+202E]``."""
    audit = digest(log)
    notifications = [*_notifications(log, audit)]
    ended = not any(notification["level"] == "error" for notification in notifications)
    audit_rules = rules(log)
    run = {
        "tool": {"driver": _driver(audit, audit_rules)},
        "automationDetails": {"id": f"editguard/{audit.header.source}/layer-{audit.header.layer}/"},
        "invocations": [_invocation(audit, notifications, ended)],
        "artifacts": [
            {
                "location": location(audit.header.source),
                "roles": ["analysisTarget"],
                "hashes": {"sha-256": audit.header.source_sha256},
            }
        ],
        "columnKind": "unicodeCodePoints",
        "results": [*results(audit, {rule["id"]: index for index, rule in enumerate(audit_rules)})],
        "properties": {"policySha256": audit.header.policy_sha256, "summary": audit.summary.model_dump(mode="json")},
    }
    return (
        json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [_make_visible(run)]}, ensure_ascii=False, indent=1)
        + "\n"
    )


def _driver(audit: Digest, audit_rules: list[dict[str, Any]]) -> dict[str, Any]:
    version = audit.header.editguard_version
    return {
        "name": "editguard",
        "version": version,
        "rules": audit_rules,
        "notifications": [{"id": name, "shortDescription": {"text": text}} for name, text in _NOTIFICATIONS.items()],
    }


def _invocation(audit: Digest, notifications: list[dict[str, Any]], ended: bool) -> dict[str, Any]:
    summary = audit.summary
    started = _utc(audit.header.created)
    return {
        "executionSuccessful": ended,
        "exitCode": summary.exit_code,
        "exitCodeDescription": f"{summary.verdict}: {' '.join(summary.reasons)}",
        "toolExecutionNotifications": notifications,
        **({"startTimeUtc": started} if started else {}),
    }


def _notifications(log: Log, audit: Digest) -> Iterator[dict[str, Any]]:
    for reason in void_reasons(log, audit.controls):
        yield _notification("audit/void", "error", reason)
    for reason in incomplete_reasons(log):
        yield _notification("audit/incomplete", "error", reason)
    skipped = log.header.skipped_invalid
    if skipped:
        examples = "; ".join(f"{request.where}: {request.message}" for request in skipped[:_NAMED])
        more = f"; and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
        yield _notification(
            "audit/skipped-records", "warning", f"{count_noun(len(skipped), 'wrong record')} left out: {examples}{more}"
        )


def _notification(name: str, level: str, text: str) -> dict[str, Any]:
    return {"descriptor": {"id": name}, "level": level, "message": {"text": text}}


def _utc(created: str) -> str | None:
    try:
        return datetime.fromisoformat(created).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        return None


def _make_visible(value: Any) -> Any:
    """Return `value` with each text in it fit to be shown, and no text that a reader takes for a link."""
    if isinstance(value, str):
        return visible(shorten(value, _MOST)).replace("](", "] (")
    if isinstance(value, dict):
        return {name: _make_visible(item) for name, item in value.items()}
    return [_make_visible(item) for item in value] if isinstance(value, list) else value
