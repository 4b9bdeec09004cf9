"""KnowEdit (arXiv 2401.01286): the shapes of wiki_counterfact, wiki_recent and zsre.

Prompts under `locality` are neighbours, except those that name the subject (Relation_Specificity): they ask for its other facts.
Prompts under `portability` ask for consequences of the edit, which no check judges.
`ground_truth` is the old answer, or a list of its names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import BeforeValidator

from ..layout import Layout, ReadingOptions, UnusedKey
from ..layout_fields import (
    NOT_JUDGED,
    OLD_ANSWERS,
    REPEATED,
    Answers,
    OptionalText,
    Stripped,
    Text,
    fill_subject,
    first_answer,
    other_answers,
)
from ..prompt_subjects import names_subject
from ..raw_record import describe
from ..request import EditRequest

__all__ = ["KnowEdit"]

_FLAT_KEYS = frozenset({"locality_prompt", "locality_ground_truth"})


def _read_prompts(value: object) -> tuple[str, ...]:
    """Return the prompts of all kinds, in order.

    A kind holds a list of objects, or a single object with a list of prompts. Raises `ValueError` for every other shape.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"must be an object, and is {describe(value)}; write its keys.")
    return tuple(dict.fromkeys(text for kind, part in value.items() for text in _prompts_of_kind(kind, part)))


def _prompts_of_kind(kind: str, part: object) -> Iterator[str]:
    for item in part if isinstance(part, list) else [part] if part else []:
        if not isinstance(item, Mapping) or "prompt" not in item:
            raise ValueError(
                f"holds under {describe(kind)} {describe(item)}; it must be an object with a prompt, so write one."
            )
        prompts = item["prompt"]
        for text in prompts if isinstance(prompts, list) else [prompts]:
            if not isinstance(text, str):
                raise ValueError(
                    f"holds under {describe(kind)} the prompt {describe(text)}; it must be text, so put it in quotes."
                )
            if text.strip():
                yield text


Prompts = Annotated[tuple[str, ...], BeforeValidator(_read_prompts)]
Names = Annotated[Answers | None, BeforeValidator(lambda value: value if _holds_text(value) else None)]


def _holds_text(value: object) -> bool:
    """Return whether an answer holds any text: published files have empty texts and lists of them."""
    return (
        any(_holds_text(item) for item in value)
        if isinstance(value, list)
        else not isinstance(value, str) or bool(value.strip())
    )


class KnowEdit(Layout):
    """subject, prompt, target_new, ground_truth, rephrase, locality, portability."""

    name = "knowedit"
    title = "KnowEdit"
    summary = "KnowEdit: wiki_counterfact, wiki_recent and zsRE, with locality and portability."
    marker_keys = frozenset({"locality", "portability"})
    order = 30
    unused = (UnusedKey("cond", REPEATED), UnusedKey("portability", NOT_JUDGED))

    subject: Stripped
    prompt: Text
    target_new: Stripped
    ground_truth: Names = None
    rephrase: OptionalText = None
    rephrase_prompt: OptionalText = None
    cond: object = None
    locality: Prompts = ()
    portability: Prompts = ()

    @classmethod
    def claims(cls, fields: Mapping[str, object]) -> bool:
        """Return whether locality or portability is an object, or the old answer a list, and no key is of flat CounterFact."""
        nested = any(isinstance(fields.get(key), Mapping) for key in cls.marker_keys)
        return (nested or isinstance(fields.get("ground_truth"), list)) and not _FLAT_KEYS & fields.keys()

    def build_requests(self, index: str, options: ReadingOptions) -> tuple[EditRequest, ...]:
        """Return the request of the record."""
        same_subject = [names_subject(text, self.subject) or "{}" in text for text in self.locality]
        locality = list(zip(self.locality, same_subject, strict=True))
        request = EditRequest(
            id=self.id or index,
            subject=self.subject,
            prompt=fill_subject(self.prompt, self.subject),
            target_new=self.target_new,
            target_true=first_answer(self.ground_truth),
            paraphrases=tuple(
                fill_subject(text, self.subject) for text in (self.rephrase, self.rephrase_prompt) if text
            ),
            neighbourhood=tuple(text for text, same in locality if not same),
            true_aliases=other_answers(self.ground_truth),
            other_facts=tuple(fill_subject(text, self.subject) for text, same in locality if same),
            not_judged=tuple(fill_subject(text, self.subject) for text in self.portability),
        )
        return (request,)

    def find_unused_keys(self, options: ReadingOptions) -> tuple[UnusedKey, ...]:
        """Return the unused keys, and the answers of the prompts that are used."""
        unused = super().find_unused_keys(options)
        return (*unused, UnusedKey("locality.ground_truth", OLD_ANSWERS)) if self.locality else unused
