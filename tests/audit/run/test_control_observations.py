"""Each probe and check is broken once, so that it passes everything or nothing: the controls must name it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from editguard.audit.edit_result import Proposal
from editguard.audit.folders.file_names import LOG
from editguard.audit.guard import GuardedEditor
from editguard.audit.policy import Policy
from editguard.audit.run.audit import run_audit
from editguard.audit.run.control_observations import observe_control
from editguard.audit.run.controls import Control, controls_for, propose_controls, run_control
from editguard.audit.sequence import EditSequence
from editguard.audit.setup import Setup
from editguard.probes.probe import PROBES, Finding, Level, Probe, ProbeInput
from editguard.reports.log.control_observations import ControlObservation, ObservedBehaviour
from editguard.reports.log.file import read_log
from editguard.suites.check import CHECKS, Bench, Check, CheckResult, EditUnderTest, Outcome
from editguard.suites.checks import other_facts

from ...helpers.tiny_audits import load_edits
from ...helpers.tiny_setups import MID_PROMPT_REQUEST, lenient

pytestmark = pytest.mark.tiny

BROKEN_THRESHOLDS = [
    (name, value)
    for name in (
        "crowded-key/share",
        "denominator/ratio",
        "denominator/predicted_relative_norm",
        "key-shift/cosine",
        "sink-key/cosine",
    )
    for value in (math.nan, math.inf, -math.inf)
]


class Made(NamedTuple):
    """Both controls with their updates, computed once: neither a broken probe nor a broken check changes those."""

    guard: GuardedEditor
    controls: tuple[Control, ...]
    proposals: list[Proposal]

    def under(self, policy: Policy) -> Made:
        return self._replace(guard=replace(self.guard, setup=replace(self.guard.setup, policy=policy)))

    def seen(self, index: int) -> dict[str, ControlObservation]:
        """Assess, make and undo one control again, as probes and checks are now."""
        control, proposal = self.controls[index], self.proposals[index]
        first = control.candidates[0]
        (again,) = replace(self.guard, checks=()).propose_unguarded([(first.request, first.editor)])
        proposal = replace(proposal, assessment=again.assessment)
        result, _ = run_control(self.guard, control, proposal)
        return {one.name: one for one in observe_control(self.guard, control.expect, proposal, result)}

    def bad(self) -> dict[str, ControlObservation]:
        return self.seen(0)

    def good(self) -> dict[str, ControlObservation]:
        return self.seen(1)


@pytest.fixture(scope="module", autouse=True)
def certain() -> Iterator[None]:
    """A model of random weights answers nothing with certainty, and its subjects have other facts all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(other_facts, "_LEAST_CERTAINTY", 0.0)
        yield


@pytest.fixture(scope="module")
def made(setup: Setup, certain: None) -> Made:
    # In sequence, where every check has something to judge.
    guard = EditSequence(GuardedEditor(replace(setup, policy=lenient(controls=True)))).guard
    controls = tuple(one_token(control) for control in controls_for(guard.setup))
    return Made(guard, controls, propose_controls(guard, [one.candidates[0] for one in controls]))


def one_token(control: Control) -> Control:
    """Return the control with targets that are one token here, as they are in the tokenizers of trained models."""
    return replace(
        control,
        candidates=tuple(
            one._replace(request=replace(one.request, target_new="Lyon", target_true="Istanbul"))
            for one in control.candidates
        ),
    )


def ours() -> list[str]:
    return [name for name, cls in PROBES if cls.__module__.startswith("editguard.")]


def judging() -> list[str]:
    """The checks that judge under the default policy; generalization is told alone."""
    return [name for name, cls in CHECKS if cls.__module__.startswith("editguard.") and name != "generalization"]


def always(level: Level, monkeypatch: pytest.MonkeyPatch, probe: type[Probe]) -> None:
    examine = probe.examine
    monkeypatch.setattr(probe, "examine", lambda self, probe_input: replace(examine(self, probe_input), level=level))


def judged_as(outcome: Outcome, monkeypatch: pytest.MonkeyPatch, check: type[Check]) -> None:
    def now(measured: CheckResult) -> CheckResult:
        return measured._replace(
            measurements=[
                m if m.outcome is Outcome.INFO else replace(m, outcome=outcome) for m in measured.measurements
            ]
        )

    def judge_all(method: Callable[..., CheckResult | None]) -> Callable[..., CheckResult | None]:
        def judged(*given: Any, **named: Any) -> CheckResult | None:
            measured = method(*given, **named)
            return None if measured is None else now(measured)

        return judged

    for name in ("measure", "known_bad", "known_good"):
        monkeypatch.setattr(check, name, judge_all(getattr(check, name)))


def test_controls_observe_every_builtin_probe_and_check(made: Made) -> None:
    bad, good = made.under(Policy()).bad(), made.good()
    assert set(bad) == set(good) == {*ours(), *judging()}
    assert {name for name, one in bad.items() if one.ok is not True} == set()
    assert {name for name, one in good.items() if one.ok is not True} == set()
    # What the controls' own edits set off needs no evidence made for it.
    assert {name for name in ours() if bad[name].by_edit} >= {"first-token", "denominator"}
    assert all(bad[name].by_evidence for name in bad)
    # The sound edit's subject is no first token, which `first-words` asks about.
    assert {name for name in judging() if not good[name].by_edit} == {"first-words"}
    assert good["first-words"].by_evidence


@pytest.mark.parametrize("name", ours())
def test_controls_name_a_probe_that_never_fires(made: Made, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    always(Level.OK, monkeypatch, PROBES.get(name))
    found = made.bad()
    assert [one.name for one in found.values() if one.ok is False] == [name]
    assert (found[name].expected, found[name].seen) == (ObservedBehaviour.FIRES, ObservedBehaviour.SILENT)


@pytest.mark.parametrize("level", [Level.RISK, Level.ERROR])
@pytest.mark.parametrize("name", ours())
def test_controls_name_a_probe_that_always_fires(
    made: Made, monkeypatch: pytest.MonkeyPatch, name: str, level: Level
) -> None:
    always(level, monkeypatch, PROBES.get(name))
    found = made.good()
    assert [one.name for one in found.values() if one.ok is False] == [name]
    assert found[name].expected is ObservedBehaviour.SILENT


@pytest.mark.parametrize(("name", "value"), BROKEN_THRESHOLDS)
def test_controls_notice_a_threshold_that_is_not_finite(made: Made, name: str, value: float) -> None:
    calibration = made.guard.setup.calibration
    thresholds = {**calibration.thresholds, name: replace(calibration.thresholds[name], value=value)}
    setup = replace(made.guard.setup, calibration=replace(calibration, thresholds=thresholds))
    broken = made._replace(guard=replace(made.guard, setup=setup, checks=()), proposals=without_checks(made.proposals))
    missed = {one.name for found in (broken.bad(), broken.good()) for one in found.values() if one.ok is False}
    assert missed == {name.split("/")[0]}


def without_checks(proposals: Sequence[Proposal]) -> list[Proposal]:
    return [replace(one, before=(), checks=()) for one in proposals]


@pytest.mark.parametrize("name", judging())
def test_controls_name_a_check_that_passes_everything(made: Made, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    strict = made.under(Policy())
    judged_as(Outcome.PASS, monkeypatch, CHECKS.get(name))
    found = strict.bad()
    assert [one.name for one in found.values() if one.ok is False] == [name]
    assert (found[name].expected, found[name].seen) == (ObservedBehaviour.FAILS, ObservedBehaviour.PASSES)


@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.UNMEASURED, Outcome.INFO])
@pytest.mark.parametrize("name", judging())
def test_controls_name_a_check_that_passes_nothing(
    made: Made, monkeypatch: pytest.MonkeyPatch, name: str, outcome: Outcome
) -> None:
    judged_as(outcome, monkeypatch, CHECKS.get(name))
    found = made.good()
    assert [one.name for one in found.values() if one.ok is False] == [name]
    assert found[name].expected is ObservedBehaviour.PASSES


@pytest.mark.parametrize("name", judging())
def test_controls_name_a_check_that_judges_nothing(made: Made, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    judged_as(Outcome.INFO, monkeypatch, CHECKS.get(name))
    found = made.bad()[name]
    assert (found.ok, found.seen) == (False, ObservedBehaviour.JUDGES_NOTHING)


def test_controls_lenient_bound_is_reported_and_not_void(made: Made) -> None:
    found = made.under(lenient(max_leaks=1)).bad()["locality"]
    assert (found.ok, found.seen) == (None, ObservedBehaviour.PASSES)
    assert "the policy's bound" in found.why


def test_controls_generalization_needs_a_bound_to_be_judged(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "generalization" not in {**made.bad(), **made.good()}
    # The unedited model gives the target in other words at no bound over 0, and the edit must.
    bound = made.under(lenient(min_generalization=1e-9))
    assert bound.bad()["generalization"].ok is True
    monkeypatch.setattr(CHECKS.get("generalization"), "measure", lambda *_, **__: CheckResult([]))
    good = bound.good()["generalization"]
    assert (good.ok, good.expected, good.seen) == (False, ObservedBehaviour.PASSES, ObservedBehaviour.JUDGES_NOTHING)


def test_controls_long_target_leaves_leaks_uncontrolled(setup: Setup) -> None:
    guard = GuardedEditor(replace(setup, policy=lenient(controls=True)))
    controls = controls_for(guard.setup)
    several = Made(guard, controls, propose_controls(guard, [one.candidates[0] for one in controls])).bad()
    assert len(setup.lm.tokenizer(f" {controls[0].candidates[0].request.target_new}").input_ids) > 1
    assert (several["locality"].ok, several["locality"].why) == (None, "it brings no known-bad of its own")


def test_controls_check_with_nothing_to_ask_is_not_controlled(made: Made) -> None:
    place = made.guard.checks.index("other-facts")
    empty = [replace(one, before=(*one.before[:place], None, *one.before[place + 1 :])) for one in made.proposals]
    for found in (made._replace(proposals=empty).bad(), made._replace(proposals=empty).good()):
        assert (found["other-facts"].ok, found["other-facts"].seen) == (None, ObservedBehaviour.JUDGES_NOTHING)
        assert found["other-facts"].why == "it found nothing to ask about this edit"


def test_controls_first_words_of_ordinary_edits_are_proved_by_evidence(made: Made) -> None:
    strict = made.under(Policy())
    bad, good = strict.bad()["first-words"], strict.good()["first-words"]
    assert (bad.ok, bad.by_evidence) == (True, True)
    # The sound edit's subject stands in mid-prompt, so that no other word can take its place.
    assert (good.ok, good.by_edit, good.by_evidence) == (True, False, True)


class Foreign(Probe):
    """A probe of another package that brings no control."""

    name: ClassVar[str] = "foreign"
    level = Level.OK

    def examine(self, probe_input: ProbeInput) -> Finding:
        return Finding(probe=self.name, level=self.level, message="seen")


class Judging(Check[None]):
    """A check of another package that brings no control."""

    name: ClassVar[str] = "judging"

    def prepare(self, bench: Any, requests: Sequence[Any], updates: Sequence[Any] = ()) -> list[None]:
        return [None] * len(requests)

    def measure(self, bench: Bench, edit: EditUnderTest[None]) -> CheckResult:
        return CheckResult([self.measurement("answer", 1.0, Outcome.PASS)])


class Silent(Judging):
    """A check of another package that judges nothing about the sound edit, and brings evidence of both kinds."""

    name: ClassVar[str] = "silent"
    good: ClassVar[Outcome | None] = Outcome.PASS

    def measure(self, bench: Bench, edit: EditUnderTest[None]) -> CheckResult:
        return CheckResult([])

    def known_bad(self, bench: Bench, edit: EditUnderTest[None]) -> CheckResult:
        return CheckResult([self.measurement("answer", 0.0, Outcome.FAIL)])

    def known_good(self, bench: Bench, edit: EditUnderTest[None]) -> CheckResult | None:
        if self.good is None:
            return None
        return CheckResult(
            [self.measurement("answer", value, outcome) for value, outcome in ((1.0, Outcome.PASS), (0.5, self.good))]
        )


@pytest.mark.parametrize(
    ("good", "ok"), [(Outcome.PASS, True), (Outcome.FAIL, False), (Outcome.UNMEASURED, False), (None, False)]
)
def test_known_good_evidence_of_a_silent_check_must_pass_whole(
    made: Made, monkeypatch: pytest.MonkeyPatch, good: Outcome | None, ok: bool
) -> None:
    CHECKS.names()
    monkeypatch.setitem(CHECKS._classes, "silent", Silent)
    monkeypatch.setattr(Silent, "good", good)
    guard = replace(made.guard, checks=("silent",))
    proposals = [replace(proposal, before=(None,), checks=("silent",)) for proposal in made.proposals]
    observation = made._replace(guard=guard, proposals=proposals).good()["silent"]
    assert (observation.ok, observation.by_edit, observation.by_evidence) == (ok, False, ok)


def test_controls_part_without_evidence_is_not_controlled(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    PROBES.names()
    monkeypatch.setitem(PROBES._classes, "foreign", Foreign)
    monkeypatch.setitem(CHECKS._classes, "judging", Judging)
    guard = replace(made.guard, checks=("judging",))
    proposals = [replace(one, before=(None,), checks=("judging",)) for one in made.proposals]
    also = made._replace(guard=guard, proposals=proposals)
    bad, good = also.bad(), also.good()
    for name in ("foreign", "judging"):
        assert (bad[name].ok, good[name].ok) == (None, True)
        assert bad[name].why == "it brings no known-bad of its own"
    monkeypatch.setattr(Foreign, "level", Level.RISK)
    assert (also.bad()["foreign"].ok, also.good()["foreign"].ok) == (True, None)


@pytest.mark.parametrize(("kind", "name"), [("probe", "sink-key"), ("check", "drift")])
def test_controls_broken_part_voids_the_audit(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    if kind == "probe":
        always(Level.RISK, monkeypatch, PROBES.get(name))
    else:
        judged_as(Outcome.FAIL, monkeypatch, CHECKS.get(name))
    summary = run_audit(replace(setup, policy=lenient(controls=True)), load_edits(MID_PROMPT_REQUEST), tmp_path)
    assert (summary.verdict, summary.exit_code) == ("void", 1)
    assert any(f"the {kind} {name!r}" in reason for reason in summary.reasons)
    good = read_log(tmp_path / LOG).controls[1]
    assert not good.ok
    assert [one.name for one in good.sightings if one.ok is False] == [name]
