"""The results of a SARIF run: what was found in each edit, and at which level.

An edit that closes the gate has at least one result of level ``error``, and no other edit has any.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from urllib.parse import quote

from ..log.schema import FindingRecord, MeasurementRecord
from ..log.types import HeadlineCheck
from ..numbers import format_number
from ..verdict.digest import Digest
from ..verdict.edit_summary import EditDecision, EditSummary
from ..verdict.explanation import Explanation, explain
from .sarif_rules import ERRORED, FAILED, NOT_RESTORED, REFUSED, finding_rule_id, rule_id

__all__ = ["location", "results", "source_uri"]


class _Result(NamedTuple):
    """One result; `part` tells apart what one rule says of one edit more than once."""

    rule: str
    level: str
    text: str
    figures: Mapping[str, Any] = {}
    part: tuple[str | None, ...] = ()


def results(found: Digest, places: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Yield the results of all edits, in order; `places` gives each rule's index in the driver."""
    allowed = found.header.policy.get("allow_refused") is True
    for story in found.edits:
        explanation = explain(story, found.header)
        for one in _of(story, allowed):
            yield _plain(one, story, explanation, found.header.source, places)


def _of(story: EditSummary, refused_is_allowed: bool) -> Iterator[_Result]:
    """Yield what there is to say of one edit; what no finding and no measurement says, a rule of the audit does."""
    record = story.record
    refused = story.decision is EditDecision.REFUSED
    closes = bool(story.faults) or (refused and not refused_is_allowed)
    findings = [_finding(one, refused and closes, closes) for one in record.findings if one.level != "ok"]
    yield from findings
    failed = [one for one in record.measurements if one.verdict in ("fail", "unmeasured")]
    yield from (_measurement(one, "error" if story.faults else "warning") for one in failed)
    if record.outcome == "errored":
        yield _Result(ERRORED, "error", f"it errored: {record.error}")
    elif record.outcome == "refused" and all(one.level == "note" for one in findings):
        yield _Result(REFUSED, "error" if closes else "warning", f"refused: {'; '.join(record.decision.reasons)}")
    if record.weights is not None and record.weights.restored_ok is False:
        yield _Result(NOT_RESTORED, "error", "its weights were not restored to what they were before it")
    elif story.faults and record.outcome != "errored" and not _explained(story, failed):
        yield _Result(FAILED, "error", "; ".join(story.faults))


def _explained(story: EditSummary, failed: Sequence[MeasurementRecord]) -> bool:
    """Return whether the measurements that failed say all: of a collapse that is the perplexity's alone."""
    if story.own_faults:
        return False
    collapsed = story.collapsed or story.ratio is None
    return any(one.check == HeadlineCheck.PERPLEXITY.value for one in failed) if collapsed else bool(failed)


def _finding(one: FindingRecord, refused: bool, closes: bool) -> _Result:
    grave = refused if one.level == "risk" else closes
    level = "note" if one.level == "notice" else "error" if grave else "warning"
    figures = {"value": one.value, "threshold": one.threshold, "unit": one.unit, "details": dict(one.details)}
    return _Result(finding_rule_id(one.probe), level, one.message, figures)


def _measurement(one: MeasurementRecord, level: str) -> _Result:
    ended = "was not measured" if one.verdict == "unmeasured" else f"is {format_number(one.value)}"
    allowed = "" if one.threshold is None else f", allowed is {format_number(one.threshold)}"
    text = f"{one.metric} ({one.condition}) {ended}{allowed}" + (f": {one.message}" if one.message else "")
    counts = {"passed": one.passed, "failed": one.failed, "notJudged": one.not_judged, "total": one.total}
    figures = {"value": one.value, "baseline": one.baseline, "threshold": one.threshold, "unit": one.unit, **counts}
    return _Result(rule_id("check", one.check), level, text, figures, (one.metric, one.condition, one.protocol))


def _plain(
    one: _Result, story: EditSummary, explanation: Explanation | None, source: str, places: Mapping[str, int]
) -> dict[str, Any]:
    record = story.record
    fingerprint = _hash([one.rule, record.id, *one.part])
    return {
        "ruleId": one.rule,
        "ruleIndex": places[one.rule],
        "level": one.level,
        "message": {"text": f"Edit {record.id!r}, {record.subject!r} to {record.target_new!r}: {one.text}"},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {**location(source), "index": 0}},
                "logicalLocations": [{"name": record.id, "kind": "edit"}],
            }
        ],
        # The second is the one that GitHub tells alerts apart by; it would take it from a line, and no line is known.
        "partialFingerprints": {"editAndRule/v1": fingerprint, "primaryLocationLineHash": f"{fingerprint[:16]}:1"},
        "properties": {
            "edit": record.id,
            "group": record.group,
            "decision": story.decision.value,
            "outcome": record.outcome,
            **({} if explanation is None else {"why": explanation.why, "whatToDo": explanation.advice}),
            **one.figures,
        },
    }


def _hash(parts: list[str | None]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def location(source: str) -> dict[str, str]:
    """Return the artifact location of a file of edits; one that was given relatively is relative to the repository."""
    uri = source_uri(source)
    return {"uri": uri} if "://" in uri else {"uri": uri, "uriBaseId": "%SRCROOT%"}


def source_uri(source: str) -> str:
    """Return the URI of a source: of a dataset as it stands, of a path as a reference or as ``file://``."""
    if source.startswith("hf://"):
        return "hf://" + quote(source.removeprefix("hf://"), safe="/:", errors="replace")
    windows, posix = PureWindowsPath(source), PurePosixPath(source)
    if windows.drive and windows.is_absolute():
        return "file:///" + quote(windows.as_posix(), safe="/:", errors="replace")
    return ("file://" if posix.is_absolute() else "") + quote(posix.as_posix(), errors="replace")
