"""How well probes predict a collapse, from logs."""

from __future__ import annotations

import pytest
from editguard.audit.research.reproduction.cases import Cases
from editguard.audit.research.reproduction.edits import Edits
from editguard.audit.research.reproduction.experiments.collapse_prediction import measure_prediction
from editguard.reports.reproduction.schema import Agreement

from .....helpers.reproduction_logs import (
    ORDINARY,
    OTHER,
    build_record,
    list_agreements,
    read_table,
)

pytestmark = pytest.mark.tiny


def test_prediction_counts_each_edit_by_probe_and_outcome(cases: Cases, published: Edits) -> None:
    experiment = measure_prediction(cases, published, 1.5)
    by_probe = read_table(experiment, "prediction-thresholds").set_index("probe")
    columns = ["fires, collapses", "fires, holds", "silent, collapses", "silent, holds"]
    assert by_probe.loc["denominator", columns].tolist() == [5, 1, 0, 6]
    assert by_probe.loc["first-token", columns].tolist() == [5, 0, 0, 7]
    assert by_probe.loc["sink-key", columns].tolist() == [0, 0, 5, 7]
    assert by_probe.loc["denominator", "precision"] == pytest.approx(5 / 6)
    areas = read_table(experiment, "prediction-areas").set_index("number")
    assert areas.loc["denominator |u·k_u|", "area under ROC"] == 1.0
    assert areas.loc["key shift: cos(k_u, k̄)", "area under ROC"] == 0.5
    # All 5 first tokens collapse, and none of the 6 ordinary edits, of which each stands for 15 / 6.
    assert areas.loc["first token", "area under ROC"] == 1.0
    assert areas.loc["first token", "area, estimated for the file"] == 1.0


def test_prediction_areas_weigh_edits_by_their_share_of_the_file(cases: Cases, published: Edits) -> None:
    """One ordinary edit collapses as well: it stands for 2.5 of the file, and the first-token test misses it."""
    bad = build_record(ORDINARY[0], 9.0, denominator=5.0)
    edits = {**published, "rome": {**published["rome"], ORDINARY[0].id: bad}}
    areas = read_table(measure_prediction(cases, edits, 1.5), "prediction-areas").set_index("number")
    line = areas.loc["first token"]
    # Caught 5 of 6 collapses, or 5 of 7.5; what is not caught ties with every sound edit.
    assert line["area under ROC"] == pytest.approx((5 + 1 / 2) / 6)
    assert line["area, estimated for the file"] == pytest.approx((5 + 2.5 / 2) / 7.5)


def test_prediction_not_finite_is_a_collapse_and_unmade_is_left_out(cases: Cases, published: Edits) -> None:
    gone = build_record(ORDINARY[0], None).model_copy(update={"weights": None})
    edits = {**published, "rome": {**published["rome"], OTHER.id: build_record(OTHER, None), ORDINARY[0].id: gone}}
    line = read_table(measure_prediction(cases, edits, 1.5), "prediction-areas").iloc[0]
    assert (line["edits"], line["collapsed"]) == (11, 6)


def test_prediction_without_both_outcomes_is_skipped(cases: Cases, published: Edits) -> None:
    assert "0 of 12 edits collapse" in str(measure_prediction(cases, published, 1e9).skipped)


def test_prediction_without_first_tokens_leaves_the_claim_open(cases: Cases, published: Edits) -> None:
    rome = {
        id: edit.model_copy(update={"keys": edit.keys and edit.keys.model_copy(update={"first_token": False})})
        for id, edit in published["rome"].items()
    }
    experiment = measure_prediction(cases, {**published, "rome": rome}, 1.5)
    assert list_agreements(experiment) == [Agreement.OPEN]
