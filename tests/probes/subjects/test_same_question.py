"""Prompts that ask for one fact in other words are told from prompts for other facts."""

from __future__ import annotations

import pytest
from editguard.probes.subjects.same_question import asks_the_same


@pytest.mark.parametrize(
    ("prompt", "other", "subject"),
    [
        ("England's capital is the city of", "England's capital city is", "England"),
        ("The capital of England is", "England's capital city is", "England"),
        ("Venice is known for", "Venice is known for its", "Venice"),
        ("Hrtkovci lies in the country of", "Hrtkovci is located in the country of", "Hrtkovci"),
    ],
)
def test_asks_the_same_of_one_fact_in_other_words_is_true(prompt: str, other: str, subject: str) -> None:
    assert asks_the_same(prompt, ["Another sentence about its river", other], subject)


@pytest.mark.parametrize(
    ("prompt", "other", "subject"),
    [
        ("The currency of England is the", "England's capital city is", "England"),
        ("London lies in the country of", "London stands on the banks of the river", "London"),
        ("The person who leads Microsoft is called the", "Microsoft sells an operating system called", "Microsoft"),
        ("Toyota has its headquarters in the city of", "Toyota comes from", "Toyota"),
        ("Paris is", "Paris is the capital of", "Paris"),
    ],
)
def test_asks_the_same_of_another_fact_is_false(prompt: str, other: str, subject: str) -> None:
    assert not asks_the_same(prompt, [other], subject)


def test_asks_the_same_without_words_of_content_is_false() -> None:
    assert not asks_the_same("Paris is the", ["Paris is the"], "Paris")
