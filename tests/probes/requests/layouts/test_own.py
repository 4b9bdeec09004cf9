"""editguard's own layout: every key, and the way out of every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from ....helpers.layout_records import OWN, ZSRE, load_records, read_faults, read_request


def test_own_with_all_keys_gives_all_fields() -> None:
    request = read_request(
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
    request = read_request(
        {**OWN, key: ["Akerselva", "Akers River", "Akerselva"], "true_aliases": ["Akers River", "Akers"]}
    )
    assert (request.target_true, request.true_aliases) == ("Akerselva", ("Akers River", "Akers"))


def test_own_old_answer_under_two_names_is_a_fault() -> None:
    assert "is given beside 'target_true'" in read_faults({**OWN, "target_true": "a", "target_old": "b"})["target_old"]


@pytest.mark.parametrize("written", ["['Akerselva', 'Akers River']", '["Akerselva"]', "[['Akerselva']]"])
def test_own_old_answer_that_is_a_list_in_quotes_is_a_fault(written: str) -> None:
    assert "is a list written as one text" in read_faults({**OWN, "target_true": written})["target_true"]


@pytest.mark.parametrize("written", ["[sic]", "[1]", "[]", "[Norway"])
def test_own_old_answer_in_brackets_without_a_list_is_text(written: str) -> None:
    assert read_request({**OWN, "target_true": written}).target_true == written


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({**OWN, "neighbourhood": ["The mayor of {} is"]}, "neighbourhood[0]"),
        ({**OWN, "neighborhood": ["x", "The mayor of {} is"]}, "neighborhood[1]"),
        ({**OWN, "ground_truth": "x", "locality_prompt": "The mayor of {} is"}, "locality_prompt"),
        ({**ZSRE, "loc": "nq question: who is {}"}, "loc"),
    ],
)
def test_neighbour_with_a_placeholder_is_a_fault_with_a_way_out(fields: dict[str, object], key: str) -> None:
    message = read_faults(fields)[key]
    assert "a neighbour is a prompt about another subject" in message
    assert "use other_facts" in message


def test_own_other_facts_without_the_subject_are_a_fault() -> None:
    faults = read_faults({**OWN, "other_facts": ["{} lies in", "Bergen lies in"]})
    assert list(faults) == ["other_facts[1]"]
    assert "does not name the subject 'Oslo'" in faults["other_facts[1]"]


def test_own_true_aliases_without_an_old_answer_are_a_fault() -> None:
    assert "without target_true" in read_faults({**OWN, "true_aliases": ["x"]})["true_aliases"]


@pytest.mark.parametrize("value", ["yes", 1, "true"])
def test_own_space_of_another_type_is_a_fault(value: object) -> None:
    assert read_faults({**OWN, "space": value})["space"].startswith("must be true or false, and is")


@pytest.mark.parametrize("prompt", ["Oslo is the Oslo of", "{} and Oslo are"])
def test_own_subject_that_stands_twice_is_a_fault(prompt: str) -> None:
    assert "'Oslo' is ambiguous" in read_faults({**OWN, "prompt": prompt})["subject"]


@pytest.mark.parametrize("metadata", [{"relation_id": "P37", "by": ["me", 3]}, {}, None, "P37"])
def test_own_metadata_is_accepted_and_changes_nothing(metadata: object) -> None:
    assert read_request({**OWN, "metadata": metadata}) == read_request(OWN)


@pytest.mark.parametrize("key", ["relation_id", "meta", "metadatas"])
def test_own_unknown_key_beside_metadata_is_a_fault(key: str) -> None:
    faults = read_faults({**OWN, "metadata": {"relation_id": "P37"}, key: "P37"})
    assert list(faults) == [key]
    assert faults[key].startswith("is an unknown key in editguard's own layout")


def test_own_unused_keys_do_not_include_metadata(tmp_path: Path) -> None:
    record = {**OWN, "metadata": {"by": ["me", 3]}, "other_facts": ["{} was"]}
    assert load_records(tmp_path, record).unused == ()
