"""Small denominators of subjects that are not first tokens."""

from __future__ import annotations

import pytest
from editguard.audit.research.reproduction.cases import Cases
from editguard.audit.research.reproduction.edits import Edits
from editguard.audit.research.reproduction.experiments.other_denominators import list_other_cases
from editguard.reports.reproduction.schema import Agreement

from .....helpers.reproduction_logs import (
    OTHER,
    build_record,
    list_agreements,
    read_table,
)

pytestmark = pytest.mark.tiny


def test_other_cases_unmade_edits_leave_the_claim_open(cases: Cases, published: Edits) -> None:
    unmade = build_record(OTHER, None).model_copy(update={"weights": None, "update": None, "measurements": []})
    experiment = list_other_cases(cases, {**published, "rome": {OTHER.id: unmade}}, 1.5)
    assert list_agreements(experiment) == [Agreement.OPEN]
    assert "edits not made: 1" in experiment.claims[0].here


def test_other_cases_are_listed_with_their_outcome(cases: Cases, published: Edits) -> None:
    experiment = list_other_cases(cases, published, 1.1)
    line = read_table(experiment, "other-small-denominators").iloc[0]
    assert (line["id"], line["perplexity ratio"], line["collapsed"]) == ("other", 1.2, True)
    assert list_agreements(experiment) == [Agreement.YES]
    assert list_agreements(list_other_cases(cases, published, 1.5)) == [Agreement.NO]
