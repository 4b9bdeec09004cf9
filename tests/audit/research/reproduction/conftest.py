"""Cases of a tiny model, and logs as the paper has them."""

from __future__ import annotations

import pytest
from editguard.audit.research.reproduction.cases import CaseKind, Cases
from editguard.audit.research.reproduction.edits import Edits
from editguard.audit.setup import Setup

from ....helpers.reproduction_logs import FIRST, ORDINARY, OTHER, build_cases, build_record


@pytest.fixture(scope="module")
def cases(setup: Setup) -> Cases:
    kinds = dict.fromkeys(FIRST, CaseKind.FIRST) | dict.fromkeys(ORDINARY, CaseKind.ORDINARY) | {OTHER: CaseKind.OTHER}
    case_set = build_cases(setup, kinds)
    assert [
        case.assessment.evidence is not None and case.assessment.evidence.keys.position.is_first_token
        for case in case_set.cases
    ] == [
        *[True] * len(FIRST),
        *[False] * (len(ORDINARY) + 1),
    ]
    return case_set


@pytest.fixture
def published() -> Edits:
    """Logs as the paper has them."""
    collapses = [
        build_record(request, 10.0 + n, denominator=0.01, first=True, fired=["denominator", "first-token"])
        for n, request in enumerate(FIRST)
    ]
    good = [build_record(request, 1.01) for request in ORDINARY]
    no_prefix = {"unprefixed": [(0.1, 0, 1), (0.2, 0, 2), (0.9, 1, 2)]}
    after_prefix = {name: [(0.95, 1, 1), (0.4, 1, 2), (0.97, 2, 2)] for name in ("family:sentence", "prefixed")}
    consistent = [build_record(request, 1.02, shares=no_prefix | after_prefix) for request in (*FIRST, *ORDINARY)]
    other = [build_record(OTHER, 1.2, denominator=0.05, fired=["denominator"])]
    return {
        "rome": {edit.id: edit for edit in (*collapses, *good, *other)},
        "c-rome": {edit.id: edit for edit in consistent},
        "prefixed": {edit.id: edit for edit in consistent},
    }
