"""Experiments 1 and 2: how large the updates are, and what one of them does to the model."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from .....reports.log.schema import EditRecord
from .....reports.log.types import PERPLEXITY
from .....reports.reproduction.schema import Claim, Experiment, Table
from .....reports.text import count_noun
from .. import published
from ..cases import FEW, Cases, Kind
from ..edits import EDITORS, Edits
from ..record_figures import (
    collapsed,
    denominator,
    few,
    figure,
    mean_median,
    measured,
    norm,
    numerator,
    of,
    perplexity,
    ratio,
    spread,
)
from .headings import claim, experiment

__all__ = ["forms_table", "kept", "perplexities", "perplexity_table", "size_table", "update_sizes"]

_SMALL = 10.0
"""How many times smaller a mean denominator must be to count as the paper's anomaly (there: 240 to 320 times)."""
_FORMS = {
    "mean": "mean over sentences",
    "median": "median sentence",
    "max": "worst sentence",
    "exp-mean-nll": "exp of the mean NLL of all tokens",
}
"""Title by metric in the log."""
_KEPT = 1.15
"""Perplexity ratio up to which a model counts as kept (the paper's C-ROME: at most 1.06; ROME on ordinary cases: 1.11)."""


def update_sizes(cases: Cases, edits: Edits) -> Experiment:
    """Experiment 1: numerator and denominator, collapse and ordinary cases."""
    first, ordinary = of(edits, cases, "rome", Kind.FIRST), of(edits, cases, "rome", Kind.ORDINARY)
    return experiment(
        1,
        claims=[_denominator_claim(first, ordinary), _numerator_claim(first, ordinary)],
        tables=[
            size_table(cases, edits, ("rome", "c-rome"), "update-sizes"),
            _published("update-size-published", "The paper's figures", "figure", published.NUMERATOR_DENOMINATOR),
        ],
        notes=[
            "First tokens are chosen by their place, the other small denominators by the probe, the ordinary ones at random "
            "from those at which it does not fire. The other small denominators are edited by rome alone; experiment 12 lists "
            "them."
        ],
    )


def size_table(cases: Cases, edits: Edits, editors: Sequence[str], name: str) -> Table:
    """Return numerator, denominator and relative norm by editor and kind of case."""
    rows = []
    for editor in editors:
        for kind in Kind:
            records = of(edits, cases, editor, kind)
            if not records:
                continue
            tops, bottoms, norms = (figure(records, read) for read in (numerator, denominator, norm))
            rows.append(
                [editor, kind.value, len(records), len(bottoms), *mean_median(tops), *mean_median(bottoms),
                 *mean_median(norms), max(norms, default=None)]
            )  # fmt: skip
    return Table(
        name=name,
        title="‖v* − Wk‖, |u·k| and ‖Δ‖ / ‖W‖",
        columns=["editor", "cases", "edits", "measured", "numerator, mean", "numerator, median", "denominator, mean",
                 "denominator, median", "relative norm, mean", "relative norm, median", "relative norm, largest"],
        rows=rows,
    )  # fmt: skip


def _published(name: str, title: str, first: str, figures: Mapping[str, Sequence[published.Pair]]) -> Table:
    return Table(
        name=name,
        title=f"{title}, collapse / ordinary cases",
        columns=[first, *(f"{model}, {kind}" for model in published.MODELS for kind in published.Pair._fields)],
        rows=[[what, *(value for pair in pairs for value in pair)] for what, pairs in figures.items()],
    )


def _denominator_claim(first: Sequence[EditRecord], ordinary: Sequence[EditRecord]) -> Claim:
    paper = "|u·k_u| is far smaller in collapse cases: 0.04 / 9.60, 0.04 / 12.78, 0.01 / 2.63."
    small, large = figure(first, denominator), figure(ordinary, denominator)
    if min(len(small), len(large)) < FEW:
        return claim(paper, few(len(small), len(large)), None)
    low, high = statistics.fmean(small), statistics.fmean(large)
    times = high / low if low else float("inf")
    return claim(
        paper,
        f"Means {low:.3g} of {len(small)} and {high:.3g} of {count_noun(len(large), 'edit')}: {times:.3g} times smaller.",
        times >= _SMALL,
        f"At least {_SMALL:g} times smaller.",
    )


def _numerator_claim(first: Sequence[EditRecord], ordinary: Sequence[EditRecord]) -> Claim:
    paper = "‖v* − Wk_u‖ is of one order of magnitude in both: 168.55 / 79.91, 140.27 / 88.69, 4.57 / 16.52."
    one, other = figure(first, numerator), figure(ordinary, numerator)
    if min(len(one), len(other)) < FEW:
        return claim(paper, few(len(one), len(other)), None)
    low, high = statistics.fmean(one), statistics.fmean(other)
    same = 0.1 <= low / high <= 10 if high else False
    return claim(
        paper,
        f"Means {low:.3g} of {len(one)} and {high:.3g} of {count_noun(len(other), 'edit')}.",
        same,
        "Within a factor of ten.",
    )


def perplexities(cases: Cases, edits: Edits, collapse_ratio: float) -> Experiment:
    """Experiment 2: perplexity before and after, rome and c-rome."""
    return experiment(
        2,
        claims=[
            _collapse_claim(of(edits, cases, "rome", Kind.FIRST), collapse_ratio),
            kept("c-rome keeps perplexity: at most 70.71 from 68.77, 51.77 from 49.04, 33.20 from 33.18.",
                        of(edits, cases, "c-rome", Kind.FIRST)),
            kept("rome on ordinary cases does too: at most 74.32, 50.77, 36.68.",
                        of(edits, cases, "rome", Kind.ORDINARY)),
        ],
        tables=[perplexity_table(cases, edits, EDITORS[:2], collapse_ratio, "perplexity-after"),
            forms_table(cases, edits, EDITORS[:2], "perplexity-forms"),
            _published("perplexity-published", "The paper's largest perplexities", "editor", published.PERPLEXITY)],
        notes=["Perplexity is the mean over sentences; an edit collapses the model where its ratio to the unedited one "
               f"is over {collapse_ratio:g}."],
    )  # fmt: skip


def perplexity_table(cases: Cases, edits: Edits, editors: Sequence[str], collapse_ratio: float, name: str) -> Table:
    """Return the perplexity ratios by editor and kind of case."""
    rows = []
    for editor in editors:
        for kind in Kind:
            records = of(edits, cases, editor, kind)
            if records:
                ratios, means = figure(records, ratio), figure(records, perplexity)
                known = [found for record in records if (found := collapsed(record, collapse_ratio)) is not None]
                rows.append(
                    [
                        editor,
                        kind.value,
                        len(records),
                        len(records) - len(known),
                        sum(known),
                        *spread(ratios),
                        max(means, default=None),
                    ]
                )
    return Table(
        name=name,
        title="Perplexity, edited over unedited",
        columns=["editor", "cases", "edits", "not made", "collapsed", "ratio, least", "ratio, mean", "ratio, median",
                 "ratio, largest", "largest perplexity"],
        rows=rows,
    )  # fmt: skip


def forms_table(cases: Cases, edits: Edits, editors: Sequence[str], name: str) -> Table:
    """Return perplexity in its four forms by editor and kind of case, beside the unedited model's."""
    rows: list[list[str | bool | int | float | None]] = []
    for editor in editors:
        for kind in Kind:
            records = of(edits, cases, editor, kind)
            for form, title in _FORMS.items():
                found = [one for record in records if (one := measured(record, PERPLEXITY, form)) is not None]
                values = [one.value for one in found if one.value is not None]
                if found:
                    rows.append([editor, kind.value, title, len(found), len(found) - len(values), found[0].baseline,
                                 *spread(values)])  # fmt: skip
    return Table(
        name=name,
        title="Perplexity over the sentences, in four forms",
        columns=["editor", "cases", "form", "edits", "not finite", "unedited", "edited, least", "edited, mean",
                 "edited, median", "edited, largest"],
        rows=rows,
        note="The paper's is the mean over sentences, which one broken sentence dominates. Spread over edits, of those that are "
        "finite.",
    )  # fmt: skip


def _largest(records: Sequence[EditRecord], form: str) -> str:
    """Return the largest perplexity ratio in words, with how many are not finite."""
    finite, lost = figure(records, ratio), sum(collapsed(one, math.inf) is True for one in records)
    most = f"{max(finite):{form}} times the unedited one's" if finite else "no finite value"
    return f"{most}, and not finite in {count_noun(lost, 'edit')}" if lost else most


def _collapse_claim(records: Sequence[EditRecord], collapse_ratio: float) -> Claim:
    paper = "rome destroys the model in every collapse case: perplexity up to 26084.66, 25909.24, 10574.76."
    known = [found for record in records if (found := collapsed(record, collapse_ratio)) is not None]
    if len(known) < FEW:
        return claim(paper, few(len(known)), None)
    return claim(
        paper,
        f"{sum(known)} of {count_noun(len(known), 'model')} collapse, perplexity up to {_largest(records, '.5g')}; "
        f"edits not made: {len(records) - len(known)}.",
        _all(known, len(records)),
        f"The ratio of every edit that was asked for is over {collapse_ratio:g}, or not finite.",
    )


def kept(paper: str, records: Sequence[EditRecord]) -> Claim:
    """Hold "perplexity is kept" to the largest ratio of some edits."""
    over = [found for record in records if (found := collapsed(record, _KEPT)) is not None]
    if len(over) < FEW:
        return claim(paper, few(len(over)), None)
    return claim(
        paper,
        f"At most {_largest(records, '.4f')}; over {_KEPT:g}: {sum(over)} of {count_noun(len(over), 'edit')}, "
        f"not made: {len(records) - len(over)}.",
        _all([not one for one in over], len(records)),
        f"The ratio of every edit that was asked for is finite, and not over {_KEPT:g}.",
    )


def _all(holds: Sequence[bool], asked: int) -> bool | None:
    """Whether something holds of all edits that were asked for; None where it does of all that were made, and some were not."""
    if not all(holds):
        return False
    return True if len(holds) == asked else None
