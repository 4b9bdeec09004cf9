"""The denominator probe: both of its thresholds, a denominator of zero, and the numbers in its details."""

from __future__ import annotations

import math

import pytest
from editguard.probes.builtin.denominator import Denominator
from editguard.probes.probe import Level, ProbeInput

from ...helpers.probe_inputs import THRESHOLDS

pytestmark = pytest.mark.tiny


@pytest.mark.parametrize(
    ("figures", "fires"),
    [
        ({"denominator": 0.21}, False),
        ({"denominator": 0.19}, True),
        ({"denominator": 4.2, "denominator_prefixed": 20.0}, False),
        ({"denominator": 3.8, "denominator_prefixed": 20.0}, True),
        ({"predicted_relative_norm": 1.9}, False),
        ({"predicted_relative_norm": 2.1}, True),
    ],
)
def test_denominator_on_either_side_of_a_threshold(sound: ProbeInput, figures: dict[str, float], fires: bool) -> None:
    finding = Denominator().examine(sound.with_evidence(**figures))
    assert finding.level is (Level.RISK if fires else Level.OK)
    assert finding.threshold in [threshold.value for threshold in THRESHOLDS.values()]
    # The rule that fired stands first.
    assert ("outside the bound" in finding.message.split(";")[0]) is fires
    assert finding.message.count("side the bound (at ") == finding.message.count(";") + 1


def test_denominator_of_zero_is_error(sound: ProbeInput) -> None:
    finding = Denominator().examine(sound.with_evidence(denominator=0.0, predicted_relative_norm=math.inf))
    assert finding.level is Level.ERROR


def test_denominator_details_hold_the_bound(sound: ProbeInput) -> None:
    assert Denominator().examine(sound).details["predicted_relative_norm"] == 0.5
