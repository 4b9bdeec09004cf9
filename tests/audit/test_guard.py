"""The guarded editor: it asks before it edits, keeps what is sound, and leaves everything else as it was."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from editguard.audit import GuardedEditor as Public
from editguard.audit.guard import GuardedEditor
from editguard.audit.policy import Action, Policy
from editguard.audit.setup import Setup, UneditedStates
from editguard.probes.errors import EditguardError, InputError, PolicyError
from editguard.probes.model.fingerprint import hash_tensor, hash_tensors
from editguard.probes.model.site import find_site
from editguard.probes.probe import MEASUREMENT_SOURCE, Level
from editguard.probes.requests.request import EditRequest
from editguard.probes.screen import Margins
from editguard.suites.check import CheckResult, Outcome
from editguard.suites.checks.accumulated_drift import AccumulatedDrift
from editguard.suites.checks.drift import Drift

from ..helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST, lenient
from ..helpers.weight_updates import get_only_hashes

pytestmark = pytest.mark.tiny


@pytest.fixture
def guard(setup: Setup) -> Iterator[GuardedEditor]:
    """A guard over the shared tiny model, whose weight is put back if a test keeps an edit."""
    original = setup.site.weight.detach().clone()
    try:
        yield GuardedEditor(setup)
    finally:
        with torch.no_grad():
            setup.site.weight.copy_(original)


def under(guard: GuardedEditor, **changes: object) -> GuardedEditor:
    return replace(guard, setup=replace(guard.setup, policy=lenient(**changes)))


def hashes(guard: GuardedEditor) -> dict[str, str]:
    return hash_tensors(guard.setup.lm.model)


def test_assess_changes_nothing_and_reports_every_probe(guard: GuardedEditor) -> None:
    before = hashes(guard)
    first, middle = guard.assess(FIRST_TOKEN_REQUEST), guard.assess(MID_PROMPT_REQUEST)
    assert hashes(guard) == before
    assert first.decision.action is Action.REWRITE
    assert middle.decision.action is Action.ALLOW
    fired = {finding.probe for finding in first.findings if finding.level is Level.RISK}
    assert {"first-token", "denominator"} <= fired
    assert {finding.level for finding in middle.findings} == {Level.OK}


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by a second whenever the guard reads it."""
    seconds = itertools.count()
    monkeypatch.setattr("editguard.audit.guard.time", SimpleNamespace(monotonic=lambda: float(next(seconds))))


@pytest.mark.usefixtures("ticking")
def test_seconds_sum_over_the_stages_of_an_edit(guard: GuardedEditor) -> None:
    (assessment,) = guard.assess_all([MID_PROMPT_REQUEST])
    assert assessment.seconds == 2  # the measurement and the probes
    (proposal,) = guard.propose([assessment])
    assert proposal.seconds == 3
    assert guard.try_proposal(proposal).seconds == 4


@pytest.mark.usefixtures("ticking")
def test_seconds_of_a_batch_are_shared_among_computed_edits(guard: GuardedEditor) -> None:
    requests = [MISSING_SUBJECT_REQUEST, MID_PROMPT_REQUEST, FIRST_TOKEN_REQUEST]
    assessments = guard.assess_all(requests)
    assert [assessment.seconds for assessment in assessments] == [pytest.approx(1 / 3 + 1)] * 3
    proposals = guard.propose(assessments)
    shares = [proposal.seconds - proposal.assessment.seconds for proposal in proposals]
    assert shares == [0, pytest.approx(0.5), pytest.approx(0.5)]


@pytest.mark.parametrize(
    "request_",
    [
        MISSING_SUBJECT_REQUEST,
        EditRequest("twice", "France", "France and France is", "Istanbul"),
        EditRequest("none", "", "The capital of France is", "Istanbul"),
        EditRequest("target", "France", "The capital of France is", ""),
    ],
    ids=lambda request: request.id,
)
def test_assess_bad_request_is_refused(guard: GuardedEditor, request_: EditRequest) -> None:
    before = hashes(guard)
    result = guard.edit(request_)
    assert result.decision.action is Action.REFUSE
    assert result.refusal
    assert not result.kept
    assert not result.sound
    assert result.hashes is None
    assert hashes(guard) == before


def with_margins(guard: GuardedEditor, margins: Margins) -> GuardedEditor:
    calibration = replace(guard.setup.calibration, margins=margins)
    return replace(guard, setup=replace(guard.setup, calibration=calibration))


def test_screen_decides_alike_under_few_contexts(guard: GuardedEditor) -> None:
    requests = [FIRST_TOKEN_REQUEST, MISSING_SUBJECT_REQUEST, MID_PROMPT_REQUEST]
    exact = guard.assess_all(requests)
    screened = with_margins(guard, Margins(0.0, 0.0, 0.0)).assess_all(requests, screen=True)
    assert [assessment.decision.action for assessment in screened] == [
        assessment.decision.action for assessment in exact
    ]
    for few, full in ((screened[0], exact[0]), (screened[2], exact[2])):
        assert few.evidence is not None
        assert full.evidence is not None
        assert len(few.evidence.keys.keys) < len(full.evidence.keys.keys)
    assert screened[1].evidence is None


@pytest.mark.parametrize("wide", [math.inf, math.nan, 1e6])
def test_screen_useless_margins_measure_exactly(guard: GuardedEditor, wide: float) -> None:
    requests = [FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST]
    exact = guard.assess_all(requests)
    for margins in (
        Margins(wide, 0.0, 0.0),
        Margins(0.0, wide, 0.0),
        Margins(0.0, 0.0, wide),
        Margins(wide, wide, wide),
    ):
        screened = with_margins(guard, margins).assess_all(requests, screen=True)
        assert [assessment.findings for assessment in screened] == [assessment.findings for assessment in exact]
        assert [assessment.decision for assessment in screened] == [assessment.decision for assessment in exact]


def test_screen_unsettled_case_is_measured_exactly(guard: GuardedEditor) -> None:
    doubtful = with_margins(guard, Margins(50.0, 50.0, 2.0))
    (exact,), (screened,) = (
        guard.assess_all([MID_PROMPT_REQUEST]),
        doubtful.assess_all([MID_PROMPT_REQUEST], screen=True),
    )
    assert exact.evidence is not None
    assert screened.evidence is not None
    assert len(screened.evidence.keys.keys) == len(exact.evidence.keys.keys)
    assert screened.decision == exact.decision
    assert screened.findings == exact.findings
    # The same holds for another criterion, though the decision is the same.
    (assessment,) = doubtful.assess_all(
        [FIRST_TOKEN_REQUEST],
        screen=True,
        criterion=lambda assessment: [finding.level for finding in assessment.findings],
    )
    assert assessment.evidence is not None
    assert len(assessment.evidence.keys.keys) == len(exact.evidence.keys.keys)
    # A subject that is the first token is rewritten whatever the numbers are.
    (first,) = doubtful.assess_all([FIRST_TOKEN_REQUEST], screen=True)
    assert first.evidence is not None
    assert len(first.evidence.keys.keys) < len(exact.evidence.keys.keys)


@pytest.mark.parametrize("rule", ["allow", "refuse"])
def test_screen_asks_about_crowding_where_the_policy_acts_on_it(guard: GuardedEditor, rule: str) -> None:
    guard = with_margins(guard, Margins(0.0, 0.0, 0.0))
    policy = guard.setup.policy
    rules = {**policy.rules, "crowded-key": rule}
    guard = replace(guard, setup=replace(guard.setup, policy=policy.model_copy(update={"rules": rules})))
    (exact,) = guard.assess_all([MID_PROMPT_REQUEST])
    (screened,) = guard.assess_all([MID_PROMPT_REQUEST], screen=True)
    assert exact.evidence is not None
    assert screened.evidence is not None
    assert exact.evidence.crowding is not None
    assert screened.evidence.crowding == (exact.evidence.crowding if rule == "refuse" else None)
    assert screened.decision == exact.decision


def test_try_edit_always_undoes(guard: GuardedEditor) -> None:
    before = hashes(guard)
    result = guard.try_edit(MID_PROMPT_REQUEST)
    assert result.sound
    assert not result.kept
    assert hashes(guard) == before
    weight = get_only_hashes(result)
    assert weight.before == weight.restored != weight.edited


def test_edit_sound_one_is_kept_with_its_hash(guard: GuardedEditor) -> None:
    result = guard.edit(MID_PROMPT_REQUEST)
    assert result.sound
    assert result.kept
    weight = get_only_hashes(result)
    assert weight.edited == hash_tensor(guard.setup.site.weight) != weight.before
    assert weight.restored is None


def test_edit_after_a_kept_edit_is_refused(guard: GuardedEditor) -> None:
    assert guard.edit(MID_PROMPT_REQUEST).kept
    kept_hashes = hashes(guard)
    for make in (guard.edit, guard.try_edit, lambda request: guard.try_unguarded(request, "rome")):
        with pytest.raises(InputError, match="prepare the model again"):
            make(FIRST_TOKEN_REQUEST)
    assert hashes(guard) == kept_hashes


def test_edit_unsound_one_is_undone_and_names_failures(guard: GuardedEditor) -> None:
    before = hashes(guard)
    result = under(guard, min_efficacy=1, max_perplexity_ratio=1e-3, collapse_ratio=2).edit(MID_PROMPT_REQUEST)
    assert not result.sound
    assert not result.kept
    assert result.refusal is None
    assert {m.check for m in result.failures} >= {"perplexity"}
    assert hashes(guard) == before


def test_edit_that_nothing_judged_is_not_sound(guard: GuardedEditor) -> None:
    before = hashes(guard)
    assert not replace(guard, checks=()).edit(MID_PROMPT_REQUEST).sound
    # Generalization counts and judges nothing.
    informed = replace(guard, checks=("generalization",)).edit(FIRST_TOKEN_REQUEST)
    assert informed.measurements
    assert all(m.outcome is Outcome.INFO for m in informed.measurements)
    assert not informed.sound
    assert hashes(guard) == before


def test_propose_update_over_bound_is_refused_with_its_size(guard: GuardedEditor) -> None:
    before = hashes(guard)
    result = under(guard, max_relative_update=1e-6).edit(MID_PROMPT_REQUEST)
    assert result.refusal is not None
    assert "over the bound" in result.refusal
    assert result.relative_norm is not None
    assert result.relative_norm > 1e-6
    assert result.measurements == ()
    assert hashes(guard) == before


def test_propose_update_over_bound_is_rewritten(guard: GuardedEditor) -> None:
    before = hashes(guard)
    allowed = dict.fromkeys(("first-token", "denominator", "key-shift", "sink-key"), "allow")
    published, rewritten = (
        guard.try_unguarded(FIRST_TOKEN_REQUEST, "rome"),
        guard.try_unguarded(FIRST_TOKEN_REQUEST, "prefixed"),
    )
    assert published.relative_norm is not None
    assert rewritten.relative_norm is not None
    between = (published.relative_norm * rewritten.relative_norm) ** 0.5
    assert rewritten.relative_norm < between < published.relative_norm
    result = under(guard, rules=allowed, max_relative_update=between).try_edit(FIRST_TOKEN_REQUEST, "rome")
    assert (result.decision.action, result.decision.editor) == (Action.REWRITE, "prefixed")
    # In the tiny model first tokens have keys of their own at the main site, so that `everywhere` makes no edit.
    over, instead = result.decision.reasons[-2:]
    assert "over the bound" in over
    assert "'everywhere' gives way to 'prefixed'" in instead
    assert result.relative_norm == pytest.approx(rewritten.relative_norm, rel=1e-3)
    assert result.sound
    for changes in ({"over_bound": "refuse"}, {"max_relative_update": rewritten.relative_norm / 2}):
        strict = under(guard, **({"rules": allowed, "max_relative_update": between} | changes)).try_edit(
            FIRST_TOKEN_REQUEST, "rome"
        )
        assert strict.refusal is not None
        assert strict.measurements == ()
    assert hashes(guard) == before


def test_propose_update_at_the_bound_is_allowed(guard: GuardedEditor) -> None:
    (proposal,) = guard.propose([guard.assess(MID_PROMPT_REQUEST)])
    assert proposal.relative_norm is not None
    (again,) = guard.propose([guard.assess(MID_PROMPT_REQUEST)], bound=proposal.relative_norm)
    assert (again.assessment.decision.action, again.refusal) == (Action.ALLOW, None)
    assert not guard._is_to_rewrite(replace(proposal, relative_norms={guard.setup.site.path: math.inf}), 1.0)


def test_propose_rewritten_update_is_not_rewritten_again(guard: GuardedEditor) -> None:
    for request, editor, action in (
        (MID_PROMPT_REQUEST, "prefixed", Action.ALLOW),
        (FIRST_TOKEN_REQUEST, None, Action.REWRITE),
    ):
        result = under(guard, max_relative_update=1e-6).try_edit(request, editor)
        assert (result.decision.action, result.decision.editor) == (action, "prefixed")
        assert not any("over the bound" in reason for reason in result.decision.reasons)
        assert result.refusal is not None
        assert "over the bound" in result.refusal


@pytest.mark.end_to_end
def test_propose_refused_edit_is_not_checked(guard: GuardedEditor) -> None:
    large, small = (
        guard.try_unguarded(request, "rome").relative_norm for request in (FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST)
    )
    assert large is not None
    assert small is not None
    assert small < large
    allowed = dict.fromkeys(("first-token", "denominator", "key-shift", "sink-key"), "allow")
    strict = under(guard, rules=allowed, over_bound="refuse", max_relative_update=(small * large) ** 0.5)
    first, second = strict.propose(strict.assess_all([FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST], "rome"))
    assert (first.refusal is None, second.refusal is None) == (False, True)
    in_batch, single = strict.try_proposal(second), strict.try_edit(MID_PROMPT_REQUEST, "rome")
    assert in_batch.generations
    assert [generation.before for generation in in_batch.generations] == [
        generation.before for generation in single.generations
    ]
    for measurement, other in zip(in_batch.measurements, single.measurements, strict=True):
        assert (
            measurement.check,
            measurement.metric,
            measurement.condition,
            measurement.passed,
            measurement.failed,
        ) == (
            other.check,
            other.metric,
            other.condition,
            other.passed,
            other.failed,
        )
        assert measurement.value == pytest.approx(other.value, rel=1e-3)
        assert (measurement.baseline is None) == (other.baseline is None)
        assert measurement.baseline is None or measurement.baseline == pytest.approx(other.baseline, rel=1e-3)


def test_propose_failed_update_refuses_its_request_only(guard: GuardedEditor) -> None:
    missing, middle = guard.propose_unguarded([(MISSING_SUBJECT_REQUEST, "rome"), (MID_PROMPT_REQUEST, "rome")])
    assert missing.update is None
    assert missing.refusal is not None
    assert missing.refusal.endswith(".")
    assert (middle.refusal, middle.update is None) == (None, False)
    assert guard.try_proposal(missing).measurements == ()


def test_try_unguarded_ignores_policy_and_undoes(guard: GuardedEditor) -> None:
    before = hashes(guard)
    strict = under(guard, max_relative_update=1e-6, rules={"first-token": "refuse"})
    assert strict.assess(FIRST_TOKEN_REQUEST).decision.action is Action.REFUSE
    result = strict.try_unguarded(FIRST_TOKEN_REQUEST, "rome")
    assert result.update is not None
    assert result.update.editor == "rome"
    assert result.measurements
    assert hashes(guard) == before


@pytest.mark.end_to_end
def test_rewritten_edit_is_smaller_than_the_published_one(guard: GuardedEditor) -> None:
    published, rewritten = guard.try_unguarded(FIRST_TOKEN_REQUEST, "rome"), guard.try_edit(FIRST_TOKEN_REQUEST)
    assert published.update is not None
    assert rewritten.update is not None
    assert rewritten.update.editor == "prefixed"
    assert published.update.norm > 5 * rewritten.update.norm


def test_unknown_editor_or_check_suggests_another(guard: GuardedEditor) -> None:
    before = hashes(guard)
    with pytest.raises(InputError, match="did you mean 'rome'"):
        guard.try_edit(MID_PROMPT_REQUEST, "romee")
    with pytest.raises(InputError, match="did you mean 'perplexity'"):
        replace(guard, checks=("perplexty",)).try_edit(MID_PROMPT_REQUEST)
    assert hashes(guard) == before


def test_public_names_are_the_classes() -> None:
    assert Public is GuardedEditor


# ----------------------------------------------------------------------------------------------------- many at once


@pytest.mark.end_to_end
def test_batch_is_assessed_and_proposed_as_singly(guard: GuardedEditor) -> None:
    requests = [FIRST_TOKEN_REQUEST, MISSING_SUBJECT_REQUEST, MID_PROMPT_REQUEST]
    assessments = guard.assess_all(requests)
    for assessment, request in zip(assessments, requests, strict=True):
        single = guard.assess(request)
        assert (assessment.request, assessment.decision, len(assessment.findings)) == (
            request,
            single.decision,
            len(single.findings),
        )
        assert (assessment.evidence is None) == (request is MISSING_SUBJECT_REQUEST)
    before = hashes(guard)
    proposals = guard.propose(assessments)
    assert hashes(guard) == before
    assert [proposal.refusal is None for proposal in proposals] == [True, False, True]
    assert [proposal.update is None for proposal in proposals] == [False, True, False]
    for proposal, request in zip(proposals, requests, strict=True):
        result, single_result = guard.try_proposal(proposal), guard.try_edit(request)
        assert (result.sound, result.refusal) == (single_result.sound, single_result.refusal)
        if result.relative_norm is not None:
            assert result.relative_norm == pytest.approx(single_result.relative_norm, rel=1e-3)
        assert [(m.metric, m.outcome) for m in result.measurements] == [
            (m.metric, m.outcome) for m in single_result.measurements
        ]
    assert hashes(guard) == before


def test_propose_of_nothing_is_empty(guard: GuardedEditor) -> None:
    assert guard.propose(guard.assess_all([])) == []


def test_control_editor_is_refused_for_edits(guard: GuardedEditor) -> None:
    with pytest.raises(InputError, match="'exploded'"):
        guard.try_edit(MID_PROMPT_REQUEST, "exploded")


@pytest.mark.end_to_end
def test_prepare_edited_model_has_its_own_fingerprint(guard: GuardedEditor) -> None:
    old = guard.setup
    assert guard.edit(MID_PROMPT_REQUEST).kept
    again = GuardedEditor.load(
        old.lm, layer=0, policy=lenient(), statistics="identity", perplexity_corpus=old.corpus, settings=old.settings
    )
    assert again.setup.lm.fingerprint != old.lm.fingerprint
    assert again.try_edit(FIRST_TOKEN_REQUEST).sound


def test_guard_notices_a_changed_model(guard: GuardedEditor) -> None:
    (proposal,) = guard.propose([guard.assess(MID_PROMPT_REQUEST)])
    elsewhere = guard.setup.lm.model.get_parameter("model.norm.weight")
    original = elsewhere.detach().clone()
    try:
        with torch.no_grad():
            elsewhere[0] += 1e-3
        for act in (
            lambda: guard.try_proposal(proposal),
            lambda: guard.try_edit(MID_PROMPT_REQUEST),
            guard.setup.bench_perplexity,
        ):
            with pytest.raises(InputError, match="prepare the model again"):
                act()
    finally:
        with torch.no_grad():
            elsewhere.copy_(original)
    assert guard.try_proposal(proposal).measurements


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.0.mlp.down_proj.weight"])
def test_guard_check_that_writes_to_the_model_is_an_error(
    guard: GuardedEditor, monkeypatch: pytest.MonkeyPatch, name: str, keep: bool
) -> None:
    elsewhere, before = guard.setup.lm.model.get_parameter(name), hashes(guard)
    measure = Drift.measure

    def writing(self: Drift, *args: object) -> CheckResult:
        with torch.no_grad():
            elsewhere[0] += 1e-3
        return measure(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Drift, "measure", writing)
    original = elsewhere.detach().clone()
    try:
        with pytest.raises(EditguardError, match="find the check that writes to the model"):
            (guard.edit if keep else guard.try_edit)(MID_PROMPT_REQUEST)
    finally:
        with torch.no_grad():
            elsewhere.copy_(original)
    assert hashes(guard) == before


def test_assess_text_over_the_context_is_refused(guard: GuardedEditor) -> None:
    limit = int(guard.setup.lm.context_length)
    for changed in ({"prompt": MID_PROMPT_REQUEST.prompt + " a" * limit}, {"neighbourhood": ("no " * limit,)}):
        assessment = guard.assess(replace(MID_PROMPT_REQUEST, **changed))
        assert assessment.decision.action is Action.REFUSE
        assert f"the model reads {limit}" in assessment.findings[0].message
        assert assessment.evidence is None


@pytest.mark.end_to_end
def test_load_takes_the_policy_of_the_project(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.editguard]\nmin_locality = 0.9\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert GuardedEditor.load(setup.lm, statistics="identity").setup.policy.min_locality == 0.9


def test_load_with_policy_does_not_read_the_project(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.editguard]\nmin_locality = 9\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert GuardedEditor.load(setup.lm, statistics="identity", policy=Policy()).setup.policy == Policy()
    with pytest.raises(PolicyError):
        GuardedEditor.load(setup.lm, statistics="identity")


@pytest.mark.parametrize("checks", [(), ("efficacy",)])
def test_accumulated_drift_alone_does_not_judge_an_edit(guard: GuardedEditor, checks: tuple[str, ...]) -> None:
    drift = AccumulatedDrift.name
    for order in ((drift, *checks), (*checks, drift)):
        result = replace(guard, setup=guard.setup.with_origin(), checks=order).try_edit(MID_PROMPT_REQUEST)
        judging_checks = {
            measurement.check for measurement in result.measurements if measurement.outcome is not Outcome.INFO
        }
        assert judging_checks == {*order}
        assert all(
            measurement.outcome is Outcome.PASS for measurement in result.measurements if measurement.check == drift
        )
        assert result.sound is bool(checks)


def test_try_proposal_of_another_guard_is_refused(guard: GuardedEditor) -> None:
    (proposal,) = guard.propose([guard.assess(MID_PROMPT_REQUEST)])
    other, before = replace(guard, checks=("efficacy",)), hashes(guard)
    for given, named in ((proposal, ", ".join(guard.checks)), (replace(proposal, before=(), checks=()), "of no guard")):
        with pytest.raises(InputError) as caught:
            other.try_proposal(given)
        message = str(caught.value)
        assert f"prepared for the checks {named}, and this guard makes efficacy; let this guard propose it" in message
    assert hashes(guard) == before


def test_assess_last_layer_needs_subject_at_the_end(guard: GuardedEditor) -> None:
    site = find_site(guard.setup.lm.model, len(guard.setup.site.blocks) - 1)
    last = replace(
        guard, setup=replace(guard.setup, site=site, meter=replace(guard.setup.meter, site=site, prefix_cache=None))
    )
    assessment = last.assess(MID_PROMPT_REQUEST)
    assert assessment.decision.action is Action.REFUSE
    assert "edit a lower layer" in assessment.findings[0].message
    ending = replace(
        MID_PROMPT_REQUEST,
        prompt=MID_PROMPT_REQUEST.prompt[
            : MID_PROMPT_REQUEST.prompt.index(MID_PROMPT_REQUEST.subject) + len(MID_PROMPT_REQUEST.subject)
        ],
    )
    assert not any("edit a lower layer" in finding.message for finding in last.assess(ending).findings)


@pytest.mark.end_to_end
def test_checks_in_bfloat16_are_near_the_exact_ones(guard: GuardedEditor) -> None:
    rough = replace(guard, setup=replace(guard.setup, check_dtype=torch.bfloat16, states=UneditedStates()))
    before = hashes(guard)
    exact, rough_result = (
        guard.try_unguarded(MID_PROMPT_REQUEST, "rome"),
        rough.try_unguarded(MID_PROMPT_REQUEST, "rome"),
    )
    assert hashes(guard) == before
    assert rough_result.hashes == exact.hashes  # the edit itself is the same to the bit
    pairs = [
        (measurement.value, other.value)
        for measurement, other in zip(exact.measurements, rough_result.measurements, strict=True)
        if measurement.check == "perplexity"
    ]
    assert pairs == [(measurement, pytest.approx(measurement, rel=0.02)) for measurement, _ in pairs]
    assert [other for _, other in pairs] != [measurement for measurement, _ in pairs]

    assert set(guard.setup.baselines()) == {"perplexity"}
    baselines = rough.setup.baselines()
    assert baselines["perplexity-exact"] == guard.setup.bench_perplexity() != baselines["perplexity"]
    assert baselines["perplexity"] == pytest.approx(baselines["perplexity-exact"], rel=0.02)


def test_assess_keys_that_are_not_finite_are_a_fault_of_the_measurement(guard: GuardedEditor) -> None:
    weight = guard.setup.lm.model.get_input_embeddings().weight
    original = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.fill_(math.nan)
        assessment = guard.assess(MID_PROMPT_REQUEST)
    finally:
        with torch.no_grad():
            weight.copy_(original)
    (finding,) = assessment.findings
    assert (finding.probe, finding.level) == (MEASUREMENT_SOURCE, Level.ERROR)
    assert assessment.decision.action is Action.REFUSE
    assert assessment.decision.reasons[0].startswith("measurement: ")


def test_assess_fault_of_the_request_stays_with_the_probe_well_formed(guard: GuardedEditor) -> None:
    (finding,) = guard.assess(MISSING_SUBJECT_REQUEST).findings
    assert (finding.probe, finding.level) == ("well-formed", Level.ERROR)
