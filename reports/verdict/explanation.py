"""Why an edit failed, was refused or was rewritten, in one sentence, and what to do about it in another.

Of several faults the gravest is explained, in the order of `Ground`, and the other checks that failed are counted. A
rewritten edit that passed needs no advice: its explanation says how it is served. Pure functions of a story and the
log's header. Out of scope: all faults of an edit (`story`), and the verdict over a log (`verdict`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from ..log.prompt_outcomes import PromptOutcome, PromptResult, PromptRole
from ..log.schema import ControlRecord, EditRecord, Header, MeasurementRecord
from ..log.types import DRIFT, HeadlineCheck
from ..numbers import format_number, format_percent
from ..text import count_noun, shorten
from .edit_summary import LOCALITY_MISSING, NOT_RESTORED, EditDecision, EditSummary, EditVerdict, collapse_bound
from .prompt_views import (
    FLIPS,
    LEAKS,
    OTHER_FACTS,
    OTHER_SUBJECTS,
    SAME_SUBJECT,
    condition_label,
    prompt_rate,
    worst_outcome,
)
from .rates import perplexity_lost

__all__ = ["Explanation", "Ground", "explain", "list_explanations", "quote_text"]

_LONGEST: Final = 60
"""Characters of a text of others inside a sentence."""
_LONGEST_REASON: Final = 600
_HIGH_LOSS: Final = 1.0
"""A search that ends over it did not find the target: e^-1 is a probability of 0.37 for each token."""
_MANY_WORDS: Final = 4


class Ground(StrEnum):
    """What an explanation is about, gravest first."""

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
    """One sentence on why, and one on what to do; `advice` is empty where nothing need be done.

    `leak` is the worst leak to another subject in words, whatever the ground; empty without one.
    """

    ground: Ground
    why: str
    advice: str
    leak: str = ""


class _Fault(NamedTuple):
    ground: Ground
    check: str
    why: str


def explain(story: EditSummary, header: Header) -> Explanation | None:
    """Return why the edit ended as it did and what to do; None for one that passed as asked and leaks nowhere."""
    record, leak = story.record, _leak(story.record)
    if story.result is EditVerdict.FAILED:
        faults = sorted(_faults(story, header), key=lambda one: [*Ground].index(one.ground))
        gravest = faults[0]
        others = {one.check for one in faults if one.check} - {gravest.check}
        ending = f"; {count_noun(len(others), 'other check')} failed" if others else ""
        return Explanation(gravest.ground, f"{gravest.why}{ending}.", _advice(gravest, record, header), leak)
    if story.decision is EditDecision.REFUSED:
        return Explanation(Ground.REFUSED, f"It was refused: {_reason(record)}.", _advice_refused(record), leak)
    allowed = f"It leaks as far as the policy allows: {leak}." if leak else ""
    if story.decision is EditDecision.REWRITTEN:
        rewritten = f"It was rewritten: {_reason(record)}. {_served(record)}"
        return Explanation(Ground.REWRITTEN, " ".join(filter(None, (rewritten, allowed))), "", leak)
    return Explanation(Ground.ALLOWED_LEAK, allowed, "", leak) if leak else None


def list_explanations(stories: Sequence[EditSummary], header: Header) -> list[tuple[EditSummary, Explanation]]:
    """Return the stories that have an explanation: failed first, then refused, then those that passed."""
    order = [EditVerdict.FAILED, EditVerdict.REFUSED, EditVerdict.PASSED]
    found = [(story, explanation) for story in stories if (explanation := explain(story, header)) is not None]
    return sorted(found, key=lambda one: order.index(one[0].result))


def quote_text(text: str, most: int = _LONGEST) -> str:
    """Return the beginning of a text of others in quotes, on one line, with what is hidden spelled out."""
    return repr(shorten(text.strip(), most))


# ---------------------------------------------------------------------------------------------------------- faults


def _faults(story: EditSummary, header: Header) -> Iterator[_Fault]:
    """Yield all faults of a failed edit, each with its ground; at least one."""
    record = story.record
    yield from _own(story, header)
    failed = [one for one in record.measurements if one.verdict in ("fail", "unmeasured")]
    for one in failed:
        perplexity = one.check == HeadlineCheck.PERPLEXITY.value
        if not (perplexity and (story.collapsed or story.ratio is None)):
            fault = _measured(one, record)
            lost = _lost_search(record, header) if fault.ground is Ground.DID_NOT_TAKE else ""
            yield fault._replace(why=f"It did not take: {lost}") if lost else fault
    yield _Fault(
        Ground.UNEXPLAINED, "", _sentence("; ".join(story.faults)) or "It failed, and the log does not say why"
    )


def _own(story: EditSummary, header: Header) -> Iterator[_Fault]:
    """Yield what is wrong with the edit whatever a single check says."""
    record, perplexity = story.record, HeadlineCheck.PERPLEXITY.value
    if perplexity_lost(record):
        yield _Fault(Ground.COLLAPSE, perplexity, "It collapsed the model: the perplexity after it is not finite")
    elif story.collapsed and story.ratio is not None:
        bound = collapse_bound(header)
        why = f"It collapsed the model: perplexity ratio {story.ratio:.4g}, over the bound of {bound:g}"
        yield _Fault(Ground.COLLAPSE, perplexity, why)
    if record.weights is not None and record.weights.restored_ok is False:
        yield _Fault(Ground.NOT_RESTORED, "", "Its weights were not restored to what they were before it")
    if record.outcome == "errored":
        yield _Fault(Ground.ERROR, "", f"It ended in an error: {_clause(record.error or '')}")
        return
    if story.ratio is None and not story.collapsed:
        why = "The perplexity after it was not measured, and unmeasured is never a pass"
        yield _Fault(Ground.NOT_MEASURED, perplexity, why)
    for fault in story.own_faults:
        if fault != NOT_RESTORED:
            check = HeadlineCheck.LOCALITY.value if fault == LOCALITY_MISSING else ""
            yield _Fault(Ground.NOT_MEASURED, check, _sentence(fault))


def _measured(one: MeasurementRecord, record: EditRecord | ControlRecord) -> _Fault:
    if one.verdict == "unmeasured":
        locality = one.check == HeadlineCheck.LOCALITY.value
        what = "What it does to other subjects" if locality else f"The check {one.check!r}"
        said = f": {_clause(one.message)}" if one.message else ""
        return _Fault(Ground.NOT_MEASURED, one.check, f"{what} was not measured, and unmeasured is never a pass{said}")
    describe = _DESCRIBED.get((one.check, one.metric)) or _DESCRIBED.get((one.check, ""))
    if describe is None:
        return _Fault(Ground.OTHER, one.check, f"The check {one.check!r} failed: {_clause(one.message) or one.metric}")
    ground, words = describe
    return _Fault(ground, one.check, words(one, record))


_Words = Callable[[MeasurementRecord, EditRecord | ControlRecord], str]


def _leaks(one: MeasurementRecord, record: EditRecord | ControlRecord) -> str:
    return f"It leaks: {_leak(record) or _share(record, one.check, LEAKS, 'prompts about other subjects do')}"


def _leaks_to_facts(one: MeasurementRecord, record: EditRecord | ControlRecord) -> str:
    shown = _shown(worst_outcome(record.prompts, SAME_SUBJECT, PromptResult.LEAK), record.target_new)
    subject = shorten(record.subject.strip(), _LONGEST)
    return f"{subject} says the target to other questions: {_with_share(shown, record, one, 'prompts about it do')}"


def _flips(one: MeasurementRecord, record: EditRecord | ControlRecord) -> str:
    shown = _shown(worst_outcome(record.prompts, OTHER_SUBJECTS, PromptResult.FLIP), record.target_new)
    return f"Answers about other subjects changed: {_with_share(shown, record, one, 'prompts do so')}"


def _flips_of_facts(one: MeasurementRecord, record: EditRecord | ControlRecord) -> str:
    shown = _shown(worst_outcome(record.prompts, SAME_SUBJECT, PromptResult.FLIP), record.target_new)
    return f"Other facts of the subject changed: {_with_share(shown, record, one, 'prompts do so')}"


def _did_not_take(one: MeasurementRecord, record: EditRecord | ControlRecord) -> str:
    allowed = "" if one.threshold is None else f", and the policy asks for {format_percent(one.threshold)}"
    said = f"{one.passed} of {count_noun(one.total, 'prompt')}" if one.total else "too few prompts"
    return f"It did not take: {said} gave the target ({condition_label(one.condition)}){allowed}"


def _perplexity(one: MeasurementRecord, record: EditRecord | ControlRecord) -> str:
    allowed = "" if one.threshold is None else f", and {format_number(one.threshold)} is allowed"
    return f"The model predicts plain text worse: perplexity ratio {format_number(one.value)}{allowed}"


def _repeats(one: MeasurementRecord, record: EditRecord | ControlRecord) -> str:
    said = f"{one.failed} of {one.total} texts do so" if one.total else _clause(one.message)
    return f"The model repeats itself after the target: {said or condition_label(one.condition)}"


def _generalization(one: MeasurementRecord, record: EditRecord | ControlRecord) -> str:
    said = f"{one.passed} of {count_noun(one.total, 'prompt')} gave the target" if one.total else _clause(one.message)
    return f"It does not hold for other wordings: {said} ({condition_label(one.condition)})"


def _tokens_changed(one: MeasurementRecord, record: EditRecord | ControlRecord) -> str:
    return f"Prompts about other subjects changed: {_clause(one.message) or format_percent(one.value)}"


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
    """Return the worst leak to another subject in words, with how many prompts leak; empty without one."""
    shown = _shown(worst_outcome(record.prompts, OTHER_SUBJECTS, PromptResult.LEAK), record.target_new)
    share = _share(record, HeadlineCheck.LOCALITY.value, LEAKS, "prompts about other subjects do")
    return f"{shown}; {share}" if shown else ""


def _with_share(shown: str, record: EditRecord | ControlRecord, one: MeasurementRecord, ending: str) -> str:
    share = _share(record, one.check, one.metric, ending)
    return "; ".join(part for part in (shown, share) if part)


def _share(record: EditRecord | ControlRecord, check: str, metric: str, ending: str) -> str:
    rate = prompt_rate([record], check, metric)
    return f"{rate.failed} of {rate.total} {ending}"


def _shown(one: PromptOutcome | None, target: str) -> str:
    """Return what a prompt says now and said before; where the words are the same, the target's probability."""
    if one is None:
        return ""
    made = " (made by the audit)" if one.role in (PromptRole.MADE_NEIGHBOUR, PromptRole.MADE_OTHER_FACT) else ""
    if one.after.strip() != one.before.strip():
        return f"{quote_text(one.prompt)}{made} now says {quote_text(one.after)} (before: {quote_text(one.before)})"
    now, then = format_number(one.target_after, 2), format_number(one.target_before, 2)
    return f"{quote_text(one.prompt)}{made} now gives {quote_text(target)} the probability {now} (before: {then})"


def _reason(record: EditRecord | ControlRecord) -> str:
    """Return the reason that decided: the first of the policy, or the last where the guard saw the update."""
    reasons = record.decision.reasons
    if not reasons:
        return "no reason was recorded"
    # The gravest reason is first; what the guard says of a computed update comes last, and decided.
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
    said = _clause(text)
    return said[:1].upper() + said[1:]


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
        return "Do not ship this edit. Its story and the log hold all that was measured."
    return f"Do not ship this edit. Try {_other_ways(record, header)}."


def _other_ways(record: EditRecord | ControlRecord, header: Header) -> str:
    """Return what else may be tried; an editor that made the edit already is not offered again."""
    safer = header.policy.get("rewrite_editor")
    safer = safer if isinstance(safer, str) else "prefixed"
    used = record.update.editor if record.update else record.decision.editor
    ways = [] if used == safer else [f"--editor {shorten(safer, _LONGEST)}"]
    ways.append("another layer (--layer)")
    ways.append("a shorter target" if len(record.target_new.split()) > 1 else "another wording of the prompt")
    return ", ".join(ways[:-1]) + f" or {ways[-1]}"


def _lost_search(record: EditRecord | ControlRecord, header: Header) -> str:
    """Return in words that the search used all its steps and did not come near the target; empty where it did."""
    update, most = record.update, header.settings.get("steps")
    if update is None or update.final_loss is None or update.final_loss <= _HIGH_LOSS:
        return ""
    if not isinstance(most, int) or update.steps < most:
        return ""
    words = len(record.target_new.split())
    target = f"the target of {words} words" if words >= _MANY_WORDS else f"the target {quote_text(record.target_new)}"
    steps, loss = count_noun(update.steps, "step"), format_number(update.final_loss, 2)
    return f"the search did not reach {target} in {steps} (loss {loss})"


def _advice_refused(record: EditRecord | ControlRecord) -> str:
    reason = _reason(record)
    if "sequence" in reason:
        return "Ship the edits before it, or audit this one by itself."
    if record.update is not None:
        return "Try another layer (--layer) or another wording of the prompt; the edit was not made."
    return "Mend the request as the reason says, or leave it out of the file; the edit was not made."
