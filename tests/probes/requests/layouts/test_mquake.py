"""MQuAKE: cases of one or several edits."""

from __future__ import annotations

from pathlib import Path

from editguard.probes.requests.layouts.mquake import MQuAKE
from editguard.probes.requests.record_reader import read_record
from editguard.probes.requests.request import EditRequest

from ....helpers.layout_records import OWN, REWRITE, load_records, read_request

MQUAKE: dict[str, object] = {
    "case_id": 1,
    "requested_rewrite": [REWRITE],
    "questions": ["Which country holds the city on the Thames?"],
    "answer": "United Kingdom",
    "answer_alias": ["UK"],
    "new_answer": "Austria",
    "new_answer_alias": [],
    "single_hops": [{"question": "Which city?", "cloze": "The city", "answer": "London", "answer_alias": []}],
    "new_single_hops": [],
    "orig": {"triples": [["Q3", "P1", "Q2"]], "new_triples": [], "edit_triples": [["Q3", "P1", "Q1"]]},
}


def test_mquake_single_rewrite_is_a_request_with_its_case() -> None:
    assert read_request(MQUAKE) == EditRequest(
        id="1",
        subject="Thames",
        prompt="Thames flows through the city of",
        target_new="Vienna",
        target_true="London",
        group="1",
        question="Which city does the Thames flow through?",
        not_judged=("Which country holds the city on the Thames?",),
    )


def test_mquake_several_rewrites_are_requests_of_one_group(tmp_path: Path) -> None:
    several = {**MQUAKE, "requested_rewrite": [REWRITE, {**REWRITE, "subject": "Seine"}]}
    loaded = load_records(tmp_path, several, {**MQUAKE, "case_id": 2})
    assert [(request.id, request.group, request.subject) for request in loaded.requests] == [
        ("1-1", "1", "Thames"),
        ("1-2", "1", "Seine"),
        ("2", "2", "Thames"),
    ]


def test_mquake_faults_are_named_by_their_rewrite() -> None:
    wrong = {**REWRITE, "subject": "Seine", "prompt": "Thames is", "target_nwe": 1}
    faults = dict(read_record({**MQUAKE, "requested_rewrite": [REWRITE, wrong]}, 1).faults)
    assert "did you mean 'target_new'?" in faults["requested_rewrite[1].target_nwe"]
    assert "does not stand in the prompt" in faults["requested_rewrite[1].subject"]
    assert len(faults) == 2
    assert "empty list" in read_record({**MQUAKE, "requested_rewrite": []}, 1).faults[0].message


def test_mquake_claims_its_own_records() -> None:
    assert MQuAKE.claims(MQUAKE)
    assert not MQuAKE.claims(OWN)


def test_mquake_keys_without_a_use_are_reported() -> None:
    assert {unused.key for unused in read_record(MQUAKE, 1).unused} == {
        "questions",
        "answer",
        "answer_alias",
        "new_answer",
        "single_hops",
    }
