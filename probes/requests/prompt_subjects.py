"""The subject of each prompt of a request: paraphrases ask about its subject, neighbours about others.

A prompt in the wrong list would be judged by the wrong question, so it is named and not judged.
Names are compared as words, without case, accents, hyphens and the kind of apostrophes.
Out of scope: pronouns, and other names of the same thing (Big Apple).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..word_boundaries import find_cut_word, fold

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .request import EditRequest

__all__ = ["find_contradictions", "find_misplaced_prompts", "names_subject", "select_neighbours", "select_paraphrases"]

_ARTICLE = re.compile(r"^(?:the|a|an) (?=\S)")
_ADDITION = re.compile(r"(?<=\S) ?(?:\(.*\)|, .*)$")
"""An addition that distinguishes namesakes, left out in running text: "Paris (mythology)", "Springfield, Illinois"."""
_LONGEST_PROMPT = 60
_MIN_NAME, _MIN_NAME_WITHOUT_ARTICLE = 3, 5
"""Letters of a name without its addition, and without its article: a shorter one is a word like any other."""


def select_paraphrases(request: EditRequest) -> tuple[str, ...]:
    """Return the paraphrases that may be judged: those that name the subject.

    The subject may stand there without its article and with an ending.
    An addition that distinguishes it from its namesakes (in parentheses or after a comma) may be left out.
    """
    names = _short_names(request.subject)
    return tuple(text for text in request.paraphrases if any(_holds(text, name) for name in names))


def select_neighbours(request: EditRequest) -> tuple[str, ...]:
    """Return the neighbourhood prompts that may be judged: those that do not name the subject."""
    return tuple(text for text in request.neighbourhood if not names_subject(text, request.subject))


def names_subject(text: str, subject: str) -> bool:
    """Return whether `text` holds `subject`, with or without its article, as a word of its own.

    The case of an abbreviation counts: "tell us" does not name the US.
    """
    if subject.isupper() and subject not in text:
        return False
    whole = fold(subject)
    return any(_holds(text, name) for name in (whole, _without_article(whole)))


def find_misplaced_prompts(request: EditRequest) -> tuple[str, ...]:
    """Return a sentence for each prompt that is not judged because it stands in the wrong list."""
    paraphrases, neighbours = select_paraphrases(request), select_neighbours(request)
    sentences = [
        f"the paraphrase {_short(text)} does not name the subject {request.subject!r} and is not judged"
        for text in request.paraphrases
        if text not in paraphrases
    ]
    sentences += [
        f"the neighbourhood prompt {_short(text)} names the subject {request.subject!r} and is not judged; for another "
        "fact about the subject use other_facts"
        for text in request.neighbourhood
        if text not in neighbours
    ]
    return tuple(sentences)


def find_contradictions(requests: Sequence[EditRequest]) -> tuple[str, ...]:
    """Return a sentence for each request whose prompt an earlier request has with another target.

    In a sequence the later edit undoes the earlier one. Prompts and targets are compared letter by letter, except for spaces.
    """
    first: dict[str, EditRequest] = {}
    sentences = []
    for request in requests:
        earlier = first.setdefault(" ".join(request.prompt.split()), request)
        if earlier.target_new.strip() != request.target_new.strip():
            sentences.append(
                f"the edits {earlier.id!r} and {request.id!r} have the same prompt {_short(request.prompt)} and two targets, "
                f"{_short(earlier.target_new)} and {_short(request.target_new)}; only one can hold, so leave one out"
            )
    return tuple(sentences)


def _short_names(subject: str) -> tuple[str, ...]:
    """Return the subject, folded, and its names without addition, article and possessive ending."""
    whole = fold(subject)
    short = _ADDITION.sub("", whole)
    short = short if len(short) >= _MIN_NAME else whole  # "I, Robot"
    names = [whole, short, *(_without_article(name) for name in (whole, short))]
    names += [name.removesuffix("'s") for name in names]
    return tuple(dict.fromkeys(name for name in names if name))


def _without_article(name: str) -> str:
    """Return a name without its article where the rest is long enough: The Beatles, and not The Who."""
    rest = _ARTICLE.sub("", name)
    return rest if len(rest) >= _MIN_NAME_WITHOUT_ARTICLE else name


def _holds(text: str, name: str) -> bool:
    folded = fold(text)
    return any(find_cut_word(folded, start, start + len(name)) is None for start in _places(folded, name))


def _places(text: str, name: str) -> Iterator[int]:
    start = text.find(name) if name else -1
    while start >= 0:
        yield start
        start = text.find(name, start + 1)


def _short(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_PROMPT else f"{text[: _LONGEST_PROMPT - 3]}...")
