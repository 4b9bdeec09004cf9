"""How an answer that an edit must not change did change, and whether a text says a target.

- *leak*: the answer now says the new target, or the target's probability rose by more than ``max_target_rise``;
- *flip*: its first token changed, where the old one led the second choice by ``near_tie`` nats or more;
- *near tie*: its first token changed, where the old one led by less;
- *kept*: its first token is the same.

The words of a target identify it anywhere in the answer, and its first tokens (*lead*) at the beginning. A lead may be shared:
"New Delhi" is not the target New York, and an answer that changes from one to the other leaks.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ..probes.word_boundaries import find_cut_word, fold

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .check import Limits

__all__ = ["AnswerPair", "classify_answer", "count_mentions", "says", "take_beginning"]


class AnswerPair(NamedTuple):
    """An answer before and after: ids and words."""

    ids_before: Sequence[int]
    ids_after: Sequence[int]
    before: str
    after: str


def classify_answer(
    answer: AnswerPair,
    lead: Sequence[int],
    target: str,
    *,
    margin: float,
    rise: float,
    limits: Limits,
    same_subject: bool = False,
) -> str:
    """Return ``leak``, ``flip``, ``near-tie`` or ``kept``; an answer that began with the target before cannot leak.

    `margin` is the lead of the old answer's first token, in nats. `rise` is the rise of the probability of `lead`, the target's
    first tokens; it says nothing about an answer that began with them before. A prompt about another subject leaks where its
    answer begins with the target or mentions it. A prompt about the same subject leaks only where its answer begins with the
    target, since a later mention may be right.
    """
    before, after = (take_beginning(text, target) for text in (answer.before, answer.after))
    began, begins = (tuple(ids[: len(lead)]) == tuple(lead) for ids in (answer.ids_before, answer.ids_after))
    by_lead = not began and (begins or rise > limits.target_rise)
    if not says(before, target) and (by_lead or says(after, target)):
        return "leak"
    if not same_subject and says(answer.after, target) and not says(answer.before, target):
        return "leak"
    if tuple(answer.ids_before[:1]) == tuple(answer.ids_after[:1]):
        return "kept"
    return "near-tie" if margin < limits.near_tie else "flip"


def take_beginning(text: str, target: str) -> str:
    """Return as many words of `text` as `target` has, and one more: an article may stand before it."""
    return " ".join(text.split()[: len(target.split()) + 1])


def says(text: str, target: str) -> bool:
    """Return whether `target` stands in `text` as words of its own, whatever their case and accents.

    In writing without spaces between words, "東京" or "Paris" in "はParisです", the characters beside them do not matter.
    """
    return any(True for _ in _places(text, target))


def count_mentions(text: str, target: str) -> int:
    """Return how many times `target` stands in `text`, by the rule of `says`."""
    return sum(1 for _ in _places(text, target))


def _places(text: str, target: str) -> Iterator[int]:
    plain, pattern = fold(text), fold(target)
    letters = [index for index, letter in enumerate(pattern) if letter.isalnum()]
    for match in re.finditer(f"(?={re.escape(pattern)})", plain) if pattern else ():
        if not letters:
            yield match.start()
            continue
        start, end = match.start() + letters[0], match.start() + letters[-1] + 1
        # "Lyons" is another name than "Lyon".
        if find_cut_word(plain, start, end) is None and plain[end : end + 1] != "s":
            yield start
