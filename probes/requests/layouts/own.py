"""editguard's own layout, which says the most; a record that no other layout claims is read as this one."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import AliasChoices, Field

from ..prompt_subjects import names_subject
from ..raw_record import Fault, describe
from ..request import EditRequest
from .base import (
    Answers,
    Layout,
    Neighbours,
    ReadingOptions,
    Stripped,
    Text,
    Texts,
    fill_subject,
    first_answer,
    other_answers,
)

__all__ = ["LAYOUT"]


class Own(Layout):
    """id, subject, prompt, target_new, and what else may be asked; `metadata` is the user's and is not read."""

    title = "editguard's own layout"
    order = 100

    subject: Stripped
    prompt: Text
    target_new: Stripped
    target_true: Answers | None = Field(default=None, validation_alias=AliasChoices("target_true", "target_old"))
    true_aliases: Texts = ()
    paraphrases: Texts = ()
    neighbourhood: Neighbours = Field(default=(), validation_alias=AliasChoices("neighbourhood", "neighborhood"))
    other_facts: Texts = ()
    question: Text | None = None
    not_judged: Texts = ()
    space: bool | None = None
    group: str = ""
    metadata: object = None

    @classmethod
    def claims(cls, fields: Mapping[str, object]) -> bool:
        """Return True: what no other layout claims is meant as this one."""
        return True

    def requests(self, index: str, reading: ReadingOptions) -> tuple[EditRequest, ...]:
        """Return the one request."""
        others = (*other_answers(self.target_true), *map(str.strip, self.true_aliases))
        request = EditRequest(
            id=self.id or index,
            subject=self.subject,
            prompt=fill_subject(self.prompt, self.subject),
            target_new=self.target_new,
            target_true=first_answer(self.target_true),
            paraphrases=tuple(fill_subject(text, self.subject) for text in self.paraphrases),
            neighbourhood=self.neighbourhood,
            group=self.group.strip(),
            true_aliases=tuple(dict.fromkeys(others)),
            other_facts=tuple(fill_subject(text, self.subject) for text in self.other_facts),
            question=None if self.question is None else fill_subject(self.question, self.subject),
            space=self.space,
            not_judged=tuple(fill_subject(text, self.subject) for text in self.not_judged),
        )
        return (request,)

    def faults(self) -> tuple[Fault, ...]:
        """Return the prompts about other facts that do not name the subject."""
        found = [
            Fault(
                f"other_facts[{number}]",
                f"does not name the subject {describe(self.subject)}, and is {describe(text)}; write {{}} where the subject "
                "belongs, or move it to neighbourhood.",
            )
            for number, text in enumerate(self.other_facts)
            if not names_subject(fill_subject(text, self.subject), self.subject) and "{}" not in text
        ]
        if self.true_aliases and self.target_true is None:
            found.append(Fault("true_aliases", "are given without target_true, whose other names they are; add that."))
        return tuple(found)


LAYOUT = Own
