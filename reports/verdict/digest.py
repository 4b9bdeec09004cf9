"""From a log to its verdict and to plain data for rendering; pure functions, no file and no markup.

`summarise` computes the one verdict object. In this order:

- **void**: a control is missing, errored or did not show what was expected, or the policy demands controls and the log
  has none. Checks that were not seen to catch a collapse prove nothing about the edits.
- **fail**: an edit errored, failed a check, collapsed the model (perplexity ratio over the policy's
  ``collapse_ratio``, or not finite), was applied but not measured, or was not restored; an edit was refused and the
  policy does not say ``allow_refused``; records are missing; the log has no footer; there is no edit.
- **pass**: none of these.

`digest` adds what a page shows: one story an edit, and efficacy by family and protocol.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ..log.file import Log
from ..log.schema import EditRecord, Header
from ..log.types import PERPLEXITY, Condition, HeadlineCheck, Protocol, Rate
from .edit_sequence import tally_sequence
from .edit_summary import HEADLINE_PROTOCOL, EditDecision, EditSummary, collapse_bound, judges_leaks, summarise_edits
from .explanation import list_explanations
from .prompt_views import FLIPS, LEAKS, OTHER_FACTS, judged_by_made_neighbours, prompt_rate
from .rates import (
    is_judged,
    mean_share,
    mean_value,
    measured_conditions,
    perplexity_lost,
    pool_rate,
    prefix_families,
    prefixed_rate,
    served_rate,
    unprefixed_rate,
)
from .reasons import fail_reasons, may_ship, not_controlled, pass_reason, ship_reasons, void_reasons
from .summary import MOST_EXPLAINED, ControlTally, ExplainedEdit, Summary

__all__ = ["Digest", "FamilyRow", "digest", "summarise"]

_POOLED: Final[Mapping[str, tuple[HeadlineCheck, Protocol]]] = {
    HeadlineCheck.EFFICACY.value: (HeadlineCheck.EFFICACY, HEADLINE_PROTOCOL),
    HeadlineCheck.GENERALIZATION.value: (HeadlineCheck.GENERALIZATION, HEADLINE_PROTOCOL),
    HeadlineCheck.LOCALITY.value: (HeadlineCheck.LOCALITY, Protocol.TOKEN_MATCH),
    "neighbour_answers": (HeadlineCheck.LOCALITY, Protocol.EXACT),
}
"""What is pooled over all edits, under the name that it has in the summary's counts."""


@dataclass(frozen=True)
class FamilyRow:
    """Efficacy under one condition, by protocol: the counts of whole targets, and the mean share (see `mean_share`)."""

    condition: str
    rates: Mapping[Protocol, Rate]
    shares: Mapping[Protocol, float | None]


@dataclass(frozen=True)
class Digest:
    """All that a report shows, as plain data."""

    summary: Summary
    header: Header
    edits: tuple[EditSummary, ...]
    controls: tuple[EditSummary, ...]
    efficacy: tuple[FamilyRow, ...]
    seconds: float | None
    torn: bool


def summarise(log: Log) -> Summary:
    """Return the verdict over `log`, with its reasons in words; the exit code is 0 for a pass alone."""
    return digest(log).summary


def digest(log: Log) -> Digest:
    """Return `log` as data for rendering, with its verdict."""
    bound = collapse_bound(log.header)
    stories = summarise_edits(log.edits, bound, leaks_judged=judges_leaks(log.header))
    controls = summarise_edits(log.controls, bound)
    return Digest(
        summary=_summary(log, stories, controls, bound),
        header=log.header,
        edits=stories,
        controls=controls,
        efficacy=tuple(_efficacy_rows(log.edits)),
        seconds=log.footer.seconds if log.footer else None,
        torn=log.torn,
    )


def _summary(log: Log, stories: Sequence[EditSummary], controls: Sequence[EditSummary], bound: float) -> Summary:
    void = list(void_reasons(log, controls))
    fail = list(fail_reasons(log, stories))
    verdict: Literal["void", "fail", "pass"] = "void" if void else "fail" if fail else "pass"
    shippable = may_ship(log, stories, verdict)
    explained = [
        ExplainedEdit(id=story.record.id, result=story.result.value, why=one.why, advice=one.advice, leak=one.leak)
        for story, one in list_explanations(stories, log.header)
    ]
    made = [s for s in stories if s.decision is not EditDecision.REFUSED]
    ratios = [s.ratio for s in made if s.ratio is not None]
    counts = _counts(log.edits)
    model = log.header.model
    return Summary(
        status="finished" if log.footer else "unfinished",
        verdict=verdict,
        exit_code=0 if verdict == "pass" else 1,
        reasons=[*void, *fail, *ship_reasons(stories, shippable)] if void or fail else [pass_reason(log, stories)],
        model=model.ref,
        model_fingerprint=model.fingerprint,
        layer=log.header.layer,
        edits=len(stories),
        allowed=sum(s.decision is EditDecision.ALLOWED for s in stories),
        rewritten=sum(s.decision is EditDecision.REWRITTEN for s in stories),
        refused=sum(s.decision is EditDecision.REFUSED for s in stories),
        failed=sum(bool(s.faults) for s in stories),
        collapsed=sum(s.collapsed for s in stories),
        skipped_invalid=len(log.header.skipped_invalid),
        needs_prefix=sum(s.record.update is not None and s.record.update.needs_prefix for s in made),
        baseline_perplexity=next((b.value for b in log.header.baseline if b.metric == PERPLEXITY), None),
        perplexity_not_finite=sum(perplexity_lost(s.record) for s in made),
        worst_perplexity_ratio=max(ratios, default=None),
        median_perplexity_ratio=statistics.median(ratios) if ratios else None,
        collapse_ratio=bound,
        protocol=HEADLINE_PROTOCOL.value,
        efficacy_unprefixed=counts["efficacy_unprefixed"].rate,
        efficacy_prefixed=counts["efficacy_prefixed"].rate,
        efficacy_served=counts["efficacy_served"].rate,
        efficacy_by_family=_by_family(log.edits),
        generalization=counts["generalization"].rate,
        locality=_locality(log.edits, counts["locality"]),
        counts=counts,
        judged=_judged(log.edits),
        controls=ControlTally(total=len(log.controls), ok=sum(c.ok for c in log.controls)),
        controls_ok=bool(log.controls) and not void,
        not_controlled=not_controlled(log.controls),
        sequence=tally_sequence(log),
        may_ship=shippable,
        leaks=prompt_rate(log.edits, HeadlineCheck.LOCALITY.value, LEAKS),
        flips=prompt_rate(log.edits, HeadlineCheck.LOCALITY.value, FLIPS),
        other_fact_leaks=prompt_rate(log.edits, OTHER_FACTS, LEAKS),
        other_fact_flips=prompt_rate(log.edits, OTHER_FACTS, FLIPS),
        judged_by_made_neighbours=sum(map(judged_by_made_neighbours, log.edits)),
        edits_explained=explained[:MOST_EXPLAINED],
        edits_explained_left_out=max(0, len(explained) - MOST_EXPLAINED),
    )


def _counts(edits: Sequence[EditRecord]) -> dict[str, Rate]:
    counts = {}
    for name, (check, protocol) in _POOLED.items():
        without, under = unprefixed_rate(edits, check, protocol), prefixed_rate(edits, check, protocol)
        counts[f"{name}_unprefixed"] = without
        counts[f"{name}_prefixed"] = under
        if check is HeadlineCheck.EFFICACY:
            counts[f"{name}_served"] = served_rate(edits, check, protocol)
        if name in ("generalization", "locality"):
            counts[name] = without if without.total else under
    return counts


def _judged(edits: Sequence[EditRecord]) -> dict[str, int]:
    """Return for each of the counts in how many edits the policy judges it: what is only shown decides nothing."""
    asked = [(name, condition) for name in _POOLED for condition in (Condition.UNPREFIXED, Condition.PREFIXED)]
    return {
        f"{name}_{condition.value}": sum(is_judged(edit, *_POOLED[name], condition) for edit in edits)
        for name, condition in (*asked, (HeadlineCheck.EFFICACY.value, Condition.SERVED))
    }


def _by_family(edits: Sequence[EditRecord]) -> dict[str, Rate]:
    return {
        name: pool_rate(edits, HeadlineCheck.EFFICACY, HEADLINE_PROTOCOL, [f"{Condition.FAMILY.value}{name}"])
        for name in prefix_families(edits, HeadlineCheck.EFFICACY)
    }


def _locality(edits: Sequence[EditRecord], rate: Rate) -> float | None:
    if rate.total:
        return rate.rate
    for condition in (Condition.UNPREFIXED, Condition.PREFIXED):
        mean = mean_value(edits, HeadlineCheck.LOCALITY, [condition.value])
        if mean is not None:
            return mean
    return None


def _efficacy_rows(edits: Sequence[EditRecord]) -> Iterator[FamilyRow]:
    found = measured_conditions(edits, HeadlineCheck.EFFICACY)
    first = [c.value for c in (Condition.UNPREFIXED, Condition.PREFIXED, Condition.SERVED)]
    for condition in [*(c for c in first if c in found), *(c for c in found if c not in first)]:
        by_protocol = {p: pool_rate(edits, HeadlineCheck.EFFICACY, p, [condition]) for p in Protocol}
        measured = {protocol: rate for protocol, rate in by_protocol.items() if rate.total}
        shares = {p: mean_share(edits, HeadlineCheck.EFFICACY, p, condition) for p in measured}
        yield FamilyRow(condition, measured, shares)
