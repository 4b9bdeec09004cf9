"""RippleEdits: recognised and refused."""

from __future__ import annotations

from editguard.probes.requests.layouts.ripple_edits import RippleEdits
from editguard.probes.requests.record_reader import read_record

from ....helpers.layout_records import OWN

RIPPLE: dict[str, object] = {
    "example_type": "popular",
    "edit": {
        "prompt": "The name of the river of Oslo is Danube.",
        "subject_id": "Q1",
        "relation": "RIVER",
        "target_id": "Q2",
    },
    "Relation_Specifity": [],
}


def test_ripple_edits_are_refused_in_one_sentence() -> None:
    (fault,) = read_record(RIPPLE, 1).faults
    assert "RippleEdits" in fault.message
    assert "the name is needed" in fault.message
    assert fault.message.count(".") == 1


def test_ripple_edits_claims_its_own_records() -> None:
    assert RippleEdits.claims(RIPPLE)
    assert not RippleEdits.claims(OWN)
