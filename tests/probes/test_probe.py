"""A finding is RISK or OK, and ERROR for every number that is not finite, whatever the probe makes of it."""

from __future__ import annotations

import math

import pytest
from editguard.probes import builtin
from editguard.probes.card import Card
from editguard.probes.probe import PROBES, Finding, Level, Probe, ProbeInput, Threshold, run_probes

from ..helpers.tiny_models import TWIN_REQUEST, tiny_language_model, tiny_meter


class Asks(Probe):
    """A probe whose answer the test gives."""

    name = "asks"
    card = Card("q?", "s", "n", "apples", "r", "t", "a")

    def examine(self, case: ProbeInput) -> Finding:
        raise NotImplementedError


@pytest.mark.parametrize("fires", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_an_error_whether_it_fires_or_not(value: float, fires: bool) -> None:
    found = Asks().finding(fires, "all is well", value, 0.5)
    assert found.level is Level.ERROR
    assert found.value is None
    assert "not measured" in found.message
    assert "all is well" not in found.message


def test_a_finding_has_its_number_unit_and_finite_details() -> None:
    found = Asks().finding(True, "look", 0.25, 0.5, part=1.5, broken=math.nan, name="x", flag=True, none=None)
    assert found == Finding(
        "asks", Level.RISK, "look", 0.25, 0.5, "apples",
        {"part": 1.5, "broken": None, "name": "x", "flag": True, "none": None},
    )  # fmt: skip
    assert Asks().finding(False, "look", 0.25).level is Level.OK


@pytest.mark.tiny
def test_a_case_knows_thresholds_by_probe_and_metric_and_every_probe_is_run() -> None:
    meter = tiny_meter(tiny_language_model("llama"))
    keys = ("denominator/ratio", "denominator/predicted_relative_norm", "key-shift/cosine", "sink-key/cosine")
    thresholds = {key: Threshold(*key.split("/"), 0.5, "by hand", 16, {}) for key in keys}
    case = ProbeInput(meter.lm, TWIN_REQUEST, meter.measure(TWIN_REQUEST), thresholds)
    assert case.threshold("sink-key", "cosine") == 0.5
    with pytest.raises(KeyError):
        case.threshold("sink-key", "colour")
    assert [finding.probe for finding in run_probes(case)] == PROBES.names()
    assert set(builtin.__all__) == {cls.__name__ for _, cls in PROBES}
