"""Nested CounterFact: the edit in an object of its own."""

from __future__ import annotations

from editguard.probes.requests.layouts.counterfact_nested import NestedCounterFact
from editguard.probes.requests.request import EditRequest

from ....helpers.layout_records import NESTED, OWN, REWRITE, ZSRE, read_request


def test_nested_counterfact_full_record_gives_the_request() -> None:
    assert read_request(NESTED) == EditRequest(
        id="5",
        subject="Danielle Darrieux",
        prompt="The mother tongue of Danielle Darrieux is",
        target_new="English",
        target_true="French",
        paraphrases=("Danielle Darrieux, a native", "Danielle Darrieux spoke the language"),
        neighbourhood=("Montesquieu is a native speaker of",),
    )


def test_nested_counterfact_claims_its_own_records() -> None:
    assert NestedCounterFact.claims(NESTED)
    assert not NestedCounterFact.claims(OWN)


def test_nested_counterfact_portability_of_easyedit_is_not_judged() -> None:
    rewrite = {key: value for key, value in REWRITE.items() if key != "question"}
    fields: dict[str, object] = {"case_id": 1, "requested_rewrite": rewrite, "portability": ZSRE["portability"]}
    assert read_request(fields).not_judged == ("Which sea is near?",)
