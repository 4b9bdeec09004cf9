"""Experiment 1: how large the updates are."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from .....reports.reproduction.schema import Claim, Experiment, Table
from .....reports.text import count_noun
from .. import published
from ..cases import FEW, CaseKind, Cases
from ..record_figures import (
    collect_figures,
    compute_mean_median,
    explain_few,
    get_denominator,
    get_numerator,
    get_relative_norm,
    select_records,
)
from .headings import build_claim, build_experiment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .....reports.log.schema import EditRecord
    from ..edits import Edits

__all__ = ["build_paper_table", "build_size_table", "compare_update_sizes"]

_SMALL = 10.0
"""How many times smaller a mean denominator must be to count as the paper's anomaly (there: 240 to 320 times)."""


def compare_update_sizes(cases: Cases, edits: Edits) -> Experiment:
    """Experiment 1: numerator and denominator, collapse and ordinary cases."""
    first, ordinary = (
        select_records(edits, cases, "rome", CaseKind.FIRST),
        select_records(edits, cases, "rome", CaseKind.ORDINARY),
    )
    return build_experiment(
        1,
        claims=[_judge_denominators(first, ordinary), _judge_numerators(first, ordinary)],
        tables=[
            build_size_table(cases, edits, ("rome", "c-rome"), "update-sizes"),
            build_paper_table(
                "update-size-published", "The paper's figures", "figure", published.NUMERATOR_DENOMINATOR
            ),
        ],
        notes=[
            "First tokens are chosen by their place, the other small denominators by the probe, the ordinary ones at random "
            "from those at which it does not fire. The other small denominators are edited by rome only; experiment 12 lists "
            "them."
        ],
    )


def build_size_table(cases: Cases, edits: Edits, editors: Sequence[str], name: str) -> Table:
    """Return numerator, denominator and relative norm by editor and kind of case."""
    rows = []
    for editor in editors:
        for kind in CaseKind:
            records = select_records(edits, cases, editor, kind)
            if not records:
                continue
            tops, bottoms, norms = (
                collect_figures(records, read) for read in (get_numerator, get_denominator, get_relative_norm)
            )
            rows.append(
                [
                    editor,
                    kind.value,
                    len(records),
                    len(bottoms),
                    *compute_mean_median(tops),
                    *compute_mean_median(bottoms),
                    *compute_mean_median(norms),
                    max(norms, default=None),
                ]
            )
    return Table(
        name=name,
        title="‖v* − Wk‖, |u·k| and ‖Δ‖ / ‖W‖",
        columns=[
            "editor",
            "cases",
            "edits",
            "measured",
            "numerator, mean",
            "numerator, median",
            "denominator, mean",
            "denominator, median",
            "relative norm, mean",
            "relative norm, median",
            "relative norm, largest",
        ],
        rows=rows,
    )


def build_paper_table(
    name: str, title: str, first: str, figures: Mapping[str, Sequence[published.PublishedPair]]
) -> Table:
    """Return figures of the paper by model, on collapse and on ordinary cases."""
    return Table(
        name=name,
        title=f"{title}, collapse / ordinary cases",
        columns=[
            first,
            *(f"{model}, {kind}" for model in published.MODELS for kind in published.PublishedPair._fields),
        ],
        rows=[[what, *(value for pair in pairs for value in pair)] for what, pairs in figures.items()],
    )


def _judge_denominators(first: Sequence[EditRecord], ordinary: Sequence[EditRecord]) -> Claim:
    paper = "|u·k_u| is far smaller in collapse cases: 0.04 / 9.60, 0.04 / 12.78, 0.01 / 2.63."
    small, large = collect_figures(first, get_denominator), collect_figures(ordinary, get_denominator)
    if min(len(small), len(large)) < FEW:
        return build_claim(paper, explain_few(len(small), len(large)), None)
    low, high = statistics.fmean(small), statistics.fmean(large)
    times = high / low if low else float("inf")
    return build_claim(
        paper,
        f"Means {low:.3g} of {len(small)} and {high:.3g} of {count_noun(len(large), 'edit')}: {times:.3g} times smaller.",
        times >= _SMALL,
        f"At least {_SMALL:g} times smaller.",
    )


def _judge_numerators(first: Sequence[EditRecord], ordinary: Sequence[EditRecord]) -> Claim:
    paper = "‖v* − Wk_u‖ is of one order of magnitude in both: 168.55 / 79.91, 140.27 / 88.69, 4.57 / 16.52."
    first_values, ordinary_values = collect_figures(first, get_numerator), collect_figures(ordinary, get_numerator)
    if min(len(first_values), len(ordinary_values)) < FEW:
        return build_claim(paper, explain_few(len(first_values), len(ordinary_values)), None)
    low, high = statistics.fmean(first_values), statistics.fmean(ordinary_values)
    same = 0.1 <= low / high <= 10 if high else False
    return build_claim(
        paper,
        f"Means {low:.3g} of {len(first_values)} and {high:.3g} of {count_noun(len(ordinary_values), 'edit')}.",
        same,
        "Within a factor of ten.",
    )
