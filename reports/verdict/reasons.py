"""The verdict over a log, as reasons in words; which class of reason there is decides between void, fail and pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from ..log.control_observations import ControlObservation, ObservedBehaviour
from ..log.file import Log
from ..log.schema import ControlRecord, EditRecord
from ..text import count_noun, quote_names
from .edit_sequence import sequence_reasons
from .edit_summary import EditDecision, EditSummary, EditVerdict
from .explanation import explain
from .prompt_views import judged_by_made_neighbours

__all__ = [
    "control_fault",
    "fail_reasons",
    "incomplete_reasons",
    "may_ship",
    "not_controlled",
    "pass_reason",
    "ship_reasons",
    "void_reasons",
]

_EXPECTED = {"collapse": "a collapse", "sound": "a sound model"}
_DID = {
    ObservedBehaviour.FIRES: "fired",
    ObservedBehaviour.SILENT: "was silent",
    ObservedBehaviour.ERRORS: "errored",
    ObservedBehaviour.FAILS: "failed",
    ObservedBehaviour.PASSES: "passed",
    ObservedBehaviour.JUDGES_NOTHING: "judged nothing",
}
_MUST = {
    ObservedBehaviour.FIRES: "must fire",
    ObservedBehaviour.SILENT: "must be silent",
    ObservedBehaviour.FAILS: "must fail",
    ObservedBehaviour.PASSES: "must pass",
}


def void_reasons(log: Log, controls: Sequence[EditSummary]) -> Iterator[str]:
    """Yield why the audit proves nothing: a control is missing, errored, or did not show what was expected."""
    if log.header.policy.get("controls") is True and not log.controls:
        yield "No control was recorded, though the policy demands them: nothing proves that the checks see a collapse."
    recorded = {control.id for control in log.controls}
    missing = [name for name in log.header.controls if name not in recorded]
    if missing and log.controls:
        yield f"{count_noun(len(missing), 'control is', 'controls are')} missing: {quote_names(missing)}."
    elif missing and log.header.policy.get("controls") is not True:
        yield f"No control was recorded, though the header announces {quote_names(missing)}."
    for control in controls:
        fault = control_fault(control)
        if fault is not None:
            yield fault


def control_fault(story: EditSummary) -> str | None:
    """Return why a control proves nothing, or None where it showed what it must."""
    control = story.record
    if isinstance(control, EditRecord) or control.ok:
        return None
    if control.outcome == "errored":
        return f"Control {control.id!r} errored: {control.error}"
    missed = [_missed(one) for one in control.sightings if one.ok is False]
    if missed and _showed(story, control):
        return f"Control {control.id!r} shows that {'; '.join(missed)}: the audit proves nothing."
    seen = _collapse_missed(story) if control.expect == "collapse" else "; ".join(story.faults) or "it was not"
    also = "".join(f"; {one}" for one in missed)
    return (
        f"Control {control.id!r} was to show {_EXPECTED[control.expect]}, but {seen}{also}: the checks prove nothing."
    )


def _showed(story: EditSummary, control: ControlRecord) -> bool:
    """Whether the control's edit ended as it must, whatever single probes and checks did."""
    sound = control.verdict == "pass"
    return sound if control.expect == "sound" else story.collapsed and not sound


def _missed(one: ControlObservation) -> str:
    known = "good" if one.expected in (ObservedBehaviour.SILENT, ObservedBehaviour.PASSES) else "bad"
    return f"the {one.kind} {one.name!r} {_DID[one.seen]} where it {_MUST[one.expected]} (known {known})"


def _collapse_missed(story: EditSummary) -> str:
    return "no perplexity ratio was measured" if story.ratio is None else f"the perplexity ratio was {story.ratio:.4g}"


def not_controlled(controls: Sequence[ControlRecord]) -> list[str]:
    """Return the probes and checks that no control proves, each once, and why."""
    found = {f"{one.kind} {one.name}": one.why for control in controls for one in control.sightings if one.ok is None}
    return [f"{name}: {why}" for name, why in found.items()]


def fail_reasons(log: Log, stories: Sequence[EditSummary]) -> Iterator[str]:
    """Yield why the edits may not ship: collapsed, failed or refused ones, none at all, or missing records."""
    collapsed = [s for s in stories if s.collapsed]
    if collapsed:
        yield f"{count_noun(len(collapsed), 'edit')} collapsed the model: {_ids(collapsed)}."
    other = [s for s in stories if s.faults and not s.collapsed]
    if len(other) == 1:
        explanation = explain(other[0], log.header)
        yield f"Edit {other[0].record.id!r} failed. {explanation.why if explanation else ''}"
    elif other:
        yield f"{len(other)} edits failed: {_ids(other)}."
    refused = [s for s in stories if s.decision is EditDecision.REFUSED]
    if refused and log.header.policy.get("allow_refused") is not True:
        yield (
            f"{count_noun(len(refused), 'edit was', 'edits were')} refused ({_ids(refused)}), and the policy does not "
            "allow a pass with refused edits."
        )
    yield from sequence_reasons(log)
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
        asked = count_noun(log.header.requests, "edit was", "edits were")
        yield f"{asked} requested and {count_noun(len(log.edits), 'has', 'have')} a record."
    if log.footer is not None and log.footer.records != len(log.edits) + len(log.controls):
        yield f"The footer counts {count_noun(log.footer.records, 'record')}, and the log has {len(log.edits) + len(log.controls)}."


def may_ship(log: Log, stories: Sequence[EditSummary], verdict: Literal["void", "fail", "pass"]) -> list[str]:
    """Return the ids of the edits that passed and may ship: none of a void audit, nor of one that is not whole.

    Of a failed audit in sequence none may ship either: each was judged on a model with those before it.
    """
    whole = not log.header.in_sequence and not any(sequence_reasons(log)) and not any(incomplete_reasons(log))
    if verdict == "void" or (verdict == "fail" and not whole):
        return []
    return [story.record.id for story in stories if story.result is EditVerdict.PASSED]


def ship_reasons(stories: Sequence[EditSummary], shippable: Sequence[str]) -> Iterator[str]:
    """Yield how many edits of an audit that did not pass may ship all the same, with the first ids; nothing for none."""
    if shippable:
        passed = f"{len(shippable)} of {count_noun(len(stories), 'edit')} passed and may ship by"
        yield f"{passed} {'itself' if len(shippable) == 1 else 'themselves'}: {quote_names(shippable)}."


def pass_reason(log: Log, stories: Sequence[EditSummary]) -> str:
    """Return what a pass rests on, in one sentence."""
    ratios = [s.ratio for s in stories if s.decision is not EditDecision.REFUSED and s.ratio is not None]
    worst = f"worst perplexity ratio {max(ratios):.4g}" if ratios else "no edit was applied"
    proof = (
        f"{'the control' if len(log.controls) == 1 else f'all {len(log.controls)} controls'} showed what was expected"
        if log.controls
        else "no control was run, so nothing proves that the checks see a collapse"
    )
    left = []
    if skipped := len(log.header.skipped_invalid):
        left.append(
            f"{count_noun(skipped, 'record')} of the file that {'is' if skipped == 1 else 'are'} not valid left out"
        )
    if limit := log.header.arguments.get("limit"):
        left.append(f"only the first {limit} looked at (--limit)")
    if made := sum(judged_by_made_neighbours(story.record) for story in stories):
        left.append(f"{count_noun(made, 'edit was', 'edits were')} judged by neighbours that the audit made")
    return "; ".join([f"{count_noun(len(stories), 'edit')} audited, none failed", *left, worst, proof]) + "."


def _ids(stories: Sequence[EditSummary]) -> str:
    return quote_names([story.record.id for story in stories])
