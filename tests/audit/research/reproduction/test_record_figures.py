"""Figures of single records, and what is left out of a list of them."""

from __future__ import annotations

import pytest
from editguard.audit.research.reproduction.cases import FEW
from editguard.audit.research.reproduction.record_figures import (
    NOTHING_MEASURED,
    collect_figures,
    compute_mean_median,
    compute_spread,
    explain_few,
    get_perplexity,
    get_perplexity_ratio,
    has_collapsed,
    read_key_figure,
)

from ....helpers.reproduction_logs import LYON, build_record


def test_figures_of_a_record_are_those_of_its_measurements() -> None:
    record = build_record(LYON, 1.2, denominator=0.5)
    assert get_perplexity_ratio(record) == 1.2
    assert get_perplexity(record) == pytest.approx(120.0)
    assert read_key_figure(record, "denominator") == 0.5
    assert (has_collapsed(record, 1.1), has_collapsed(record, 1.5)) == (True, False)


def test_has_collapsed_not_finite_is_a_collapse_and_unmade_is_unknown() -> None:
    record = build_record(LYON, None)
    assert has_collapsed(record, 1.5) is True
    assert has_collapsed(record.model_copy(update={"weights": None}), 1.5) is None


def test_collect_figures_leaves_out_records_without_the_figure() -> None:
    records = [build_record(LYON, 1.2), build_record(LYON, None)]
    assert collect_figures(records, get_perplexity_ratio) == [1.2]
    assert compute_spread([]) == (None, None, None, None)
    assert compute_mean_median([1.0, 2.0, 6.0]) == (3.0, 2.0)


def test_explain_few_holds_the_counts_and_the_number_needed() -> None:
    assert explain_few(3, 0) == f"Edits of this kind that were measured: 3 and 0; at least {FEW} are needed."
    assert explain_few(0, 0) == NOTHING_MEASURED
