"""A log as JUnit XML, for every CI system that shows test results.

One test suite an audit, one test case an edit and a control, and a last one, ``verdict``, that fails unless the audit
passes: so a void or unfinished audit is red in every reader, and there is a failure or an error if and only if the exit
code is not 0. An edit that errored is an error; one that failed is a failure with its faults; one that was refused is a
failure, or skipped where the policy says ``allow_refused``.

Held against a baseline there is a case ``gate`` after it, a failure where the gate is closed. An override turns nothing
green: what failed stays a failure though the gate is open, and ``gate`` is skipped, with the override in its message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import NamedTuple
from xml.etree import ElementTree

from ..gate.comparison_rows import describe_gate, describe_lapsed_override, describe_override
from ..gate.result import Gate, Override
from ..log.file import Log
from ..text import shorten, visible
from ..verdict.digest import Digest, digest
from ..verdict.edit_sequence import describe_sequence
from ..verdict.edit_summary import EditDecision, EditSummary
from ..verdict.explanation import Explanation, explain
from ..verdict.reasons import control_fault

__all__ = ["render_junit"]

_MOST = 2000
"""Characters of one text; a reader shows a message in one line, and a log may hold texts of any length."""
_PLURAL = {"failure": "failures", "error": "errors", "skipped": "skipped"}


class _End(NamedTuple):
    """How a test case ended, other than well: the element's name, its type, and what it says."""

    tag: str
    type: str
    message: str
    text: str = ""


class _Case(NamedTuple):
    classname: str
    name: str
    seconds: float
    end: _End | None


def render_junit(log: Log, gate: Gate | None = None, overrides: Sequence[Override] = ()) -> bytes:
    """Return the audit as one JUnit XML document, UTF-8; what XML 1.0 cannot hold stands there as ``[U+0000]``.

    With `gate` also what it said; without, the `overrides` that are on record for this log.
    """
    found = digest(log)
    cases = [*_edits(found), *_controls(found), _verdict(found), *_gate(gate, overrides)]
    counts = Counter(case.end.tag for case in cases if case.end)
    seconds = sum(case.seconds for case in cases) if found.seconds is None else found.seconds
    totals = {
        "tests": str(len(cases)),
        **{name: str(counts[tag]) for tag, name in _PLURAL.items()},
        "time": f"{seconds:.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": "editguard", **totals})
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        {
            "name": _text(f"editguard {found.header.source}"),
            "timestamp": _text(found.header.created),
            **totals,
        },
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (*_properties(found).items(), *_since(gate, overrides)):
        ElementTree.SubElement(properties, "property", name=name, value=_text(value))
    for case in cases:
        _append(suite, case)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _properties(found: Digest) -> dict[str, str]:
    header, summary = found.header, found.summary
    return {
        "editguard": header.editguard_version,
        "verdict": summary.verdict,
        "status": summary.status,
        "model": summary.model,
        "model_fingerprint": summary.model_fingerprint,
        "layer": str(summary.layer),
        "source_sha256": header.source_sha256,
        "policy_sha256": header.policy_sha256,
        "seed": str(header.seed),
        **({} if summary.sequence is None else {"sequence": describe_sequence(summary.sequence, summary.edits)}),
    }


def _edits(found: Digest) -> Iterator[_Case]:
    source = _part(PurePath(found.header.source).name)
    allowed = found.header.policy.get("allow_refused") is True
    for story in found.edits:
        group = _part(story.record.group) or "edits"
        end = _edit_end(story, explain(story, found.header), allowed)
        yield _Case(f"{source}.{group}", story.record.id, story.record.seconds, end)


def _edit_end(story: EditSummary, explanation: Explanation | None, refused_is_allowed: bool) -> _End | None:
    record = story.record
    if explanation is None or not (story.faults or story.decision is EditDecision.REFUSED):
        return None
    details = _details(story, explanation)
    if record.outcome == "errored":
        return _End("error", "errored", record.error or "", details)
    if story.faults:
        return _End("failure", "collapsed" if story.collapsed else "failed", explanation.why, details)
    tag = "skipped" if refused_is_allowed else "failure"
    return _End(tag, "refused", explanation.why, details)


def _details(story: EditSummary, explanation: Explanation) -> str:
    """Return the edit, what was found and decided, why it failed and what to do, a line each."""
    record = story.record
    lines = [
        f"prompt: {record.prompt}",
        f"subject: {record.subject}",
        f"new target: {record.target_new}",
        f"decision: {story.decision.value}" + (f", by {record.decision.editor}" if record.decision.editor else ""),
        *(f"reason: {reason}" for reason in record.decision.reasons),
        *(f"{one.probe}: {one.message}" for one in record.findings if one.level != "ok"),
        *(f"fault: {fault}" for fault in story.faults),
        f"why: {explanation.why}",
        f"what to do: {explanation.advice}",
    ]
    return "\n".join(_text(line) for line in lines)


def _controls(found: Digest) -> Iterator[_Case]:
    for story in found.controls:
        fault = control_fault(story)
        tag = "error" if story.record.outcome == "errored" else "failure"
        end = None if fault is None else _End(tag, "control", fault)
        yield _Case("controls", story.record.id, story.record.seconds, end)


def _verdict(found: Digest) -> _Case:
    summary = found.summary
    if summary.exit_code == 0:
        return _Case("audit", "verdict", 0.0, None)
    message = f"{summary.verdict}: {' '.join(summary.reasons)}"
    return _Case(
        "audit", "verdict", 0.0, _End("failure", summary.verdict, message, "\n".join(map(_text, summary.reasons)))
    )


def _since(gate: Gate | None, overrides: Sequence[Override]) -> Iterator[tuple[str, str]]:
    if gate is None:
        yield from (("override", describe_override(one)) for one in overrides)
        return
    yield from (("baseline", gate.baseline), ("gate", gate.standing))
    if gate.override is not None:
        yield "override", describe_override(gate.override)
    yield from (("override-not-in-force", describe_lapsed_override(one)) for one in gate.lapsed)


def _gate(gate: Gate | None, overrides: Sequence[Override]) -> Iterator[_Case]:
    if gate is None:
        if overrides:
            yield _Case("audit", "gate", 0.0, _End("skipped", "override", describe_override(overrides[-1])))
        return
    if gate.standing == "open":
        yield _Case("audit", "gate", 0.0, None)
        return
    grounds = [*(f"{one.key}: {one.message}" for one in gate.closings), *map(describe_lapsed_override, gate.lapsed)]
    tag, kind = ("failure", "closed") if gate.standing == "closed" else ("skipped", "override")
    yield _Case("audit", "gate", 0.0, _End(tag, kind, describe_gate(gate), "\n".join(map(_text, grounds))))


def _append(suite: ElementTree.Element, case: _Case) -> None:
    found = ElementTree.SubElement(
        suite, "testcase", classname=_text(case.classname), name=_text(case.name), time=f"{case.seconds:.3f}"
    )
    if case.end is not None:
        end = ElementTree.SubElement(found, case.end.tag, type=case.end.type, message=_text(case.end.message))
        end.text = case.end.text


def _part(text: str) -> str:
    """Return text as one part of a class name, whose parts readers take apart at dots."""
    return text.replace(".", "_")


def _text(text: str) -> str:
    return visible(shorten(text, _MOST))
