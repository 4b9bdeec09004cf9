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

REQUEST = EditRequest("a", "Chicago", "The city of Chicago is twinned with", "Istanbul")


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
def test_select_paraphrases_with_the_subject_keeps_them(subject: str, text: str) -> None:
    request = replace(REQUEST, subject=subject, prompt=f"{subject} is", paraphrases=(text,))
    assert select_paraphrases(request) == (text,)
    assert find_misplaced_prompts(request) == ()


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
def test_select_paraphrases_of_another_subject_leaves_them_out(subject: str, text: str) -> None:
    request = replace(REQUEST, subject=subject, prompt=f"{subject} is", paraphrases=(text, f"{subject} was"))
    assert select_paraphrases(request) == (f"{subject} was",)
    (message,) = find_misplaced_prompts(request)
    assert text in message
    assert "does not name the subject" in message


def test_select_neighbours_with_the_subject_leaves_them_out() -> None:
    request = replace(REQUEST, neighbourhood=("Chicago Heights is twinned with", "Boston is twinned with"))
    assert select_neighbours(request) == ("Boston is twinned with",)
    (message,) = find_misplaced_prompts(request)
    assert "Chicago Heights" in message
    assert "use other_facts" in message


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
def test_select_neighbours_with_only_its_letters_keeps_them(subject: str, text: str) -> None:
    request = replace(REQUEST, subject=subject, prompt=f"{subject} is", neighbourhood=(text,))
    assert select_neighbours(request) == (text,)


def test_find_contradictions_two_targets_name_both_ids() -> None:
    other = replace(REQUEST, id="b", target_new="Warsaw", prompt=REQUEST.prompt + " ")
    (message,) = find_contradictions([REQUEST, replace(REQUEST, id="c"), other])
    assert "'a' and 'b'" in message
    assert find_contradictions([REQUEST, replace(REQUEST, id="c"), replace(other, prompt="Chicago is")]) == ()
