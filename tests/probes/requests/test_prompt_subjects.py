from __future__ import annotations

from dataclasses import replace

import pytest
from editguard.probes.requests.prompt_subjects import (
    find_contradictions,
    find_misplaced_prompts,
    select_neighbours,
    select_paraphrases,
)
from editguard.probes.requests.request import EditRequest

ASKED = EditRequest("a", "Chicago", "The city of Chicago is twinned with", "Istanbul")


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("Chicago", "A digression. It ends here. Chicago is a twin city of"),
        ("Chicago", "CHICAGO’s twin city is"),
        ("The Beatles", "Beatles were founded in"),
        ("Beyoncé", "Beyonce was born in"),
        ("Paris (mythology)", "Paris was a son of"),
        ("Springfield, Illinois", "In Springfield people"),
        ("Париж", "Столица Парижа"),
        ("法国", "法国的首府叫做"),
        ("Spider-Man", "who plays spider man"),
    ],
)
def test_paraphrases_about_one_that_names_the_subject_keeps_it(subject: str, text: str) -> None:
    asked = replace(ASKED, subject=subject, prompt=f"{subject} is", paraphrases=(text,))
    assert select_paraphrases(asked) == (text,)
    assert find_misplaced_prompts(asked) == ()


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("Chicago", "Boston is a twin city of"),
        ("art", "Bart lives in"),
        ("Niger", "Nigeria lies in"),
        ("Chicago", "It is"),
        ("I, Robot", "I was written by"),
    ],
)
def test_paraphrases_about_one_of_another_subject_leaves_it_out(subject: str, text: str) -> None:
    asked = replace(ASKED, subject=subject, prompt=f"{subject} is", paraphrases=(text, f"{subject} was"))
    assert select_paraphrases(asked) == (f"{subject} was",)
    (told,) = find_misplaced_prompts(asked)
    assert text in told
    assert "does not name the subject" in told


def test_neighbours_about_others_one_that_holds_the_subject_leaves_it_out() -> None:
    asked = replace(ASKED, neighbourhood=("Chicago Heights is twinned with", "Boston is twinned with"))
    assert select_neighbours(asked) == ("Boston is twinned with",)
    (told,) = find_misplaced_prompts(asked)
    assert "Chicago Heights" in told
    assert "use other_facts" in told


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("art", "Bart lives in"),
        ("Niger", "Nigeria lies in"),
        ("Paris (mythology)", "Paris is a city in"),
        ("The Who", "who painted the old chapel"),
        ("US", "let us say that France is"),
    ],
)
def test_neighbours_about_others_one_with_the_letters_alone_keeps_it(subject: str, text: str) -> None:
    asked = replace(ASKED, subject=subject, prompt=f"{subject} is", neighbourhood=(text,))
    assert select_neighbours(asked) == (text,)


def test_contradictions_of_one_prompt_with_two_targets_names_both_ids() -> None:
    other = replace(ASKED, id="b", target_new="Warsaw", prompt=ASKED.prompt + " ")
    (told,) = find_contradictions([ASKED, replace(ASKED, id="c"), other])
    assert "'a' and 'b'" in told
    assert find_contradictions([ASKED, replace(ASKED, id="c"), replace(other, prompt="Chicago is")]) == ()
