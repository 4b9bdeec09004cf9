"""The summary of one edit: its decision, its verdict, and its faults in words.

A fault keeps an edit from passing. An applied edit needs a measured perplexity ratio within the bound; a ratio over the bound,
or one that is not finite, means that the edit collapsed the model. The size of its update must be known, its weights must be
proved to be restored, and at least one check must have judged it. An edit that errored, or whose weights were not restored,
is at fault whatever else was measured. Leaks to other subjects must be judged too, if the policy has ``max_leaks``. The
policies of older logs have no such key, and there only neighbours of the file were measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from ..log.schema import ControlRecord, EditRecord, Header
from ..log.types import HeadlineCheck, Protocol, Rate
from ..text import make_slugs
from .prompt_views import LEAKS
from .rates import perplexity_lost, perplexity_ratio, prefixed_rate, unprefixed_rate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "DEFAULT_COLLAPSE_RATIO",
    "HEADLINE_PROTOCOL",
    "LOCALITY_MISSING",
    "NOT_RESTORED",
    "EditDecision",
    "EditSummary",
    "EditVerdict",
    "collapse_bound",
    "judges_leaks",
    "summarise_edits",
]

DEFAULT_COLLAPSE_RATIO = 1.5
"""Bound on the perplexity ratio if the policy has none: sound edits stay within 1.03, collapses begin near 10."""

HEADLINE_PROTOCOL = Protocol.EXACT
"""Protocol of the headline figures: greedy match of the whole target, the only one that a user of the model sees."""

NOT_RESTORED = "its weights were not restored to what they were before it"
LOCALITY_MISSING = "what it does to other subjects was not measured, and unmeasured is never a pass"


class EditDecision(StrEnum):
    """The decision about an edit. Refused covers an edit that the guard stopped after the policy had allowed it."""

    ALLOWED = "allowed"
    REWRITTEN = "rewritten"
    REFUSED = "refused"


class EditVerdict(StrEnum):
    """The verdict on an edit."""

    PASSED = "passed"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(frozen=True)
class EditSummary:
    """One edit or control as a page shows it: `slug` is its anchor, `faults` say in words why it failed.

    `own_faults` are those among them that are the edit's own, whatever a single check says. `ratio` is the perplexity ratio:
    null where it was not measured, and where it is not finite, which is a collapse.
    """

    record: EditRecord | ControlRecord
    slug: str
    decision: EditDecision
    result: EditVerdict
    ratio: float | None
    collapsed: bool
    faults: tuple[str, ...]
    own_faults: tuple[str, ...]
    unprefixed: Rate
    prefixed: Rate


def collapse_bound(header: Header) -> float:
    """Return the bound on the perplexity ratio that was in force."""
    bound = header.policy.get("collapse_ratio", DEFAULT_COLLAPSE_RATIO)
    return float(bound) if isinstance(bound, int | float) else DEFAULT_COLLAPSE_RATIO


def judges_leaks(header: Header) -> bool:
    """Return whether the policy in force judges leaks; the policies of older logs have no such key."""
    return "max_leaks" in header.policy


def summarise_edits(
    records: Sequence[EditRecord | ControlRecord], bound: float, *, leaks_judged: bool = False
) -> tuple[EditSummary, ...]:
    """Return the summary of each record; a ratio over `bound`, or one that is not finite, is a collapse.

    With `leaks_judged` an applied edit without judged locality is at fault.
    """
    anchors = make_slugs(record.id for record in records)
    return tuple(
        _summarise_edit(record, slug, bound, leaks_judged) for record, slug in zip(records, anchors, strict=True)
    )


def _summarise_edit(record: EditRecord | ControlRecord, slug: str, bound: float, leaks_judged: bool) -> EditSummary:
    ratio = perplexity_ratio(record)
    collapsed = perplexity_lost(record) or (ratio is not None and ratio > bound)
    own_faults = tuple(_own_faults(record, leaks_judged))
    faults = (*own_faults, *_check_faults(record, ratio, bound, has_own_faults=bool(own_faults)))
    return EditSummary(
        record=record,
        slug=slug,
        decision=_decision(record),
        result=_verdict(record, bool(faults)),
        ratio=ratio,
        collapsed=collapsed,
        faults=faults,
        own_faults=own_faults,
        unprefixed=unprefixed_rate([record], HeadlineCheck.EFFICACY, HEADLINE_PROTOCOL),
        prefixed=prefixed_rate([record], HeadlineCheck.EFFICACY, HEADLINE_PROTOCOL),
    )


def _decision(record: EditRecord | ControlRecord) -> EditDecision:
    if record.outcome == "refused" or record.decision.action == "refuse":
        return EditDecision.REFUSED
    return EditDecision.REWRITTEN if record.decision.action == "rewrite" else EditDecision.ALLOWED


def _verdict(record: EditRecord | ControlRecord, failed: bool) -> EditVerdict:
    if failed:
        return EditVerdict.FAILED
    return EditVerdict.REFUSED if record.outcome == "refused" else EditVerdict.PASSED


def _own_faults(record: EditRecord | ControlRecord, leaks_judged: bool) -> Iterator[str]:
    """Yield the faults of the edit itself, whatever a single check says."""
    if record.weights is not None and record.weights.restored_ok is False:
        yield NOT_RESTORED
    if record.outcome == "errored":
        yield f"it errored: {record.error}"
    if not _is_applied(record):
        return
    made_here = record.outcome != "judged"
    if made_here and (record.update is None or record.update.relative_norm is None):
        yield "the size of its update is not known, and unmeasured is never a pass"
    if made_here and (record.weights is None or (record.weights.restored_ok is None and not record.weights.kept)):
        yield "its weights were not proved to be restored"
    if leaks_judged and isinstance(record, EditRecord) and _locality_is_missing(record):
        yield LOCALITY_MISSING
    # A measured perplexity that is not finite is a collapse, and is reported as one.
    if not perplexity_lost(record) and all(
        measurement.verdict not in ("pass", "fail") for measurement in record.measurements
    ):
        yield "nothing of it was judged, and an edit that was not judged is not sound"


def _locality_is_missing(record: EditRecord) -> bool:
    """Return whether leaks to other subjects were not judged; an `unmeasured` measurement fails by itself."""
    leaks = HeadlineCheck.LOCALITY.value, LEAKS
    return all(
        (measurement.check, measurement.metric) != leaks or measurement.verdict == "info"
        for measurement in record.measurements
    )


def _is_applied(record: EditRecord | ControlRecord) -> bool:
    return record.outcome in ("committed", "rolled-back", "judged")


def _check_faults(
    record: EditRecord | ControlRecord, ratio: float | None, bound: float, *, has_own_faults: bool
) -> Iterator[str]:
    """Yield what the checks found; `has_own_faults` says that a fault was found without them."""
    if not _is_applied(record):
        return
    lost = perplexity_lost(record)
    if lost:
        yield "it collapsed the model: the perplexity after it is not finite"
    elif ratio is None:
        yield "the perplexity after it was not measured, and unmeasured is never a pass"
    elif ratio > bound:
        yield f"it collapsed the model: perplexity ratio {ratio:.4g}, over the bound of {bound:g}"
    if record.verdict == "fail":
        ratio_reported = lost or ratio is None or ratio > bound
        failed = tuple(_failed_checks(record, ratio_reported))
        yield from failed
        if not (failed or ratio_reported or has_own_faults):
            yield record.error or "the guard did not find it sound"


def _failed_checks(record: EditRecord | ControlRecord, ratio_reported: bool) -> Iterator[str]:
    """Yield the measurements that did not pass, without the perplexity ratio if a fault about it was reported already."""
    for measurement in record.measurements:
        if measurement.verdict not in ("fail", "unmeasured") or (
            ratio_reported and measurement.check == HeadlineCheck.PERPLEXITY.value
        ):
            continue
        ended = "failed" if measurement.verdict == "fail" else "was not measured"
        what = (
            measurement.check
            if measurement.metric == measurement.check
            else f"{measurement.check} {measurement.metric}"
        )
        yield f"{what} ({measurement.condition}) {ended}" + (f": {measurement.message}" if measurement.message else "")
