"""What each control shows of every probe and check: that it catches what is known to be bad and lets pass what is good.

The controls' edits are made anyway, and what they show comes first. On the known-bad control each probe and check must
catch its own known-bad evidence too (`Probe.known_bad`, `Check.known_bad`), since no one edit sets off all of them on
every model. One that misses it, or lets nothing pass, voids the audit. One that brings no evidence, and of which the edit
shows nothing, is not controlled: the record says so, and nothing is void. A check that judged nothing and brings nothing
is only shown, and left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from ...probes.probe import PROBES, Level, Probe, ProbeInput
from ...reports.log.control_observations import ControlObservation, ObservedBehaviour
from ...suites.check import CHECKS, Bench, Check, Measurement, Outcome
from ..edit_result import EditResult, Proposal
from ..guard import GuardedEditor
from ..policy import Policy
from ..setup import check_limits

__all__ = ["observe_control"]

_LEVELS = {
    Level.OK: ObservedBehaviour.SILENT,
    Level.NOTICE: ObservedBehaviour.SILENT,
    Level.RISK: ObservedBehaviour.FIRES,
    Level.ERROR: ObservedBehaviour.ERRORS,
}
_NOT_BROUGHT = "it brings no known-bad of its own"
_NOTHING_ASKED = "it found nothing to ask about this edit"
_LENIENT = "the policy's bound lets even its known-bad pass"


class _Look(NamedTuple):
    """What was seen of one probe or check: `own` at the control's edit, `made` at each evidence that it brings."""

    own: ObservedBehaviour
    made: Sequence[ObservedBehaviour]
    brings: bool
    lenient: bool = False
    why: str = _NOT_BROUGHT
    """Why it is not controlled, where it is not."""


def observe_control(
    guard: GuardedEditor, expect: Literal["collapse", "sound"], proposal: Proposal, result: EditResult
) -> list[ControlObservation]:
    """Return what a control, made and undone, shows of every probe and every check; the model is the unedited one."""
    bad = expect == "collapse"
    seen = {finding.probe: _LEVELS[finding.level] for finding in proposal.assessment.findings}
    found = []
    for name, cls in PROBES:
        look = _probe(cls(), seen.get(name, ObservedBehaviour.ERRORS), _case(guard, proposal), bad=bad)
        found.append(
            _caught("probe", name, ObservedBehaviour.FIRES, look)
            if bad
            else _passed("probe", name, ObservedBehaviour.SILENT, look)
        )
    for name, before in zip(guard.checks, proposal.before, strict=True):
        own = _verdict(m for m in result.measurements if m.check == name)
        look = _check(guard, CHECKS.get(name)(), own, proposal, before, bad=bad)
        # What is only shown, as the policy has it, is left out.
        if look.brings or own is not ObservedBehaviour.JUDGES_NOTHING or look.why == _NOTHING_ASKED:
            found.append(
                _caught("check", name, ObservedBehaviour.FAILS, look)
                if bad
                else _passed("check", name, ObservedBehaviour.PASSES, look)
            )
    return found


def _case(guard: GuardedEditor, proposal: Proposal) -> ProbeInput | None:
    """None where nothing could be measured of the control's request."""
    seen, setup = proposal.assessment.evidence, guard.setup
    return (
        None if seen is None else ProbeInput(setup.lm, proposal.assessment.request, seen, setup.calibration.thresholds)
    )


def _probe(probe: Probe, own: ObservedBehaviour, case: ProbeInput | None, *, bad: bool) -> _Look:
    if case is None:
        return _Look(own, [ObservedBehaviour.ERRORS], brings=True)
    spoiled = probe.known_bad(case)
    made = [_LEVELS[probe.examine(one).level] for one in (spoiled if bad else probe.known_good(case))]
    return _Look(own, made, brings=bool(spoiled))


def _check(
    guard: GuardedEditor, check: Check, own: ObservedBehaviour, proposal: Proposal, before: Any, *, bad: bool
) -> _Look:
    controlled = type(check).known_bad is not Check.known_bad
    if not bad and (not controlled or own is not ObservedBehaviour.JUDGES_NOTHING):
        return _Look(own, [], brings=controlled)
    bench, request = guard.setup.bench, proposal.assessment.request
    made = _known_bad(check, bench, request, before)
    if made is None:
        return _Look(own, [], brings=False, why=_NOTHING_ASKED if controlled and before is None else _NOT_BROUGHT)
    if not bad:
        return _Look(own, [], brings=True)
    usual = _known_bad(check, replace(bench, limits=check_limits(Policy())), request, before)
    return _Look(
        own, [made], brings=True, lenient=made is ObservedBehaviour.PASSES and usual is ObservedBehaviour.FAILS
    )


def _known_bad(check: Check, bench: Bench, request: Any, before: Any) -> ObservedBehaviour | None:
    with bench.computing():
        found = check.known_bad(bench, request, before)
    if found is None:
        return None
    judged = [_verdict([one]) for one in found.measurements if one.outcome is not Outcome.INFO]
    return (
        ObservedBehaviour.JUDGES_NOTHING
        if not judged
        else ObservedBehaviour.PASSES
        if ObservedBehaviour.PASSES in judged
        else ObservedBehaviour.FAILS
    )


def _verdict(measurements: Iterable[Measurement]) -> ObservedBehaviour:
    """What was not measured fails: the guard keeps no such edit."""
    judged = [one.outcome for one in measurements if one.outcome is not Outcome.INFO]
    if not judged:
        return ObservedBehaviour.JUDGES_NOTHING
    return ObservedBehaviour.PASSES if all(outcome is Outcome.PASS for outcome in judged) else ObservedBehaviour.FAILS


def _caught(kind: Literal["probe", "check"], name: str, expected: ObservedBehaviour, look: _Look) -> ControlObservation:
    """Whatever the edit showed, all evidence that is brought must be caught."""
    missed = [one for one in look.made if one is not expected]
    if not look.brings:
        ok = True if look.own is expected else None
        return _sighting(kind, name, expected, look, look.own, ok, "" if ok else look.why)
    if look.lenient:
        return _sighting(kind, name, expected, look, missed[0], None, _LENIENT)
    return _sighting(kind, name, expected, look, missed[0] if missed else expected, not missed)


def _passed(kind: Literal["probe", "check"], name: str, expected: ObservedBehaviour, look: _Look) -> ControlObservation:
    """The edit is enough; where it is none, the ordinary evidence that is brought must pass."""
    if look.own is expected or (look.made and all(one is expected for one in look.made)):
        return _sighting(kind, name, expected, look, expected, True)
    ok = False if look.brings else None
    return _sighting(kind, name, expected, look, look.own, ok, "" if look.brings else look.why)


def _sighting(
    kind: Literal["probe", "check"],
    name: str,
    expected: ObservedBehaviour,
    look: _Look,
    seen: ObservedBehaviour,
    ok: bool | None,
    why: str = "",
) -> ControlObservation:
    edit, evidence = look.own is expected, bool(look.made) and all(one is expected for one in look.made)
    return ControlObservation(
        kind=kind, name=name, expected=expected, seen=seen, by_edit=edit, by_evidence=evidence, ok=ok, why=why
    )
