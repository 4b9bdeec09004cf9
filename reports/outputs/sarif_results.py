"""The results of a SARIF run: findings and failed measurements of each edit, with their level.

An edit that makes the audit fail has at least one result of level ``error``. No other edit has one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from ..log.types import HeadlineCheck
from ..numbers import format_number
from ..verdict.edit_summary import EditDecision, EditSummary
from ..verdict.explanation import Explanation, explain
from .sarif_rules import ERRORED, FAILED, NOT_RESTORED, REFUSED, finding_rule_id, rule_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..log.schema import FindingRecord, MeasurementRecord
    from ..verdict.digest import Digest

__all__ = ["location", "results", "source_uri"]


class _Result(NamedTuple):
    """One result; `part` tells apart several results of one rule about one edit."""

    rule: str
    level: str
    text: str
    figures: Mapping[str, Any] = {}
    part: tuple[str | None, ...] = ()


def results(audit: Digest, places: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Yield the results of all edits, in order; `places` gives each rule's index in the driver."""
    allowed = audit.header.policy.get("allow_refused") is True
    for edit in audit.edits:
        explanation = explain(edit, audit.header)
        for result in _edit_results(edit, allowed):
            yield _to_sarif(result, edit, explanation, audit.header.source, places)


def _edit_results(edit: EditSummary, refused_is_allowed: bool) -> Iterator[_Result]:
    """Yield the results of one edit: findings, measurements, and a rule of the audit for what these do not cover."""
    record = edit.record
    refused = edit.decision is EditDecision.REFUSED
    closes = bool(edit.faults) or (refused and not refused_is_allowed)
    findings = [_finding(finding, refused and closes, closes) for finding in record.findings if finding.level != "ok"]
    yield from findings
    failed = [measurement for measurement in record.measurements if measurement.verdict in ("fail", "unmeasured")]
    yield from (_measurement(measurement, "error" if edit.faults else "warning") for measurement in failed)
    if record.outcome == "errored":
        yield _Result(ERRORED, "error", f"it errored: {record.error}")
    elif record.outcome == "refused" and all(finding.level == "note" for finding in findings):
        yield _Result(REFUSED, "error" if closes else "warning", f"refused: {'; '.join(record.decision.reasons)}")
    if record.weights is not None and record.weights.restored_ok is False:
        yield _Result(NOT_RESTORED, "error", "its weights were not restored to what they were before it")
    elif edit.faults and record.outcome != "errored" and not _measurements_explain(edit, failed):
        yield _Result(FAILED, "error", "; ".join(edit.faults))


def _measurements_explain(edit: EditSummary, failed: Sequence[MeasurementRecord]) -> bool:
    """Return whether the failed measurements explain the edit's faults; only the perplexity explains a collapse."""
    if edit.own_faults:
        return False
    collapsed = edit.collapsed or edit.ratio is None
    if collapsed:
        return any(measurement.check == HeadlineCheck.PERPLEXITY.value for measurement in failed)
    return bool(failed)


def _finding(finding: FindingRecord, refused: bool, closes: bool) -> _Result:
    grave = refused if finding.level == "risk" else closes
    level = "note" if finding.level == "notice" else "error" if grave else "warning"
    figures = {
        "value": finding.value,
        "threshold": finding.threshold,
        "unit": finding.unit,
        "details": dict(finding.details),
    }
    return _Result(finding_rule_id(finding.probe), level, finding.message, figures)


def _measurement(measurement: MeasurementRecord, level: str) -> _Result:
    ending = "was not measured" if measurement.verdict == "unmeasured" else f"is {format_number(measurement.value)}"
    allowed = "" if measurement.threshold is None else f", allowed is {format_number(measurement.threshold)}"
    text = f"{measurement.metric} ({measurement.condition}) {ending}{allowed}" + (
        f": {measurement.message}" if measurement.message else ""
    )
    counts = {
        "passed": measurement.passed,
        "failed": measurement.failed,
        "notJudged": measurement.not_judged,
        "total": measurement.total,
    }
    figures = {
        "value": measurement.value,
        "baseline": measurement.baseline,
        "threshold": measurement.threshold,
        "unit": measurement.unit,
        **counts,
    }
    return _Result(
        rule_id("check", measurement.check),
        level,
        text,
        figures,
        (measurement.metric, measurement.condition, measurement.protocol),
    )


def _to_sarif(
    result: _Result, edit: EditSummary, explanation: Explanation | None, source: str, places: Mapping[str, int]
) -> dict[str, Any]:
    record = edit.record
    fingerprint = _hash([result.rule, record.id, *result.part])
    return {
        "ruleId": result.rule,
        "ruleIndex": places[result.rule],
        "level": result.level,
        "message": {"text": f"Edit {record.id!r}, {record.subject!r} to {record.target_new!r}: {result.text}"},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {**location(source), "index": 0}},
                "logicalLocations": [{"name": record.id, "kind": "edit"}],
            }
        ],
        # GitHub tells alerts apart by the second; it would compute it from a line, and the log has no line.
        "partialFingerprints": {"editAndRule/v1": fingerprint, "primaryLocationLineHash": f"{fingerprint[:16]}:1"},
        "properties": {
            "edit": record.id,
            "group": record.group,
            "decision": edit.decision.value,
            "outcome": record.outcome,
            **({} if explanation is None else {"why": explanation.why, "whatToDo": explanation.advice}),
            **result.figures,
        },
    }


def _hash(parts: list[str | None]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def location(source: str) -> dict[str, str]:
    """Return the artifact location of a file of edits; a relative path is relative to the repository."""
    uri = source_uri(source)
    return {"uri": uri} if "://" in uri else {"uri": uri, "uriBaseId": "%SRCROOT%"}


def source_uri(source: str) -> str:
    """Return the URI of a source: a data set's as it stands, a path's as a reference or as ``file://``."""
    if source.startswith("hf://"):
        return "hf://" + quote(source.removeprefix("hf://"), safe="/:", errors="replace")
    windows, posix = PureWindowsPath(source), PurePosixPath(source)
    if windows.drive and windows.is_absolute():
        return "file:///" + quote(windows.as_posix(), safe="/:", errors="replace")
    return ("file://" if posix.is_absolute() else "") + quote(posix.as_posix(), errors="replace")
