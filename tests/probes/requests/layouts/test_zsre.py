"""zsRE, in both ways to read it."""

from __future__ import annotations

from pathlib import Path

from editguard.probes.requests.layouts.zsre import ZsRE
from editguard.probes.requests.request import EditRequest

from ....helpers.layout_records import OWN, ZSRE, load_records, read_request

WATTS: dict[str, object] = {
    "subject": "Watts Humphrey",
    "src": "What university did Watts Humphrey attend?",
    "pred": "Trinity College",
    "rephrase": "What university did Watts Humphrey take part in?",
    "alt": "University of Michigan",
    "answers": ["Illinois Institute of Technology", "IIT"],
    "loc": "nq question: who played desmond doss father",
    "loc_ans": "Hugo Weaving",
    "cond": "Trinity College >> University of Michigan || What university did Watts Humphrey attend?",
}


def test_zsre_default_reading_gives_the_request() -> None:
    assert read_request(WATTS, index=3) == EditRequest(
        id="3",
        subject="Watts Humphrey",
        prompt="What university did Watts Humphrey attend?",
        target_new="University of Michigan",
        target_true="Illinois Institute of Technology",
        paraphrases=("What university did Watts Humphrey take part in?",),
        neighbourhood=("who played desmond doss father",),
        true_aliases=("IIT",),
    )


def test_zsre_default_target_is_the_alternative() -> None:
    request = read_request(ZSRE)
    assert (request.target_new, request.target_true, request.true_aliases) == ("Danube", "Akerselva", ("Akers River",))
    assert request.not_judged == ("Which sea is near?",)


def test_zsre_target_answers_is_the_first_answer(tmp_path: Path) -> None:
    loaded = load_records(tmp_path, ZSRE, zsre_target="answers")
    (request,) = loaded.requests
    assert (request.target_new, request.target_true, request.true_aliases) == ("Akerselva", None, ())
    assert any(sentence.startswith("alt, answers[1:] of 1 record are not used") for sentence in loaded.unused)


def test_zsre_claims_its_own_records() -> None:
    assert ZsRE.claims(ZSRE)
    assert not ZsRE.claims(OWN)
