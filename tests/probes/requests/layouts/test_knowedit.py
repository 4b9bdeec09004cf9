"""KnowEdit in each shape of its files."""

from __future__ import annotations

import pytest
from editguard.probes.requests.layouts.knowedit import KnowEdit
from editguard.probes.requests.record_reader import read_record
from editguard.probes.requests.request import EditRequest

from ....helpers.layout_records import OWN, read_request

WIKI_COUNTERFACT: dict[str, object] = {
    "subject": "Oslo",
    "prompt": "The river that flows through Oslo is",
    "target_new": "Danube",
    "ground_truth": ["Akerselva", "Akers River", ""],
    "portability": {
        "Logical_Generalization": [{"prompt": "The city on the Danube is", "ground_truth": [["Oslo", "Kristiania"]]}],
        "Reasoning": [],
        "Subject_Aliasing": [{"prompt": "The river that flows through Kristiania is", "ground_truth": ["Danube"]}],
    },
    "locality": {
        "Relation_Specificity": [
            {"prompt": "The country of Oslo is", "ground_truth": [["Norway", "Kingdom of Norway"]]}
        ],
        "Forgetfulness": [{"prompt": "The river that flows through Vienna is", "ground_truth": [["Danube", ""]]}],
    },
}
WIKI_RECENT: dict[str, object] = {
    "subject": "Oslo",
    "prompt": "The name of the tallest tower in Oslo is",
    "target_new": "Blue Tower",
    "portability": {"Logical_Generalization": [], "Subject_Aliasing": []},
    "locality": {"Relation_Specificity": [{"prompt": "The country of Oslo is", "ground_truth": ["Norway"]}]},
    "rephrase": "",
}
KNOWEDIT_ZSRE: dict[str, object] = {
    "subject": "Oslo",
    "target_new": "Danube",
    "prompt": "Which river flows through Oslo?",
    "ground_truth": ["Akerselva"],
    "rephrase_prompt": "What river runs through Oslo?",
    "cond": "Akerselva >> Danube || Which river flows through Oslo?",
    "locality": {"Relation_Specificity": [{"prompt": "Oslo country", "ground_truth": ["Norway"]}]},
    "portability": {"Reasoning": []},
}


def test_knowedit_wiki_counterfact_gives_every_field() -> None:
    assert read_request(WIKI_COUNTERFACT) == EditRequest(
        id="1",
        subject="Oslo",
        prompt="The river that flows through Oslo is",
        target_new="Danube",
        target_true="Akerselva",
        true_aliases=("Akers River",),
        neighbourhood=("The river that flows through Vienna is",),
        other_facts=("The country of Oslo is",),
        not_judged=("The city on the Danube is", "The river that flows through Kristiania is"),
    )


def test_knowedit_wiki_recent_needs_no_old_answer() -> None:
    request = read_request(WIKI_RECENT)
    assert (request.target_true, request.paraphrases, request.other_facts) == (None, (), ("The country of Oslo is",))


def test_knowedit_zsre_gives_its_paraphrase() -> None:
    request = read_request(KNOWEDIT_ZSRE)
    assert request.target_true == "Akerselva"
    assert request.paraphrases == ("What river runs through Oslo?",)
    assert request.other_facts == ("Oslo country",)


@pytest.mark.parametrize(
    ("answers", "true", "others"),
    [
        ("Akerselva", "Akerselva", ()),
        ("", None, ()),
        ([], None, ()),
        ([["", ""]], None, ()),
        ([["Akerselva", "Akers River"]], "Akerselva", ("Akers River",)),
        ([["Akerselva"], ["Akers River", "Akerselva"]], "Akerselva", ("Akers River",)),
    ],
)
def test_knowedit_ground_truth_any_shape_is_answer_and_aliases(
    answers: object, true: str | None, others: tuple[str, ...]
) -> None:
    request = read_request({**WIKI_COUNTERFACT, "ground_truth": answers})
    assert (request.target_true, request.true_aliases) == (true, others)


def test_knowedit_prompts_in_one_object_are_read() -> None:
    locality = {
        "neighborhood": {"prompt": ["Vienna's river is", "Oslo is in"], "ground_truth": ["Danube", "Norway"]},
        "empty": None,
    }
    request = read_request({**WIKI_COUNTERFACT, "locality": locality})
    assert (request.neighbourhood, request.other_facts) == (("Vienna's river is",), ("Oslo is in",))


@pytest.mark.parametrize("locality", [{"a": ["x"]}, {"a": [{"ground_truth": "x"}]}, {"a": [{"prompt": 3}]}])
def test_knowedit_prompts_of_another_shape_are_one_fault(locality: object) -> None:
    (fault,) = read_record({**WIKI_COUNTERFACT, "locality": locality}, 1).faults
    assert fault.field == "locality"
    assert "holds under 'a'" in fault.message


def test_knowedit_claims_its_own_records() -> None:
    assert KnowEdit.claims(WIKI_COUNTERFACT)
    assert KnowEdit.claims(WIKI_RECENT)
    assert KnowEdit.claims(KNOWEDIT_ZSRE)
    assert not KnowEdit.claims(OWN)


@pytest.mark.parametrize(
    ("record", "keys"),
    [
        (WIKI_COUNTERFACT, {"portability", "locality.ground_truth"}),
        (KNOWEDIT_ZSRE, {"cond", "locality.ground_truth"}),
    ],
)
def test_knowedit_keys_without_a_use_are_reported(record: dict[str, object], keys: set[str]) -> None:
    assert {unused.key for unused in read_record(record, 1).unused} == keys
