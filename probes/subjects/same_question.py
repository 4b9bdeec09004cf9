"""Does one prompt ask for the same fact as another, by their words?

"England's capital is the city of" asks what "The capital city of England is" asks. Two prompts about one subject ask the same
where every word of content of the first is in the second. Words that only bind a sentence, and verbs of place, have no content.
English alone; no list is complete, so that a paraphrase in other words is not recognised.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["asks_the_same"]

_BINDING = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "been",
        "being",
        "by",
        "did",
        "do",
        "does",
        "for",
        "from",
        "had",
        "has",
        "have",
        "he",
        "her",
        "his",
        "how",
        "in",
        "into",
        "is",
        "it",
        "its",
        "of",
        "on",
        "or",
        "our",
        "she",
        "that",
        "the",
        "their",
        "them",
        "there",
        "these",
        "they",
        "this",
        "those",
        "to",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "whom",
        "whose",
        "will",
        "with",
    ]
)
_OF_PLACE = frozenset(
    [
        "based",
        "called",
        "found",
        "lie",
        "lies",
        "lying",
        "lay",
        "located",
        "named",
        "placed",
        "sits",
        "situated",
        "stand",
        "stands",
    ]
)


def asks_the_same(prompt: str, others: Iterable[str], subject: str) -> bool:
    """Return whether `prompt` asks for the same fact about `subject` as one of `others`, prompts about the same subject."""
    content = _content(prompt, subject)
    return bool(content) and any(content <= _content(other, subject) for other in others)


def _content(prompt: str, subject: str) -> frozenset[str]:
    words = re.findall(r"[^\W\d_]+", prompt.replace(subject, " ").casefold())
    binding = {"s", *_BINDING}
    content = frozenset(word for word in words if word not in binding)
    # Where nothing but a verb of place is left, it is what is asked.
    return content - _OF_PLACE or content
