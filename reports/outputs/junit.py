"""A log as JUnit XML, for every CI system that shows test results.

An audit is one test suite. Each edit and each control is a test case, and a last case ``verdict`` fails unless the audit
passes. So a void or unfinished audit is red in every reader: there is a failure or an error if and only if the exit code is
not 0. An edit that errored is an error. A failed edit is a failure with its faults. A refused edit is a failure, or skipped if
the policy has ``allow_refused``.

With a baseline a case ``gate`` follows, a failure if the gate is closed. An override turns nothing green: a failed case stays a
failure although the gate is open, and ``gate`` is skipped, with the override in its message.
"""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

from ..gate.comparison_rows import describe_gate, describe_lapsed_override, describe_override
from ..text import shorten, visible
from ..verdict.digest import Digest, digest
from ..verdict.edit_sequence import describe_sequence
from ..verdict.edit_summary import EditDecision, EditSummary
from ..verdict.explanation import Explanation, explain
from ..verdict.reasons import control_fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..gate.result import Gate, Override
    from ..log.file import Log

__all__ = ["render_junit"]

_MOST = 2000
"""Characters of one text: a reader shows a message in one line, and a log may hold texts of any length."""
_PLURAL = {"failure": "failures", "error": "errors", "skipped": "skipped"}


class _End(NamedTuple):
    """A test case's end other than success: the element's name, its type and its text."""

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

    With `gate` its verdict is included; without, the recorded `overrides` for this log.
    """
    audit = digest(log)
    cases = [*_edits(audit), *_controls(audit), _verdict(audit), *_gate(gate, overrides)]
    counts = Counter(case.end.tag for case in cases if case.end)
    seconds = sum(case.seconds for case in cases) if audit.seconds is None else audit.seconds
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
            "name": _text(f"editguard {audit.header.source}"),
            "timestamp": _text(audit.header.created),
            **totals,
        },
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (*_properties(audit).items(), *_gate_properties(gate, overrides)):
        ElementTree.SubElement(properties, "property", name=name, value=_text(value))
    for case in cases:
        _append(suite, case)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _properties(audit: Digest) -> dict[str, str]:
    header, summary = audit.header, audit.summary
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


def _edits(audit: Digest) -> Iterator[_Case]:
    source = _part(PurePath(audit.header.source).name)
    allowed = audit.header.policy.get("allow_refused") is True
    for edit in audit.edits:
        group = _part(edit.record.group) or "edits"
        end = _edit_end(edit, explain(edit, audit.header), allowed)
        yield _Case(f"{source}.{group}", edit.record.id, edit.record.seconds, end)


def _edit_end(edit: EditSummary, explanation: Explanation | None, refused_is_allowed: bool) -> _End | None:
    record = edit.record
    if explanation is None or not (edit.faults or edit.decision is EditDecision.REFUSED):
        return None
    details = _details(edit, explanation)
    if record.outcome == "errored":
        return _End("error", "errored", record.error or "", details)
    if edit.faults:
        return _End("failure", "collapsed" if edit.collapsed else "failed", explanation.why, details)
    tag = "skipped" if refused_is_allowed else "failure"
    return _End(tag, "refused", explanation.why, details)


def _details(edit: EditSummary, explanation: Explanation) -> str:
    """Return request, decision, findings, faults, cause and advice of the edit, a line each."""
    record = edit.record
    lines = [
        f"prompt: {record.prompt}",
        f"subject: {record.subject}",
        f"new target: {record.target_new}",
        f"decision: {edit.decision.value}" + (f", by {record.decision.editor}" if record.decision.editor else ""),
        *(f"reason: {reason}" for reason in record.decision.reasons),
        *(f"{finding.probe}: {finding.message}" for finding in record.findings if finding.level != "ok"),
        *(f"fault: {fault}" for fault in edit.faults),
        f"why: {explanation.why}",
        f"what to do: {explanation.advice}",
    ]
    return "\n".join(_text(line) for line in lines)


def _controls(audit: Digest) -> Iterator[_Case]:
    for edit in audit.controls:
        fault = control_fault(edit)
        tag = "error" if edit.record.outcome == "errored" else "failure"
        end = None if fault is None else _End(tag, "control", fault)
        yield _Case("controls", edit.record.id, edit.record.seconds, end)


def _verdict(audit: Digest) -> _Case:
    summary = audit.summary
    if summary.exit_code == 0:
        return _Case("audit", "verdict", 0.0, None)
    message = f"{summary.verdict}: {' '.join(summary.reasons)}"
    return _Case(
        "audit", "verdict", 0.0, _End("failure", summary.verdict, message, "\n".join(map(_text, summary.reasons)))
    )


def _gate_properties(gate: Gate | None, overrides: Sequence[Override]) -> Iterator[tuple[str, str]]:
    if gate is None:
        yield from (("override", describe_override(override)) for override in overrides)
        return
    yield from (("baseline", gate.baseline), ("gate", gate.standing))
    if gate.override is not None:
        yield "override", describe_override(gate.override)
    yield from (("override-not-in-force", describe_lapsed_override(override)) for override in gate.lapsed)


def _gate(gate: Gate | None, overrides: Sequence[Override]) -> Iterator[_Case]:
    if gate is None:
        if overrides:
            yield _Case("audit", "gate", 0.0, _End("skipped", "override", describe_override(overrides[-1])))
        return
    if gate.standing == "open":
        yield _Case("audit", "gate", 0.0, None)
        return
    grounds = [
        *(f"{ground.key}: {ground.message}" for ground in gate.closings),
        *map(describe_lapsed_override, gate.lapsed),
    ]
    tag, kind = ("failure", "closed") if gate.standing == "closed" else ("skipped", "override")
    yield _Case("audit", "gate", 0.0, _End(tag, kind, describe_gate(gate), "\n".join(map(_text, grounds))))


def _append(suite: ElementTree.Element, case: _Case) -> None:
    element = ElementTree.SubElement(
        suite, "testcase", classname=_text(case.classname), name=_text(case.name), time=f"{case.seconds:.3f}"
    )
    if case.end is not None:
        end = ElementTree.SubElement(element, case.end.tag, type=case.end.type, message=_text(case.end.message))
        end.text = case.end.text


def _part(text: str) -> str:
    """Return text as one part of a class name; readers split class names at dots."""
    return text.replace(".", "_")


def _text(text: str) -> str:
    return visible(shorten(text, _MOST))
