"""The built-in data keep their rules: no model and no tokenizer is needed to check these.

Out of scope: how many tokens a subject has. That belongs to the tokenizer of the embedded model, so here the groups
are held only to where the subject stands in the prompt.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib.resources import files
from typing import Any

import pytest

DATA = files("editguard.suites") / "data"


def read(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8")


CORPUS = read("corpus.txt").splitlines()
EDITS: list[dict[str, Any]] = json.loads(read("edits.json"))
ORDINARY: list[dict[str, str]] = json.loads(read("ordinary.json"))

SMALLEST_GROUPS = {"single-token-first": 30, "multi-token-first": 14, "mid-prompt": 14}
EDIT_KEYS = {"id", "group", "subject", "prompt", "target_new", "target_true", "paraphrases", "neighbourhood"}

each_edit = pytest.mark.parametrize("edit", EDITS, ids=[str(edit.get("id")) for edit in EDITS])
each_ordinary = pytest.mark.parametrize("entry", ORDINARY, ids=[str(entry.get("subject")) for entry in ORDINARY])


def mentions(text: str, words: str) -> bool:
    """Tell whether `words` stand in `text` as whole words, in any case."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE) is not None


def plain(text: str) -> bool:
    """Tell whether `text` is one non-empty line with no space at its ends and none doubled."""
    return text != "" and " ".join(text.split()) == text


def taken_up_by_a_word(prompt: str) -> bool:
    """Tell whether a space and a word may follow: the prompt ends in a letter, not in a space or a mark."""
    return plain(prompt) and prompt[-1].isalpha()


# The perplexity corpus


def test_the_corpus_has_fifty_different_sentences() -> None:
    assert len(CORPUS) == len(set(CORPUS)) == 50


@pytest.mark.parametrize("sentence", CORPUS)
def test_a_sentence_is_of_ordinary_length_and_whole(sentence: str) -> None:
    assert plain(sentence)
    assert 12 <= len(sentence.split()) <= 28
    assert sentence.lstrip('"')[0].isupper()
    assert sentence.rstrip('"')[-1] in ".?!"
    assert sentence.count('"') % 2 == 0


def test_no_word_opens_more_than_four_sentences() -> None:
    opening = Counter(re.findall(r"\w+", sentence)[0].lower() for sentence in CORPUS)
    assert [word for word, count in opening.items() if count > 4] == []


def test_the_corpus_is_not_about_the_edited_subjects() -> None:
    pairs = [
        (edit["subject"], sentence) for edit in EDITS for sentence in CORPUS if mentions(sentence, edit["subject"])
    ]
    assert pairs == []


# The edits


def test_every_group_is_large_enough_and_known() -> None:
    counts = Counter(edit["group"] for edit in EDITS)
    assert set(counts) == set(SMALLEST_GROUPS)
    assert [group for group, least in SMALLEST_GROUPS.items() if counts[group] < least] == []


def test_ids_and_subjects_of_the_edits_are_unique() -> None:
    ids = Counter(edit["id"] for edit in EDITS)
    subjects = Counter(edit["subject"].casefold() for edit in EDITS)
    assert [name for name, count in (ids + subjects).items() if count > 1] == []


@each_edit
def test_an_edit_has_exactly_the_known_fields(edit: dict[str, Any]) -> None:
    assert set(edit) == EDIT_KEYS
    assert len(edit["paraphrases"]) == 2
    assert len(edit["neighbourhood"]) in (2, 3)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", edit["id"])


@each_edit
def test_the_subject_stands_once_where_its_group_says(edit: dict[str, Any]) -> None:
    subject, prompt = edit["subject"], edit["prompt"]
    assert prompt.casefold().count(subject.casefold()) == 1
    before, _, after = prompt.partition(subject)
    if edit["group"] == "mid-prompt":
        assert len(before.split()) >= 2
    else:
        assert before == ""
    assert after.strip() != ""
    assert not after[0].isalnum()
    if edit["group"] == "single-token-first":
        assert subject.isalpha()


@each_edit
def test_the_targets_are_two_short_answers_of_one_kind(edit: dict[str, Any]) -> None:
    new, true = edit["target_new"], edit["target_true"]
    assert new.casefold() != true.casefold()
    assert new.isalpha()
    assert true.isalpha()
    assert new[0].isupper() == true[0].isupper()


@each_edit
def test_no_prompt_of_an_edit_gives_a_target_away(edit: dict[str, Any]) -> None:
    for text in (edit["prompt"], *edit["paraphrases"]):
        assert not mentions(text, edit["target_new"])
        assert not mentions(text, edit["target_true"])


@each_edit
def test_a_paraphrase_asks_for_the_subject_in_other_words(edit: dict[str, Any]) -> None:
    texts = [edit["prompt"], *edit["paraphrases"]]
    assert len(set(texts)) == 3
    for paraphrase in edit["paraphrases"]:
        assert taken_up_by_a_word(paraphrase)
        assert paraphrase.count(edit["subject"]) == 1
        assert edit["prompt"][1:] not in paraphrase


@each_edit
def test_a_neighbourhood_prompt_asks_about_somebody_else(edit: dict[str, Any]) -> None:
    assert len(set(edit["neighbourhood"])) == len(edit["neighbourhood"])
    for neighbour in edit["neighbourhood"]:
        assert taken_up_by_a_word(neighbour)
        assert edit["subject"].casefold() not in neighbour.casefold()
        assert not mentions(neighbour, edit["target_true"])
        assert not mentions(neighbour, edit["target_new"])


@each_edit
def test_a_prompt_of_an_edit_can_be_followed_by_its_target(edit: dict[str, Any]) -> None:
    assert taken_up_by_a_word(edit["prompt"])


def test_no_neighbourhood_prompt_is_about_the_subject_of_another_edit() -> None:
    """Otherwise locality, after many edits at once, would blame one edit for what another was asked to do."""
    violations = [
        (other["subject"], neighbour)
        for edit in EDITS
        for neighbour in edit["neighbourhood"]
        for other in EDITS
        if mentions(neighbour, other["subject"])
    ]
    assert violations == []


# The ordinary subjects


def test_there_are_ninety_six_different_ordinary_subjects() -> None:
    assert len(ORDINARY) == len({entry["subject"].casefold() for entry in ORDINARY}) == 96
    assert len({entry["prompt"] for entry in ORDINARY}) == 96


@each_ordinary
def test_an_ordinary_subject_stands_once_in_mid_prompt(entry: dict[str, str]) -> None:
    assert set(entry) == {"subject", "prompt"}
    subject, prompt = entry["subject"], entry["prompt"]
    assert prompt.casefold().count(subject.casefold()) == 1
    assert len(prompt.partition(subject)[0].split()) >= 2
    assert taken_up_by_a_word(prompt)


def test_ordinary_prompts_are_not_about_the_edits() -> None:
    violations = [
        (edit["subject"], entry["prompt"])
        for edit in EDITS
        for entry in ORDINARY
        if mentions(entry["prompt"], edit["subject"])
    ]
    assert violations == []


def test_ordinary_subjects_come_in_many_shapes() -> None:
    subjects = [entry["subject"] for entry in ORDINARY]
    words = Counter(len(subject.split()) for subject in subjects)
    assert words[1] >= 20
    assert words[2] >= 15
    assert sum(count for length, count in words.items() if length > 2) >= 8
    for shape in (r"['’]", r"-", r"\d", r"[^\x00-\x7f]"):
        assert sum(re.search(shape, subject) is not None for subject in subjects) >= 2, shape
