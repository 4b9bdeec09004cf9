"""Counts for the whole file, estimated from the cases that were drawn."""

from __future__ import annotations

import pytest
from editguard.audit.research.reproduction.cases import Cases
from editguard.audit.research.reproduction.edits import Edits
from editguard.audit.research.reproduction.experiments.collapse_prediction import measure_prediction
from editguard.audit.research.reproduction.file_estimate import estimate_count
from scipy import stats

from ....helpers.reproduction_logs import FIRST, ORDINARY, build_record, read_table

pytestmark = pytest.mark.tiny


def test_file_table_drawn_case_counts_for_cases_not_drawn(cases: Cases, published: Edits) -> None:
    """15 ordinary requests are held, 6 were edited, one of which collapses unseen by any probe."""
    silent = {**published, "rome": {**published["rome"], ORDINARY[0].id: build_record(ORDINARY[0], 9.0)}}
    line = (
        read_table(measure_prediction(cases, silent, 1.5), "prediction-in-the-file")
        .set_index("probe")
        .loc["denominator"]
    )
    assert line["collapses caught"] == len(FIRST)
    assert line["collapses missed"] == pytest.approx(15 / 6)
    assert line["recall"] == pytest.approx(5 / 7.5)
    low, high = stats.beta.ppf([0.025, 0.975], [1, 2], [6, 5])
    assert (line["collapses missed, least"], line["collapses missed, most"]) == (1, pytest.approx(min(10, 15 * high)))
    assert 15 * low < 1, "one that was seen is one"
    assert line["recall, least"] == pytest.approx(5 / (5 + min(10, 15 * high)))


def test_file_table_cases_left_out_are_not_estimated(cases: Cases, published: Edits) -> None:
    """Of the ordinary ones drawn two look otherwise under all contexts, and are no longer among the 15."""
    remaining_cases = tuple(case for case in cases.cases if case.request not in ORDINARY[1:3])
    chosen = cases.selection.model_copy(update={"left_out": [request.id for request in ORDINARY[1:3]]})
    silent = {**published, "rome": {**published["rome"], ORDINARY[0].id: build_record(ORDINARY[0], 9.0)}}
    for gone in ORDINARY[1:3]:
        del silent["rome"][gone.id]
    experiment = measure_prediction(Cases(remaining_cases, chosen), silent, 1.5)
    line = read_table(experiment, "prediction-in-the-file").set_index("probe").loc["denominator"]
    assert line["collapses missed"] == pytest.approx(15 * 4 / 6 / 4)
    assert any("2 of the" in str(table.note) for table in experiment.tables)


def test_estimate_count_nothing_drawn_is_unknown() -> None:
    assert estimate_count(0, 0, 40) == (None, 0.0, 40.0)
    assert estimate_count(0, 0, 0) == (0.0, 0.0, 0.0)
