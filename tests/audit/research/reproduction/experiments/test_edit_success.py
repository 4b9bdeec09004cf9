"""Shares of target tokens, from logs."""

from __future__ import annotations

import pytest
from editguard.audit.research.reproduction.cases import Cases
from editguard.audit.research.reproduction.edits import Edits
from editguard.audit.research.reproduction.experiments.edit_success import (
    measure_with_prefix,
    measure_without_prefix,
)
from editguard.probes.requests.request import EditRequest
from editguard.reports.reproduction.schema import Agreement

from .....helpers.reproduction_logs import (
    FIRST,
    build_record,
    list_agreements,
    read_table,
)

pytestmark = pytest.mark.tiny


def test_edit_success_table_holds_shares_and_counts(cases: Cases, published: Edits) -> None:
    shown = read_table(measure_with_prefix(cases, published), "c-rome-with-prefix-shares")
    line = shown.query(
        "editor == 'c-rome' and cases == 'ordinary' and condition == 'a held-out sentence' and measure == 'locality'"
    ).iloc[0]
    assert (line["share of tokens, mean"], line["exact"], line["of"]) == (pytest.approx(0.97), 12, 12)


def test_edit_success_claims_hold_for_any_missing_share(cases: Cases, published: Edits) -> None:
    def without(edits: Edits, *lost: EditRequest) -> Edits:
        gone = {request.id: build_record(request, 1.02) for request in lost}
        return {**edits, "c-rome": {**edits["c-rome"], **gone}}

    # One of five without a share: 95 % of four could be as little as 76 % of five.
    experiment = measure_with_prefix(cases, without(published, FIRST[0]))
    assert list_agreements(experiment) == [Agreement.OPEN, Agreement.YES]
    assert "over 4 edits of 5;" in experiment.claims[0].here
    # Nearly nothing of four is at most 40 % of five whatever the fifth gives.
    low = {
        **published,
        "c-rome": {request.id: build_record(request, 1.02, shares={"unprefixed": [(0.1, 0, 1)]}) for request in FIRST},
    }
    assert list_agreements(measure_without_prefix(cases, without(low, FIRST[0]))) == [Agreement.YES]
    # And of three nothing is said.
    assert list_agreements(measure_without_prefix(cases, without(low, *FIRST[:2]))) == [Agreement.OPEN]
