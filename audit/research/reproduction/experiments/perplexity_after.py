"""Experiment 2: what one edit does to the model's perplexity."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .....reports.log.types import PERPLEXITY
from .....reports.reproduction.schema import Claim, Experiment, Table
from .....reports.text import count_noun
from .. import published
from ..cases import FEW, CaseKind, Cases
from ..edits import EDITORS, Edits
from ..record_figures import (
    collect_figures,
    compute_spread,
    explain_few,
    find_measurement,
    get_perplexity,
    get_perplexity_ratio,
    has_collapsed,
    select_records,
)
from .headings import build_claim, build_experiment
from .update_size import build_paper_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .....reports.log.schema import EditRecord

__all__ = ["build_forms_table", "build_perplexity_table", "compare_perplexities"]

_FORMS = {
    "mean": "mean over sentences",
    "median": "median sentence",
    "max": "worst sentence",
    "exp-mean-nll": "exp of the mean NLL of all tokens",
}
"""Title by metric in the log."""


_KEPT = 1.15
"""Perplexity ratio up to which a model counts as kept (the paper's C-ROME: at most 1.06; ROME on ordinary cases: 1.11)."""


def compare_perplexities(cases: Cases, edits: Edits, collapse_ratio: float) -> Experiment:
    """Experiment 2: perplexity before and after, rome and c-rome."""
    return build_experiment(
        2,
        claims=[
            _judge_collapse(select_records(edits, cases, "rome", CaseKind.FIRST), collapse_ratio),
            _judge_kept(
                "c-rome keeps perplexity: at most 70.71 from 68.77, 51.77 from 49.04, 33.20 from 33.18.",
                select_records(edits, cases, "c-rome", CaseKind.FIRST),
            ),
            _judge_kept(
                "rome on ordinary cases does too: at most 74.32, 50.77, 36.68.",
                select_records(edits, cases, "rome", CaseKind.ORDINARY),
            ),
        ],
        tables=[
            build_perplexity_table(cases, edits, EDITORS[:2], collapse_ratio, "perplexity-after"),
            build_forms_table(cases, edits, EDITORS[:2], "perplexity-forms"),
            build_paper_table(
                "perplexity-published", "The paper's largest perplexities", "editor", published.PERPLEXITY
            ),
        ],
        notes=[
            "Perplexity is the mean over sentences; an edit collapses the model where its ratio to the unedited one "
            f"is over {collapse_ratio:g}."
        ],
    )


def build_perplexity_table(
    cases: Cases, edits: Edits, editors: Sequence[str], collapse_ratio: float, name: str
) -> Table:
    """Return the perplexity ratios by editor and kind of case."""
    rows = []
    for editor in editors:
        for kind in CaseKind:
            records = select_records(edits, cases, editor, kind)
            if records:
                ratios, means = collect_figures(records, get_perplexity_ratio), collect_figures(records, get_perplexity)
                collapses = [
                    collapse for record in records if (collapse := has_collapsed(record, collapse_ratio)) is not None
                ]
                rows.append(
                    [
                        editor,
                        kind.value,
                        len(records),
                        len(records) - len(collapses),
                        sum(collapses),
                        *compute_spread(ratios),
                        max(means, default=None),
                    ]
                )
    return Table(
        name=name,
        title="Perplexity, edited over unedited",
        columns=[
            "editor",
            "cases",
            "edits",
            "not made",
            "collapsed",
            "ratio, least",
            "ratio, mean",
            "ratio, median",
            "ratio, largest",
            "largest perplexity",
        ],
        rows=rows,
    )


def build_forms_table(cases: Cases, edits: Edits, editors: Sequence[str], name: str) -> Table:
    """Return perplexity in its four forms by editor and kind of case, beside the unedited model's."""
    rows: list[list[str | bool | int | float | None]] = []
    for editor in editors:
        for kind in CaseKind:
            records = select_records(edits, cases, editor, kind)
            for form, title in _FORMS.items():
                measurements = [
                    measurement
                    for record in records
                    if (measurement := find_measurement(record, PERPLEXITY, form)) is not None
                ]
                values = [measurement.value for measurement in measurements if measurement.value is not None]
                if measurements:
                    rows.append(
                        [
                            editor,
                            kind.value,
                            title,
                            len(measurements),
                            len(measurements) - len(values),
                            measurements[0].baseline,
                            *compute_spread(values),
                        ]
                    )
    return Table(
        name=name,
        title="Perplexity over the sentences, in four forms",
        columns=[
            "editor",
            "cases",
            "form",
            "edits",
            "not finite",
            "unedited",
            "edited, least",
            "edited, mean",
            "edited, median",
            "edited, largest",
        ],
        rows=rows,
        note="The paper's is the mean over sentences, which one broken sentence dominates. Spread over edits, of those that are "
        "finite.",
    )


def _describe_largest(records: Sequence[EditRecord], form: str) -> str:
    """Return the largest perplexity ratio in words, with how many are not finite."""
    finite, lost = (
        collect_figures(records, get_perplexity_ratio),
        sum(has_collapsed(record, math.inf) is True for record in records),
    )
    most = f"{max(finite):{form}} times the unedited one's" if finite else "no finite value"
    return f"{most}, and not finite in {count_noun(lost, 'edit')}" if lost else most


def _judge_collapse(records: Sequence[EditRecord], collapse_ratio: float) -> Claim:
    paper = "rome destroys the model in every collapse case: perplexity up to 26084.66, 25909.24, 10574.76."
    collapses = [collapse for record in records if (collapse := has_collapsed(record, collapse_ratio)) is not None]
    if len(collapses) < FEW:
        return build_claim(paper, explain_few(len(collapses)), None)
    return build_claim(
        paper,
        f"{sum(collapses)} of {count_noun(len(collapses), 'model')} collapse, "
        f"perplexity up to {_describe_largest(records, '.5g')}; edits not made: {len(records) - len(collapses)}.",
        _holds_for_all(collapses, len(records)),
        f"The ratio of every requested edit is over {collapse_ratio:g}, or not finite.",
    )


def _judge_kept(paper: str, records: Sequence[EditRecord]) -> Claim:
    """Return the claim that perplexity is kept, judged by the largest ratio of the edits."""
    over = [collapse for record in records if (collapse := has_collapsed(record, _KEPT)) is not None]
    if len(over) < FEW:
        return build_claim(paper, explain_few(len(over)), None)
    return build_claim(
        paper,
        f"At most {_describe_largest(records, '.4f')}; over {_KEPT:g}: {sum(over)} of {count_noun(len(over), 'edit')}, "
        f"not made: {len(records) - len(over)}.",
        _holds_for_all([not is_over for is_over in over], len(records)),
        f"The ratio of every requested edit is finite, and not over {_KEPT:g}.",
    )


def _holds_for_all(holds: Sequence[bool], requested: int) -> bool | None:
    """Whether something holds for all requested edits; None where it holds for all made edits, and some were not made."""
    if not all(holds):
        return False
    return True if len(holds) == requested else None
