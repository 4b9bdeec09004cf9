"""The types that the fields of a layout may have, and what several layouts do with their values.

Each type refuses a wrong value with a message that continues the sentence which the field's name begins.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from .raw_record import describe

__all__ = [
    "NOT_JUDGED",
    "OLD_ANSWERS",
    "REPEATED",
    "Answers",
    "Id",
    "Neighbour",
    "Neighbours",
    "OptionalText",
    "Question",
    "Stripped",
    "Text",
    "Texts",
    "fill_subject",
    "first_answer",
    "normalize_id",
    "other_answers",
    "read_portability_questions",
    "to_tuple",
]

OLD_ANSWERS = "the old answers are asked of the model itself"
REPEATED = "question and answers stand in other keys too"
NOT_JUDGED = "no check judges these prompts, which are kept and shown"
"""Why a key is not used, as `UnusedKey.reason`."""

_ZSRE_NEIGHBOUR_PREFIX = "nq question: "
_MAX_LIST_TEXT = 10_000
"""Characters of a text that is parsed to see whether it is a list in quotes."""
_MAX_ID_BITS = 128


def _require_text(text: str) -> str:
    if not text.strip():
        raise ValueError(
            f"must not be empty, and is {text!r}; write a text, or leave the key out where it is not needed."
        )
    return text


def normalize_id(value: object) -> object:
    """Return an id as text where it is a text or a whole number of at most 128 bits; otherwise return it as it is."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if value.bit_length() <= _MAX_ID_BITS else value
    return value.strip() if isinstance(value, str) else value


def to_tuple(value: object) -> object:
    """Return a list as a tuple, and everything else as it is, for pydantic to refuse."""
    return tuple(value) if isinstance(value, list) else value


def _require_other_subject(text: str) -> str:
    if "{}" in text:
        raise ValueError(
            f"holds {{}}, and is {describe(text)}; a neighbour is a prompt about another subject, so write that one's name, or "
            "use other_facts for another fact about the same subject."
        )
    return text


def _read_answers(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        if _is_list_in_text(value):
            raise ValueError(
                f"is a list written as one text, {describe(value)}; write the list itself, without quotes around it."
            )
        return (_require_text(value).strip(),)
    answers = tuple(dict.fromkeys(text.strip() for text in _flatten(value) if text.strip()))
    if not answers:
        raise ValueError(f"must hold at least one text, and is {describe(value)}; write one, or leave the key out.")
    return answers


def _flatten(value: object) -> Iterator[str]:
    """Yield the texts of a list of texts, or of a list of such lists; raises `ValueError` for every other value."""
    if not isinstance(value, list):
        way_out = "write one text" if isinstance(value, dict) else "put it in quotes"
        raise ValueError(f"must be text, and is {describe(value)}; {way_out}.")
    for item in value:
        if isinstance(item, list) and all(isinstance(text, str) for text in item):
            yield from item
        elif isinstance(item, str):
            yield item
        else:
            raise ValueError(f"must be a list of texts, and holds {describe(item)}; put it in quotes.")


def _is_list_in_text(text: str) -> bool:
    if not (text.strip()[:1] == "[" and text.strip()[-1:] == "]") or len(text) > _MAX_LIST_TEXT:
        return False
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False
    return isinstance(value, list) and bool(value) and all(isinstance(item, str | list) for item in value)


Text = Annotated[str, AfterValidator(_require_text)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(to_tuple)]
"""A list of texts."""
Stripped = Annotated[Text, AfterValidator(str.strip)]
Id = Annotated[Text, BeforeValidator(normalize_id)]
Neighbour = Annotated[Text, AfterValidator(_require_other_subject)]
Neighbours = Annotated[tuple[Neighbour, ...], BeforeValidator(to_tuple)]
"""A list of prompts about other subjects."""
Question = Annotated[
    str,
    AfterValidator(lambda text: text.removeprefix(_ZSRE_NEIGHBOUR_PREFIX)),
    AfterValidator(_require_other_subject),
    AfterValidator(_require_text),
]
"""A neighbour of zsRE, without the words that mark its source."""
Answers = Annotated[tuple[str, ...], BeforeValidator(_read_answers)]
"""One answer and its other names: a text, a list of texts, or a list of such lists. The first one is the answer."""
OptionalText = Annotated[str | None, AfterValidator(lambda text: text if text and text.strip() else None)]
"""A text that published files leave empty where they have none."""


def fill_subject(prompt: str, subject: str) -> str:
    """Return `prompt` with the subject in place of ``{}``."""
    return prompt.replace("{}", subject)


def first_answer(answers: tuple[str, ...] | None) -> str | None:
    """Return the answer itself."""
    return answers[0] if answers else None


def other_answers(answers: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the other names of an answer."""
    return answers[1:] if answers else ()


def read_portability_questions(portability: object) -> tuple[str, ...]:
    """Return the questions in EasyEdit's `portability`, an object with the relation, the question and its answer."""
    if not isinstance(portability, Mapping):
        return ()
    questions = (text for key, text in portability.items() if isinstance(key, str) and "question" in key.lower())
    return tuple(text for text in questions if isinstance(text, str) and text.strip())
