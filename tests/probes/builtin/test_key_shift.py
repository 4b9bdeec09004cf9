"""The key-shift probe: its threshold and the numbers in its details."""

from __future__ import annotations

import pytest
from editguard.probes.builtin.key_shift import KeyShift
from editguard.probes.probe import Level, ProbeInput

from ...helpers.probe_inputs import THRESHOLDS

pytestmark = pytest.mark.tiny


@pytest.mark.parametrize(("cosine", "fires"), [(0.61, False), (0.59, True), (-0.9, True)])
def test_key_shift_on_either_side_of_its_threshold(sound: ProbeInput, cosine: float, fires: bool) -> None:
    finding = KeyShift().examine(sound.with_evidence(cosine=cosine))
    assert finding.level is (Level.RISK if fires else Level.OK)
    assert finding.threshold == THRESHOLDS["key-shift/cosine"].value
    assert ("outside the bound" in finding.message) is fires
    assert finding.message.count("side the bound (at ") == finding.message.count(";") + 1


def test_key_shift_details_hold_the_other_measures(sound: ProbeInput) -> None:
    assert KeyShift().examine(sound).details == {
        "norm_ratio": sound.evidence.norm_ratio,
        "distance_ratio": sound.evidence.distance_ratio,
    }


def test_key_shift_threshold_is_never_below_its_smallest() -> None:
    rule = KeyShift.calibrated["cosine"]
    assert rule.threshold({"0.01": 0.6, "median": 0.8}) == pytest.approx(0.5)
    assert rule.threshold({"0.01": -0.8, "median": 0.8}) == -0.9
