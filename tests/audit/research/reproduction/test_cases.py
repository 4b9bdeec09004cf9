"""Cases of a reproduction: chosen by the findings of the probes, drawn by the seed, and counted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from editguard.audit.guard import GuardedEditor
from editguard.audit.research.reproduction import cases as cases_module
from editguard.audit.research.reproduction.cases import (
    CaseKind,
    CaseSelection,
    find_cases,
    select_cases,
)
from editguard.audit.setup import Setup
from editguard.probes.errors import InputError
from editguard.probes.probe import Level

from ....helpers.reproduction_logs import LYON
from ....helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST

pytestmark = pytest.mark.tiny

MOST = dict.fromkeys(CaseKind, 10)


@pytest.fixture
def guard(setup: Setup) -> GuardedEditor:
    return GuardedEditor(setup)


def test_select_cases_denominator_probe_decides_and_kinds_are_counted(guard: GuardedEditor) -> None:
    requests = [FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, LYON, MISSING_SUBJECT_REQUEST]
    chosen = select_cases(guard, requests, MOST, {"seed": "0"})
    fires = {
        assessment.request.id
        for assessment in guard.assess_all([FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, LYON])
        if any(finding.probe == "denominator" and finding.level is Level.RISK for finding in assessment.findings)
    }
    assert {id for id, kind in chosen.kinds.items() if kind is not CaseKind.ORDINARY} == fires
    assert (chosen.probed, chosen.unusable, chosen.found[CaseKind.FIRST]) == (4, 1, 1)
    assert sum(chosen.found.values()) == 3
    assert MISSING_SUBJECT_REQUEST.id not in chosen.kinds
    assert list(chosen.kinds) == [request.id for request in requests if request.id in chosen.kinds]


def test_select_cases_ordinary_ones_are_drawn_by_the_seed(guard: GuardedEditor) -> None:
    many = [replace(MID_PROMPT_REQUEST, id=f"n{n}") for n in range(12)] + [FIRST_TOKEN_REQUEST]

    def drawn(seed: int) -> set[str]:
        selection = select_cases(
            replace(guard, setup=replace(guard.setup, seed=seed)), many, MOST | {CaseKind.ORDINARY: 5}, {}
        )
        return {id for id, kind in selection.kinds.items() if kind is CaseKind.ORDINARY}

    assert len(drawn(0)) == 5
    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    assert FIRST_TOKEN_REQUEST.id not in drawn(0)


def test_find_cases_without_any_raises_input_error(guard: GuardedEditor) -> None:
    with pytest.raises(InputError, match="nothing to reproduce"):
        find_cases(guard, [MISSING_SUBJECT_REQUEST], select_cases(guard, [MISSING_SUBJECT_REQUEST], MOST, {}))


def test_select_cases_draws_at_most_the_number_and_counts_all(guard: GuardedEditor) -> None:
    firsts = [replace(FIRST_TOKEN_REQUEST, id=f"first-{n}") for n in range(9)]
    ordinary = [replace(MID_PROMPT_REQUEST, id=f"n{n}") for n in range(9)]

    def drawn(seed: int) -> CaseSelection:
        own = replace(guard, setup=replace(guard.setup, seed=seed))
        return select_cases(own, [*firsts, *ordinary], MOST | {CaseKind.FIRST: 4}, {})

    selection = drawn(0)
    assert selection.found[CaseKind.FIRST] == 9
    assert sum(kind is CaseKind.FIRST for kind in selection.kinds.values()) == 4
    assert selection == drawn(0)
    assert selection.kinds != drawn(1).kinds
    counts = find_cases(guard, [*firsts, *ordinary], selection).counts()
    assert [(count.edited, count.found) for count in counts if count.kind == "first token"] == [(4, 9)]


def test_find_cases_keeps_an_earlier_choice_of_cases_left_out(
    guard: GuardedEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, LYON]
    chosen = select_cases(guard, requests, MOST, {}).model_copy(
        update={
            "kinds": {
                FIRST_TOKEN_REQUEST.id: CaseKind.FIRST,
                MID_PROMPT_REQUEST.id: CaseKind.ORDINARY,
                LYON.id: CaseKind.OTHER,
            }
        }
    )
    # Under all contexts the denominator probe fires at every one, and then, on another machine, at none.
    monkeypatch.setattr(cases_module, "has_small_denominator", lambda _: True)
    case_set = find_cases(guard, requests, chosen)
    assert [case.request.id for case in case_set.cases] == [FIRST_TOKEN_REQUEST.id, LYON.id]
    assert case_set.selection.left_out == [MID_PROMPT_REQUEST.id]
    monkeypatch.setattr(cases_module, "has_small_denominator", lambda _: False)
    again = find_cases(guard, requests, CaseSelection.model_validate_json(case_set.selection.model_dump_json()))
    assert [case.request.id for case in again.cases] == [FIRST_TOKEN_REQUEST.id, LYON.id]
    assert again.selection == case_set.selection
