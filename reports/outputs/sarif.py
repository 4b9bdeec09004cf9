"""A log as SARIF 2.1.0, for code scanning and other readers of findings.

One rule a probe and a check, with help text out of the cards in the log's header; four rules of the audit's own stand for
what no probe or check says. Results: what probes found (``warning`` where the edit was rewritten or made all the same,
``error`` where it closes the gate, ``note`` for a notice), and measurements that did not pass. A void or unfinished audit
is a notification of level ``error``. So something is at level ``error`` if and only if the exit code is not 0.

Controls have no results: what they show is about the audit, and stands in the notifications. The log says of which file
an edit is and not of which line, so a location has no region.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from ..log.file import Log
from ..text import count_noun, shorten, visible
from ..verdict.digest import Digest, digest
from ..verdict.reasons import incomplete_reasons, void_reasons
from .sarif_results import location, results
from .sarif_rules import rules

__all__ = ["SCHEMA", "render_sarif"]

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_MOST = 4000
"""Characters of one text; readers show a few lines, and a log may hold texts of any length."""
_NAMED = 5
_NOTIFICATIONS = {
    "audit/void": "A control did not show what it must, so the checks prove nothing about the edits.",
    "audit/incomplete": "The audit did not finish, or records are missing.",
    "audit/skipped-records": "Wrong records of the file were left out on the user's word.",
}


def render_sarif(log: Log) -> str:
    """Return the audit as one SARIF log with one run; hidden characters stand there as ``[U+202E]``."""
    found = digest(log)
    notifications = [*_notifications(log, found)]
    ended = not any(one["level"] == "error" for one in notifications)
    known = rules(log)
    run = {
        "tool": {"driver": _driver(found, known)},
        "automationDetails": {"id": f"editguard/{found.header.source}/layer-{found.header.layer}/"},
        "invocations": [_invocation(found, notifications, ended)],
        "artifacts": [
            {
                "location": location(found.header.source),
                "roles": ["analysisTarget"],
                "hashes": {"sha-256": found.header.source_sha256},
            }
        ],
        "columnKind": "unicodeCodePoints",
        "results": [*results(found, {rule["id"]: index for index, rule in enumerate(known)})],
        "properties": {"policySha256": found.header.policy_sha256, "summary": found.summary.model_dump(mode="json")},
    }
    return (
        json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [_shown(run)]}, ensure_ascii=False, indent=1) + "\n"
    )


def _driver(found: Digest, known: list[dict[str, Any]]) -> dict[str, Any]:
    version = found.header.editguard_version
    return {
        "name": "editguard",
        "version": version,
        "rules": known,
        "notifications": [{"id": name, "shortDescription": {"text": text}} for name, text in _NOTIFICATIONS.items()],
    }


def _invocation(found: Digest, notifications: list[dict[str, Any]], ended: bool) -> dict[str, Any]:
    summary = found.summary
    started = _utc(found.header.created)
    return {
        "executionSuccessful": ended,
        "exitCode": summary.exit_code,
        "exitCodeDescription": f"{summary.verdict}: {' '.join(summary.reasons)}",
        "toolExecutionNotifications": notifications,
        **({"startTimeUtc": started} if started else {}),
    }


def _notifications(log: Log, found: Digest) -> Iterator[dict[str, Any]]:
    for reason in void_reasons(log, found.controls):
        yield _notification("audit/void", "error", reason)
    for reason in incomplete_reasons(log):
        yield _notification("audit/incomplete", "error", reason)
    skipped = log.header.skipped_invalid
    if skipped:
        named = "; ".join(f"{one.where}: {one.message}" for one in skipped[:_NAMED])
        more = f"; and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
        yield _notification(
            "audit/skipped-records", "warning", f"{count_noun(len(skipped), 'wrong record')} left out: {named}{more}"
        )


def _notification(name: str, level: str, text: str) -> dict[str, Any]:
    return {"descriptor": {"id": name}, "level": level, "message": {"text": text}}


def _utc(created: str) -> str | None:
    try:
        return datetime.fromisoformat(created).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        return None


def _shown(value: Any) -> Any:
    """Return `value` with each text in it fit to be shown, and no text that a reader takes for a link."""
    if isinstance(value, str):
        return visible(shorten(value, _MOST)).replace("](", "] (")
    if isinstance(value, dict):
        return {name: _shown(one) for name, one in value.items()}
    return [_shown(one) for one in value] if isinstance(value, list) else value
