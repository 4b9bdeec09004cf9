"""The sink-key probe: its threshold."""

from __future__ import annotations

import pytest
from editguard.probes.builtin.sink_key import SinkKey
from editguard.probes.probe import Level, ProbeInput

from ...helpers.probe_inputs import THRESHOLDS

pytestmark = pytest.mark.tiny


@pytest.mark.parametrize(("similarity", "fires"), [(0.79, False), (0.81, True)])
def test_sink_key_on_either_side_of_its_threshold(sound: ProbeInput, similarity: float, fires: bool) -> None:
    finding = SinkKey().examine(sound.with_evidence(sink_similarity=similarity))
    assert finding.level is (Level.RISK if fires else Level.OK)
    assert finding.threshold == THRESHOLDS["sink-key/cosine"].value
    assert ("outside the bound" in finding.message) is fires
    assert finding.message.count("side the bound (at ") == finding.message.count(";") + 1
