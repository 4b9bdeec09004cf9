"""From results to log records: nothing that was not measured can look as if it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
from editguard.audit.edit_result import EditResult
from editguard.audit.guard import GuardedEditor
from editguard.audit.run.to_log import control_record, control_record_of_error, edit_record, edit_record_of_error
from editguard.audit.setup import Setup
from editguard.audit.transaction import WeightHashes
from editguard.reports.log.schema import ControlRecord, EditRecord
from editguard.suites.check import Measurement, Outcome

from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST
from ...helpers.weight_updates import get_only_figures

pytestmark = pytest.mark.tiny


@pytest.fixture(scope="module")
def made(setup: Setup) -> EditResult:
    return GuardedEditor(setup).try_edit(FIRST_TOKEN_REQUEST)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_edit_record_number_not_finite_is_null(setup: Setup, made: EditResult, value: float) -> None:
    bad = Measurement(check="efficacy", metric="efficacy", value=value, outcome=Outcome.UNMEASURED, baseline=value)
    assert made.update is not None
    figures = replace(get_only_figures(made.update), loss=value, numerator=value, denominator=value)
    changed = replace(
        made,
        measurements=(bad,),
        update=replace(made.update, figures=(figures,)),
        relative_norms={setup.site.path: value},
        sound=False,
    )
    found = edit_record(setup, changed, 0)
    assert (found.measurements[0].value, found.measurements[0].baseline) == (None, None)
    assert found.measurements[0].verdict == "unmeasured"
    assert found.update is not None
    (site,) = found.update.changes
    assert site.final_loss is site.denominator is site.relative_norm is found.update.relative_norm is None
    assert EditRecord.model_validate_json(found.model_dump_json()) == found


def test_edit_record_measurement_without_value_is_unmeasured(setup: Setup, made: EditResult) -> None:
    lying = Measurement(check="efficacy", metric="efficacy", value=None, outcome=Outcome.PASS)
    (found,) = edit_record(setup, replace(made, measurements=(lying,), sound=False), 0).measurements
    assert found.verdict == "unmeasured"


@pytest.mark.parametrize(("sound", "outcome", "verdict"), [(True, "committed", "pass"), (False, "rolled-back", "fail")])
def test_edit_record_only_sound_edit_passes(
    setup: Setup, made: EditResult, sound: bool, outcome: str, verdict: str
) -> None:
    found = edit_record(setup, replace(made, sound=sound), 3)
    assert (found.outcome, found.verdict, found.index) == (outcome, verdict, 3)


def test_edit_record_weight_not_restored_is_reported(setup: Setup, made: EditResult) -> None:
    weights = edit_record(setup, replace(made, hashes={"a.weight": WeightHashes("a", "b", "c")}), 0).weights
    assert weights is not None
    assert weights.restored_ok is False
    kept = edit_record(setup, replace(made, hashes={"a.weight": WeightHashes("a", "b", None)}), 0).weights
    assert kept is not None
    assert kept.restored_ok is None


def test_edit_record_holds_the_prefix_to_serve(setup: Setup, made: EditResult) -> None:
    served = [one for one in made.measurements if one.condition == "served"]
    assert [one.prefix for one in served] == [None]  # a random model's edit takes behind none
    assert (made.prefix, edit_record(setup, made, 0).update.prefix) == (None, None)  # type: ignore[union-attr]
    found = replace(made, measurements=(replace(served[0], prefix="\n"),))
    assert (found.prefix, edit_record(setup, found, 0).update.prefix) == ("\n", "\n")  # type: ignore[union-attr]


def test_edit_record_holds_the_whole_request(setup: Setup, made: EditResult) -> None:
    found = edit_record(setup, made, 0)
    assert (found.id, found.subject, found.prompt) == (
        FIRST_TOKEN_REQUEST.id,
        FIRST_TOKEN_REQUEST.subject,
        FIRST_TOKEN_REQUEST.prompt,
    )
    assert (found.target_new, found.target_true, found.group) == ("Istanbul", "Paris", "single-token-first")
    assert tuple(found.paraphrases) == FIRST_TOKEN_REQUEST.paraphrases
    assert tuple(found.neighbourhood) == FIRST_TOKEN_REQUEST.neighbourhood
    assert found.keys is not None
    assert found.keys.subject_point is not None
    assert 1 <= len(found.keys.prefixed_points) <= 8


def test_edit_record_refused_edit_has_reasons_and_no_weights(setup: Setup) -> None:
    found = edit_record(setup, GuardedEditor(setup).try_edit(MISSING_SUBJECT_REQUEST), 0)
    assert (found.outcome, found.verdict, found.weights, found.update) == ("refused", "refused", None, None)
    assert found.decision.reasons


def test_record_of_error_is_a_failure_with_kind_and_text(setup: Setup) -> None:
    found = edit_record_of_error(setup, MID_PROMPT_REQUEST, 2, ValueError("boom"), None)
    assert (found.outcome, found.verdict, found.error, found.index) == ("errored", "fail", "ValueError: boom", 2)
    control = control_record_of_error(setup, MID_PROMPT_REQUEST, 2, ValueError("boom"), None, expect="collapse")
    assert (control.outcome, control.ok, control.error) == ("errored", False, "ValueError: boom")
    with pytest.raises(ValueError, match="proves nothing"):
        ControlRecord.model_validate(control.model_dump() | {"ok": True})


def test_record_of_error_keeps_the_proposal(setup: Setup) -> None:
    (proposal,) = GuardedEditor(setup).propose_unguarded([(MID_PROMPT_REQUEST, "rome")])
    found = edit_record_of_error(setup, MID_PROMPT_REQUEST, 2, RuntimeError("no memory"), proposal)
    assert (found.outcome, found.verdict, found.decision.action) == ("errored", "fail", "allow")
    assert found.update is not None
    assert found.keys is not None
    assert found.findings


def test_control_record_holds_the_expected_result(setup: Setup, made: EditResult) -> None:
    found = control_record(setup, made, 0, expect="collapse", as_expected=False, observations=[])
    assert (found.kind, found.expect, found.ok) == ("control", "collapse", False)
