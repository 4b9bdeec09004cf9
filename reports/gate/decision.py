"""The gate's decision: may this audit stand beside its baseline? Every ground for closing has a name.

Grounds, in this order: the audit itself is no pass; it holds no edit, lacks some, has more, or has other requests; the yardstick
differs (model, policy, corpus, arithmetic of the checks, order); edits that were made are now refused or collapse; a check
judges fewer edits; a judged metric was not measured; a metric became worse.

A metric is worse if the measured difference exceeds the allowance *and* the bootstrap interval lies beyond zero: the first
shows that it matters, the second that it is no noise. With fewer than `FEWEST` paired edits an interval says little, and the
difference decides alone, as it does for the worst ratio. The measured error rates of the rule are in the pages about the gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..numbers import format_percent
from ..text import count_noun, quote_names
from .bootstrap import LEVEL
from .comparison import Comparison, EditPair, MetricChange, compare, pair_edits
from .metrics import MetricKind, declared_specs, is_measured, related_metrics, source_metric
from .result import ClosingReason, Gate, ReasonCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .allowances import Allowances
    from .baseline import Baseline

__all__ = ["FEWEST", "close_unread", "judge_gate", "regressed"]

FEWEST: Final = 8
"""From so many paired edits on, an interval may excuse a difference."""


def close_unread(closings: list[ClosingReason], baseline: str, allowed: Allowances) -> Gate:
    """Return a gate that `closings` close before anything could be compared: a side could not be read."""
    return Gate(open=False, baseline=baseline, closings=closings, accepted=[], allowed=dict(allowed.limits))


def judge_gate(
    baseline: Baseline,
    audit: Baseline,
    names: tuple[str, str],
    allowed: Allowances,
    *,
    why: Iterable[str] = (),
    accepted: frozenset[ReasonCode] = frozenset(),
) -> Gate:
    """Compare `audit` with `baseline`; `names` are theirs in that order, `why` the reasons of the audit's own verdict.

    `accepted` are grounds that the user accepts beforehand. Raises `AllowanceError` for an amount that does not fit its metric.
    """
    allowed = allowed.with_declared(declared_specs(baseline.declared, audit.declared))
    comparison = compare(baseline, audit, names)
    pairs = pair_edits(baseline, audit)
    closings = [
        *_audit(audit, why),
        *_counts(baseline, audit, comparison),
        *_yardstick(baseline, audit),
        *_ends(baseline, audit, pairs),
        *_unchecked(pairs),
        *_unmeasured(pairs, comparison, allowed),
        *_regressions(comparison, allowed.limits),
    ]
    remaining = [ground for ground in closings if ground.reason not in accepted]
    return Gate(
        open=not remaining,
        baseline=names[0],
        closings=remaining,
        accepted=[ground.message for ground in closings if ground.reason in accepted],
        allowed=dict(allowed.limits),
        comparison=comparison,
    )


def _audit(audit: Baseline, why: Iterable[str]) -> Iterator[ClosingReason]:
    reasons = " ".join(why)
    if audit.status == "unfinished":
        yield ClosingReason(reason=ReasonCode.AUDIT_UNFINISHED, message=f"The audit did not finish. {reasons}".strip())
    elif audit.verdict == "void":
        yield ClosingReason(reason=ReasonCode.AUDIT_VOID, message=f"The audit is void. {reasons}".strip())
    elif audit.verdict == "fail":
        yield ClosingReason(reason=ReasonCode.AUDIT_FAILED, message=f"The audit itself failed. {reasons}".strip())


def _counts(baseline: Baseline, audit: Baseline, comparison: Comparison) -> Iterator[ClosingReason]:
    for side, record in (("baseline", baseline), ("audit", audit)):
        if not record.edits:
            yield ClosingReason(reason=ReasonCode.NO_CASES, message=f"The {side} holds no edit.")
    if baseline.edits and audit.edits and not comparison.paired:
        yield ClosingReason(reason=ReasonCode.NO_CASES, message="Baseline and audit have no edit in common.")
    for reason, ids, phrase in (
        (ReasonCode.MISSING_EDITS, comparison.missing, "of the baseline {} not in the audit"),
        (ReasonCode.NEW_EDITS, comparison.new, "of the audit {} not in the baseline"),
        (ReasonCode.CHANGED_EDITS, comparison.changed_requests, "{} asking for something else than in the baseline"),
    ):
        if ids:
            text = (
                f"{count_noun(len(ids), 'edit')} {phrase.format('is' if len(ids) == 1 else 'are')}: {quote_names(ids)}."
            )
            yield ClosingReason(reason=reason, message=text, edits=ids)


def _yardstick(baseline: Baseline, audit: Baseline) -> Iterator[ClosingReason]:
    old, new = baseline.model, audit.model
    if old.fingerprint != new.fingerprint:
        text = (
            f"The audited model is another: {old.ref} ({old.fingerprint[:12]}), now {new.ref} ({new.fingerprint[:12]})."
        )
        yield ClosingReason(reason=ReasonCode.OTHER_MODEL, message=text)
    if baseline.policy_sha256 != audit.policy_sha256:
        keys = sorted(
            name
            for name in {*baseline.policy, *audit.policy}
            if name not in baseline.policy or name not in audit.policy or baseline.policy[name] != audit.policy[name]
        )
        yield ClosingReason(reason=ReasonCode.OTHER_POLICY, message=f"The policy is another, in {quote_names(keys)}.")
    if baseline.perplexity_corpus_sha256 != audit.perplexity_corpus_sha256:
        yield ClosingReason(reason=ReasonCode.OTHER_CORPUS, message="The perplexity was measured on other sentences.")
    if baseline.check_dtype != audit.check_dtype:
        old_dtype, new_dtype = (side.check_dtype or "an unknown dtype" for side in (baseline, audit))
        text = f"The checks computed in {old_dtype}, now in {new_dtype}."
        yield ClosingReason(reason=ReasonCode.OTHER_ARITHMETIC, message=text)
    if baseline.checkpoint != audit.checkpoint:
        then, now = ("a checkpoint" if side.checkpoint else "edits that editguard made" for side in (baseline, audit))
        yield ClosingReason(
            reason=ReasonCode.OTHER_KIND,
            message=f"The baseline is of {then}, and this is an audit of {now}; give a baseline of the same kind.",
        )
    if baseline.sequence != audit.sequence:
        then, now = ("one after the other" if side.sequence else "each alone" for side in (baseline, audit))
        order = "in another order" if then == now else now
        yield ClosingReason(
            reason=ReasonCode.OTHER_ORDER,
            message=f"The edits were made {then}, now {order}; give a baseline of such an audit.",
        )


def _ends(baseline: Baseline, audit: Baseline, pairs: Iterable[EditPair]) -> Iterator[ClosingReason]:
    refused = [pair.after.id for pair in pairs if pair.before.made and not pair.after.made]
    collapsed_before = {edit.id for edit in baseline.edits if edit.collapsed}
    collapsed = [edit.id for edit in audit.edits if edit.collapsed and edit.id not in collapsed_before]
    for reason, ids, phrase in (
        (ReasonCode.NEW_REFUSALS, refused, "made before and refused now"),
        (ReasonCode.NEW_COLLAPSE, collapsed, "no collapse before and collapsed the model now"),
    ):
        if ids:
            text = f"{count_noun(len(ids), 'edit was', 'edits were')} {phrase}: {quote_names(ids)}."
            yield ClosingReason(reason=reason, message=text, edits=ids)


def _unchecked(pairs: Iterable[EditPair]) -> Iterator[ClosingReason]:
    pairs = [pair for pair in pairs if pair.before.made and pair.after.made]
    for check in sorted({check for pair in pairs for check in pair.before.checks}):
        ids = [pair.after.id for pair in pairs if check in pair.before.checks and check not in pair.after.checks]
        if ids:
            count = count_noun(len(ids), "edit")
            text = f"The check {check!r} judged {count} in the baseline, but not now: {quote_names(ids)}."
            yield ClosingReason(reason=ReasonCode.MISSING_CHECKS, message=text, edits=ids)


def _unmeasured(pairs: Iterable[EditPair], comparison: Comparison, allowed: Allowances) -> Iterator[ClosingReason]:
    pairs = [pair for pair in pairs if pair.before.made and pair.after.made]
    measured = {change.metric for change in comparison.metrics if change.pairs}
    for metric in allowed.limits:
        ids = [pair.after.id for pair in pairs if _lost(pair, source_metric(metric))]
        if ids:
            text = f"{metric} was not measured in {len(ids)} of {count_noun(len(pairs), 'edit')}: {quote_names(ids)}."
            yield ClosingReason(reason=ReasonCode.UNMEASURED, metric=metric, message=text, edits=ids)
        elif metric in allowed.requested and metric not in measured:
            others = [name for name in related_metrics(metric) if name in measured]
            text = f"{metric} was asked for, and no edit of both sides has it; " + (
                f"measured in both: {', '.join(others)}." if others else "nothing of the kind was measured in both."
            )
            yield ClosingReason(reason=ReasonCode.UNMEASURED, metric=metric, message=text)


def _lost(pair: EditPair, metric: str) -> bool:
    """Return whether the metric is missing now, though the audit asked for it or the baseline has it."""
    if metric in pair.after.metrics:
        return not is_measured(pair.after.metrics[metric])
    return metric in pair.before.metrics


def _regressions(comparison: Comparison, limits: Mapping[str, float]) -> Iterator[ClosingReason]:
    for change in comparison.metrics:
        limit = limits.get(change.metric)
        if limit is not None and regressed(change, limit):
            text = _describe_regression(change, limit)
            yield ClosingReason(
                reason=ReasonCode.REGRESSED, metric=change.metric, message=text, edits=change.worse_edits
            )


def regressed(change: MetricChange, limit: float) -> bool:
    """Return whether a metric became worse by more than `limit`, and not by noise alone.

    If no edit became better, a draw shows no damage only if it holds no edit that became worse. The share of such draws is known
    without drawing, and decides.
    """
    if change.worse is None or change.worse <= limit:
        return False
    if change.low is None or change.pairs < FEWEST:
        return True
    return change.low > 0 if change.unchanged is None else change.unchanged <= 1 - LEVEL


def _describe_regression(change: MetricChange, limit: float) -> str:
    assert change.worse is not None
    unit = "percentage points" if change.kind is MetricKind.RATE else "per cent"
    sure = ""
    if change.low is not None and change.high is not None:
        sure = f" (90 % interval {100 * change.low:.2f} to {100 * change.high:.2f})"
    worst = f"; worst in {quote_names(change.worse_edits)}" if change.worse_edits else ""
    shown = format_percent if change.kind is MetricKind.RATE else (lambda value: f"{value:.4f}")
    return (
        f"{change.metric} is worse by {100 * change.worse:.2f} {unit}{sure}, and {100 * limit:g} are allowed: "
        f"{shown(change.before)} before, {shown(change.after)} now, over "
        f"{count_noun(change.pairs, 'edit')}{worst}."
    )
