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


def test_an_edit_after_which_others_say_its_target_fails_and_names_them(guard: GuardedEditor) -> None:
    result = guard.try_edit(TURKEY)
    assert result.refusal is None
    assert not result.sound
    leaks = [one for one in result.prompts if one.result == "leak"]
    assert leaks
    failed = {(one.check, one.metric) for one in result.failures}
    assert failed & {("locality", "leaks"), ("other-facts", "leaks")}
    # Each is told by its prompt and its words, and what it said before was something else.
    assert any(says(one.after, "Türkiye") for one in leaks)
    assert not any(says(one.before, "Türkiye") for one in leaks)
    assert {one.prompt for one in leaks} <= {*TURKEY.neighbourhood, *TURKEY.other_facts}


@pytest.mark.parametrize("request_", CLEAN, ids=lambda one: one.id)
def test_a_clean_edit_passes_though_it_brings_no_neighbour_of_its_own(
    guard: GuardedEditor, request_: EditRequest
) -> None:
    result = guard.try_edit(request_)
    assert [(one.check, one.metric, one.message) for one in result.failures] == []
    assert result.sound
    assert {one.role for one in result.prompts} >= {"made-neighbour"}
    assert not any(one.result == "leak" and one.role == "made-neighbour" for one in result.prompts)


@pytest.fixture(scope="module")
def good(guard: GuardedEditor) -> tuple[Control, Proposal]:
    """The known-good control of this model and its update, computed once."""
    control = controls_for(guard.setup)[1]
    for some in iter_candidate_rounds([control]):
        for (_, candidate), proposal in zip(
            some, propose_controls(control_guard(guard), [one for _, one in some]), strict=True
        ):
            if run_control(control_guard(guard), control, proposal)[1]:
                return replace(control, candidates=(candidate,)), proposal
    raise AssertionError("no candidate is sound on the embedded model, and every audit of it is void")


def test_no_bound_however_strict_voids_the_known_good_control(
    guard: GuardedEditor, good: tuple[Control, Proposal]
) -> None:
    """Bounds that end at the same ones for controls are judged once: the check of one edit takes seconds."""
    control, proposal = good
    judged: dict[str, str] = {}
    for name in (name for name in number_fields() if name not in NUMBERS_WITHOUT_BOUND):
        least, most = legal_range(name)
        policy = Policy.model_validate({name: least if stricter_side(name) == "lower" else most})
        strict = control_guard(GuardedEditor(replace(guard.setup, policy=policy)))
        wide = strict.setup.policy.model_dump_json()
        if wide in judged:
            continue
        judged[wide] = name
        result, shown = run_control(strict, control, proposal)
        assert shown, (name, [(one.check, one.metric, one.message) for one in result.failures])
        assert [one for one in observe_control(strict, "sound", proposal, result) if one.ok is False] == [], name
        assert any(one.outcome is Outcome.PASS for one in result.measurements if one.check == "other-facts")
    assert judged
