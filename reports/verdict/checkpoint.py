"""The verdict on an audited checkpoint as a whole: what changed, is it still a model, did facts move that nobody edited?

Pure functions of a log. The edits in the checkpoint are judged as those of any audit (`edit_summary`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..log.prompt_outcomes import PromptResult
from ..log.types import HeadlineCheck, Rate
from ..numbers import format_number, format_percent
from ..text import count_noun, shorten
from .edit_summary import collapse_bound
from .rates import make_rate, perplexity_lost, perplexity_ratio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..log.edited_checkpoint import EditedCheckpoint
    from ..log.file import Log
    from ..log.schema import MeasurementRecord, ModelRecord

__all__ = ["SIDE_EFFECTS", "checkpoint_faults", "count_side_effects", "describe_change"]

SIDE_EFFECTS: Final = "side-effects"
"""Name of the measurements of answers about subjects that nobody edited."""
_LONGEST: Final = 60
_PLAINEST: Final = "first-token"
"""The probe whose words need no mathematics; where it fires, it is named before the others."""


def checkpoint_faults(log: Log) -> Iterator[str]:
    """Yield why the checkpoint as a whole may not ship, gravest first; nothing of an audit that made its edits itself."""
    edited, model = log.header.edited, log.model
    if edited is None:
        return
    if model is not None and model.error is not None:
        yield f"The edited model could not be measured: {model.error}"
    yield from edited.differences
    if not edited.changed:
        yield _describe_nothing(edited)
    if model is not None:
        yield from _model_faults(log, model)


def _model_faults(log: Log, model: ModelRecord) -> Iterator[str]:
    """Yield what the edited model as a whole failed, or was not measured for."""
    bound, ratio, lost = collapse_bound(log.header), perplexity_ratio(model), perplexity_lost(model)
    collapsed = lost or (ratio is not None and ratio > bound)
    if collapsed:
        shown = "not finite" if ratio is None else f"{ratio:.4g} times the base's, over the bound of {bound:g}"
        yield f"The edited model collapsed: its perplexity is {shown}."
        yield from _explain_collapse(log)
    if model.error is None:
        for check in (HeadlineCheck.PERPLEXITY.value, SIDE_EFFECTS):
            if all(row.check != check or row.verdict == "info" for row in model.measurements):
                yield f"The check {check!r} of the edited model is missing, and unmeasured is never a pass."
    faulty = _list_faulty(model)
    if model.verdict == "fail" and model.error is None and not faulty:
        yield "The edited model was not found sound, and the log does not say why."
    for measurement in faulty:
        if not (collapsed and measurement.check == HeadlineCheck.PERPLEXITY.value):
            yield _describe_fault(log, measurement)


def _list_faulty(model: ModelRecord) -> list[MeasurementRecord]:
    return [measurement for measurement in model.measurements if measurement.verdict in ("fail", "unmeasured")]


def _explain_collapse(log: Log) -> Iterator[str]:
    """Yield what the probes saw on the base of the edits that can make a model collapse."""
    risky = [
        (record.id, min(risks, key=lambda finding: finding.probe != _PLAINEST))
        for record in log.edits
        if (risks := [finding for finding in record.findings if finding.level == "risk"])
    ]
    if risky:
        (name, finding), others = risky[0], len(risky) - 1
        more = f", and {count_noun(others, 'other edit')} too" if others else ""
        yield f"The probes expect it of the edit {name!r}{more}: {finding.probe}: {finding.message}."


def _describe_nothing(edited: EditedCheckpoint) -> str:
    if edited.rounded_away:
        tensors = count_noun(edited.rounded_away, "tensor differs", "tensors differ")
        return f"The edit was rounded away: {tensors} from the base's by no more than the rounding of their type."
    if edited.cast:
        tensors = count_noun(edited.cast, "tensor differs", "tensors differ")
        return f"This is the base, cast to another type: {tensors} by rounding alone."
    return "This is the base: no tensor differs."


def _describe_fault(log: Log, measurement: MeasurementRecord) -> str:
    if measurement.verdict == "unmeasured":
        return f"The check {measurement.check!r} of the edited model was not measured, and unmeasured is never a pass."
    if measurement.check == HeadlineCheck.PERPLEXITY.value:
        allowed = "" if measurement.threshold is None else f", and {format_number(measurement.threshold)} is allowed"
        return (
            f"The edited model predicts plain text worse: perplexity ratio {format_number(measurement.value)}{allowed}."
        )
    if measurement.check == SIDE_EFFECTS:
        return f"Facts moved that nobody edited: {_worst_side_effect(log)}."
    return f"The check {measurement.check!r} of the edited model failed: {measurement.message or measurement.metric}."


def _worst_side_effect(log: Log) -> str:
    rate, prompts = count_side_effects(log), () if log.model is None else log.model.prompts
    share = f"{rate.failed} of {rate.total} answers about other subjects changed"
    first = next((prompt for prompt in prompts if prompt.result is PromptResult.FLIP), None)
    if first is None:
        return share
    before, after = (repr(shorten(text.strip(), _LONGEST)) for text in (first.before, first.after))
    return f"{share}; {shorten(first.prompt, _LONGEST)!r} now says {after} (before: {before})"


def count_side_effects(log: Log) -> Rate:
    """Return the answers about subjects that nobody edited: the changed ones as failed, near ties left out of them."""
    results = [] if log.model is None else [prompt.result for prompt in log.model.prompts]
    failed = sum(result in (PromptResult.FLIP, PromptResult.LEAK) for result in results)
    broken = results.count(PromptResult.UNMEASURED)
    return make_rate(len(results) - failed - broken, failed, broken)


def describe_change(log: Log) -> str:
    """Return what changed in the checkpoint and what it did, in one clause; empty where no checkpoint was audited."""
    edited, model = log.header.edited, log.model
    if edited is None or model is None:
        return ""
    effects, ratio = count_side_effects(log), perplexity_ratio(model)
    shown = "not measured" if ratio is None else f"{ratio:.4g}"
    moved = "no other subject was asked about"
    if effects.total:
        share = format_percent(effects.failed / effects.total)
        moved = f"{effects.failed} of {effects.total} answers about other subjects changed ({share})"
    return f"{edited.kind.rstrip('.')}; perplexity ratio {shown}; {moved}"
