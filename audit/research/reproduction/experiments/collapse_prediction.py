"""Experiment 13: how well each probe predicts a collapse.

Every edit is made unguarded by rome and measured, so that the answer of each probe before the edit is compared with the
outcome. The requests were chosen by their denominators: collapse is far more frequent among them than among edits at large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .....reports.reproduction.schema import Claim, Curves, Experiment, Group, Table, describe_cases
from .....reports.text import count_noun
from ..cases import CaseKind, Cases
from ..file_estimate import build_file_table, compute_edit_weights
from ..record_figures import (
    get_relative_norm,
    has_collapsed,
    read_key_figure,
    select_records,
)
from .headings import build_claim, build_experiment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .....reports.log.schema import EditRecord
    from ..edits import Edits

__all__ = ["measure_prediction"]

_POINTS = 200
"""Points of a curve in the picture."""


class _Score(NamedTuple):
    """One number for each edit, larger for more danger, and the probe whose threshold it is compared with."""

    read: Callable[[EditRecord], float | None]
    probe: str | None


def _key_figure_reader(name: str, sign: int = 1) -> Callable[[EditRecord], float | None]:
    def read(record: EditRecord) -> float | None:
        value = read_key_figure(record, name)
        return None if value is None else sign * value

    return read


def _finding_reader(probe: str) -> Callable[[EditRecord], float | None]:
    return lambda record: next((finding.value for finding in record.findings if finding.probe == probe), None)


_SCORES: Mapping[str, _Score] = {
    "first token": _Score(_key_figure_reader("first_token"), "first-token"),
    "key shift: cos(k_u, k̄)": _Score(_key_figure_reader("cosine", -1), "key-shift"),
    "likeness to the sink's key": _Score(_finding_reader("sink-key"), "sink-key"),
    "denominator |u·k_u|": _Score(_key_figure_reader("denominator", -1), None),
    "ratio |u·k_u| / |u·k̄|": _Score(_key_figure_reader("denominator_ratio", -1), None),
    "bound of ‖Δ‖ / ‖W‖": _Score(_key_figure_reader("predicted_relative_norm"), "denominator"),
    "‖Δ‖ / ‖W‖, known before writing": _Score(get_relative_norm, None),
}


_PROBES = tuple(dict.fromkeys(score.probe for score in _SCORES.values() if score.probe))


def measure_prediction(cases: Cases, edits: Edits, collapse_ratio: float) -> Experiment:
    """Experiment 13: ROC of each probe's number, precision and recall at its threshold in force."""
    outcomes = [
        (record, has_collapsed(record, collapse_ratio)) for record in select_records(edits, cases, "rome", *CaseKind)
    ]
    records, truth = (
        [record for record, collapse in outcomes if collapse is not None],
        [collapse for _, collapse in outcomes if collapse is not None],
    )
    if all(truth) or not any(truth):
        return build_experiment(
            13,
            skipped=f"{sum(truth)} of {count_noun(len(truth), 'edit')} collapse the model, so that there is nothing to "
            "tell apart.",
        )
    usable = {name: _pair_scores(score, records, truth) for name, score in _SCORES.items()}
    stands = compute_edit_weights(cases, records)
    # Each number is missing in other records.
    weights = {
        name: [weight for weight, record in zip(stands, records, strict=True) if score.read(record) is not None]
        for name, score in _SCORES.items()
    }
    return build_experiment(
        13,
        tables=[
            _build_area_table(usable, weights),
            _build_threshold_table(records, truth),
            build_file_table(cases, records, truth, _PROBES, _has_fired),
        ],
        claims=[_judge_denominator(usable, weights)],
        pictures=[_draw_curves(usable)],
        notes=[
            f"Edited: {describe_cases(cases.counts())}, "
            f"{len(outcomes) - len(records)} of them not made and left out. Small "
            "denominators are far more frequent here than in the file. So areas, precision and recall flatter a probe that "
            "misses ordinary edits. Each of those counts for many that were not drawn, as the last table shows."
        ],
    )


def _pair_scores(score: _Score, records: Sequence[EditRecord], truth: Sequence[bool]) -> list[tuple[float, bool]]:
    read = [(score.read(record), is_collapse) for record, is_collapse in zip(records, truth, strict=True)]
    return [(value, is_collapse) for value, is_collapse in read if value is not None]


def _has_both_outcomes(pairs: Sequence[tuple[float, bool]]) -> bool:
    """Whether there are collapses and sound edits among those that have the number."""
    return len({is_collapse for _, is_collapse in pairs}) == 2


def _compute_area(pairs: Sequence[tuple[float, bool]], weights: Sequence[float] | None = None) -> float:
    """Return the area under ROC; each edit counts as often as `weights` says."""
    from sklearn.metrics import roc_auc_score

    scores, labels = [value for value, _ in pairs], [is_collapse for _, is_collapse in pairs]
    return float(roc_auc_score(labels, scores, sample_weight=weights))


def _build_area_table(
    usable: Mapping[str, Sequence[tuple[float, bool]]], weights: Mapping[str, Sequence[float]]
) -> Table:
    from sklearn.metrics import average_precision_score

    rows: list[list[str | bool | int | float | None]] = []
    for name, pairs in usable.items():
        scores, labels = [value for value, _ in pairs], [is_collapse for _, is_collapse in pairs]
        both = _has_both_outcomes(pairs)
        rows.append(
            [
                name,
                len(pairs),
                sum(labels),
                _compute_area(pairs) if both else None,
                _compute_area(pairs, weights[name]) if both else None,
                float(average_precision_score(labels, scores)) if both else None,
            ]
        )
    return Table(
        name="prediction-areas",
        title="How well each number ranks the edits",
        columns=["number", "edits", "collapsed", "area under ROC", "area, estimated for the file", "average precision"],
        rows=rows,
        note="For the file each edit counts as often as the file holds its kind for one that was edited.",
    )


def _has_fired(record: EditRecord, probe: str) -> bool:
    return any(finding.probe == probe and finding.level in ("risk", "error") for finding in record.findings)


def _build_threshold_table(records: Sequence[EditRecord], truth: Sequence[bool]) -> Table:
    rows: list[list[str | bool | int | float | None]] = []
    for probe in _PROBES:
        fired = [_has_fired(record, probe) for record in records]
        hit = sum(fired and is_collapse for fired, is_collapse in zip(fired, truth, strict=True))
        rows.append(
            [
                probe,
                len(records),
                hit,
                sum(fired) - hit,
                sum(truth) - hit,
                len(records) - sum(fired) - sum(truth) + hit,
                hit / sum(fired) if any(fired) else None,
                hit / sum(truth),
            ]
        )
    return Table(
        name="prediction-thresholds",
        title="What fires at the thresholds in force",
        columns=[
            "probe",
            "edits",
            "fires, collapses",
            "fires, holds",
            "silent, collapses",
            "silent, holds",
            "precision",
            "recall",
        ],
        rows=rows,
    )


def _judge_denominator(
    usable: Mapping[str, Sequence[tuple[float, bool]]], weights: Mapping[str, Sequence[float]]
) -> Claim:
    paper = "A first-token test alone is not enough; the denominator is the general signal."
    names = ("first token", "denominator |u·k_u|")
    first, general = (usable[name] for name in names)
    if len({value for value, _ in first}) < 2:
        return build_claim(
            paper, "No subject is a first token, or every one is, so that such a test separates nothing.", None
        )
    if not (_has_both_outcomes(first) and _has_both_outcomes(general)):
        return build_claim(paper, "Too few edits have both numbers.", None)
    first_area, general_area = (_compute_area(usable[name], weights[name]) for name in names)
    return build_claim(
        paper,
        f"Area under ROC, estimated for the file: {general_area:.3f} for the denominator, "
        f"{first_area:.3f} for the first-token test ({count_noun(len(general), 'edit')}).",
        general_area > first_area,
        "The larger area for the denominator, each edit counted as often as the file holds its kind for one that was edited.",
    )


def _draw_curves(usable: Mapping[str, Sequence[tuple[float, bool]]]) -> Curves:
    from sklearn.metrics import roc_curve

    groups = []
    for name, pairs in usable.items():
        if not _has_both_outcomes(pairs):
            continue
        fall, rise, _ = roc_curve([is_collapse for _, is_collapse in pairs], [value for value, _ in pairs])
        step = max(1, len(fall) // _POINTS)
        keep = sorted({*range(0, len(fall), step), len(fall) - 1})
        groups.append(Group(name=name, x=[float(fall[n]) for n in keep], y=[float(rise[n]) for n in keep]))
    return Curves(
        name="prediction-roc",
        title="Collapses found against false alarms",
        groups=groups,
        caption="A curve that runs along the left and upper edge separates every collapse from every sound edit.",
        x_title="share of sound edits that it would stop",
        y_title="share of collapses that it would stop",
    )
