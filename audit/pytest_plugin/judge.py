"""From an edit's record to the verdict of one of its items, and to a text that says what to do; pure functions.

A record is judged as in the verdict of the log, so that a session passes where `editguard report` on its log does. A check
that was requested and not measured fails. A check without a bound, or without prompts in the request, is skipped.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from ...reports.log.types import HeadlineCheck
from ...reports.text import visible
from ...reports.verdict.edit_summary import EditSummary, summarise_edits
from ...suites.check import list_single_edit_checks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ...reports.log.schema import EditRecord, MeasurementRecord
    from ..policy import Policy

__all__ = ["GUARD", "ItemOutcome", "ItemVerdict", "judge_check", "judge_guard", "list_properties"]

GUARD = "guard"
"""Name of the item that judges the decision and the edit as a whole."""
_MOST_WORDS = 3
"""Leaking prompts that a failure quotes."""
_ALLOWED = "the edit was refused, which the policy allows"


class ItemOutcome(Enum):
    """The outcome of an item."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class ItemVerdict(NamedTuple):
    """The outcome of an item, and its reason in words."""

    outcome: ItemOutcome
    text: str = ""


def judge_guard(record: EditRecord, policy: Policy) -> ItemVerdict:
    """Judge decision, update, weights and the edit as a whole."""
    if record.outcome == "refused":
        return _judge_refusal(record, policy)
    faults = list(dict.fromkeys(_find_faults(record, policy)))
    if not faults:
        return ItemVerdict(ItemOutcome.PASSED)
    wayout = "Do not ship this edit; see its findings, its denominator and its update in the log or the report."
    return _fail("guard", record, faults[0], [("why", "; ".join(faults[1:])), ("what to do", wayout)])


def judge_check(check: str, action: str, record: EditRecord, policy: Policy) -> ItemVerdict:
    """Judge the measurements of one check; `action` is the advice of its card on a failure."""
    if record.outcome == "refused":
        return (
            ItemVerdict(ItemOutcome.SKIPPED, _ALLOWED)
            if policy.allow_refused
            else _fail_unmeasured(check, "was refused", record)
        )
    if record.outcome == "errored":
        return _fail_unmeasured(check, "ended in an error", record)
    measurements = [measurement for measurement in record.measurements if measurement.check == check]
    failures = [measurement for measurement in measurements if measurement.verdict in ("fail", "unmeasured")]
    if failures:
        return _fail(
            check,
            record,
            _write_headline(failures[0]),
            [*_list_details(failures), *_quote_leaks(check, record), ("what to do", action)],
        )
    summary = _summarise(record, policy)
    if check == HeadlineCheck.PERPLEXITY.value and (summary.collapsed or summary.ratio is None):
        return _fail(check, record, summary.faults[0], [("what to do", action)])
    if any(measurement.verdict == "pass" for measurement in measurements):
        return ItemVerdict(ItemOutcome.PASSED)
    if measurements:
        return ItemVerdict(ItemOutcome.SKIPPED, f"{check} is shown, not judged: its figures stand in the log")
    return ItemVerdict(ItemOutcome.SKIPPED, f"{check} was not asked for: the request has no prompts for it")


def _quote_leaks(check: str, record: EditRecord) -> Iterator[tuple[str, str]]:
    """Yield the prompts that leak, with their answers before and after the edit."""
    about = {"locality": "neighbour", "other-facts": "fact"}.get(check)
    if about is None:
        return
    leaking = [answer for answer in record.prompts if answer.result == "leak" and about in answer.role]
    for answer in leaking[:_MOST_WORDS]:
        yield "leak", f"{answer.prompt!r} ({answer.condition}) said {answer.before!r}, and says {answer.after!r} now"
    if (more := len(leaking) - _MOST_WORDS) > 0:
        yield "leak", f"and {more} more in the log"


def list_properties(record: EditRecord) -> Mapping[str, str]:
    """Return properties of an edit for machines: decision, editor, and the perplexity ratio."""
    ratio = next(
        (
            measurement.value
            for measurement in record.measurements
            if (measurement.check, measurement.metric) == ("perplexity", "ratio")
        ),
        None,
    )
    values = {
        "decision": "refuse" if record.outcome == "refused" else record.decision.action,
        "editor": record.update.editor if record.update else record.decision.editor,
        "ratio": None if ratio is None else f"{ratio:.6g}",
    }
    return {name: visible(value) for name, value in values.items() if value is not None}


def _summarise(record: EditRecord, policy: Policy) -> EditSummary:
    (story,) = summarise_edits([record], policy.collapse_ratio, leaks_judged=True)
    return story


def _find_faults(record: EditRecord, policy: Policy) -> Iterator[str]:
    """Yield the faults for the item of the guard; faults of a check stand with the item of that check."""
    story, bound = _summarise(record, policy), policy.max_relative_update
    relative = record.update.relative_norm if record.update else None
    if relative is not None and relative > bound:
        yield f"its update is {relative:.3g} times ||W||, over the bound of {bound:g}"
    yield from story.own_faults
    if story.collapsed or (record.verdict != "pass" and not _fails_elsewhere(record)):
        yield from story.faults


def _fails_elsewhere(record: EditRecord) -> bool:
    """Whether a check that has an item of its own failed, so that the session fails there."""
    return any(
        measurement.verdict in ("fail", "unmeasured") and measurement.check in list_single_edit_checks()
        for measurement in record.measurements
    )


def _judge_refusal(record: EditRecord, policy: Policy) -> ItemVerdict:
    if policy.allow_refused:
        return ItemVerdict(ItemOutcome.SKIPPED, _ALLOWED)
    reasons = "; ".join(record.decision.reasons)
    wayout = "Mend the request as the reason says, leave it out, or set allow_refused in the policy if that is meant."
    return _fail(GUARD, record, "the edit was refused and not made", [("why", reasons), ("what to do", wayout)])


def _fail_unmeasured(check: str, ended: str, record: EditRecord) -> ItemVerdict:
    """Return one line with the reason; the item of the guard has the details, and may not be selected."""
    reason = record.error or record.decision.reasons[0]
    return ItemVerdict(
        ItemOutcome.FAILED,
        _join_lines(f"{check}: not measured, since the edit {ended} (see the item {GUARD}): {reason}"),
    )


def _write_headline(measurement: MeasurementRecord) -> str:
    if measurement.verdict == "unmeasured":
        return f"{_name_metric(measurement)} could not be measured, and unmeasured is never a pass"
    return f"{_name_metric(measurement)} is {_format_value(measurement.value)}, allowed {_format_value(measurement.threshold)}"


def _list_details(failures: Sequence[MeasurementRecord]) -> list[tuple[str, str]]:
    rows = []
    for measurement in failures:
        rows.append(
            (
                "measured",
                f"{_name_metric(measurement)} = {_format_value(measurement.value)} {measurement.unit}".rstrip(),
            )
        )
        if measurement.total:
            counts = (
                f"{measurement.passed} passed, {measurement.failed} failed, {measurement.not_judged} not judged, "
                f"{measurement.total} in all"
            )
            rows.append(("counts", counts))
        rows.append(("allowed", _format_value(measurement.threshold)))
        rows.append(("why", measurement.message))
    return rows


def _fail(check: str, record: EditRecord, headline: str, rows: Sequence[tuple[str, str]]) -> ItemVerdict:
    """Return a failure; the first line of its text stands in pytest's summary."""
    edit = f"{record.prompt!r} -> {record.target_new!r}, subject {record.subject!r}"
    action = [f"{record.decision.action} by {record.decision.editor}"] if record.decision.editor else []
    details = [*rows, ("edit", edit)]
    if record.outcome != "refused":
        details.append(("decision", "; ".join([*action, *record.decision.reasons])))
    lines = [f"{check}: {headline}", *(f"  {name + ':':<12}{text}" for name, text in details if text)]
    return ItemVerdict(ItemOutcome.FAILED, "\n".join(map(_join_lines, lines)))


def _join_lines(text: str) -> str:
    return visible(text).replace("\n", " ")


def _name_metric(measurement: MeasurementRecord) -> str:
    protocol = f", {measurement.protocol}" if measurement.protocol else ""
    return f"{measurement.metric} ({measurement.condition}{protocol})"


def _format_value(value: float | None) -> str:
    return "no figure" if value is None else f"{value:.4g}"
