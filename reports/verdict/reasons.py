"""The reasons of a verdict, in words. A reason of one class makes the audit void, one of another makes it fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ..log.control_observations import ControlObservation, ObservedBehaviour
from ..log.schema import ControlRecord, EditRecord
from ..log.types import HeadlineCheck
from ..text import capitalise, count_noun, quote_names
from .checkpoint import checkpoint_faults, describe_change
from .edit_sequence import sequence_reasons
from .edit_summary import EditDecision, EditSummary, EditVerdict
from .explanation import explain
from .prompt_views import judged_by_made_neighbours

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..log.file import Log

__all__ = [
    "control_fault",
    "fail_reasons",
    "has_unedited_result",
    "incomplete_reasons",
    "may_ship",
    "not_controlled",
    "pass_reason",
    "ship_reasons",
    "void_reasons",
]

_EXPECTED = {
    "collapse": "a collapse",
    "sound": "a sound model",
    "unedited": "a sound model that does not say the target",
}
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
    """Yield why the audit proves nothing: a control is missing, errored, or did not have its known result."""
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


def control_fault(summary: EditSummary) -> str | None:
    """Return why a control proves nothing; None if it had its known result."""
    control = summary.record
    if isinstance(control, EditRecord) or control.ok:
        return None
    if control.outcome == "errored":
        return f"Control {control.id!r} errored: {control.error}"
    misses = [_missed(observation) for observation in control.sightings if observation.ok is False]
    if misses and _has_known_result(summary, control):
        return f"Control {control.id!r} shows that {'; '.join(misses)}: the audit proves nothing."
    if control.expect == "unedited":
        shortfall = "; ".join(summary.faults) or "the base says it already"
    else:
        shortfall = (
            _collapse_missed(summary) if control.expect == "collapse" else "; ".join(summary.faults) or "it was not"
        )
    others = "".join(f"; {observation}" for observation in misses)
    return f"Control {control.id!r} was to show {_EXPECTED[control.expect]}, but {shortfall}{others}: the checks prove nothing."


def _has_known_result(summary: EditSummary, control: ControlRecord) -> bool:
    """Return whether the control's edit ended as it must, whatever single probes and checks did."""
    sound = control.verdict == "pass"
    if control.expect == "unedited":
        return has_unedited_result(control)
    return sound if control.expect == "sound" else summary.collapsed and not sound


def has_unedited_result(control: ControlRecord) -> bool:
    """Return whether the base itself did not say the target, and passed everything else that was judged."""
    failed = {m.check for m in control.measurements if m.verdict in ("fail", "unmeasured")}
    passed = {m.check for m in control.measurements if m.verdict == "pass"}
    about_target = {HeadlineCheck.EFFICACY.value, HeadlineCheck.GENERALIZATION.value}
    says_not = HeadlineCheck.EFFICACY.value in failed and failed <= about_target
    return says_not and HeadlineCheck.PERPLEXITY.value in passed


def _missed(observation: ControlObservation) -> str:
    kind = "good" if observation.expected in (ObservedBehaviour.SILENT, ObservedBehaviour.PASSES) else "bad"
    behaviour, duty = _DID[observation.seen], _MUST[observation.expected]
    return f"the {observation.kind} {observation.name!r} {behaviour} where it {duty} (known {kind})"


def _collapse_missed(summary: EditSummary) -> str:
    return (
        "no perplexity ratio was measured" if summary.ratio is None else f"the perplexity ratio was {summary.ratio:.4g}"
    )


def not_controlled(controls: Sequence[ControlRecord]) -> list[str]:
    """Return the probes and checks that no control proves, each once with the reason."""
    reasons = {
        f"{observation.kind} {observation.name}": observation.why
        for control in controls
        for observation in control.sightings
        if observation.ok is None
    }
    return [f"{name}: {why}" for name, why in reasons.items()]


def fail_reasons(log: Log, edits: Sequence[EditSummary]) -> Iterator[str]:
    """Yield why the edits may not ship: collapsed, failed or refused edits, no edit, or missing records."""
    yield from checkpoint_faults(log)
    collapsed = [edit for edit in edits if edit.collapsed]
    if collapsed and log.header.edited is None:
        yield f"{count_noun(len(collapsed), 'edit')} collapsed the model: {_ids(collapsed)}."
    other = [edit for edit in edits if edit.faults and not (edit.collapsed and log.header.edited is None)]
    if len(other) == 1:
        explanation = explain(other[0], log.header)
        yield f"Edit {other[0].record.id!r} failed. {explanation.why if explanation else ''}"
    elif other:
        yield f"{len(other)} edits failed: {_ids(other)}."
    refused = [edit for edit in edits if edit.decision is EditDecision.REFUSED]
    if refused and log.header.policy.get("allow_refused") is not True:
        yield (
            f"{count_noun(len(refused), 'edit was', 'edits were')} refused ({_ids(refused)}), and the policy does not "
            "allow a pass with refused edits."
        )
    yield from sequence_reasons(log)
    yield from incomplete_reasons(log)


def incomplete_reasons(log: Log) -> Iterator[str]:
    """Yield why the log is not that of a whole audit: no edit, missing records, no footer."""
    if not log.edits and log.header.edited is None:
        yield "No edit was audited."
    if log.header.edited is not None and log.model is None:
        yield "The edited model as a whole was not measured, and unmeasured is never a pass."
    if log.footer is None:
        torn = ", and its last line is cut short" if log.torn else ""
        yield f"The audit did not finish: the log has no footer{torn}."
    missing = log.header.requests - len(log.edits)
    if missing and (log.edits or log.header.edited is not None):
        requested = count_noun(log.header.requests, "edit was", "edits were")
        yield f"{requested} requested and {count_noun(len(log.edits), 'has', 'have')} a record."
    if log.footer is not None and log.footer.records != log.records:
        yield f"The footer counts {count_noun(log.footer.records, 'record')}, and the log has {log.records}."


def may_ship(log: Log, edits: Sequence[EditSummary], verdict: Literal["void", "fail", "pass"]) -> list[str]:
    """Return the ids of the edits that passed and may ship: none of a void or incomplete audit.

    None of a failed audit in sequence may ship either: each edit was judged in a model with the edits before it.
    """
    if log.header.edited is not None and verdict == "fail":
        return []  # a checkpoint ships as a whole
    whole = not log.header.in_sequence and not any(sequence_reasons(log)) and not any(incomplete_reasons(log))
    if verdict == "void" or (verdict == "fail" and not whole):
        return []
    return [edit.record.id for edit in edits if edit.result is EditVerdict.PASSED]


def ship_reasons(edits: Sequence[EditSummary], shippable: Sequence[str]) -> Iterator[str]:
    """Yield how many edits of an audit that did not pass may ship, with the first ids; nothing if none may."""
    if shippable:
        passed = f"{len(shippable)} of {count_noun(len(edits), 'edit')} passed and may ship by"
        yield f"{passed} {'itself' if len(shippable) == 1 else 'themselves'}: {quote_names(shippable)}."


def pass_reason(log: Log, edits: Sequence[EditSummary]) -> str:
    """Return the evidence of a pass, in one sentence."""
    ratios = [edit.ratio for edit in edits if edit.decision is not EditDecision.REFUSED and edit.ratio is not None]
    worst = f"worst perplexity ratio {max(ratios):.4g}" if ratios else "no edit was applied"
    proof = (
        f"{'the control' if len(log.controls) == 1 else f'all {len(log.controls)} controls'} showed what was expected"
        if log.controls
        else "no control was run, so nothing proves that the checks see a collapse"
    )
    caveats = []
    if skipped := len(log.header.skipped_invalid):
        caveats.append(
            f"{count_noun(skipped, 'record')} of the file that {'is' if skipped == 1 else 'are'} not valid left out"
        )
    if limit := log.header.arguments.get("limit"):
        caveats.append(f"only the first {limit} audited (--limit)")
    if made_count := sum(judged_by_made_neighbours(edit.record) for edit in edits):
        caveats.append(f"{count_noun(made_count, 'edit was', 'edits were')} judged by neighbours that the audit made")
    if change := describe_change(log):
        held = f"the checkpoint holds {count_noun(len(edits), 'edit')}, none failed" if edits else "no edit was given"
        return capitalise("; ".join([held, *caveats, change, proof]) + ".")
    return "; ".join([f"{count_noun(len(edits), 'edit')} audited, none failed", *caveats, worst, proof]) + "."


def _ids(edits: Sequence[EditSummary]) -> str:
    return quote_names([edit.record.id for edit in edits])
