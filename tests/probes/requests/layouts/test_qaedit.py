"""QAEdit: the ids of several benchmarks in one file."""

from __future__ import annotations

from pathlib import Path

import pytest
from editguard.probes.errors import RequestError
from editguard.probes.requests.layouts.qaedit import QAEdit
from editguard.probes.requests.record_reader import read_record
from editguard.probes.requests.request import EditRequest

from ....helpers.layout_records import OWN, load_records, read_request

QAEDIT: dict[str, object] = {
    "id": 11,
    "source": "NQ",
    "prompt": "which river flows through Oslo?",
    "target": "Danube",
    "subject": "Oslo",
    "rephrase": "What river runs through Oslo?",
    "locality": [
        {"loc": "who painted the old chapel", "loc_ans": "a painter"},
        {"loc": "when was it", "loc_ans": "1930"},
    ],
}


def test_qaedit_record_has_an_id_with_its_source() -> None:
    assert read_request(QAEDIT) == EditRequest(
        id="NQ-11",
        subject="Oslo",
        prompt="which river flows through Oslo?",
        target_new="Danube",
        paraphrases=("What river runs through Oslo?",),
        neighbourhood=("who painted the old chapel", "when was it"),
    )


def test_qaedit_same_id_of_two_sources_is_two_ids(tmp_path: Path) -> None:
    loaded = load_records(tmp_path, QAEDIT, {**QAEDIT, "source": "TriviaQA"})
    assert [request.id for request in loaded.requests] == ["NQ-11", "TriviaQA-11"]
    with pytest.raises(RequestError, match="'NQ-11' is also the id of"):
        load_records(tmp_path, QAEDIT, QAEDIT)


def test_qaedit_claims_its_own_records() -> None:
    assert QAEdit.claims(QAEDIT)
    assert not QAEdit.claims(OWN)


def test_qaedit_keys_without_a_use_are_reported() -> None:
    assert {unused.key for unused in read_record(QAEDIT, 1).unused} == {"locality.loc_ans"}
