"""Flat CounterFact: one text a key."""

from __future__ import annotations

from editguard.probes.requests.layouts.counterfact_flat import FlatCounterFact
from editguard.probes.requests.request import EditRequest

from ....helpers.layout_records import FLAT, OWN, ZSRE, read_request


def test_flat_counterfact_full_record_gives_the_request() -> None:
    assert read_request(FLAT) == EditRequest(
        id="4",
        subject="Lyon",
        prompt="Lyon is a city in",
        target_new="Spain",
        target_true="France",
        paraphrases=("Where is Lyon? In",),
        neighbourhood=("Trieste is in",),
    )


def test_flat_counterfact_claims_its_own_records() -> None:
    assert FlatCounterFact.claims(FLAT)
    assert not FlatCounterFact.claims(OWN)


def test_flat_counterfact_portability_of_easyedit_is_not_judged() -> None:
    fields: dict[str, object] = {
        "subject": "Oslo",
        "prompt": "Oslo is in",
        "target_new": "Spain",
        "ground_truth": "Norway",
        "locality_prompt": "Bergen is in",
        "locality_ground_truth": "Norway",
        "portability": ZSRE["portability"],
    }
    assert read_request(fields).not_judged == ("Which sea is near?",)
