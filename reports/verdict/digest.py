"""From a log to its verdict and to plain data for rendering. Pure functions, without files and markup.

`summarise` computes the one verdict object. In this order:

- **void**: a control is missing, errored or did not have its known result, or the policy demands controls and the log has
  none. Checks that caught no collapse prove nothing about the edits.
- **fail**: an edit errored, failed a check, collapsed the model (perplexity ratio over the policy's
  ``collapse_ratio``, or not finite), was applied but not measured, or was not restored; an edit was refused and the
  policy lacks ``allow_refused``; records are missing; the log has no footer; there is no edit.
- **pass**: none of these.

`digest` adds the data of a page: a summary of each edit, and efficacy by prefix family and protocol.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from ..log.types import PERPLEXITY, Condition, HeadlineCheck, Protocol, Rate
from .checkpoint import count_side_effects
from .edit_sequence import tally_sequence
from .edit_summary import HEADLINE_PROTOCOL, EditDecision, EditSummary, collapse_bound, judges_leaks, summarise_edits
from .explanation import list_explanations
from .prompt_views import FLIPS, LEAKS, OTHER_FACTS, count_prompts, judged_by_made_neighbours
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

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..log.file import Log
    from ..log.schema import EditRecord, Header, ModelRecord

__all__ = ["Digest", "FamilyRow", "digest", "summarise"]

_POOLED: Final[Mapping[str, tuple[HeadlineCheck, Protocol]]] = {
    HeadlineCheck.EFFICACY.value: (HeadlineCheck.EFFICACY, HEADLINE_PROTOCOL),
    HeadlineCheck.GENERALIZATION.value: (HeadlineCheck.GENERALIZATION, HEADLINE_PROTOCOL),
    HeadlineCheck.LOCALITY.value: (HeadlineCheck.LOCALITY, Protocol.TOKEN_MATCH),
    "neighbour_answers": (HeadlineCheck.LOCALITY, Protocol.EXACT),
}
"""Check and protocol that are pooled over all edits, under their name in the summary's counts."""


@dataclass(frozen=True)
class FamilyRow:
    """Efficacy under one condition, by protocol: counts of whole targets, and the mean share (see `mean_share`)."""

    condition: str
    rates: Mapping[Protocol, Rate]
    shares: Mapping[Protocol, float | None]


@dataclass(frozen=True)
class Digest:
    """All data of a report."""

    summary: Summary
    header: Header
    edits: tuple[EditSummary, ...]
    controls: tuple[EditSummary, ...]
    efficacy: tuple[FamilyRow, ...]
    seconds: float | None
    torn: bool
    model: ModelRecord | None = None
    """The edited checkpoint as a whole, where one was audited."""


def summarise(log: Log) -> Summary:
    """Return the verdict over `log`, with its reasons in words; the exit code is 0 for a pass alone."""
    return digest(log).summary


def digest(log: Log) -> Digest:
    """Return `log` as data for rendering, with its verdict."""
    bound = collapse_bound(log.header)
    edits = summarise_edits(log.edits, bound, leaks_judged=judges_leaks(log.header))
    controls = summarise_edits(log.controls, bound)
    return Digest(
        summary=_summary(log, edits, controls, bound),
        header=log.header,
        edits=edits,
        controls=controls,
        efficacy=tuple(_efficacy_rows(log.edits)),
        seconds=log.footer.seconds if log.footer else None,
        torn=log.torn,
        model=log.model,
    )


def _summary(log: Log, edits: Sequence[EditSummary], controls: Sequence[EditSummary], bound: float) -> Summary:
    void = list(void_reasons(log, controls))
    fail = list(fail_reasons(log, edits))
    verdict: Literal["void", "fail", "pass"] = "void" if void else "fail" if fail else "pass"
    shippable = may_ship(log, edits, verdict)
    explained = _explain_edits(edits, log.header)
    applied = [edit for edit in edits if edit.decision is not EditDecision.REFUSED]
    ratios = [edit.ratio for edit in applied if edit.ratio is not None]
    counts = _counts(log.edits)
    model = log.header.model
    return Summary(
        status="finished" if log.footer else "unfinished",
        verdict=verdict,
        exit_code=0 if verdict == "pass" else 1,
        reasons=[*void, *fail, *ship_reasons(edits, shippable)] if void or fail else [pass_reason(log, edits)],
        model=model.ref,
        model_fingerprint=model.fingerprint,
        layer=log.header.layer,
        edits=len(edits),
        allowed=sum(edit.decision is EditDecision.ALLOWED for edit in edits),
        rewritten=sum(edit.decision is EditDecision.REWRITTEN for edit in edits),
        refused=sum(edit.decision is EditDecision.REFUSED for edit in edits),
        failed=sum(bool(edit.faults) for edit in edits),
        collapsed=sum(edit.collapsed for edit in edits),
        skipped_invalid=len(log.header.skipped_invalid),
        needs_prefix=sum(edit.record.update is not None and edit.record.update.needs_prefix for edit in applied),
        baseline_perplexity=next((b.value for b in log.header.baseline if b.metric == PERPLEXITY), None),
        perplexity_not_finite=sum(perplexity_lost(edit.record) for edit in applied),
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
        edited=None if log.header.edited is None else log.header.edited.ref,
        edited_fingerprint=None if log.header.edited is None else log.header.edited.fingerprint,
        change=None if log.header.edited is None else log.header.edited.kind,
        side_effects=count_side_effects(log),
        leaks=count_prompts(log.edits, HeadlineCheck.LOCALITY.value, LEAKS),
        flips=count_prompts(log.edits, HeadlineCheck.LOCALITY.value, FLIPS),
        other_fact_leaks=count_prompts(log.edits, OTHER_FACTS, LEAKS),
        other_fact_flips=count_prompts(log.edits, OTHER_FACTS, FLIPS),
        judged_by_made_neighbours=sum(map(judged_by_made_neighbours, log.edits)),
        edits_explained=explained[:MOST_EXPLAINED],
        edits_explained_left_out=max(0, len(explained) - MOST_EXPLAINED),
    )


def _explain_edits(edits: Sequence[EditSummary], header: Header) -> list[ExplainedEdit]:
    return [
        ExplainedEdit(
            id=edit.record.id,
            result=edit.result.value,
            why=explanation.why,
            advice=explanation.advice,
            leak=explanation.leak,
        )
        for edit, explanation in list_explanations(edits, header)
    ]


def _counts(edits: Sequence[EditRecord]) -> dict[str, Rate]:
    counts = {}
    for name, (check, protocol) in _POOLED.items():
        unprefixed, prefixed = unprefixed_rate(edits, check, protocol), prefixed_rate(edits, check, protocol)
        counts[f"{name}_unprefixed"] = unprefixed
        counts[f"{name}_prefixed"] = prefixed
        if check is HeadlineCheck.EFFICACY:
            counts[f"{name}_served"] = served_rate(edits, check, protocol)
        if name in ("generalization", "locality"):
            counts[name] = unprefixed if unprefixed.total else prefixed
    return counts


def _judged(edits: Sequence[EditRecord]) -> dict[str, int]:
    """Return for each of the counts how many edits the policy judges by it. A count that is only shown decides nothing."""
    conditions = [(name, condition) for name in _POOLED for condition in (Condition.UNPREFIXED, Condition.PREFIXED)]
    return {
        f"{name}_{condition.value}": sum(is_judged(edit, *_POOLED[name], condition) for edit in edits)
        for name, condition in (*conditions, (HeadlineCheck.EFFICACY.value, Condition.SERVED))
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
    conditions = measured_conditions(edits, HeadlineCheck.EFFICACY)
    first = [c.value for c in (Condition.UNPREFIXED, Condition.PREFIXED, Condition.SERVED)]
    for condition in [*(c for c in first if c in conditions), *(c for c in conditions if c not in first)]:
        by_protocol = {p: pool_rate(edits, HeadlineCheck.EFFICACY, p, [condition]) for p in Protocol}
        measured = {protocol: rate for protocol, rate in by_protocol.items() if rate.total}
        shares = {p: mean_share(edits, HeadlineCheck.EFFICACY, p, condition) for p in measured}
        yield FamilyRow(condition, measured, shares)
