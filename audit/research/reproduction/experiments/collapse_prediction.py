"""Experiments 12 and 13: cases that are no first tokens, and what each probe predicts of a collapse.

Every edit is made unguarded by rome and measured, so that each probe, which looked before, can be held to what came of it. The
requests were chosen by their denominators: collapse is far more frequent among them than among edits at large.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from .....reports.log.schema import EditRecord
from .....reports.reproduction.schema import Claim, Curves, Experiment, Group, Table, edited
from .....reports.text import count_noun
from ..cases import Cases, Kind, fires
from ..edits import Edits
from ..file_estimate import in_the_file, stands_for
from ..record_figures import NONE, collapsed, norm, of, ratio
from .headings import claim, experiment

__all__ = ["other_cases", "prediction"]

_POINTS = 200
"""Points of a curve in the picture."""


class _Score(NamedTuple):
    """One number per edit, larger for more danger, and the probe whose threshold it is held to."""

    read: Callable[[EditRecord], float | None]
    probe: str | None


def _known(record: EditRecord, name: str) -> float | None:
    """Return one figure of the keys, by its name in the log."""
    value = None if record.keys is None else getattr(record.keys, name)
    return None if value is None else float(value)


def _seen(name: str, sign: int = 1) -> Callable[[EditRecord], float | None]:
    def read(record: EditRecord) -> float | None:
        value = _known(record, name)
        return None if value is None else sign * value

    return read


def _finding(probe: str) -> Callable[[EditRecord], float | None]:
    return lambda record: next((one.value for one in record.findings if one.probe == probe), None)


_SCORES: Mapping[str, _Score] = {
    "first token": _Score(_seen("first_token"), "first-token"),
    "key shift: cos(k_u, k̄)": _Score(_seen("cosine", -1), "key-shift"),
    "likeness to the sink's key": _Score(_finding("sink-key"), "sink-key"),
    "denominator |u·k_u|": _Score(_seen("denominator", -1), None),
    "ratio |u·k_u| / |u·k̄|": _Score(_seen("denominator_ratio", -1), None),
    "bound of ‖Δ‖ / ‖W‖": _Score(_seen("predicted_relative_norm"), "denominator"),
    "‖Δ‖ / ‖W‖, known before writing": _Score(norm, None),
}


_PROBES = tuple(dict.fromkeys(score.probe for score in _SCORES.values() if score.probe))


def other_cases(cases: Cases, edits: Edits, collapse_ratio: float) -> Experiment:
    """Experiment 12: requests with a small denominator whose subject is not the first token."""
    small = {
        case.request.id for case in cases.of(Kind.OTHER, Kind.BEHIND_BOS) if fires(case.seen) or case.kind is Kind.OTHER
    }
    found = [one for one in of(edits, cases, "rome", Kind.OTHER, Kind.BEHIND_BOS) if one.id in small]
    rows: list[list[str | bool | int | float | None]] = [
        [one.id, one.subject, one.prompt, _shape(one.subject), _known(one, "denominator"), _known(one, "denominator_ratio"),
         norm(one), ratio(one), collapsed(one, collapse_ratio)]
        for one in sorted(found, key=lambda one: _known(one, "denominator") or 0.0)
    ]  # fmt: skip
    return experiment(
        12,
        claims=[_other_claim(found, collapse_ratio, cases)],
        tables=[Table(
            name="other-small-denominators", title="Small denominators of subjects that are no first tokens",
            columns=["id", "subject", "prompt", "shape", "|u·k_u|", "|u·k_u| / |u·k̄|", "‖Δ‖ / ‖W‖", "perplexity ratio",
                     "collapsed"],
            rows=rows, note="Edited by rome, unguarded.",
        )],
        notes=[_probed(cases)],
    )  # fmt: skip


def _probed(cases: Cases) -> str:
    chosen, fired = cases.chosen, sum(fires(case.seen) for case in cases.of(Kind.FIRST))
    otherwise = len(chosen.kinds) - len(cases.cases)
    left_out = (
        f" Drawn, and left out since all contexts say otherwise than the screen's few: {otherwise}."
        if otherwise
        else ""
    )
    return (
        f"Requests probed: {chosen.probed}, of which {chosen.unusable} could not be. Edited: {edited(cases.counts())}; where "
        f"not all were, the seed drew them.{left_out} Of the first tokens the denominator probe fires at {fired}."
    )


def _shape(subject: str) -> str:
    words = subject.split()
    if subject.endswith("."):
        return "ends in a period"
    if any(one == two for one, two in itertools.pairwise(words)):
        return "a word twice"
    return "not Latin script" if re.search(r"[^\u0000-\u024f\u2000-\u206f]", subject) else ""


def _other_claim(found: Sequence[EditRecord], collapse_ratio: float, cases: Cases) -> Claim:
    paper = (
        "Subjects that are no first tokens collapse Llama2-7b, names that end in a period among them, so that a first-token test "
        "alone is not enough."
    )
    rule = "One that collapses the model."
    if not found:
        return claim(paper, NONE, None, rule)
    known = [one for one in found if collapsed(one, collapse_ratio) is not None]
    bad = [one for one in known if collapsed(one, collapse_ratio)]
    shapes = [shape for one in bad if (shape := _shape(one.subject))]
    return claim(
        paper,
        f"{len(bad)} of {count_noun(len(known), 'such request')} with a small denominator collapse the model, {len(shapes)} of them "
        f"of a listed shape; edits not made: {len(found) - len(known)}; requests probed: {cases.chosen.probed}.",
        bool(bad) if known else None,
        rule,
    )


def prediction(cases: Cases, edits: Edits, collapse_ratio: float) -> Experiment:
    """Experiment 13: ROC of each probe's number, precision and recall at its threshold in force."""
    outcomes = [(one, collapsed(one, collapse_ratio)) for one in of(edits, cases, "rome", *Kind)]
    found, truth = (
        [one for one, came in outcomes if came is not None],
        [came for _, came in outcomes if came is not None],
    )
    if all(truth) or not any(truth):
        return experiment(
            13,
            skipped=f"{sum(truth)} of {count_noun(len(truth), 'edit')} collapse the model, so that nothing is told from "
            "anything.",
        )
    usable = {name: _pairs(score, found, truth) for name, score in _SCORES.items()}
    stands = stands_for(cases, found)
    # Each number is missing in records of its own.
    weights = {
        name: [one for one, record in zip(stands, found, strict=True) if score.read(record) is not None]
        for name, score in _SCORES.items()
    }
    return experiment(
        13,
        tables=[_areas(usable, weights), _thresholds(found, truth), in_the_file(cases, found, truth, _PROBES, _fired)],
        claims=[_claim(usable, weights)],
        pictures=[_curves(usable)],
        notes=[f"Edited: {edited(cases.counts())}, {len(outcomes) - len(found)} of them not made and left out. Small "
               "denominators are far more frequent here than in the file, so that areas, precision and recall flatter a probe "
               "that misses ordinary edits: each of those stands for many that were not drawn, as the last table has it."],
    )  # fmt: skip


def _pairs(score: _Score, found: Sequence[EditRecord], truth: Sequence[bool]) -> list[tuple[float, bool]]:
    read = [(score.read(record), collapsed) for record, collapsed in zip(found, truth, strict=True)]
    return [(value, collapsed) for value, collapsed in read if value is not None]


def _both(pairs: Sequence[tuple[float, bool]]) -> bool:
    """Whether there are collapses and sound edits among those that have the number."""
    return len({collapsed for _, collapsed in pairs}) == 2


def _area(pairs: Sequence[tuple[float, bool]], weights: Sequence[float] | None = None) -> float:
    """Return the area under ROC; each edit counts as often as `weights` says."""
    from sklearn.metrics import roc_auc_score

    scores, labels = [value for value, _ in pairs], [collapsed for _, collapsed in pairs]
    return float(roc_auc_score(labels, scores, sample_weight=weights))


def _areas(usable: Mapping[str, Sequence[tuple[float, bool]]], weights: Mapping[str, Sequence[float]]) -> Table:
    from sklearn.metrics import average_precision_score

    rows: list[list[str | bool | int | float | None]] = []
    for name, pairs in usable.items():
        scores, labels = [value for value, _ in pairs], [collapsed for _, collapsed in pairs]
        both = _both(pairs)
        rows.append(
            [name, len(pairs), sum(labels), _area(pairs) if both else None,
             _area(pairs, weights[name]) if both else None,
             float(average_precision_score(labels, scores)) if both else None]
        )  # fmt: skip
    return Table(
        name="prediction-areas", title="How well each number ranks the edits",
        columns=["number", "edits", "collapsed", "area under ROC", "area, estimated for the file", "average precision"],
        rows=rows, note="For the file each edit counts as often as the file holds its kind for one that was edited.",
    )  # fmt: skip


def _fired(record: EditRecord, probe: str) -> bool:
    return any(one.probe == probe and one.level in ("risk", "error") for one in record.findings)


def _thresholds(found: Sequence[EditRecord], truth: Sequence[bool]) -> Table:
    rows: list[list[str | bool | int | float | None]] = []
    for probe in _PROBES:
        fires = [_fired(record, probe) for record in found]
        hit = sum(fired and collapsed for fired, collapsed in zip(fires, truth, strict=True))
        rows.append(
            [probe, len(found), hit, sum(fires) - hit, sum(truth) - hit, len(found) - sum(fires) - sum(truth) + hit,
             hit / sum(fires) if any(fires) else None, hit / sum(truth)]
        )  # fmt: skip
    return Table(
        name="prediction-thresholds", title="What fires at the thresholds in force",
        columns=["probe", "edits", "fires, collapses", "fires, holds", "silent, collapses", "silent, holds", "precision",
                 "recall"],
        rows=rows,
    )  # fmt: skip


def _claim(usable: Mapping[str, Sequence[tuple[float, bool]]], weights: Mapping[str, Sequence[float]]) -> Claim:
    paper = "A first-token test alone is not enough; the denominator is the general signal."
    names = ("first token", "denominator |u·k_u|")
    first, general = (usable[name] for name in names)
    if len({value for value, _ in first}) < 2:
        return claim(
            paper, "No subject is a first token, or every one is, so that such a test tells nothing apart.", None
        )
    if not (_both(first) and _both(general)):
        return claim(paper, "Too few edits have both numbers.", None)
    one, other = (_area(usable[name], weights[name]) for name in names)
    return claim(
        paper,
        f"Area under ROC, estimated for the file: {other:.3f} for the denominator, {one:.3f} for the first-token test "
        f"({count_noun(len(general), 'edit')}).",
        other > one,
        "The larger area for the denominator, each edit counted as often as the file holds its kind for one that was edited.",
    )


def _curves(usable: Mapping[str, Sequence[tuple[float, bool]]]) -> Curves:
    from sklearn.metrics import roc_curve

    groups = []
    for name, pairs in usable.items():
        if not _both(pairs):
            continue
        fall, rise, _ = roc_curve([collapsed for _, collapsed in pairs], [value for value, _ in pairs])
        step = max(1, len(fall) // _POINTS)
        keep = sorted({*range(0, len(fall), step), len(fall) - 1})
        groups.append(Group(name=name, x=[float(fall[n]) for n in keep], y=[float(rise[n]) for n in keep]))
    return Curves(
        name="prediction-roc", title="Collapses found against false alarms", groups=groups,
        caption="A curve that runs along the left and upper edge tells every collapse from every sound edit.",
        x_title="share of sound edits that it would stop", y_title="share of collapses that it would stop",
    )  # fmt: skip
