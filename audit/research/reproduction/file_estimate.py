"""Collapses that each probe catches and misses in the whole file, estimated from the drawn cases.

A kind of which all cases were edited counts as it is. Of a kind that was drawn from, each case stands for as many as the file
holds for one that was edited, and the bounds are those of Clopper and Pearson's interval ("The use of confidence or fiducial
limits illustrated in the case of the binomial", Biometrika 26, 1934) for its share, 95 % for each kind.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from ....reports.reproduction.schema import Table
from .cases import CaseKind, Cases, CaseSelection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ....reports.log.schema import EditRecord

__all__ = ["Estimate", "build_file_table", "compute_edit_weights", "estimate_count"]

_CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """Number of edits of the file for which something is true: the estimate (None where unknown), and its bounds."""

    value: float | None
    least: float
    most: float


def estimate_count(count: int, drawn: int, held: float) -> Estimate:
    """Return for how many of `held` edits something is true that is true for `count` of `drawn` edits."""
    from scipy.stats import binomtest

    if drawn == 0:
        return Estimate(None if held else 0.0, 0.0, float(held))
    if drawn >= held:
        return Estimate(*[float(count)] * 3)
    share = binomtest(count, drawn).proportion_ci(_CONFIDENCE, method="exact")
    # It is true for the observed edits at least, and not true for the others that were drawn.
    least, most = max(count, share.low * held), min(held - (drawn - count), share.high * held)
    return Estimate(count * held / drawn, float(least), float(most))


def build_file_table(
    cases: Cases,
    records: Sequence[EditRecord],
    truth: Sequence[bool],
    probes: Sequence[str],
    fires: Callable[[EditRecord, str], bool],
) -> Table:
    """Return for each probe how many collapses it catches and misses in the file; `truth` says which edits collapse."""
    kinds = {case.request.id: case.kind for case in cases.cases}
    drawn = {kind: sum(kinds[record.id] is kind for record in records) for kind in CaseKind}
    available, left_out = _count_settled(cases.selection), len(cases.selection.left_out or ())
    rows: list[list[str | bool | int | float | None]] = []
    for probe in probes:
        caught, missed = (
            _sum_estimates(
                available,
                drawn,
                [
                    kinds[record.id]
                    for record, bad in zip(records, truth, strict=True)
                    if bad and fires(record, probe) is fired
                ],
            )
            for fired in (True, False)
        )
        rows.append([probe, *caught, *missed, *_compute_recall(caught, missed)])
    return Table(
        name="prediction-in-the-file",
        title="What fires at the thresholds in force, estimated for the whole file",
        columns=[
            "probe",
            *(
                f"{what}{bound}"
                for what in ("collapses caught", "collapses missed", "recall")
                for bound in ("", ", least", ", most")
            ),
        ],
        rows=rows,
        note="Each kind of case counts as often as the file holds it. Least and most are ends of an interval of 95 % for each "
        "kind that was drawn from (Clopper and Pearson). Requests whose kind differs between few contexts and all of them are "
        f"left out: {left_out} of the {len(cases.selection.kinds)} that were drawn, and as large a share of the others.",
    )


def compute_edit_weights(cases: Cases, records: Sequence[EditRecord]) -> list[float]:
    """Return for each edit how many edits of the file it counts for: those of its kind, over those of its kind in `records`."""
    kinds, available = {case.request.id: case.kind for case in cases.cases}, _count_settled(cases.selection)
    edited_counts = Counter(kinds[record.id] for record in records)
    return [available[kinds[record.id]] / edited_counts[kinds[record.id]] for record in records]


def _count_settled(chosen: CaseSelection) -> dict[CaseKind, float]:
    """Return how many requests of each kind the file holds that look so under all contexts too, judged by those drawn."""
    left_out, drawn = {*(chosen.left_out or ())}, Counter(chosen.kinds.values())
    stayed = Counter(kind for id, kind in chosen.kinds.items() if id not in left_out)
    return {kind: count * stayed[kind] / drawn[kind] if drawn[kind] else count for kind, count in chosen.found.items()}


def _sum_estimates(
    available: Mapping[CaseKind, float], drawn: Mapping[CaseKind, int], observed_kinds: Sequence[CaseKind]
) -> Estimate:
    """Return the sum over kinds, bounds too, which makes them wider than they need be."""
    parts = [estimate_count(observed_kinds.count(kind), drawn[kind], count) for kind, count in available.items()]
    values = [part.value for part in parts]
    value = None if None in values else sum(value for value in values if value is not None)
    return Estimate(value, sum(part.least for part in parts), sum(part.most for part in parts))


def _compute_recall(caught: Estimate, missed: Estimate) -> tuple[float | None, float | None, float | None]:
    return (
        _compute_share(caught.value, missed.value),
        _compute_share(caught.least, missed.most),
        _compute_share(caught.most, missed.least),
    )


def _compute_share(caught: float | None, missed: float | None) -> float | None:
    if caught is None or missed is None or not caught + missed:
        return None
    return caught / (caught + missed)
