"""What became of an answer that an edit must not change, and whether a text says a target.

- *leak*: the answer now says the new target, or the target's probability rose by more than ``max_target_rise``;
- *flip*: its first token is another one, where the old one led the second choice by ``near_tie`` nats or more;
- *near tie*: another one, where the old one led by less;
- *kept*: the same first token.

A target is known by its words anywhere in the answer, and by its first tokens at the beginning (*lead*). A lead may be
shared: "New Delhi" is not the target New York, and an answer that changes from the one to the other leaks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..probes.words import cut_word, fold
from .check import Limits

__all__ = ["AnswerPair", "take_beginning", "classify_answer", "says", "count_mentions"]


class AnswerPair(NamedTuple):
    """An answer before and after: ids and words."""

    ids_before: Sequence[int]
    ids_after: Sequence[int]
    before: str
    after: str


def classify_answer(
    said: AnswerPair,
    lead: Sequence[int],
    target: str,
    margin: float,
    rise: float,
    limits: Limits,
    *,
    same_subject: bool = False,
) -> str:
    """Return ``leak``, ``flip``, ``near-tie`` or ``kept``; an answer that began with the target before cannot leak.

    `rise` is that of the probability of `lead`, which tells nothing of an answer that began with it before.
    A prompt about another subject leaks where its answer begins with the target or mentions it. Of the same subject the
    target may well be mentioned later in an answer, so that only an answer that begins with it leaks.
    """
    before, after = (take_beginning(text, target) for text in (said.before, said.after))
    began, begins = (tuple(ids[: len(lead)]) == tuple(lead) for ids in (said.ids_before, said.ids_after))
    by_lead = not began and (begins or rise > limits.target_rise)
    if not says(before, target) and (by_lead or says(after, target)):
        return "leak"
    if not same_subject and says(said.after, target) and not says(said.before, target):
        return "leak"
    if tuple(said.ids_before[:1]) == tuple(said.ids_after[:1]):
        return "kept"
    return "near-tie" if margin < limits.near_tie else "flip"


def take_beginning(text: str, target: str) -> str:
    """Return as many words of `text` as `target` has, and one more: an article may stand before it."""
    return " ".join(text.split()[: len(target.split()) + 1])


def says(text: str, target: str) -> bool:
    """Return whether `target` stands in `text` as words of its own, whatever their case and accents.

    Where writing has no spaces between words, "東京" or "Paris" in "はParisです", what stands beside them does not matter.
    """
    return any(True for _ in _places(text, target))


def count_mentions(text: str, target: str) -> int:
    """Return how often `target` stands in `text`, by the rule of `says`."""
    return sum(1 for _ in _places(text, target))


def _places(text: str, target: str) -> Iterator[int]:
    plain, wanted = fold(text), fold(target)
    letters = [index for index, letter in enumerate(wanted) if letter.isalnum()]
    for found in re.finditer(f"(?={re.escape(wanted)})", plain) if wanted else ():
        if not letters:
            yield found.start()
            continue
        start, end = found.start() + letters[0], found.start() + letters[-1] + 1
        # "Lyons" is another name than "Lyon".
        if cut_word(plain, start, end) is None and plain[end : end + 1] != "s":
            yield start
