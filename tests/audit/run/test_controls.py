"""Controls: what is chosen for a model, and when a control has shown what it must."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from editguard.audit.edit_result import Proposal
from editguard.audit.editors.base import compute_updates
from editguard.audit.editors.update import WeightUpdate
from editguard.audit.folders.file_names import LOG
from editguard.audit.guard import GuardedEditor
from editguard.audit.policy import Policy
from editguard.audit.run import execute as making
from editguard.audit.run.audit import run_audit
from editguard.audit.run.controls import (
    Candidate,
    Control,
    control_guard,
    controls_for,
    iter_candidate_rounds,
    propose_controls,
    run_control,
)
from editguard.audit.setup import Setup
from editguard.probes.keys.subject_keys import locate
from editguard.probes.model.fingerprint import hash_tensors
from editguard.probes.requests.prompt_subjects import select_neighbours, select_paraphrases
from editguard.probes.requests.request import EditRequest
from editguard.reports.log.file import read_log
from editguard.suites.builtin import load_control_candidates
from editguard.suites.check import Measurement, Outcome

from ...helpers.tiny_audits import load_edits
from ...helpers.tiny_models import long_tokenizer as tokenizer
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST, lenient

pytestmark = pytest.mark.tiny


def test_controls_for_first_token_model_are_rome_and_ordinary(setup: Setup) -> None:
    bad, good = controls_for(setup)
    (broken,) = bad.candidates
    assert (broken.editor, bad.expect) == ("rome", "collapse")
    assert locate(setup.lm, broken.request).is_first_token
    assert bad.id.startswith("control-bad-")
    assert (good.id, good.expect) == ("control-good", "sound")
    assert len({one.request.subject for one in good.candidates}) > 1
    assert not any(locate(setup.lm, one.request).is_first_token for one in good.candidates)
    # The published editor is tried on all of them before another one is.
    half = len(good.candidates) // 2
    assert [one.editor for one in good.candidates] == ["local"] * half + ["prefixed"] * half
    assert [one.request for one in good.candidates[:half]] == [one.request for one in good.candidates[half:]]
    for control in (bad, good):
        assert {one.request.id for one in control.candidates} == {control.id}


def test_controls_for_model_with_bos_use_the_exploded_editor(setup: Setup) -> None:
    with_bos = replace(setup, lm=replace(setup.lm, tokenizer=tokenizer(bos=True)))
    bad, good = controls_for(with_bos)
    assert [(control.candidates[0].editor, control.expect) for control in (bad, good)] == [
        ("exploded", "collapse"),
        ("local", "sound"),
    ]
    assert bad.id != good.id


def test_good_control_candidates_suit_every_check() -> None:
    for one in load_control_candidates():
        assert one.target_true
        assert select_neighbours(one)
        assert select_paraphrases(one)


def test_exploded_update_is_the_published_one_300_times(setup: Setup) -> None:
    plain, blown = compute_updates(setup.edit_context, [("rome", MID_PROMPT_REQUEST), ("exploded", MID_PROMPT_REQUEST)])
    assert isinstance(plain, WeightUpdate)
    assert isinstance(blown, WeightUpdate)
    assert blown.norm == pytest.approx(300 * plain.norm)


def one_of(request: EditRequest, editor: str, expect: Any) -> Control:
    return Control(request.id, (Candidate(request, editor),), expect)


def measured(value: float | None, outcome: Outcome, metric: str = "ratio") -> Measurement:
    return Measurement(check="perplexity", metric=metric, value=value, outcome=outcome, condition="corpus")


RATIO = [
    ("collapse", [measured(1000.0, Outcome.FAIL)], False, True),
    ("collapse", [measured(1.4, Outcome.FAIL)], False, False),
    ("collapse", [measured(1000.0, Outcome.FAIL)], True, False),
    ("collapse", [measured(1.0, Outcome.PASS)], True, False),
    # The bound itself is no collapse, and another check's ratio none of the perplexity.
    ("collapse", [measured(1.5, Outcome.FAIL)], False, False),
    ("collapse", [replace(measured(1000.0, Outcome.FAIL), check="degeneracy")], False, False),
    # Not a number is a collapse too; a check that gives nothing else fails the known-good control.
    ("collapse", [measured(None, Outcome.UNMEASURED)], False, True),
    # Perplexity was not looked at, so nothing was seen.
    ("collapse", [], False, False),
    ("collapse", [measured(1000.0, Outcome.INFO, "max")], False, False),
    ("sound", [measured(1.0, Outcome.PASS)], True, True),
    ("sound", [measured(1.0, Outcome.PASS)], False, False),
    ("sound", [], False, False),
]


@pytest.mark.parametrize(("expect", "measurements", "sound", "ok"), RATIO)
def test_run_control_is_ok_only_if_measured(
    setup: Setup, expect: Any, measurements: list[Measurement], sound: bool, ok: bool
) -> None:
    strict = replace(setup, policy=lenient(collapse_ratio=1.5))
    result = SimpleNamespace(measurements=measurements, sound=sound)
    guard = SimpleNamespace(setup=strict, try_proposal=lambda proposal: result)
    made = cast("Proposal", None)
    assert run_control(cast("GuardedEditor", guard), one_of(FIRST_TOKEN_REQUEST, "rome", expect), made) == (result, ok)


def test_control_guard_has_the_wider_bounds(setup: Setup) -> None:
    asked = Policy(min_locality=1.0, max_relative_update=0.01, max_perplexity_ratio=1.2, collapse_ratio=3.0)
    policy = control_guard(GuardedEditor(replace(setup, policy=asked))).setup.policy
    assert (policy.min_locality, policy.max_relative_update) == (Policy().min_locality, Policy().max_relative_update)
    assert (policy.max_perplexity_ratio, policy.collapse_ratio) == (1.2, 3.0)


def test_run_control_restores_the_weights(setup: Setup) -> None:
    before = hash_tensors(setup.lm.model)
    guard, control = GuardedEditor(setup), one_of(FIRST_TOKEN_REQUEST, "exploded", "collapse")
    (made,) = propose_controls(guard, control.candidates)
    result, _ = run_control(guard, control, made)
    assert result.update is not None
    assert result.measurements
    assert hash_tensors(setup.lm.model) == before


# ---------------------------------------------------------------------------------------------------- candidates in turn


def candidates(*names: tuple[EditRequest, str]) -> Control:
    return Control(
        "control-good", tuple(Candidate(replace(one, id="control-good"), editor) for one, editor in names), "sound"
    )


def test_candidate_rounds_begin_with_the_first_of_each() -> None:
    bad = candidates((FIRST_TOKEN_REQUEST, "exploded"))
    good = candidates(*((replace(MID_PROMPT_REQUEST, target_new=str(number)), "rome") for number in range(8)))
    chunks = [
        [(control is good, one.request.target_new) for control, one in some]
        for some in iter_candidate_rounds([bad, good])
    ]
    assert chunks == [
        [(False, FIRST_TOKEN_REQUEST.target_new), (True, "0")],
        [(True, str(number)) for number in range(1, 5)],
        [(True, str(number)) for number in range(5, 8)],
    ]


@pytest.fixture
def bounded(setup: Setup) -> GuardedEditor:
    """A guard whose bound on the update an exploded edit breaks, and an ordinary one keeps."""
    return GuardedEditor(replace(setup, policy=lenient(max_relative_update=10, controls=True)))


@pytest.mark.parametrize(
    ("unfit", "named"),
    [
        # One that is made and is not sound, and ones that cannot be made at all.
        ([(MID_PROMPT_REQUEST, "exploded")], ["France by exploded"]),
        ([(MISSING_SUBJECT_REQUEST, "rome")], ["Berlin by rome"]),
        (
            [
                (MISSING_SUBJECT_REQUEST, "rome"),
                (MID_PROMPT_REQUEST, "exploded"),
                (MISSING_SUBJECT_REQUEST, "prefixed"),
            ],
            ["Berlin by rome", "France by exploded", "Berlin by prefixed"],
        ),
        ([], []),
    ],
)
def test_control_records_first_sound_candidate_is_taken(
    bounded: GuardedEditor, unfit: list[tuple[EditRequest, str]], named: list[str]
) -> None:
    before = hash_tensors(bounded.setup.lm.model)
    control = candidates(*unfit, (MID_PROMPT_REQUEST, "rome"), (FIRST_TOKEN_REQUEST, "rome"))
    (record,) = making.iter_control_records(bounded, [control])
    assert (record.ok, record.verdict, record.id) == (True, "pass", "control-good")
    assert (record.subject, record.decision.editor) == ("France", "rome")
    assert record.tried == named
    assert hash_tensors(bounded.setup.lm.model) == before


def test_control_records_without_sound_candidate_name_all(bounded: GuardedEditor) -> None:
    (record,) = making.iter_control_records(
        bounded, [candidates((MID_PROMPT_REQUEST, "exploded"), (MISSING_SUBJECT_REQUEST, "rome"))]
    )
    assert (record.ok, record.verdict, record.subject) == (False, "fail", "France")
    assert record.tried == ["France by exploded", "Berlin by rome"]
    assert any(one.check == "drift" and one.verdict == "fail" for one in record.measurements)
    # One that ended in an error is a control that did not show what it must, too.
    (record,) = making.iter_control_records(
        bounded, [candidates((MISSING_SUBJECT_REQUEST, "rome"), (MID_PROMPT_REQUEST, "exploded"))]
    )
    assert (record.ok, record.outcome, record.tried) == (False, "errored", ["Berlin by rome", "France by exploded"])


def test_control_records_keep_the_order_of_controls(bounded: GuardedEditor) -> None:
    bad = Control("control-bad", (Candidate(replace(FIRST_TOKEN_REQUEST, id="control-bad"), "exploded"),), "collapse")
    good = candidates((MISSING_SUBJECT_REQUEST, "rome"), (MID_PROMPT_REQUEST, "rome"))
    records = [*making.iter_control_records(bounded, [good, bad])]
    assert [(one.id, one.index, one.expect) for one in records] == [
        ("control-good", 0, "sound"),
        ("control-bad", 1, "collapse"),
    ]
    assert records[0].ok


@pytest.fixture
def unfit_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first candidate's update is far over any bound."""
    monkeypatch.setattr("editguard.audit.run.controls._EDITORS", ("exploded", "rome"))
    monkeypatch.setattr("editguard.audit.run.controls.load_control_candidates", lambda: load_control_candidates()[:1])


@pytest.mark.usefixtures("unfit_first")
def test_audit_names_the_candidates_that_were_tried(bounded: GuardedEditor, tmp_path: Path) -> None:
    summary = run_audit(bounded.setup, load_edits(MID_PROMPT_REQUEST), tmp_path)
    good = read_log(tmp_path / LOG).controls[1]
    (subject,) = {one.subject for one in load_control_candidates()[:1]}
    assert (good.ok, good.decision.editor, good.tried) == (True, "rome", [f"{subject} by exploded"])
    assert not any("control-good" in reason for reason in summary.reasons)


@pytest.mark.usefixtures("unfit_first")
def test_audit_without_sound_candidate_is_void(
    bounded: GuardedEditor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editguard.audit.run.controls._EDITORS", ("exploded",))
    summary = run_audit(bounded.setup, load_edits(MID_PROMPT_REQUEST), tmp_path)
    assert (summary.verdict, summary.exit_code) == ("void", 1)
    (subject,) = {one.subject for one in load_control_candidates()[:1]}
    assert any("control-good" in reason for reason in summary.reasons)
    good = read_log(tmp_path / LOG).controls[1]
    assert (good.ok, good.tried) == (False, [f"{subject} by exploded"])
