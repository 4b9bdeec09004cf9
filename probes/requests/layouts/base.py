"""What all layouts share: the types of their fields, and what each must say about itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from ..raw_record import Fault, describe
from ..request import EditRequest

__all__ = [
    "NOT_JUDGED",
    "OLD_ANSWERS",
    "REPEATED",
    "Answers",
    "Id",
    "Layout",
    "UnusedKey",
    "Neighbour",
    "Neighbours",
    "OptionalText",
    "RecordPart",
    "SubjectPlace",
    "Question",
    "ReadingOptions",
    "Stripped",
    "Text",
    "Texts",
    "other_answers",
    "fill_subject",
    "first_answer",
    "normalize_id",
    "to_tuple",
    "read_portability_questions",
]

OLD_ANSWERS = "the old answers are asked of the model itself"
REPEATED = "question and answers stand in other keys too"
NOT_JUDGED = "no check judges these prompts, which are kept and shown"
_LOC_PREFIX = "nq question: "


class ReadingOptions(NamedTuple):
    """How a file is to be read where its layout leaves a choice."""

    zsre_target: Literal["alt", "answers"] = "alt"
    """Which field of a zsRE record is edited in."""


class SubjectPlace(NamedTuple):
    """Where in a record one subject and its prompt stand: keys and indices."""

    subject: tuple[str | int, ...] = ("subject",)
    prompt: tuple[str | int, ...] = ("prompt",)


class UnusedKey(NamedTuple):
    """A key of a record that no request and no check uses."""

    key: str
    why: str


# ---------------------------------------------------------------------------------------------- what fields may hold


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError(
            f"must not be empty, and is {text!r}; write a text, or leave the key out where it is not needed."
        )
    return text


def normalize_id(value: object) -> object:
    """Return an id as text where it is a text or a whole number of bounded size; otherwise as it is."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if value.bit_length() <= 128 else value
    return value.strip() if isinstance(value, str) else value


def to_tuple(value: object) -> object:
    """Return a list as a tuple, and anything else as it is: what is no list is named as such."""
    return tuple(value) if isinstance(value, list) else value


def _neighbour(text: str) -> str:
    if "{}" in text:
        raise ValueError(
            f"holds {{}}, and is {describe(text)}; a neighbour is a prompt about another subject, so write that one's name, or "
            "use other_facts for another fact about the same subject."
        )
    return text


def _answers(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        if _is_list_in_text(value):
            raise ValueError(
                f"is a list written as one text, {describe(value)}; write the list itself, without quotes around it."
            )
        return (_not_blank(value).strip(),)
    found = tuple(dict.fromkeys(text.strip() for text in _flat(value) if text.strip()))
    if not found:
        raise ValueError(f"must hold at least one text, and is {describe(value)}; write one, or leave the key out.")
    return found


def _flat(value: object) -> Iterator[str]:
    if not isinstance(value, list):
        way_out = "write one text" if isinstance(value, dict) else "put it in quotes"
        raise ValueError(f"must be text, and is {describe(value)}; {way_out}.")
    for one in value:
        if isinstance(one, list) and all(isinstance(inner, str) for inner in one):
            yield from one
        elif isinstance(one, str):
            yield one
        else:
            raise ValueError(f"must be a list of texts, and holds {describe(one)}; put it in quotes.")


def _is_list_in_text(text: str) -> bool:
    if not (text.strip()[:1] == "[" and text.strip()[-1:] == "]") or len(text) > 10_000:
        return False
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False
    return isinstance(found, list) and bool(found) and all(isinstance(one, str | list) for one in found)


Text = Annotated[str, AfterValidator(_not_blank)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(to_tuple)]
"""A list of texts."""
Stripped = Annotated[Text, AfterValidator(str.strip)]
Id = Annotated[Text, BeforeValidator(normalize_id)]
Neighbour = Annotated[Text, AfterValidator(_neighbour)]
Neighbours = Annotated[tuple[Neighbour, ...], BeforeValidator(to_tuple)]
"""A list of prompts about other subjects."""
Question = Annotated[
    str,
    AfterValidator(lambda text: text.removeprefix(_LOC_PREFIX)),
    AfterValidator(_neighbour),
    AfterValidator(_not_blank),
]
"""A neighbour of zsRE, without the words that mark its source."""
Answers = Annotated[tuple[str, ...], BeforeValidator(_answers)]
"""One answer and its other names: a text, a list of texts, or a list of such lists; the first one is the answer."""
OptionalText = Annotated[str | None, AfterValidator(lambda text: text if text and text.strip() else None)]
"""A text that published files leave empty where they have none."""


class RecordPart(BaseModel):
    """An object inside a record; the models are strict: a number is no text, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Layout(RecordPart):
    """One layout of a record."""

    title: ClassVar[str]
    """Its name in messages."""
    marks: ClassVar[frozenset[str]] = frozenset()
    """Keys that tell it from editguard's own layout."""
    order: ClassVar[int] = 50
    """Its turn when layouts are asked for a record: a lower one is asked before a higher one."""
    unused: ClassVar[tuple[UnusedKey, ...]] = ()
    """Keys that no request uses, each with the reason."""

    id: Id | None = Field(default=None, validation_alias=AliasChoices("id", "case_id"))

    @classmethod
    def claims(cls, fields: Mapping[str, object]) -> bool:
        """Return whether a record with `fields` is in this layout."""
        return bool(cls.marks & fields.keys())

    @classmethod
    def refusal(cls, fields: Mapping[str, object]) -> Fault | None:
        """Return why no record in this layout can be read; None where it can."""
        return None

    @classmethod
    def claimed_id(cls, fields: Mapping[str, object]) -> str:
        """Return the id that a record claims, however wrong its other fields are; empty where it claims none."""
        claimed = normalize_id(fields.get("id", fields.get("case_id")))
        return claimed if isinstance(claimed, str) else ""

    @classmethod
    def places(cls, fields: Mapping[str, object]) -> tuple[SubjectPlace, ...]:
        """Return where the record's subjects and prompts stand."""
        return (SubjectPlace(),)

    def requests(self, index: str, reading: ReadingOptions) -> tuple[EditRequest, ...]:
        """Return what the record asks for; `index` is the id of a record that has none."""
        raise NotImplementedError

    def faults(self) -> tuple[Fault, ...]:
        """Return what is wrong between fields that are right in themselves."""
        return ()

    def left_out(self, reading: ReadingOptions) -> tuple[UnusedKey, ...]:
        """Return the keys of this record that are not used."""
        return tuple(one for one in self.unused if getattr(self, one.key))


def fill_subject(prompt: str, subject: str) -> str:
    """Return `prompt` with the subject for ``{}``."""
    return prompt.replace("{}", subject)


def read_portability_questions(portability: object) -> tuple[str, ...]:
    """Return the questions in EasyEdit's `portability`, which names the relation, the question and its answer."""
    if not isinstance(portability, Mapping):
        return ()
    found = (text for key, text in portability.items() if isinstance(key, str) and "question" in key.lower())
    return tuple(text for text in found if isinstance(text, str) and text.strip())


def first_answer(answers: tuple[str, ...] | None) -> str | None:
    """Return the answer itself."""
    return answers[0] if answers else None


def other_answers(answers: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the other names of an answer."""
    return answers[1:] if answers else ()
