"""The story of one edit: what was decided, what came of it, and why it failed, in words.

A fault is what keeps an edit from passing. An edit that was applied needs a measured perplexity ratio within the
bound; where it is over the bound or not finite, the edit collapsed the model. The size of its update must be known, its
weights proved to have come back, and something of it judged. One that errored, or whose weights did not come back, is
at fault whatever else was measured. What an edit does to other subjects must be judged too, in logs of a policy that has
``max_leaks``; older logs have no such key, and there it was measured only where the file gave neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ..log.schema import ControlRecord, EditRecord, Header
from ..log.types import HeadlineCheck, Protocol, Rate
from ..text import make_slugs
from .prompt_views import LEAKS
from .rates import perplexity_lost, perplexity_ratio, prefixed_rate, unprefixed_rate

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
"""Bound on the perplexity ratio where the policy gives none: sound edits stay within 1.03, collapses begin near 10."""

HEADLINE_PROTOCOL = Protocol.EXACT
"""Protocol of the headline figures: greedy match of the whole target, the only one that a user of the model meets."""

NOT_RESTORED = "its weights were not restored to what they were before it"
LOCALITY_MISSING = "what it does to other subjects was not measured, and unmeasured is never a pass"


class EditDecision(StrEnum):
    """What was decided about an edit; refused also where the guard stopped it after the policy had let it through."""

    ALLOWED = "allowed"
    REWRITTEN = "rewritten"
    REFUSED = "refused"


class EditVerdict(StrEnum):
    """What came of an edit."""

    PASSED = "passed"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(frozen=True)
class EditSummary:
    """One edit or control as a page shows it; `slug` is its anchor, `faults` why it failed, in words.

    `own_faults` are those among them that are the edit's own, whatever a single check says.
    `ratio` is null where it was not measured, and where it is not finite, which is a collapse.
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
    """Return the story of each record; a ratio over `bound`, or one that is not finite, is a collapse.

    With `leaks_judged` an edit that was made and has no judged locality is at fault.
    """
    anchors = make_slugs(record.id for record in records)
    return tuple(_story(record, slug, bound, leaks_judged) for record, slug in zip(records, anchors, strict=True))


def _story(record: EditRecord | ControlRecord, slug: str, bound: float, leaks_judged: bool) -> EditSummary:
    ratio = perplexity_ratio(record)
    collapsed = perplexity_lost(record) or (ratio is not None and ratio > bound)
    own = tuple(_own_faults(record, leaks_judged))
    faults = (*own, *_check_faults(record, ratio, bound, told=bool(own)))
    return EditSummary(
        record=record,
        slug=slug,
        decision=_decided(record),
        result=_result(record, bool(faults)),
        ratio=ratio,
        collapsed=collapsed,
        faults=faults,
        own_faults=own,
        unprefixed=unprefixed_rate([record], HeadlineCheck.EFFICACY, HEADLINE_PROTOCOL),
        prefixed=prefixed_rate([record], HeadlineCheck.EFFICACY, HEADLINE_PROTOCOL),
    )


def _decided(record: EditRecord | ControlRecord) -> EditDecision:
    if record.outcome == "refused" or record.decision.action == "refuse":
        return EditDecision.REFUSED
    return EditDecision.REWRITTEN if record.decision.action == "rewrite" else EditDecision.ALLOWED


def _result(record: EditRecord | ControlRecord, failed: bool) -> EditVerdict:
    if failed:
        return EditVerdict.FAILED
    return EditVerdict.REFUSED if record.outcome == "refused" else EditVerdict.PASSED


def _own_faults(record: EditRecord | ControlRecord, leaks_judged: bool) -> Iterator[str]:
    """Yield what is wrong with the edit itself, whatever a single check says."""
    if record.weights is not None and record.weights.restored_ok is False:
        yield NOT_RESTORED
    if record.outcome == "errored":
        yield f"it errored: {record.error}"
    if not _made(record):
        return
    if record.update is None or record.update.relative_norm is None:
        yield "the size of its update is not known, and unmeasured is never a pass"
    if record.weights is None or (record.weights.restored_ok is None and not record.weights.kept):
        yield "its weights were not proved to be again what they were before it"
    if leaks_judged and isinstance(record, EditRecord) and _locality_is_missing(record):
        yield LOCALITY_MISSING
    # A perplexity that was taken and is not finite is a collapse, and told as one.
    if not perplexity_lost(record) and all(one.verdict not in ("pass", "fail") for one in record.measurements):
        yield "nothing of it was judged, and what was not judged is not sound"


def _locality_is_missing(record: EditRecord) -> bool:
    """Whether leaks to other subjects were not judged; a measurement that is `unmeasured` fails by itself."""
    wanted = HeadlineCheck.LOCALITY.value, LEAKS
    return all((one.check, one.metric) != wanted or one.verdict == "info" for one in record.measurements)


def _made(record: EditRecord | ControlRecord) -> bool:
    return record.outcome in ("committed", "rolled-back")


def _check_faults(
    record: EditRecord | ControlRecord, ratio: float | None, bound: float, *, told: bool
) -> Iterator[str]:
    """Yield what the checks found; `told` says that a fault was found without them."""
    if not _made(record):
        return
    lost = perplexity_lost(record)
    if lost:
        yield "it collapsed the model: the perplexity after it is not finite"
    elif ratio is None:
        yield "the perplexity after it was not measured, and unmeasured is never a pass"
    elif ratio > bound:
        yield f"it collapsed the model: perplexity ratio {ratio:.4g}, over the bound of {bound:g}"
    if record.verdict == "fail":
        ratio_told = lost or ratio is None or ratio > bound
        failed = tuple(_failed_checks(record, ratio_told))
        yield from failed
        if not (failed or ratio_told or told):
            yield record.error or "the guard did not find it sound"


def _failed_checks(record: EditRecord | ControlRecord, ratio_told: bool) -> Iterator[str]:
    """Yield what did not pass; the perplexity ratio is left out where a fault about it was told already."""
    for one in record.measurements:
        if one.verdict not in ("fail", "unmeasured") or (ratio_told and one.check == HeadlineCheck.PERPLEXITY.value):
            continue
        ended = "failed" if one.verdict == "fail" else "was not measured"
        what = one.check if one.metric == one.check else f"{one.check} {one.metric}"
        yield f"{what} ({one.condition}) {ended}" + (f": {one.message}" if one.message else "")
