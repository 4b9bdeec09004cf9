"""A finding is RISK or OK, and ERROR for every number that is not finite, whatever the probe makes of it."""

from __future__ import annotations

import math

import pytest
from editguard.probes.card import Card
from editguard.probes.probe import PROBES, Finding, Level, Probe, ProbeInput, run_probes

from ..helpers.probe_inputs import fixed_thresholds
from ..helpers.tiny_models import TWIN_REQUEST, tiny_language_model, tiny_meter


class AnyProbe(Probe):
    """A probe whose answer the test gives."""

    name = "any"
    card = Card(question="q?", source="s", needs="n", unit="apples", range="r", threshold="t", action="a")

    def examine(self, probe_input: ProbeInput) -> Finding:
        raise NotImplementedError


@pytest.mark.parametrize("fires", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_finding_of_a_value_that_is_not_finite_is_error(value: float, fires: bool) -> None:
    finding = AnyProbe().finding(fires, "all is well", value, 0.5)
    assert finding.level is Level.ERROR
    assert finding.value is None
    assert "not measured" in finding.message
    assert "all is well" not in finding.message


def test_finding_has_its_number_unit_and_finite_details() -> None:
    finding = AnyProbe().finding(True, "look", 0.25, 0.5, part=1.5, broken=math.nan, name="x", flag=True, none=None)
    assert finding == Finding(
        probe="any",
        level=Level.RISK,
        message="look",
        value=0.25,
        threshold=0.5,
        unit="apples",
        details={"part": 1.5, "broken": None, "name": "x", "flag": True, "none": None},
    )
    assert AnyProbe().finding(False, "look", 0.25).level is Level.OK


@pytest.mark.tiny
def test_probe_input_has_thresholds_by_metric_and_runs_every_probe() -> None:
    meter = tiny_meter(tiny_language_model("llama"))
    keys = ("denominator/ratio", "denominator/predicted_relative_norm", "key-shift/cosine", "sink-key/cosine")
    thresholds = fixed_thresholds(dict.fromkeys((*keys, "crowded-key/share"), 0.5))
    probe_input = ProbeInput(meter.lm, TWIN_REQUEST, meter.measure(TWIN_REQUEST), thresholds)
    assert probe_input.threshold("sink-key", "cosine") == 0.5
    with pytest.raises(KeyError):
        probe_input.threshold("sink-key", "colour")
    assert [finding.probe for finding in run_probes(probe_input)] == PROBES.names()


def test_probe_declares_no_calibration_and_no_figures_by_default() -> None:
    assert AnyProbe.calibrated == {}
    assert AnyProbe.figures is None
