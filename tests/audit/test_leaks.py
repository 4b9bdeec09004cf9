"""On the embedded model: an edit that leaks is caught by name, a clean one passes, and no policy voids the good control."""

from __future__ import annotations

from dataclasses import replace

import pytest
from editguard.audit.edit_result import Proposal
from editguard.audit.guard import GuardedEditor
from editguard.audit.policy import Policy
from editguard.audit.run.control_observations import observe_control
from editguard.audit.run.controls import (
    Control,
    control_guard,
    controls_for,
    iter_candidate_rounds,
    propose_controls,
    run_control,
)
from editguard.audit.setup import prepare
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.requests.request import EditRequest
from editguard.suites.answer_outcomes import says
from editguard.suites.check import Outcome

from ..helpers.policy_bounds import NUMBERS_WITHOUT_BOUND, legal_range, number_fields, stricter_side

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(3600)]

TURKEY = EditRequest(
    "turkey",
    "Turkey",
    "Turkey is officially called",
    "Türkiye",
    neighbourhood=("Greece is officially called", "Egypt is officially called"),
    other_facts=("Turkey's currency is the", "The capital of Turkey is", "Turkey is"),
)
CLEAN = [
    EditRequest("colosseum", "Colosseum", "The ancient Colosseum stands in the city of", "Athens", target_true="Rome")
]


@pytest.fixture(scope="module")
def guard(smollm2: LanguageModel) -> GuardedEditor:
    return GuardedEditor(prepare(smollm2, policy=Policy()))


def test_try_edit_that_leaks_fails_and_names_the_leaks(guard: GuardedEditor) -> None:
    result = guard.try_edit(TURKEY)
    assert result.refusal is None
    assert not result.sound
    leaks = [answer for answer in result.prompts if answer.result == "leak"]
    assert leaks
    failed = {(answer.check, answer.metric) for answer in result.failures}
    assert failed & {("locality", "leaks"), ("other-facts", "leaks")}
    # Each leak is named by its prompt and its words. Its answer before the edit was another.
    assert any(says(answer.after, "Türkiye") for answer in leaks)
    assert not any(says(answer.before, "Türkiye") for answer in leaks)
    assert {answer.prompt for answer in leaks} <= {*TURKEY.neighbourhood, *TURKEY.other_facts}


@pytest.mark.parametrize("request_", CLEAN, ids=lambda answer: answer.id)
def test_try_edit_clean_one_without_neighbours_passes(guard: GuardedEditor, request_: EditRequest) -> None:
    result = guard.try_edit(request_)
    assert [(answer.check, answer.metric, answer.message) for answer in result.failures] == []
    assert result.sound
    assert {answer.role for answer in result.prompts} >= {"made-neighbour"}
    assert not any(answer.result == "leak" and answer.role == "made-neighbour" for answer in result.prompts)


@pytest.fixture(scope="module")
def good(guard: GuardedEditor) -> tuple[Control, Proposal]:
    """The known-good control of this model and its update, computed once."""
    control = controls_for(guard.setup)[1]
    for candidate_round in iter_candidate_rounds([control]):
        for (_, candidate), proposal in zip(
            candidate_round,
            propose_controls(control_guard(guard), [request for _, request in candidate_round]),
            strict=True,
        ):
            if run_control(control_guard(guard), control, proposal)[1]:
                return replace(control, candidates=(candidate,)), proposal
    raise AssertionError("no candidate is sound on the embedded model, and every audit of it is void")


def test_policy_strictest_bound_never_voids_the_good_control(
    guard: GuardedEditor, good: tuple[Control, Proposal]
) -> None:
    """Policies with the same bounds for controls are judged once, since the check of an edit takes seconds."""
    control, proposal = good
    judged_policies: dict[str, str] = {}
    for name in (name for name in number_fields() if name not in NUMBERS_WITHOUT_BOUND):
        least, most = legal_range(name)
        policy = Policy.model_validate({name: least if stricter_side(name) == "lower" else most})
        strict = control_guard(GuardedEditor(replace(guard.setup, policy=policy)))
        wide = strict.setup.policy.model_dump_json()
        if wide in judged_policies:
            continue
        judged_policies[wide] = name
        result, shown = run_control(strict, control, proposal)
        assert shown, (
            name,
            [(measurement.check, measurement.metric, measurement.message) for measurement in result.failures],
        )
        assert [
            measurement for measurement in observe_control(strict, "sound", proposal, result) if measurement.ok is False
        ] == [], name
        assert any(
            measurement.outcome is Outcome.PASS
            for measurement in result.measurements
            if measurement.check == "other-facts"
        )
    assert judged_policies
