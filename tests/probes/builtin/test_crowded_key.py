"""The crowded-key probe: its threshold, and subjects that no other can replace."""

from __future__ import annotations

import pytest
from editguard.probes.builtin.crowded_key import CrowdedKey
from editguard.probes.probe import Level, ProbeInput
from editguard.probes.subjects.subject_kinds import SubjectKind

from ...helpers.probe_inputs import THRESHOLDS

pytestmark = pytest.mark.tiny


@pytest.mark.parametrize(("share", "fires"), [(0.29, False), (0.31, True)])
def test_crowded_key_on_either_side_of_its_threshold(sound: ProbeInput, share: float, fires: bool) -> None:
    finding = CrowdedKey().examine(sound.with_evidence(crowding=share, crowded_kind=SubjectKind.COUNTRY))
    assert finding.level is (Level.RISK if fires else Level.OK)
    assert (finding.value, finding.threshold) == (share, THRESHOLDS["crowded-key/share"].value)
    assert ("outside the bound" in finding.message) is fires
    assert "of the kind 'country' would take" in finding.message
    assert finding.details == {"kind": "country"}


def test_crowded_key_without_other_subjects_is_ok_and_says_so(sound: ProbeInput) -> None:
    finding = CrowdedKey().examine(sound.with_evidence(crowding=None, crowded_kind=None))
    assert (finding.level, finding.value) == (Level.OK, None)
    assert finding.message.startswith("not asked")
