"""Why an edit failed, was refused or was rewritten, in one sentence, and the advice in another.

If there are several faults, the gravest one is explained, in the order of `Ground`, and the other checks that failed are
counted. A rewritten edit that passed needs no advice: its explanation says how it is served. Pure functions of an edit's
summary and the log's header. Out of scope: all faults of an edit (`edit_summary`), and the verdict over a log (`digest`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from ..log.prompt_outcomes import PromptOutcome, PromptResult, PromptRole
from ..log.schema import ControlRecord, EditRecord, Header, MeasurementRecord
from ..log.types import DRIFT, HeadlineCheck
from ..numbers import format_number, format_percent
from ..text import capitalise, count_noun, shorten
from .edit_summary import LOCALITY_MISSING, NOT_RESTORED, EditDecision, EditSummary, EditVerdict, collapse_bound
from .prompt_views import (
    FLIPS,
    LEAKS,
    OTHER_FACTS,
    OTHER_SUBJECTS,
    SAME_SUBJECT,
    count_prompts,
    label_condition,
    select_worst_outcome,
)
from .rates import perplexity_lost

__all__ = ["Explanation", "Ground", "explain", "list_explanations", "quote_text"]

_LONGEST: Final = 60
"""Characters of quoted text inside a sentence."""
_LONGEST_REASON: Final = 600
_HIGH_LOSS: Final = 1.0
"""A search that ends above it did not find the target: e^-1 is a probability of 0.37 for each token."""
_MANY_WORDS: Final = 4


class Ground(StrEnum):
    """The subject of an explanation, gravest first."""

    COLLAPSE = "collapse"
    NOT_RESTORED = "weights not restored"
    ERROR = "error"
    LEAK = "leak"
    OTHER_FACT_LEAK = "leak to other facts"
    NOT_MEASURED = "not measured"
    DID_NOT_TAKE = "did not take"
    PERPLEXITY = "perplexity"
    FLIP = "flip"
    OTHER_FACT_FLIP = "flip of other facts"
    REPEATS = "repeats"
    GENERALIZATION = "generalization"
    OTHER = "other check"
    UNEXPLAINED = "unexplained"
    REFUSED = "refused"
    REWRITTEN = "rewritten"
    ALLOWED_LEAK = "leak that the policy allows"


class Explanation(NamedTuple):
    """One sentence on the cause (`why`), and one of `advice`, empty if there is nothing to do.

    `leak` is the worst leak to another subject in words, whatever the ground; empty without a leak.
    """

    ground: Ground
    why: str
    advice: str
    leak: str = ""


class _Fault(NamedTuple):
    ground: Ground
    check: str
    why: str


def explain(edit: EditSummary, header: Header) -> Explanation | None:
    """Return cause and advice for an edit; None for an edit that passed as requested and leaks nowhere."""
    record, leak = edit.record, _leak(edit.record)
    if edit.result is EditVerdict.FAILED:
        faults = sorted(_faults(edit, header), key=lambda fault: [*Ground].index(fault.ground))
        gravest = faults[0]
        others = {fault.check for fault in faults if fault.check} - {gravest.check}
        ending = f"; {count_noun(len(others), 'other check')} failed" if others else ""
        return Explanation(gravest.ground, f"{gravest.why}{ending}.", _advice(gravest, record, header), leak)
    if edit.decision is EditDecision.REFUSED:
        return Explanation(Ground.REFUSED, f"It was refused: {_reason(record)}.", _advice_refused(record), leak)
    allowed = f"It leaks as far as the policy allows: {leak}." if leak else ""
    if edit.decision is EditDecision.REWRITTEN:
        rewritten = f"It was rewritten: {_reason(record)}. {_served(record)}"
        return Explanation(Ground.REWRITTEN, " ".join(filter(None, (rewritten, allowed))), "", leak)
    return Explanation(Ground.ALLOWED_LEAK, allowed, "", leak) if leak else None


def list_explanations(edits: Sequence[EditSummary], header: Header) -> list[tuple[EditSummary, Explanation]]:
    """Return the edits that have an explanation: failed first, then refused, then passed."""
    order = [EditVerdict.FAILED, EditVerdict.REFUSED, EditVerdict.PASSED]
    explained = [(edit, explanation) for edit in edits if (explanation := explain(edit, header)) is not None]
    return sorted(explained, key=lambda pair: order.index(pair[0].result))


def quote_text(text: str, most: int = _LONGEST) -> str:
    """Return the beginning of foreign text in quotes, on one line, with hidden characters spelled out."""
    return repr(shorten(text.strip(), most))


# ---------------------------------------------------------------------------------------------------------- faults


def _faults(edit: EditSummary, header: Header) -> Iterator[_Fault]:
    """Yield all faults of a failed edit, each with its ground; at least one."""
    record = edit.record
    yield from _own(edit, header)
    failed = [measurement for measurement in record.measurements if measurement.verdict in ("fail", "unmeasured")]
    for measurement in failed:
        perplexity = measurement.check == HeadlineCheck.PERPLEXITY.value
        if not (perplexity and (edit.collapsed or edit.ratio is None)):
            fault = _measured(measurement, record)
            lost = _lost_search(record, header) if fault.ground is Ground.DID_NOT_TAKE else ""
            yield fault._replace(why=f"It did not take: {lost}") if lost else fault
    yield _Fault(Ground.UNEXPLAINED, "", _sentence("; ".join(edit.faults)) or "It failed, and the log does not say why")


def _own(edit: EditSummary, header: Header) -> Iterator[_Fault]:
    """Yield the faults of the edit itself, whatever a single check says."""
    record, perplexity = edit.record, HeadlineCheck.PERPLEXITY.value
    if perplexity_lost(record):
        yield _Fault(Ground.COLLAPSE, perplexity, "It collapsed the model: the perplexity after it is not finite")
    elif edit.collapsed and edit.ratio is not None:
        bound = collapse_bound(header)
        why = f"It collapsed the model: perplexity ratio {edit.ratio:.4g}, over the bound of {bound:g}"
        yield _Fault(Ground.COLLAPSE, perplexity, why)
    if record.weights is not None and record.weights.restored_ok is False:
        yield _Fault(Ground.NOT_RESTORED, "", "Its weights were not restored to what they were before it")
    if record.outcome == "errored":
        yield _Fault(Ground.ERROR, "", f"It ended in an error: {_clause(record.error or '')}")
        return
    if edit.ratio is None and not edit.collapsed:
        why = "The perplexity after it was not measured, and unmeasured is never a pass"
        yield _Fault(Ground.NOT_MEASURED, perplexity, why)
    for fault in edit.own_faults:
        if fault != NOT_RESTORED:
            check = HeadlineCheck.LOCALITY.value if fault == LOCALITY_MISSING else ""
            yield _Fault(Ground.NOT_MEASURED, check, _sentence(fault))


def _measured(measurement: MeasurementRecord, record: EditRecord | ControlRecord) -> _Fault:
    if measurement.verdict == "unmeasured":
        locality = measurement.check == HeadlineCheck.LOCALITY.value
        what = "What it does to other subjects" if locality else f"The check {measurement.check!r}"
        detail = f": {_clause(measurement.message)}" if measurement.message else ""
        return _Fault(
            Ground.NOT_MEASURED, measurement.check, f"{what} was not measured, and unmeasured is never a pass{detail}"
        )
    describe = _DESCRIBED.get((measurement.check, measurement.metric)) or _DESCRIBED.get((measurement.check, ""))
    if describe is None:
        return _Fault(
            Ground.OTHER,
            measurement.check,
            f"The check {measurement.check!r} failed: {_clause(measurement.message) or measurement.metric}",
        )
    ground, words = describe
    return _Fault(ground, measurement.check, words(measurement, record))


_Words = Callable[[MeasurementRecord, EditRecord | ControlRecord], str]


def _leaks(measurement: MeasurementRecord, record: EditRecord | ControlRecord) -> str:
    return f"It leaks: {_leak(record) or _share(record, measurement.check, LEAKS, 'prompts about other subjects do')}"


def _leaks_to_facts(measurement: MeasurementRecord, record: EditRecord | ControlRecord) -> str:
    shown = _shown(select_worst_outcome(record.prompts, SAME_SUBJECT, PromptResult.LEAK), record.target_new)
    subject = shorten(record.subject.strip(), _LONGEST)
    return f"{subject} says the target to other questions: {_with_share(shown, record, measurement, 'prompts about it do')}"


def _flips(measurement: MeasurementRecord, record: EditRecord | ControlRecord) -> str:
    shown = _shown(select_worst_outcome(record.prompts, OTHER_SUBJECTS, PromptResult.FLIP), record.target_new)
    return f"Answers about other subjects changed: {_with_share(shown, record, measurement, 'prompts do so')}"


def _flips_of_facts(measurement: MeasurementRecord, record: EditRecord | ControlRecord) -> str:
    shown = _shown(select_worst_outcome(record.prompts, SAME_SUBJECT, PromptResult.FLIP), record.target_new)
    return f"Other facts of the subject changed: {_with_share(shown, record, measurement, 'prompts do so')}"


def _did_not_take(measurement: MeasurementRecord, record: EditRecord | ControlRecord) -> str:
    allowed = (
        "" if measurement.threshold is None else f", and the policy asks for {format_percent(measurement.threshold)}"
    )
    share = (
        f"{measurement.passed} of {count_noun(measurement.total, 'prompt')}" if measurement.total else "too few prompts"
    )
    return f"It did not take: {share} gave the target ({label_condition(measurement.condition)}){allowed}"


def _perplexity(measurement: MeasurementRecord, record: EditRecord | ControlRecord) -> str:
    allowed = "" if measurement.threshold is None else f", and {format_number(measurement.threshold)} is allowed"
    return f"The model predicts plain text worse: perplexity ratio {format_number(measurement.value)}{allowed}"


def _repeats(measurement: MeasurementRecord, record: EditRecord | ControlRecord) -> str:
    share = (
        f"{measurement.failed} of {measurement.total} texts do so"
        if measurement.total
        else _clause(measurement.message)
    )
    return f"The model repeats itself after the target: {share or label_condition(measurement.condition)}"


def _generalization(measurement: MeasurementRecord, record: EditRecord | ControlRecord) -> str:
    share = (
        f"{measurement.passed} of {count_noun(measurement.total, 'prompt')} gave the target"
        if measurement.total
        else _clause(measurement.message)
    )
    return f"It does not hold for other wordings: {share} ({label_condition(measurement.condition)})"


def _tokens_changed(measurement: MeasurementRecord, record: EditRecord | ControlRecord) -> str:
    return f"Prompts about other subjects changed: {_clause(measurement.message) or format_percent(measurement.value)}"


_DESCRIBED: Mapping[tuple[str, str], tuple[Ground, _Words]] = {
    ("locality", LEAKS): (Ground.LEAK, _leaks),
    (OTHER_FACTS, LEAKS): (Ground.OTHER_FACT_LEAK, _leaks_to_facts),
    ("efficacy", ""): (Ground.DID_NOT_TAKE, _did_not_take),
    ("perplexity", ""): (Ground.PERPLEXITY, _perplexity),
    ("locality", FLIPS): (Ground.FLIP, _flips),
    ("locality", ""): (Ground.FLIP, _tokens_changed),
    (OTHER_FACTS, FLIPS): (Ground.OTHER_FACT_FLIP, _flips_of_facts),
    ("aftermath", "repeats"): (Ground.REPEATS, _repeats),
    ("generalization", ""): (Ground.GENERALIZATION, _generalization),
}


# ----------------------------------------------------------------------------------------------------------- words


def _leak(record: EditRecord | ControlRecord) -> str:
    """Return the worst leak to another subject in words, with the count of prompts that leak; empty without a leak."""
    shown = _shown(select_worst_outcome(record.prompts, OTHER_SUBJECTS, PromptResult.LEAK), record.target_new)
    share = _share(record, HeadlineCheck.LOCALITY.value, LEAKS, "prompts about other subjects do")
    return f"{shown}; {share}" if shown else ""


def _with_share(shown: str, record: EditRecord | ControlRecord, measurement: MeasurementRecord, ending: str) -> str:
    share = _share(record, measurement.check, measurement.metric, ending)
    return "; ".join(part for part in (shown, share) if part)


def _share(record: EditRecord | ControlRecord, check: str, metric: str, ending: str) -> str:
    rate = count_prompts([record], check, metric)
    return f"{rate.failed} of {rate.total} {ending}"


def _shown(outcome: PromptOutcome | None, target: str) -> str:
    """Return the answers of a prompt after and before; if the words are the same, the target's probability."""
    if outcome is None:
        return ""
    origin = " (made by the audit)" if outcome.role in (PromptRole.MADE_NEIGHBOUR, PromptRole.MADE_OTHER_FACT) else ""
    if outcome.after.strip() != outcome.before.strip():
        return f"{quote_text(outcome.prompt)}{origin} now says {quote_text(outcome.after)} (before: {quote_text(outcome.before)})"
    now, then = format_number(outcome.target_after, 2), format_number(outcome.target_before, 2)
    return f"{quote_text(outcome.prompt)}{origin} now gives {quote_text(target)} the probability {now} (before: {then})"


def _reason(record: EditRecord | ControlRecord) -> str:
    """Return the deciding reason: the policy's first, or the last if the guard refused the computed update."""
    reasons = record.decision.reasons
    if not reasons:
        return "no reason was recorded"
    # The gravest reason is first. The guard's reason about a computed update comes last, and it decided.
    return _clause(reasons[-1 if record.outcome == "refused" and record.update is not None else 0])


def _served(record: EditRecord | ControlRecord) -> str:
    update = record.update
    if update is None or not update.needs_prefix:
        return "It needs no prefix."
    if update.prefix is None:
        return "It works only after a prefix, and the log names none that serves it."
    return f"Serve it after the prefix {update.prefix[:_LONGEST]!r}."


def _clause(text: str) -> str:
    return shorten(text.strip(), _LONGEST_REASON).rstrip(".")


def _sentence(text: str) -> str:
    return capitalise(_clause(text))


# ---------------------------------------------------------------------------------------------------------- advice


def _advice(fault: _Fault, record: EditRecord | ControlRecord, header: Header) -> str:
    if fault.ground is Ground.NOT_RESTORED:
        return "Trust no later edit of this run. Run the audit again, and report the fault if it returns."
    if fault.ground is Ground.ERROR:
        return "Remove the cause of the error, and audit this edit again."
    if fault.ground is Ground.NOT_MEASURED:
        if fault.check == HeadlineCheck.LOCALITY.value:
            return "Do not ship this edit. Give it neighbourhood prompts in the file, and audit it again."
        return "Do not ship this edit. Find out why nothing was measured, and audit it again."
    if fault.ground is Ground.DID_NOT_TAKE and _lost_search(record, header):
        many = len(record.target_new.split()) > 1
        return f"Do not ship this edit. Choose {'a shorter target' if many else 'another target'}."
    if fault.check == DRIFT:
        return "Do not ship this edit with those before it. End the sequence before it, or audit it by itself."
    if fault.ground is Ground.UNEXPLAINED:
        return "Do not ship this edit. The report and the log hold all that was measured."
    return f"Do not ship this edit. Try {_other_ways(record, header)}.{_own_neighbours(fault, record)}"


def _own_neighbours(fault: _Fault, record: EditRecord | ControlRecord) -> str:
    """Return how other neighbours come to be asked, where the audit made the one that the fault shows; else nothing."""
    result = {Ground.LEAK: PromptResult.LEAK, Ground.FLIP: PromptResult.FLIP}.get(fault.ground)
    worst = None if result is None else select_worst_outcome(record.prompts, OTHER_SUBJECTS, result)
    if worst is None or worst.role is not PromptRole.MADE_NEIGHBOUR:
        return ""
    return (
        " Prompts about neighbours of your own can be given as neighbourhood in the request; where they can show a leak, "
        "they are asked instead."
    )


def _other_ways(record: EditRecord | ControlRecord, header: Header) -> str:
    """Return other ways to try; the editor that made the edit is not offered again."""
    safer = header.policy.get("rewrite_editor")
    safer = safer if isinstance(safer, str) else "everywhere"
    used = record.update.editor if record.update else record.decision.editor
    ways = [] if used == safer else [f"--editor {shorten(safer, _LONGEST)}"]
    ways.append("another layer (--layer)")
    ways.append("a shorter target" if len(record.target_new.split()) > 1 else "another wording of the prompt")
    return ", ".join(ways[:-1]) + f" or {ways[-1]}"


def _lost_search(record: EditRecord | ControlRecord, header: Header) -> str:
    """Return in words that the search used all its steps and missed the target; empty if it reached it."""
    search = None if record.update is None else record.update.hardest_search
    most = header.settings.get("steps")
    if search is None or search.final_loss is None or search.final_loss <= _HIGH_LOSS:
        return ""
    if not isinstance(most, int) or search.steps is None or search.steps < most:
        return ""
    words = len(record.target_new.split())
    target = f"the target of {words} words" if words >= _MANY_WORDS else f"the target {quote_text(record.target_new)}"
    steps, loss = count_noun(search.steps, "step"), format_number(search.final_loss, 2)
    return f"the search did not reach {target} in {steps} (loss {loss})"


def _advice_refused(record: EditRecord | ControlRecord) -> str:
    reason = _reason(record)
    if "sequence" in reason:
        return "Ship the edits before it, or audit this one by itself."
    if record.update is not None:
        return "Try another layer (--layer) or another wording of the prompt; the edit was not made."
    return "Correct the request as the reason says, or leave it out of the file; the edit was not made."
