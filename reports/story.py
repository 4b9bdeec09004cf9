"""The story of one edit: what was decided, what came of it, and why it failed, in words.

A fault is what keeps an edit from passing. An edit that was applied needs a measured perplexity ratio within the
bound; where it is over the bound or not finite, the edit collapsed the model. One that errored, or whose weights did not
come back, is at fault whatever else was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from .rates import perplexity_lost, perplexity_ratio, prefixed, unprefixed
from .schema import ControlRecord, EditRecord, Header, HeadlineCheck, Protocol, Rate
from .text import slugs

__all__ = ["DEFAULT_COLLAPSE_RATIO", "HEADLINE_PROTOCOL", "Decided", "Result", "Story", "collapse_bound", "tell"]

DEFAULT_COLLAPSE_RATIO = 1.5
"""Bound on the perplexity ratio where the policy gives none: sound edits stay within 1.03, collapses begin near 10."""

HEADLINE_PROTOCOL = Protocol.EXACT
"""Protocol of the headline figures: greedy match of the whole target, the only one that a user of the model meets."""


class Decided(StrEnum):
    """What was decided about an edit; refused also where the guard stopped it after the policy had let it through."""

    ALLOWED = "allowed"
    REWRITTEN = "rewritten"
    REFUSED = "refused"


class Result(StrEnum):
    """What came of an edit."""

    PASSED = "passed"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(frozen=True)
class Story:
    """One edit or control as a page shows it; `slug` is its anchor, `faults` why it failed, in words.

    `ratio` is null where it was not measured, and where it is not finite, which is a collapse.
    """

    record: EditRecord | ControlRecord
    slug: str
    decided: Decided
    result: Result
    ratio: float | None
    collapsed: bool
    faults: tuple[str, ...]
    unprefixed: Rate
    prefixed: Rate


def collapse_bound(header: Header) -> float:
    """Return the bound on the perplexity ratio that was in force."""
    bound = header.policy.get("collapse_ratio", DEFAULT_COLLAPSE_RATIO)
    return float(bound) if isinstance(bound, int | float) else DEFAULT_COLLAPSE_RATIO


def tell(records: Sequence[EditRecord | ControlRecord], bound: float) -> tuple[Story, ...]:
    """Return the story of each record; a ratio over `bound`, or one that is not finite, is a collapse."""
    anchors = slugs(record.id for record in records)
    return tuple(_story(record, slug, bound) for record, slug in zip(records, anchors, strict=True))


def _story(record: EditRecord | ControlRecord, slug: str, bound: float) -> Story:
    ratio = perplexity_ratio(record)
    collapsed = perplexity_lost(record) or (ratio is not None and ratio > bound)
    faults = tuple(_faults(record, ratio, bound))
    return Story(
        record=record,
        slug=slug,
        decided=_decided(record),
        result=_result(record, bool(faults)),
        ratio=ratio,
        collapsed=collapsed,
        faults=faults,
        unprefixed=unprefixed([record], HeadlineCheck.EFFICACY, HEADLINE_PROTOCOL),
        prefixed=prefixed([record], HeadlineCheck.EFFICACY, HEADLINE_PROTOCOL),
    )


def _decided(record: EditRecord | ControlRecord) -> Decided:
    if record.outcome == "refused" or record.decision.action == "refuse":
        return Decided.REFUSED
    return Decided.REWRITTEN if record.decision.action == "rewrite" else Decided.ALLOWED


def _result(record: EditRecord | ControlRecord, failed: bool) -> Result:
    if failed:
        return Result.FAILED
    return Result.REFUSED if record.outcome == "refused" else Result.PASSED


def _faults(record: EditRecord | ControlRecord, ratio: float | None, bound: float) -> Iterator[str]:
    if record.weights is not None and record.weights.restored_ok is False:
        yield "its weights were not restored to the unedited model's"
    if record.outcome == "errored":
        yield f"it errored: {record.error}"
    if record.outcome not in ("committed", "rolled-back"):
        return
    lost = perplexity_lost(record)
    if lost:
        yield "it collapsed the model: the perplexity after it is not finite"
    elif ratio is None:
        yield "the perplexity after it was not measured, and unmeasured is never a pass"
    elif ratio > bound:
        yield f"it collapsed the model: perplexity ratio {ratio:.4g}, bound {bound:g}"
    if record.verdict == "fail":
        told = lost or ratio is None or ratio > bound
        yield from _failed_checks(record, told)


def _failed_checks(record: EditRecord | ControlRecord, ratio_told: bool) -> Iterator[str]:
    """Yield what did not pass; the perplexity ratio is left out where a fault about it was told already."""
    found = False
    for one in record.measurements:
        if one.verdict not in ("fail", "unmeasured") or (ratio_told and one.check == HeadlineCheck.PERPLEXITY.value):
            continue
        found = True
        ended = "failed" if one.verdict == "fail" else "was not measured"
        yield f"{one.check} {one.metric} ({one.condition}) {ended}" + (f": {one.message}" if one.message else "")
    if not found and not ratio_told:
        yield record.error or "it did not pass the guard"
