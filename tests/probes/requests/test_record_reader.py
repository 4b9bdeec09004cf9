from __future__ import annotations

import pytest
from editguard.probes.requests.record_reader import read_record
from editguard.probes.requests.request import EditRequest

from ...helpers.layout_records import FLAT, NESTED, ZSRE, read_faults, read_request

OWN = {"subject": "Lyon", "prompt": "{} is a city in", "target_new": "Spain"}


# ---------------------------------------------------------------------------------------------------------------------
# The layouts


def test_read_record_own_layout_in_full_gives_the_request() -> None:
    request = read_request(
        {
            **OWN,
            "id": "lyon",
            "target_true": " France ",
            "paraphrases": ["Where is {}? In"],
            "neighbourhood": ["Trieste is in"],
            "group": "first",
        }
    )
    assert request == EditRequest(
        id="lyon",
        subject="Lyon",
        prompt="Lyon is a city in",
        target_new="Spain",
        target_true="France",
        paraphrases=("Where is Lyon? In",),
        neighbourhood=("Trieste is in",),
        group="first",
    )


def test_read_record_without_an_id_takes_its_number() -> None:
    assert read_request(OWN, index=7) == EditRequest("7", "Lyon", "Lyon is a city in", "Spain")


def test_read_record_american_spelling_is_the_same_key() -> None:
    assert read_request({**OWN, "neighborhood": ["Trieste is in"]}).neighbourhood == ("Trieste is in",)


def test_read_record_strips_subject_and_target_but_no_prompt() -> None:
    request = read_request({"subject": " Lyon ", "prompt": "\n{} is in ", "target_new": "\tSpain "})
    assert (request.subject, request.prompt, request.target_new) == ("Lyon", "\nLyon is in ", "Spain")


@pytest.mark.parametrize(("given", "expected"), [(7, "7"), (0, "0"), (" a 7 ", "a 7")])
@pytest.mark.parametrize("key", ["id", "case_id"])
def test_read_record_id_becomes_text(key: str, given: object, expected: str) -> None:
    assert read_request({**OWN, key: given}).id == expected


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize("value", [1984, True, 1.5, ["Spain"], {"str": "Spain"}])
@pytest.mark.parametrize("field", ["subject", "prompt", "target_new", "target_true", "group"])
def test_read_record_other_type_than_text_is_a_fault(field: str, value: object) -> None:
    if (field, value) == ("target_true", ["Spain"]):
        return  # one of several names
    message = read_faults({**OWN, field: value})[field]
    assert message.startswith(f"must be text, and is {value!r} (")
    assert message.endswith("write one text." if isinstance(value, list | dict) else "put it in quotes.")


@pytest.mark.parametrize("value", [True, 1.0, [1], 1 << 200])
def test_read_record_other_type_of_id_is_a_fault(value: object) -> None:
    assert "must be text" in read_faults({**OWN, "id": value})["id"]


@pytest.mark.parametrize("field", ["id", "subject", "prompt", "target_new", "target_true"])
@pytest.mark.parametrize("blank", ["", "  ", "\n\u00a0"])
def test_read_record_blank_text_is_a_fault(field: str, blank: str) -> None:
    assert read_faults({**OWN, field: blank})[field].startswith("must not be empty")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({**OWN, "paraphrases": ["a", " "]}, "paraphrases[1]"),
        ({**OWN, "neighborhood": [3]}, "neighborhood[0]"),
        ({**OWN, "paraphrases": "a"}, "paraphrases"),
        ({**FLAT, "ground_truth": ""}, "ground_truth"),
        ({**FLAT, "rephrase_prompt": ["a"]}, "rephrase_prompt"),
        ({**ZSRE, "alt": ""}, "alt"),
        ({**ZSRE, "answers": []}, "answers"),
        ({**ZSRE, "answers": [""]}, "answers"),
        ({**ZSRE, "loc": "nq question: "}, "loc"),
        ({**NESTED, "requested_rewrite": "x"}, "requested_rewrite"),
        (
            {**NESTED, "requested_rewrite": {**NESTED["requested_rewrite"], "target_new": {"id": "Q1"}}},
            "requested_rewrite.target_new.str",
        ),
    ],
)
def test_read_record_wrong_field_is_named_by_its_path(fields: dict[str, object], field: str) -> None:
    assert list(read_faults(fields)) == [field]


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        (OWN, "subject"),
        (OWN, "prompt"),
        (OWN, "target_new"),
        (FLAT, "target_new"),
        (ZSRE, "answers"),
        (ZSRE, "src"),
    ],
)
def test_read_record_missing_key_is_named(fields: dict[str, object], missing: str) -> None:
    faults = read_faults({key: value for key, value in fields.items() if key != missing})
    assert "is missing" in faults[missing]


@pytest.mark.parametrize(
    ("fields", "key", "hint"),
    [
        (OWN, "targt_true", "did you mean 'target_true'?"),
        (OWN, "paraphrase", "did you mean 'paraphrases'?"),
        (OWN, "neighborhoods", "did you mean 'neighborhood'?"),
        (OWN, "zzz", "which has case_id, group, id,"),
        (FLAT, "ground_thruth", "did you mean 'ground_truth'?"),
        (FLAT, "target_true", "is a key of editguard's own layout, but 'ground_truth' makes this a record in flat"),
        (NESTED, "neighbourhood_prompts", "did you mean 'neighborhood_prompts'?"),
        (ZSRE, "target_new", "is a key of editguard's own layout, but 'alt' makes this a record in zsRE"),
    ],
)
def test_read_record_unknown_key_is_a_fault_with_a_suggestion(fields: dict[str, object], key: str, hint: str) -> None:
    assert hint in read_faults({**fields, key: ["x"]})[key]


def test_read_record_unknown_inner_key_is_a_fault() -> None:
    rewrite = {**NESTED["requested_rewrite"], "relation": "P1"}
    faults = read_faults({**NESTED, "requested_rewrite": rewrite})
    assert "did you mean 'relation_id'?" in faults["requested_rewrite.relation"]


def test_read_record_two_names_of_one_key_are_a_fault() -> None:
    faults = read_faults({**OWN, "neighborhood": ["a"], "neighbourhood": ["b"], "id": "1", "case_id": 2})
    assert "is given beside 'neighbourhood'" in faults["neighborhood"]
    assert "is given beside 'id'" in faults["case_id"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({**OWN, "prompt": "lyon is in"}, "subject"),
        ({**FLAT, "subject": "Paris"}, "subject"),
        ({**ZSRE, "subject": "Humphrey Watts"}, "subject"),
        (
            {**NESTED, "requested_rewrite": {**NESTED["requested_rewrite"], "prompt": "The tongue is"}},
            "requested_rewrite.subject",
        ),
    ],
)
def test_read_record_prompt_without_the_subject_is_a_fault(fields: dict[str, object], field: str) -> None:
    message = read_faults(fields)[field]
    assert "does not stand in the prompt" in message
    assert "letter by letter" in message
    assert "write {} in the prompt" in message


def test_read_record_reports_all_faults_at_once() -> None:
    faults = read_faults({"subject": "Lyon", "prompt": "Paris is", "paraphrases": [1], "colour": "red"})
    assert list(faults) == ["target_new", "paraphrases[0]", "colour", "subject"]


def test_read_record_wrong_record_keeps_its_id() -> None:
    assert read_record({"id": 7, "subject": ""}, 2).id == "7"
    assert read_record({"id": "", "subject": ""}, 2).id == "2"


# ---------------------------------------------------------------------------------------------------------------------
# Suggestions

OLD_KEYS = [
    "old_answer",
    "original",
    "target_original",
    "targetOld",
    "old_target",
    "true_target",
    "answer_old",
    "old",
    "truth",
]
NEW_KEYS = ["new_answer", "new_target", "targetNew", "edited_target", "answer_new", "new", "target_edit"]


@pytest.mark.parametrize("key", OLD_KEYS)
@pytest.mark.parametrize("value", ["x", ["x"]])
def test_suggestion_key_of_the_old_answer_leads_to_the_old_one(key: str, value: object) -> None:
    assert "did you mean 'target_true'?" in read_faults({**OWN, key: value})[key]


@pytest.mark.parametrize("key", NEW_KEYS)
def test_suggestion_key_of_the_new_answer_leads_to_the_new_one(key: str) -> None:
    assert "did you mean 'target_new'?" in read_faults({**OWN, key: "x"})[key]


@pytest.mark.parametrize("key", ["target", "answer", "object"])
def test_suggestion_key_of_either_answer_names_both(key: str) -> None:
    message = read_faults({**OWN, key: "x"})[key]
    assert "'target_new' (the new answer) or 'target_true' (the old one)" in message


@pytest.mark.parametrize(
    ("base", "opposite"),
    [(OWN, {"target_new"}), ({**OWN, "ground_truth": "x"}, {"target_new"}), (ZSRE, {"alt"})],
)
@pytest.mark.parametrize("key", OLD_KEYS)
def test_suggestion_in_any_layout_is_never_the_opposite(base: dict[str, object], opposite: set[str], key: str) -> None:
    message = read_faults({**base, key: "x"})[key]
    assert not any(f"did you mean {name!r}" in message for name in opposite)
