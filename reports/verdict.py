"""The verdict over a log, as reasons in words; which class of reason there is decides between void, fail and pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .log import Log
from .schema import EditRecord
from .story import Decided, Story
from .text import counted, named

__all__ = ["control_fault", "fail_reasons", "incomplete_reasons", "pass_reason", "void_reasons"]

_EXPECTED = {"collapse": "a collapse", "sound": "a sound model"}


def void_reasons(log: Log, controls: Sequence[Story]) -> Iterator[str]:
    """Yield why the audit proves nothing: a control is missing, errored, or did not show what was expected."""
    if log.header.policy.get("controls") is True and not log.controls:
        yield "No control was recorded, though the policy demands them: nothing proves that the checks see a collapse."
    recorded = {control.id for control in log.controls}
    missing = [name for name in log.header.controls if name not in recorded]
    if missing and log.controls:
        yield f"{counted(len(missing), 'control is', 'controls are')} missing: {named(missing)}."
    elif missing and log.header.policy.get("controls") is not True:
        yield f"No control was recorded, though the header announces {named(missing)}."
    for control in controls:
        fault = control_fault(control)
        if fault is not None:
            yield fault


def control_fault(story: Story) -> str | None:
    """Return why a control proves nothing, or None where it showed what it must."""
    control = story.record
    if isinstance(control, EditRecord) or control.ok:
        return None
    if control.outcome == "errored":
        return f"Control {control.id!r} errored: {control.error}"
    seen = _collapse_missed(story) if control.expect == "collapse" else "; ".join(story.faults) or "it was not"
    return f"Control {control.id!r} was to show {_EXPECTED[control.expect]}, but {seen}: the checks prove nothing."


def _collapse_missed(story: Story) -> str:
    return "no perplexity ratio was measured" if story.ratio is None else f"the perplexity ratio was {story.ratio:.4g}"


def fail_reasons(log: Log, stories: Sequence[Story]) -> Iterator[str]:
    """Yield why the edits may not ship: collapsed, failed or refused ones, none at all, or missing records."""
    collapsed = [s for s in stories if s.collapsed]
    if collapsed:
        yield f"{counted(len(collapsed), 'edit')} collapsed the model: {_ids(collapsed)}."
    other = [s for s in stories if s.faults and not s.collapsed]
    if len(other) == 1:
        yield f"Edit {other[0].record.id!r} failed: {'; '.join(other[0].faults)}."
    elif other:
        yield f"{len(other)} edits failed: {_ids(other)}."
    refused = [s for s in stories if s.decided is Decided.REFUSED]
    if refused and log.header.policy.get("allow_refused") is not True:
        yield (
            f"{counted(len(refused), 'edit was', 'edits were')} refused ({_ids(refused)}), and the policy does not "
            "allow a pass with refused edits."
        )
    yield from incomplete_reasons(log)


def incomplete_reasons(log: Log) -> Iterator[str]:
    """Yield what keeps the log from being that of a whole audit: no edit, records that are missing, no footer."""
    if not log.edits:
        yield "No edit was audited."
    if log.footer is None:
        torn = ", and its last line is cut short" if log.torn else ""
        yield f"The audit did not finish: the log has no footer{torn}."
    missing = log.header.requests - len(log.edits)
    if missing and log.edits:
        asked = counted(log.header.requests, "edit was", "edits were")
        yield f"{asked} requested and {counted(len(log.edits), 'has', 'have')} a record."
    if log.footer is not None and log.footer.records != len(log.edits) + len(log.controls):
        yield f"The footer counts {counted(log.footer.records, 'record')}, and the log has {len(log.edits) + len(log.controls)}."


def pass_reason(log: Log, stories: Sequence[Story]) -> str:
    """Return what a pass rests on, in one sentence."""
    ratios = [s.ratio for s in stories if s.decided is not Decided.REFUSED and s.ratio is not None]
    worst = f"worst perplexity ratio {max(ratios):.4g}" if ratios else "no edit was applied"
    proof = (
        f"{'the control' if len(log.controls) == 1 else f'all {len(log.controls)} controls'} showed what was expected"
        if log.controls
        else "no control was run, so nothing proves that the checks see a collapse"
    )
    return f"{counted(len(stories), 'edit')} audited, none failed; {worst}; {proof}."


def _ids(stories: Sequence[Story]) -> str:
    return named([story.record.id for story in stories])
