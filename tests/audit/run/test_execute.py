"""What one request ends in is its own: the others are assessed as if it were not there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from editguard.audit.guard import GuardedEditor
from editguard.audit.policy import Action
from editguard.audit.run.execute import assess_each
from editguard.audit.setup import Setup
from editguard.probes.errors import OutOfMemory
from editguard.probes.evidence import EvidenceMeter
from editguard.probes.probe import MEASUREMENT_SOURCE
from editguard.probes.requests.request import EditRequest

from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST

pytestmark = pytest.mark.tiny

TOO_LONG = replace(MID_PROMPT_REQUEST, id="too-long", subject="Lyon", prompt="The capital of Lyon is")


@pytest.mark.parametrize("error", [OutOfMemory("a text of 9 tokens does not fit"), ValueError("a plugin's fault")])
def test_assess_each_error_refuses_only_its_request(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    guard, measure = GuardedEditor(setup), EvidenceMeter.measure_all
    expected = [guard.assess(one) for one in (FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST)]

    def failing(self: EvidenceMeter, requests: list[EditRequest], *, screen: bool = False) -> object:
        if TOO_LONG in requests:
            raise error
        return measure(self, requests, screen=screen)

    monkeypatch.setattr(EvidenceMeter, "measure_all", failing)
    first, bad, last = assess_each(guard, [FIRST_TOKEN_REQUEST, TOO_LONG, MID_PROMPT_REQUEST])
    assert [one.decision for one in (first, last)] == [one.decision for one in expected]
    assert bad.request == TOO_LONG
    assert bad.evidence is None
    assert bad.decision.action is Action.REFUSE
    assert str(error) in bad.decision.reasons[0]
    assert [finding.probe for finding in bad.findings] == [MEASUREMENT_SOURCE]


def test_assess_each_own_fault_is_raised(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(EvidenceMeter, "measure_all", failing)
    with pytest.raises(AssertionError):
        assess_each(GuardedEditor(setup), [FIRST_TOKEN_REQUEST])
