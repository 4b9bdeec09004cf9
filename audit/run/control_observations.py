"""What each control shows of every probe and check: that it catches known-bad evidence and lets known-good evidence pass.

The edits of the controls are made anyway, and the observations begin with them. On the known-bad control each probe and
check must catch its own known-bad evidence too (`Probe.known_bad`, `Check.known_bad`), since no single edit sets off all of
them on every model. A probe or check that misses it, or lets nothing pass, voids the audit.

A probe or check without evidence of its own, at which the edit shows nothing, is not controlled. The record says so, and
nothing is void. A check that judged nothing and has no evidence is only shown, and left out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ...probes.probe import PROBES, Level, Probe, ProbeInput
from ...reports.log.control_observations import ControlObservation, ObservedBehaviour
from ...suites.check import CHECKS, Check, CheckResult, EditUnderTest, Measurement, Outcome
from ..policy import Policy
from ..setup import build_limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..edit_result import EditResult, Proposal
    from ..guard import GuardedEditor

__all__ = ["observe_control"]

_BEHAVIOURS = {
    Level.OK: ObservedBehaviour.SILENT,
    Level.NOTICE: ObservedBehaviour.SILENT,
    Level.RISK: ObservedBehaviour.FIRES,
    Level.ERROR: ObservedBehaviour.ERRORS,
}
_NO_EVIDENCE = "it brings no known-bad of its own"
_NOTHING_TO_ASK = "it found nothing to ask about this edit"
_LENIENT = "the policy's bound lets even its known-bad pass"


class _Subject(NamedTuple):
    """The probe or check under observation, and the behaviour that the control expects of it."""

    kind: Literal["probe", "check"]
    name: str
    expected: ObservedBehaviour


class _Behaviours(NamedTuple):
    """The behaviour of one probe or check at the control's edit, and at each piece of evidence that it brings."""

    at_edit: ObservedBehaviour
    at_evidence: Sequence[ObservedBehaviour]
    has_evidence: bool
    lenient: bool = False
    """Whether only the policy's wide bound lets the evidence pass."""
    why: str = _NO_EVIDENCE
    """The reason why it is not controlled, where it is not."""


def observe_control(
    guard: GuardedEditor, expect: Literal["collapse", "sound"], proposal: Proposal, result: EditResult
) -> list[ControlObservation]:
    """Return what a control, made and undone, shows of every probe and every check; the model is the unedited one."""
    bad = expect == "collapse"
    observe = _observe_caught if bad else _observe_passed
    at_edit = {finding.probe: _BEHAVIOURS[finding.level] for finding in proposal.assessment.findings}
    probe_input, observations = _probe_input(guard, proposal), []
    for name, probe in PROBES:
        subject = _Subject("probe", name, ObservedBehaviour.FIRES if bad else ObservedBehaviour.SILENT)
        behaviour = at_edit.get(name, ObservedBehaviour.ERRORS)
        observations.append(observe(subject, _examine_probe(probe(), behaviour, probe_input, bad=bad)))
    for name, state in zip(guard.checks, proposal.before, strict=True):
        subject = _Subject("check", name, ObservedBehaviour.FAILS if bad else ObservedBehaviour.PASSES)
        behaviour = _judge(row for row in result.measurements if row.check == name)
        behaviours = _examine_check(guard, CHECKS.get(name)(), behaviour, proposal, state, bad=bad)
        # A check that the policy only shows is left out.
        shown_only = behaviour is ObservedBehaviour.JUDGES_NOTHING and behaviours.why != _NOTHING_TO_ASK
        if behaviours.has_evidence or not shown_only:
            observations.append(observe(subject, behaviours))
    return observations


def _probe_input(guard: GuardedEditor, proposal: Proposal) -> ProbeInput | None:
    """Return the input of the probes; None where nothing could be measured of the control's request."""
    evidence, setup = proposal.assessment.evidence, guard.setup
    if evidence is None:
        return None
    return ProbeInput(setup.lm, proposal.assessment.request, evidence, setup.calibration.thresholds)


def _examine_probe(
    probe: Probe, at_edit: ObservedBehaviour, probe_input: ProbeInput | None, *, bad: bool
) -> _Behaviours:
    if probe_input is None:
        return _Behaviours(at_edit, [ObservedBehaviour.ERRORS], has_evidence=True)
    known_bad = probe.known_bad(probe_input)
    evidence = known_bad if bad else probe.known_good(probe_input)
    at_evidence = [_BEHAVIOURS[probe.examine(changed_input).level] for changed_input in evidence]
    return _Behaviours(at_edit, at_evidence, has_evidence=bool(known_bad))


def _examine_check(
    guard: GuardedEditor, check: Check[Any], at_edit: ObservedBehaviour, proposal: Proposal, state: Any, *, bad: bool
) -> _Behaviours:
    controlled = type(check).known_bad is not Check.known_bad
    if not bad and (not controlled or at_edit is not ObservedBehaviour.JUDGES_NOTHING):
        return _Behaviours(at_edit, [], has_evidence=controlled)
    setup, edit = guard.setup, EditUnderTest(request=proposal.assessment.request, state=state)
    bench = setup.bench if proposal.update is None else setup.bench_for(proposal.update.sites)
    with bench.autocast():
        known_bad = _judge_evidence(check.known_bad(bench, edit))
        if known_bad is None:
            why = _NOTHING_TO_ASK if controlled and state is None else _NO_EVIDENCE
            return _Behaviours(at_edit, [], has_evidence=False, why=why)
        if not bad:
            known_good = check.known_good(bench, edit)
            # Unlike evidence that must fail, all that is judged must pass.
            at_evidence = [] if known_good is None else [_judge(known_good.measurements)]
            return _Behaviours(at_edit, at_evidence, has_evidence=True)
        by_default = _judge_evidence(check.known_bad(replace(bench, limits=build_limits(Policy())), edit))
    lenient = known_bad is ObservedBehaviour.PASSES and by_default is ObservedBehaviour.FAILS
    return _Behaviours(at_edit, [known_bad], has_evidence=True, lenient=lenient)


def _judge_evidence(result: CheckResult | None) -> ObservedBehaviour | None:
    """Return the behaviour at evidence of the check's own: it passes where any judged measurement passes; None without any."""
    if result is None:
        return None
    judged = [_judge([row]) for row in result.measurements if row.outcome is not Outcome.INFO]
    if not judged:
        return ObservedBehaviour.JUDGES_NOTHING
    return ObservedBehaviour.PASSES if ObservedBehaviour.PASSES in judged else ObservedBehaviour.FAILS


def _judge(measurements: Iterable[Measurement]) -> ObservedBehaviour:
    """Return the behaviour that measurements show; a measurement that was not taken fails, since the guard keeps no such edit."""
    judged = [row.outcome for row in measurements if row.outcome is not Outcome.INFO]
    if not judged:
        return ObservedBehaviour.JUDGES_NOTHING
    return ObservedBehaviour.PASSES if all(outcome is Outcome.PASS for outcome in judged) else ObservedBehaviour.FAILS


def _observe_caught(subject: _Subject, behaviours: _Behaviours) -> ControlObservation:
    """Return the observation on the known-bad control: all evidence must be caught, whatever the edit showed."""
    missed = [behaviour for behaviour in behaviours.at_evidence if behaviour is not subject.expected]
    if not behaviours.has_evidence:
        ok = True if behaviours.at_edit is subject.expected else None
        return _observation(subject, behaviours, behaviours.at_edit, ok, "" if ok else behaviours.why)
    if behaviours.lenient:
        return _observation(subject, behaviours, missed[0], None, _LENIENT)
    return _observation(subject, behaviours, missed[0] if missed else subject.expected, not missed)


def _observe_passed(subject: _Subject, behaviours: _Behaviours) -> ControlObservation:
    """Return the observation on the known-good control: the edit is enough; where it is not, ordinary evidence must pass."""
    if behaviours.at_edit is subject.expected or _all_as_expected(subject, behaviours):
        return _observation(subject, behaviours, subject.expected, True)
    ok = False if behaviours.has_evidence else None
    return _observation(subject, behaviours, behaviours.at_edit, ok, "" if behaviours.has_evidence else behaviours.why)


def _all_as_expected(subject: _Subject, behaviours: _Behaviours) -> bool:
    at_evidence = behaviours.at_evidence
    return bool(at_evidence) and all(behaviour is subject.expected for behaviour in at_evidence)


def _observation(
    subject: _Subject, behaviours: _Behaviours, observed: ObservedBehaviour, ok: bool | None, why: str = ""
) -> ControlObservation:
    return ControlObservation(
        kind=subject.kind,
        name=subject.name,
        expected=subject.expected,
        seen=observed,
        by_edit=behaviours.at_edit is subject.expected,
        by_evidence=_all_as_expected(subject, behaviours),
        ok=ok,
        why=why,
    )
