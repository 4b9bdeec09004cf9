"""A probe of another package is calibrated, asked, logged and screened like a built-in one, or refuses the screen."""

from __future__ import annotations

import pytest
from editguard.audit.guard import GuardedEditor
from editguard.audit.run.execute import assess_each
from editguard.probes.errors import InputError
from editguard.probes.probe import Level, Probe

from ..helpers.foreign_probes import KeyNorm, NormRatio, Undeclared, install_probe, key_norm
from ..helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, tiny_setup

pytestmark = pytest.mark.tiny

REQUESTS = [FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST]


def test_foreign_probe_is_calibrated_and_asked_of_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    install_probe(monkeypatch, KeyNorm)
    guard = GuardedEditor(tiny_setup())
    threshold = guard.setup.calibration.thresholds["key-norm/norm"]
    assert threshold.sample_size >= 16
    for assessment in guard.assess_all(REQUESTS):
        (finding,) = [finding for finding in assessment.findings if finding.probe == "key-norm"]
        assert assessment.evidence is not None
        norm = key_norm(assessment.evidence)
        assert (finding.value, finding.threshold) == (norm, threshold.value)
        assert finding.level is (Level.RISK if norm > threshold.value else Level.OK)


def test_foreign_probe_that_declares_its_figures_can_be_screened(monkeypatch: pytest.MonkeyPatch) -> None:
    install_probe(monkeypatch, KeyNorm)
    guard = GuardedEditor(tiny_setup())
    exact, screened = guard.assess_all(REQUESTS), guard.assess_all(REQUESTS, screen=True)
    assert [item.decision.action for item in screened] == [item.decision.action for item in exact]
    levels = [[finding.level for finding in item.findings if finding.probe == "key-norm"] for item in screened]
    assert levels == [[finding.level for finding in item.findings if finding.probe == "key-norm"] for item in exact]


@pytest.mark.parametrize("probe", [Undeclared, NormRatio])
def test_foreign_probe_without_screened_figures_refuses_the_screen(
    probe: type[Probe], monkeypatch: pytest.MonkeyPatch
) -> None:
    install_probe(monkeypatch, probe)
    guard = GuardedEditor(tiny_setup())
    assert len(guard.assess_all(REQUESTS)) == len(REQUESTS)
    with pytest.raises(InputError, match=r"The probe 'key-norm' .* leave --screen out"):
        guard.assess_all(REQUESTS, screen=True)
    with pytest.raises(InputError, match=r"The probe 'key-norm' .* leave --screen out"):
        assess_each(guard, REQUESTS, screen=True)
