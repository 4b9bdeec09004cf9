"""editguard's own layout: what may be asked, and the way out of every mistake."""

from __future__ import annotations

import pytest
from editguard.probes.requests.record_reader import read_record
from editguard.probes.requests.request import EditRequest

OWN: dict[str, object] = {"subject": "Oslo", "prompt": "The river that flows through {} is", "target_new": "Danube"}
ZSRE: dict[str, object] = {"subject": "Oslo", "src": "Where is Oslo?", "alt": "Spain", "answers": ["Norway"]}


def only(fields: dict[str, object]) -> EditRequest:
    read = read_record(fields, 1)
    assert read.faults == ()
    return read.requests[0]


def faults(fields: dict[str, object]) -> dict[str, str]:
    return dict(read_record(fields, 1).faults)


def test_own_with_all_keys_gives_all_fields() -> None:
    request = only(
        {
            **OWN,
            "target_true": "Akerselva",
            "true_aliases": [" Akers River "],
            "other_facts": ["{} lies in", "The mayor of Oslo is"],
            "question": "Which river flows through {}?",
            "space": False,
            "not_judged": ["The sea near {} is"],
            "metadata": {"anything": [1, None]},
        }
    )
    assert request.true_aliases == ("Akers River",)
    assert request.other_facts == ("Oslo lies in", "The mayor of Oslo is")
    assert request.question == "Which river flows through Oslo?"
    assert request.space is False
    assert request.not_judged == ("The sea near Oslo is",)


@pytest.mark.parametrize("key", ["target_true", "target_old"])
def test_own_old_answer_may_be_a_list_of_names(key: str) -> None:
    request = only({**OWN, key: ["Akerselva", "Akers River", "Akerselva"], "true_aliases": ["Akers River", "Akers"]})
    assert (request.target_true, request.true_aliases) == ("Akerselva", ("Akers River", "Akers"))


def test_own_old_answer_under_two_names_is_a_fault() -> None:
    assert "is given beside 'target_true'" in faults({**OWN, "target_true": "a", "target_old": "b"})["target_old"]


@pytest.mark.parametrize("written", ["['Akerselva', 'Akers River']", '["Akerselva"]', "[['Akerselva']]"])
def test_own_old_answer_that_is_a_list_in_quotes_is_a_fault(written: str) -> None:
    assert "is a list written as one text" in faults({**OWN, "target_true": written})["target_true"]


@pytest.mark.parametrize("written", ["[sic]", "[1]", "[]", "[Norway"])
def test_own_old_answer_in_brackets_that_is_no_list_is_text(written: str) -> None:
    assert only({**OWN, "target_true": written}).target_true == written


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({**OWN, "neighbourhood": ["The mayor of {} is"]}, "neighbourhood[0]"),
        ({**OWN, "neighborhood": ["x", "The mayor of {} is"]}, "neighborhood[1]"),
        ({**OWN, "ground_truth": "x", "locality_prompt": "The mayor of {} is"}, "locality_prompt"),
        ({**ZSRE, "loc": "nq question: who is {}"}, "loc"),
    ],
)
def test_neighbour_with_a_placeholder_is_a_fault_with_the_way_out(fields: dict[str, object], key: str) -> None:
    message = faults(fields)[key]
    assert "a neighbour is a prompt about another subject" in message
    assert "use other_facts" in message


def test_other_facts_without_the_subject_are_a_fault() -> None:
    found = faults({**OWN, "other_facts": ["{} lies in", "Bergen lies in"]})
    assert list(found) == ["other_facts[1]"]
    assert "does not name the subject 'Oslo'" in found["other_facts[1]"]


def test_true_aliases_without_an_old_answer_are_a_fault() -> None:
    assert "without target_true" in faults({**OWN, "true_aliases": ["x"]})["true_aliases"]


@pytest.mark.parametrize("value", ["yes", 1, "true"])
def test_space_that_is_no_truth_is_a_fault(value: object) -> None:
    assert faults({**OWN, "space": value})["space"].startswith("must be true or false, and is")


@pytest.mark.parametrize("prompt", ["Oslo is the Oslo of", "{} and Oslo are"])
def test_subject_that_stands_twice_is_a_fault_of_the_record(prompt: str) -> None:
    assert "'Oslo' is ambiguous" in faults({**OWN, "prompt": prompt})["subject"]


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
def test_key_of_the_old_answer_is_never_led_to_the_new_one(key: str, value: object) -> None:
    assert "did you mean 'target_true'?" in faults({**OWN, key: value})[key]


@pytest.mark.parametrize("key", NEW_KEYS)
def test_key_of_the_new_answer_is_never_led_to_the_old_one(key: str) -> None:
    assert "did you mean 'target_new'?" in faults({**OWN, key: "x"})[key]


@pytest.mark.parametrize("key", ["target", "answer", "object"])
def test_key_of_either_answer_is_led_to_both(key: str) -> None:
    message = faults({**OWN, key: "x"})[key]
    assert "'target_new' (the new answer) or 'target_true' (the old one)" in message


@pytest.mark.parametrize(
    ("base", "opposite"),
    [(OWN, {"target_new"}), ({**OWN, "ground_truth": "x"}, {"target_new"}), (ZSRE, {"alt"})],
)
@pytest.mark.parametrize("key", OLD_KEYS)
def test_suggestion_in_any_layout_is_never_the_opposite(base: dict[str, object], opposite: set[str], key: str) -> None:
    message = faults({**base, key: "x"})[key]
    assert not any(f"did you mean {name!r}" in message for name in opposite)
