"""From an edit's record to the verdict of one of its items, and to a text that says what to do; pure functions.

A record is judged as the log's verdict judges it, so that a session passes where `editguard report` on its log does.
What was asked for and not measured fails; what nobody judges, or the request does not ask for, is skipped, not passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from ...reports.log.schema import EditRecord, MeasurementRecord
from ...reports.log.types import HeadlineCheck
from ...reports.text import visible
from ...reports.verdict.edit_summary import EditSummary, summarise_edits
from ...suites.check import list_single_edit_checks
from ..policy import Policy

__all__ = ["GUARD", "Ended", "Verdict", "judge_check", "judge_guard", "properties"]

GUARD = "guard"
"""Name of the item that judges the decision and what was made of it."""
_MOST_WORDS = 3
"""Leaking prompts that a failure quotes."""
_ALLOWED = "the edit was refused, which the policy allows"


class Ended(Enum):
    """What comes of an item."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class Verdict(NamedTuple):
    """How an item ended, and why in words."""

    ended: Ended
    text: str = ""


def judge_guard(record: EditRecord, policy: Policy) -> Verdict:
    """Judge decision, update, weights and the edit as a whole."""
    if record.outcome == "refused":
        return _refused(record, policy)
    faults = list(dict.fromkeys(_faults(record, policy)))
    if not faults:
        return Verdict(Ended.PASSED)
    wayout = "Do not ship this edit; see its findings, its denominator and its update in the log or the report."
    return _failed("guard", record, faults[0], [("why", "; ".join(faults[1:])), ("what to do", wayout)])


def judge_check(check: str, action: str, record: EditRecord, policy: Policy) -> Verdict:
    """Judge what one check measured; `action` is what its card says to do about a failure."""
    if record.outcome == "refused":
        return Verdict(Ended.SKIPPED, _ALLOWED) if policy.allow_refused else _not_measured(check, "was refused", record)
    if record.outcome == "errored":
        return _not_measured(check, "ended in an error", record)
    found = [one for one in record.measurements if one.check == check]
    bad = [one for one in found if one.verdict in ("fail", "unmeasured")]
    if bad:
        return _failed(check, record, _headline(bad[0]), [*_rows(bad), *_words(check, record), ("what to do", action)])
    story = _story(record, policy)
    if check == HeadlineCheck.PERPLEXITY.value and (story.collapsed or story.ratio is None):
        return _failed(check, record, story.faults[0], [("what to do", action)])
    if any(one.verdict == "pass" for one in found):
        return Verdict(Ended.PASSED)
    if found:
        return Verdict(Ended.SKIPPED, f"{check} is shown, not judged: its figures stand in the log")
    return Verdict(Ended.SKIPPED, f"{check} was not asked for: the request has no prompts for it")


def _words(check: str, record: EditRecord) -> Iterator[tuple[str, str]]:
    """Yield the words of the prompts that leak, as a check of other prompts found them."""
    about = {"locality": "neighbour", "other-facts": "fact"}.get(check)
    if about is None:
        return
    leaking = [one for one in record.prompts if one.result == "leak" and about in one.role]
    for one in leaking[:_MOST_WORDS]:
        yield "leak", f"{one.prompt!r} ({one.condition}) said {one.before!r}, and says {one.after!r} now"
    if (more := len(leaking) - _MOST_WORDS) > 0:
        yield "leak", f"and {more} more in the log"


def properties(record: EditRecord) -> Mapping[str, str]:
    """Return what a machine may want to know of an edit: decision, editor, and the perplexity ratio."""
    ratio = next((one.value for one in record.measurements if (one.check, one.metric) == ("perplexity", "ratio")), None)
    known = {
        "decision": "refuse" if record.outcome == "refused" else record.decision.action,
        "editor": record.update.editor if record.update else record.decision.editor,
        "ratio": None if ratio is None else f"{ratio:.6g}",
    }
    return {name: visible(value) for name, value in known.items() if value is not None}


def _story(record: EditRecord, policy: Policy) -> EditSummary:
    (story,) = summarise_edits([record], policy.collapse_ratio, leaks_judged=True)
    return story


def _faults(record: EditRecord, policy: Policy) -> Iterator[str]:
    """What the guard's item has to say; what a check found stands with the check's own item."""
    story, bound = _story(record, policy), policy.max_relative_update
    relative = record.update.relative_norm if record.update else None
    if relative is not None and relative > bound:
        yield f"its update is {relative:.3g} times ||W||, over the bound of {bound:g}"
    yield from story.own_faults
    if story.collapsed or (record.verdict != "pass" and not _told_elsewhere(record)):
        yield from story.faults


def _told_elsewhere(record: EditRecord) -> bool:
    """Whether a check that has an item of its own failed, so that the session fails there."""
    return any(
        one.verdict in ("fail", "unmeasured") and one.check in list_single_edit_checks() for one in record.measurements
    )


def _refused(record: EditRecord, policy: Policy) -> Verdict:
    if policy.allow_refused:
        return Verdict(Ended.SKIPPED, _ALLOWED)
    reasons = "; ".join(record.decision.reasons)
    wayout = "Mend the request as the reason says, leave it out, or set allow_refused in the policy if that is meant."
    return _failed(GUARD, record, "the edit was refused and not made", [("why", reasons), ("what to do", wayout)])


def _not_measured(check: str, ended: str, record: EditRecord) -> Verdict:
    """One line, since the item of the guard says the rest; but with the reason, as that item may not be selected."""
    reason = record.error or record.decision.reasons[0]
    return Verdict(
        Ended.FAILED, _line(f"{check}: not measured, since the edit {ended} (see the item {GUARD}): {reason}")
    )


def _headline(one: MeasurementRecord) -> str:
    if one.verdict == "unmeasured":
        return f"{_named(one)} could not be measured, and unmeasured is never a pass"
    return f"{_named(one)} is {_figure(one.value)}, allowed {_figure(one.threshold)}"


def _rows(bad: Sequence[MeasurementRecord]) -> list[tuple[str, str]]:
    rows = []
    for one in bad:
        rows.append(("measured", f"{_named(one)} = {_figure(one.value)} {one.unit}".rstrip()))
        if one.total:
            counts = f"{one.passed} passed, {one.failed} failed, {one.not_judged} not judged, {one.total} in all"
            rows.append(("counts", counts))
        rows.append(("allowed", _figure(one.threshold)))
        rows.append(("why", one.message))
    return rows


def _failed(check: str, record: EditRecord, headline: str, rows: Sequence[tuple[str, str]]) -> Verdict:
    """A text of which the first line says it all, for the summary."""
    edit = f"{record.prompt!r} -> {record.target_new!r}, subject {record.subject!r}"
    made = [f"{record.decision.action} by {record.decision.editor}"] if record.decision.editor else []
    told = [*rows, ("edit", edit)]
    if record.outcome != "refused":
        told.append(("decision", "; ".join([*made, *record.decision.reasons])))
    lines = [f"{check}: {headline}", *(f"  {name + ':':<12}{text}" for name, text in told if text)]
    return Verdict(Ended.FAILED, "\n".join(map(_line, lines)))


def _line(text: str) -> str:
    return visible(text).replace("\n", " ")


def _named(one: MeasurementRecord) -> str:
    protocol = f", {one.protocol}" if one.protocol else ""
    return f"{one.metric} ({one.condition}{protocol})"


def _figure(value: float | None) -> str:
    return "no figure" if value is None else f"{value:.4g}"
