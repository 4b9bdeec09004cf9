"""The changes from one audit to another: of each metric over the edits that both made, and of each edit's result.

Edits are paired by id, and only if their requests are the same. Rates are pooled over the pairs, and their difference is in
percentage points. Perplexity ratios are compared by their geometric mean, relatively. The worst ratio has no interval.
`worse` is the difference in the direction of damage: positive is worse, whatever the metric. Out of scope: allowances
(`decision`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field

from ..log.types import Count, Model
from .baseline import Baseline, BaselineEdit, Git
from .bootstrap import RESAMPLES, Interval, paired_interval, unchanged_share
from .metrics import (
    METRICS,
    AnyMetricSpec,
    DeclaredSpec,
    Metric,
    MetricKind,
    MetricValue,
    Tally,
    declared_specs,
    is_measured,
    source_metric,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

__all__ = ["Comparison", "EditChange", "EditPair", "MetricChange", "Side", "compare", "compare_metric", "pair_edits"]


class Side(Model):
    """One of the two audits, as a reader sees it."""

    name: str
    created: str
    editguard_version: str
    git: Git | None
    verdict: str
    edits: Count


class MetricChange(Model):
    """One metric on both sides, over `pairs` edits.

    `before` and `after` are pooled rates, geometric means or maxima. `worse`, `low` and `high` are shares of 1: points for a
    rate, relative otherwise. They are null if nothing could be paired; `low` and `high` also for the worst ratio.
    `worse_edits` are the ids of the edits that became worse, the worst first; for the worst ratio, of those over its old value.
    `unchanged` is the exact share of bootstrap draws without a changed edit. It is null if edits changed in both directions, or
    if their single changes say nothing about the pooled one.
    """

    metric: str
    kind: MetricKind
    pairs: Count
    before: float | None
    after: float | None
    worse: float | None
    low: float | None = None
    high: float | None = None
    unchanged: float | None = None
    worse_edits: list[str] = Field(default_factory=list)
    better: Literal["higher", "lower"] | None = None
    """Of a declared metric, the direction of improvement; null: higher for a rate, lower for a ratio."""

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller figure is the better one."""
        return self.kind is not MetricKind.RATE if self.better is None else self.better == "lower"


class EditChange(Model):
    """An edit with another decision or another result than before."""

    id: str
    before: str
    after: str
    kind: Literal["worse", "better", "other"]


class Comparison(Model):
    """All changes from `before` to `after`; `notes` are sentences about conditions that differ."""

    before: Side
    after: Side
    metrics: list[MetricChange]
    edits: list[EditChange]
    paired: Count
    missing: list[str]
    new: list[str]
    changed_requests: list[str]
    notes: list[str]


class EditPair(NamedTuple):
    """One edit in both audits."""

    before: BaselineEdit
    after: BaselineEdit


def compare(before: Baseline, after: Baseline, names: tuple[str, str]) -> Comparison:
    """Return the changes from `before` to `after`; `names` are theirs for readers."""
    pairs = pair_edits(before, after)
    specs: dict[str, AnyMetricSpec] = {metric.value: spec for metric, spec in METRICS.items()}
    specs |= declared_specs(before.declared, after.declared)
    old, new = ({edit.id: edit for edit in side.edits} for side in (before, after))
    return Comparison(
        before=_side(before, names[0]),
        after=_side(after, names[1]),
        metrics=[
            change for name, spec in specs.items() if (change := compare_metric(name, pairs, spec=spec)) is not None
        ],
        edits=[edit_change for pair in pairs if (edit_change := _edit_change(pair)) is not None],
        paired=len(pairs),
        missing=sorted(set(old) - set(new)),
        new=sorted(set(new) - set(old)),
        changed_requests=sorted(
            name for name in set(old) & set(new) if old[name].request_sha256 != new[name].request_sha256
        ),
        notes=list(_notes(before, after)),
    )


def pair_edits(before: Baseline, after: Baseline) -> list[EditPair]:
    """Return the edits that both sides hold with the same request, in order of their ids."""
    old = {edit.id: edit for edit in before.edits}
    pairs = (EditPair(old[edit.id], edit) for edit in after.edits if edit.id in old)
    return sorted(
        (pair for pair in pairs if pair.before.request_sha256 == pair.after.request_sha256),
        key=lambda pair: pair.after.id,
    )


def _side(baseline: Baseline, name: str) -> Side:
    return Side(
        name=name,
        created=baseline.created,
        editguard_version=baseline.editguard_version,
        git=baseline.git,
        verdict=baseline.verdict,
        edits=len(baseline.edits),
    )


def compare_metric(
    metric: str, pairs: Sequence[EditPair], resamples: int = RESAMPLES, *, spec: AnyMetricSpec | None = None
) -> MetricChange | None:
    """Return the change of one metric; None if neither side asked for it. `resamples` draws make its interval.

    `spec` says how a declared metric is compared.
    """
    spec = METRICS[Metric(metric)] if spec is None else spec
    kind, better = spec.kind, spec.better if isinstance(spec, DeclaredSpec) else None
    source = source_metric(metric)
    made_pairs = [pair for pair in pairs if _made(pair)]
    values = [(pair.before.metrics.get(source), pair.after.metrics.get(source)) for pair in made_pairs]
    if all(before is None and after is None for before, after in values):
        return None
    ids = [pair.after.id for pair, sides in zip(made_pairs, values, strict=True) if all(map(is_measured, sides))]
    measured_values = [sides for sides in values if all(map(is_measured, sides))]
    if not measured_values:
        return MetricChange(metric=metric, kind=kind, pairs=0, before=None, after=None, worse=None, better=better)
    # With the two sides exchanged, damage in the unusual direction is damage in the usual one.
    exchanged = spec.lower_is_better is (kind is MetricKind.RATE)
    measured_values = [sides[::-1] for sides in measured_values] if exchanged else measured_values
    before, after, worse, interval, unchanged = (
        _of_rates(measured_values, resamples)
        if kind is MetricKind.RATE
        else _of_ratios(measured_values, kind, resamples)
    )
    before, after = (after, before) if exchanged else (before, after)
    low, high = (None, None) if interval is None else interval
    return MetricChange(
        metric=metric,
        kind=kind,
        pairs=len(measured_values),
        before=before,
        after=after,
        worse=worse,
        low=low,
        high=high,
        unchanged=unchanged,
        worse_edits=_worse_edits(ids, measured_values, kind),
        better=better,
    )


def _worse_edits(
    ids: Sequence[str], measured_values: Sequence[tuple[MetricValue, MetricValue]], kind: MetricKind
) -> list[str]:
    """Return those of `ids` that became worse, the worst first."""
    sides = [(_size(before), _size(after)) for before, after in measured_values]
    if kind is MetricKind.RATE:
        worse = [before - after for before, after in sides]
    elif kind is MetricKind.RATIO:
        worse = [after / before - 1 for before, after in sides]
    else:
        most = max(before for before, _ in sides)
        worse = [after / most - 1 for _, after in sides]
    return [
        name for lost, name in sorted(zip(worse, ids, strict=True), key=lambda item: (-item[0], item[1])) if lost > 0
    ]


def _size(figure: MetricValue) -> float:
    """Return a measured value as one number: a rate as its share."""
    assert figure is not None
    return figure.passed / figure.total if isinstance(figure, Tally) else figure


def _made(pair: EditPair) -> bool:
    return pair.before.made and pair.after.made


class _Compared(NamedTuple):
    """The figures of both sides, the damage, and how sure it is."""

    before: float
    after: float
    worse: float
    interval: Interval | None
    unchanged: float | None


def _of_rates(measured_values: Sequence[tuple[MetricValue, MetricValue]], resamples: int) -> _Compared:
    import numpy as np

    tallies = [
        (before, after) for before, after in measured_values if isinstance(before, Tally) and isinstance(after, Tally)
    ]
    columns = np.array([(b.passed, b.total, a.passed, a.total) for b, a in tallies], dtype=float)

    def worse(sums: np.ndarray) -> np.ndarray:
        differences: np.ndarray = sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3]
        return differences

    sums = columns.sum(axis=0)
    interval = paired_interval(columns, worse, resamples=resamples)
    # If totals differ, an edit moves the pooled rate although its own share is the same.
    alike = bool((columns[:, 1] == columns[:, 3]).all())
    unchanged = unchanged_share(columns[:, 0] - columns[:, 2]) if alike else None
    return _Compared(
        before=float(sums[0] / sums[1]),
        after=float(sums[2] / sums[3]),
        worse=float(worse(sums)),
        interval=interval,
        unchanged=unchanged,
    )


def _of_ratios(
    measured_values: Sequence[tuple[MetricValue, MetricValue]], kind: MetricKind, resamples: int
) -> _Compared:
    import numpy as np

    ratios = np.array([(before, after) for before, after in measured_values], dtype=float)
    if kind is MetricKind.WORST:
        before, after = (float(side) for side in ratios.max(axis=0))
        return _Compared(before=before, after=after, worse=after / before - 1, interval=None, unchanged=None)
    logs = np.log(ratios)
    columns = np.stack([logs[:, 1] - logs[:, 0], np.ones(len(logs))], axis=1)

    def worse(sums: np.ndarray) -> np.ndarray:
        increases: np.ndarray = np.expm1(sums[..., 0] / sums[..., 1])
        return increases

    before, after = (float(side) for side in np.exp(logs.mean(axis=0)))
    interval = paired_interval(columns, worse, resamples=resamples)
    damage = float(worse(columns.sum(axis=0)))
    return _Compared(
        before=before, after=after, worse=damage, interval=interval, unchanged=unchanged_share(columns[:, 0])
    )


_RANK = {"passed": 0, "refused": 1, "failed": 2}


def _edit_change(pair: EditPair) -> EditChange | None:
    before, after = (_end(edit) for edit in pair)
    if before == after:
        return None
    step = _RANK[pair.after.verdict] - _RANK[pair.before.verdict] + pair.after.collapsed - pair.before.collapsed
    kind: Literal["worse", "better", "other"] = "worse" if step > 0 else "better" if step < 0 else "other"
    return EditChange(id=pair.after.id, before=before, after=after, kind=kind)


def _end(edit: BaselineEdit) -> str:
    if not edit.made:
        return "refused"
    return f"{edit.decision} ({edit.editor}), {'collapsed' if edit.collapsed else edit.verdict}"


def _notes(before: Baseline, after: Baseline) -> Iterator[str]:
    if before.verdict != "pass":
        yield f"The audit of the first side is itself a {before.verdict}."
    for what, old, new in (
        ("layer", before.layer, after.layer),
        ("seed", before.seed, after.seed),
        ("engine", before.engine or "unknown", after.engine or "unknown"),
        ("hash of the key statistics", _short(before.statistics_sha256), _short(after.statistics_sha256)),
        ("version of editguard", before.editguard_version, after.editguard_version),
        ("name of the model", before.model.ref, after.model.ref),
        (
            "file of edits",
            f"{before.source} ({before.source_sha256[:8]})",
            f"{after.source} ({after.source_sha256[:8]})",
        ),
    ):
        if old != new:
            yield f"The {what} is another: {old}, now {new}."
    for side in (before, after):
        if side.git is not None and side.git.dirty:
            yield f"The commit {side.git.commit[:8]} had uncommitted changes when the audit of {side.created} was saved."


def _short(sha256: str | None) -> str:
    return "unknown" if sha256 is None else sha256[:12]
