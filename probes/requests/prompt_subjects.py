"""Whom the prompts of a request are about: paraphrases ask about its subject, neighbours about others.

A prompt in the wrong list would be judged by the wrong question, so it is named and not judged. Names are compared as
words, without case, accents, apostrophes' kind and hyphens. Out of scope: other names of the same thing (Big Apple), for
which no list is kept, and pronouns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..words import cut_word, fold
from .request import EditRequest

__all__ = ["find_contradictions", "find_misplaced_prompts", "names_subject", "select_neighbours", "select_paraphrases"]

_ARTICLE = re.compile(r"^(?:the|a|an) (?=\S)")
_ADDED = re.compile(r"(?<=\S) ?(?:\(.*\)|, .*)$")
"""What tells namesakes apart, and is left out in running text: "Paris (mythology)", "Springfield, Illinois"."""
_LONGEST = 60
_SHORTEST, _TELLING = 3, 5
"""Letters of a name without what is added to it, and without its article: fewer are a word like any other."""


def select_paraphrases(request: EditRequest) -> tuple[str, ...]:
    """Return the paraphrases that name the subject: those that may be judged.

    The subject may stand there without its article and with an ending. What tells it from its namesakes (in parentheses
    or after a comma) may be left out.
    """
    names = _names(request.subject)
    return tuple(text for text in request.paraphrases if any(_holds(text, name) for name in names))


def select_neighbours(request: EditRequest) -> tuple[str, ...]:
    """Return the neighbourhood prompts that do not name the subject: those that may be judged."""
    return tuple(text for text in request.neighbourhood if not names_subject(text, request.subject))


def names_subject(text: str, subject: str) -> bool:
    """Return whether `text` holds `subject`, with or without its article, as a word of its own.

    The case of an abbreviation counts: "tell us" does not name the US.
    """
    if subject.isupper() and subject not in text:
        return False
    whole = fold(subject)
    return any(_holds(text, name) for name in (whole, _bare(whole)))


def find_misplaced_prompts(request: EditRequest) -> tuple[str, ...]:
    """Return a sentence for each prompt that is not judged, since it stands in the wrong list."""
    about, others = select_paraphrases(request), select_neighbours(request)
    told = [
        f"the paraphrase {_short(text)} does not name the subject {request.subject!r} and is not judged"
        for text in request.paraphrases
        if text not in about
    ]
    told += [
        f"the neighbourhood prompt {_short(text)} names the subject {request.subject!r} and is not judged; for another "
        "fact about the subject use other_facts"
        for text in request.neighbourhood
        if text not in others
    ]
    return tuple(told)


def find_contradictions(requests: Sequence[EditRequest]) -> tuple[str, ...]:
    """Return a sentence for each request that asks of a prompt another target than an earlier request does.

    In a sequence the later edit undoes the earlier one. Prompts and targets are compared letter by letter, but for spaces.
    """
    first: dict[str, EditRequest] = {}
    told = []
    for request in requests:
        earlier = first.setdefault(" ".join(request.prompt.split()), request)
        if earlier.target_new.strip() != request.target_new.strip():
            told.append(
                f"the edits {earlier.id!r} and {request.id!r} have the same prompt {_short(request.prompt)} and two targets, "
                f"{_short(earlier.target_new)} and {_short(request.target_new)}; only one can hold, so leave one out"
            )
    return tuple(told)


def _names(subject: str) -> tuple[str, ...]:
    whole = fold(subject)
    short = _ADDED.sub("", whole)
    short = short if len(short) >= _SHORTEST else whole  # "I, Robot"
    names = [whole, short, *(_bare(name) for name in (whole, short))]
    names += [name.removesuffix("'s") for name in names]
    return tuple(dict.fromkeys(name for name in names if name))


def _bare(name: str) -> str:
    """Return a name without its article where enough is left to tell it by: The Beatles, and not The Who."""
    rest = _ARTICLE.sub("", name)
    return rest if len(rest) >= _TELLING else name


def _holds(text: str, name: str) -> bool:
    folded = fold(text)
    return any(cut_word(folded, start, start + len(name)) is None for start in _places(folded, name))


def _places(text: str, name: str) -> Iterator[int]:
    start = text.find(name) if name else -1
    while start >= 0:
        yield start
        start = text.find(name, start + 1)


def _short(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}...")
