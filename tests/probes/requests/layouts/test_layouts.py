"""Every published layout, at the shapes in which its files are found; the contents are made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from editguard.probes.errors import RequestError
from editguard.probes.requests.layouts import LAYOUTS
from editguard.probes.requests.layouts.base import ReadingOptions
from editguard.probes.requests.loader import LoadedRequests, load_requests
from editguard.probes.requests.record_reader import read_record
from editguard.probes.requests.request import EditRequest

WIKI_COUNTERFACT = {
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
WIKI_RECENT = {
    "subject": "Oslo",
    "prompt": "The name of the tallest tower in Oslo is",
    "target_new": "Blue Tower",
    "portability": {"Logical_Generalization": [], "Subject_Aliasing": []},
    "locality": {"Relation_Specificity": [{"prompt": "The country of Oslo is", "ground_truth": ["Norway"]}]},
    "rephrase": "",
}
KNOWEDIT_ZSRE = {
    "subject": "Oslo",
    "target_new": "Danube",
    "prompt": "Which river flows through Oslo?",
    "ground_truth": ["Akerselva"],
    "rephrase_prompt": "What river runs through Oslo?",
    "cond": "Akerselva >> Danube || Which river flows through Oslo?",
    "locality": {"Relation_Specificity": [{"prompt": "Oslo country", "ground_truth": ["Norway"]}]},
    "portability": {"Reasoning": []},
}
QAEDIT = {
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
REWRITE = {
    "prompt": "{} flows through the city of",
    "relation_id": "P1",
    "target_new": {"str": "Vienna", "id": "Q1"},
    "target_true": {"str": "London", "id": "Q2"},
    "subject": "Thames",
    "question": "Which city does the Thames flow through?",
}
MQUAKE = {
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
RIPPLE = {
    "example_type": "popular",
    "edit": {
        "prompt": "The name of the river of Oslo is Danube.",
        "subject_id": "Q1",
        "relation": "RIVER",
        "target_id": "Q2",
    },
    "Relation_Specifity": [],
}
ZSRE = {
    "subject": "Oslo",
    "src": "Which river flows through Oslo?",
    "pred": "Thames",
    "rephrase": "What river runs through Oslo?",
    "alt": "Danube",
    "answers": ["Akerselva", "Akers River"],
    "loc": "nq question: who painted the ceiling of the old chapel",
    "loc_ans": "a painter",
    "cond": "Akerselva >> Danube || Which river flows through Oslo?",
    "portability": {
        "Recalled Relation": "(Oslo, river)",
        "New Question": "Which sea is near?",
        "New Answer": "Black Sea",
    },
}


def only(fields: dict[str, object], reading: ReadingOptions | None = None) -> EditRequest:
    read = read_record(fields, 1, reading)
    assert read.faults == ()
    (request,) = read.requests
    return request


def loaded(folder: Path, *records: dict[str, object], **options: object) -> LoadedRequests:
    path = folder / "edits.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return load_requests(path, **options)  # type: ignore[arg-type]


def test_layouts_found_are_those_of_the_folder_and_ours_is_last() -> None:
    titles = [layout.title for layout in LAYOUTS]
    assert len(set(titles)) == len(titles) == 8
    assert titles[-1] == "editguard's own layout"


def test_knowedit_wiki_counterfact_is_read_with_aliases_neighbours_and_other_facts() -> None:
    assert only(WIKI_COUNTERFACT) == EditRequest(
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


def test_knowedit_wiki_recent_without_an_old_answer_is_read() -> None:
    request = only(WIKI_RECENT)
    assert (request.target_true, request.paraphrases, request.other_facts) == (None, (), ("The country of Oslo is",))


def test_knowedit_zsre_is_read_with_its_paraphrase() -> None:
    request = only(KNOWEDIT_ZSRE)
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
def test_knowedit_ground_truth_in_every_shape_is_an_answer_and_its_aliases(
    answers: object, true: str | None, others: tuple[str, ...]
) -> None:
    request = only({**WIKI_COUNTERFACT, "ground_truth": answers})
    assert (request.target_true, request.true_aliases) == (true, others)


def test_knowedit_prompts_as_one_object_with_lists_are_read() -> None:
    locality = {
        "neighborhood": {"prompt": ["Vienna's river is", "Oslo is in"], "ground_truth": ["Danube", "Norway"]},
        "empty": None,
    }
    request = only({**WIKI_COUNTERFACT, "locality": locality})
    assert (request.neighbourhood, request.other_facts) == (("Vienna's river is",), ("Oslo is in",))


@pytest.mark.parametrize("locality", [{"a": ["x"]}, {"a": [{"ground_truth": "x"}]}, {"a": [{"prompt": 3}]}])
def test_knowedit_prompts_of_no_shape_are_one_fault(locality: object) -> None:
    (fault,) = read_record({**WIKI_COUNTERFACT, "locality": locality}, 1).faults
    assert fault.field == "locality"
    assert "holds under 'a'" in fault.message


def test_qaedit_is_read_and_its_id_has_its_source() -> None:
    assert only(QAEDIT) == EditRequest(
        id="NQ-11",
        subject="Oslo",
        prompt="which river flows through Oslo?",
        target_new="Danube",
        paraphrases=("What river runs through Oslo?",),
        neighbourhood=("who painted the old chapel", "when was it"),
    )


def test_qaedit_one_id_of_two_sources_is_two_ids(tmp_path: Path) -> None:
    found = loaded(tmp_path, QAEDIT, {**QAEDIT, "source": "TriviaQA"})
    assert [request.id for request in found.requests] == ["NQ-11", "TriviaQA-11"]
    with pytest.raises(RequestError, match="'NQ-11' is also the id of"):
        loaded(tmp_path, QAEDIT, QAEDIT)


def test_mquake_one_rewrite_is_one_request_under_its_case() -> None:
    assert only(MQUAKE) == EditRequest(
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
    found = loaded(tmp_path, several, {**MQUAKE, "case_id": 2})
    assert [(one.id, one.group, one.subject) for one in found.requests] == [
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


def test_ripple_edits_are_one_sentence_with_the_layout_and_what_is_missing() -> None:
    (fault,) = read_record(RIPPLE, 1).faults
    assert "RippleEdits" in fault.message
    assert "the name is needed" in fault.message
    assert fault.message.count(".") == 1


def test_zsre_by_default_edits_the_alternative_in() -> None:
    request = only(ZSRE)
    assert (request.target_new, request.target_true, request.true_aliases) == ("Danube", "Akerselva", ("Akers River",))
    assert request.not_judged == ("Which sea is near?",)


def test_zsre_as_rome_reads_it_edits_the_first_answer_in(tmp_path: Path) -> None:
    found = loaded(tmp_path, ZSRE, zsre_target="answers")
    (request,) = found.requests
    assert (request.target_new, request.target_true, request.true_aliases) == ("Akerselva", None, ())
    assert any(told.startswith("alt, answers[1:] of 1 record are not used") for told in found.unused)


def test_easyedit_portability_beside_counterfact_is_kept_as_not_judged() -> None:
    flat = {
        "subject": "Oslo", "prompt": "Oslo is in", "target_new": "Spain", "ground_truth": "Norway",
        "locality_prompt": "Bergen is in", "locality_ground_truth": "Norway", "portability": ZSRE["portability"],
    }  # fmt: skip
    nested = {"case_id": 1, "requested_rewrite": {key: value for key, value in REWRITE.items() if key != "question"}}
    for fields in (flat, {**nested, "portability": ZSRE["portability"]}):
        assert only(fields).not_judged == ("Which sea is near?",)


# ---------------------------------------------------------------------------------------------------------------------
# What is not used


def test_unused_keys_are_counted_and_named_once(tmp_path: Path) -> None:
    plain = {key: value for key, value in ZSRE.items() if key not in ("portability", "pred")}
    found = loaded(
        tmp_path, ZSRE, plain, {**plain, "loc_ans": ""}, {"subject": "Oslo", "prompt": "{} is", "target_new": "x"}
    )
    assert found.unused == (
        "loc_ans of 2 records is not used: the old answers are asked of the model itself",
        "pred of 1 record is not used: what another model said is not asked",
        "cond of 3 records is not used: question and answers stand in other keys too",
        "portability of 1 record is not used: no check judges these prompts, which are kept and shown",
    )


@pytest.mark.parametrize(
    ("record", "keys"),
    [
        (WIKI_COUNTERFACT, {"portability", "locality.ground_truth"}),
        (KNOWEDIT_ZSRE, {"cond", "locality.ground_truth"}),
        (QAEDIT, {"locality.loc_ans"}),
        (MQUAKE, {"questions", "answer", "answer_alias", "new_answer", "single_hops"}),
    ],
)
def test_unused_keys_of_each_layout_are_named(record: dict[str, object], keys: set[str]) -> None:
    assert {one.key for one in read_record(record, 1).left_out} == keys


def test_unused_keys_of_our_own_layout_are_none(tmp_path: Path) -> None:
    own = {
        "subject": "Oslo",
        "prompt": "{} is",
        "target_new": "x",
        "metadata": {"by": ["me", 3]},
        "other_facts": ["{} was"],
    }
    assert loaded(tmp_path, own).unused == ()
