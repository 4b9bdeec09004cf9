"""editguard's own layout, which has a key for every part of a request.

A record that no other layout claims is read as this one.
A user may keep columns of their own beside an edit, as the object `metadata`, for example ``{"relation_id": "P37"}``.
It may hold anything; editguard accepts it, never uses it, and copies it nowhere.
Every other key that is not listed here is an error with a suggestion, because a misspelt key would change the audit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import AliasChoices, Field

from ..layout import Layout, ReadingOptions
from ..layout_fields import Answers, Neighbours, Stripped, Text, Texts, fill_subject, first_answer, other_answers
from ..prompt_subjects import names_subject
from ..raw_record import Fault, describe
from ..request import EditRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OwnLayout"]


class OwnLayout(Layout):
    """id, subject, prompt, target_new and the optional keys below."""

    name = "own"
    title = "editguard's own layout"
    summary = "editguard's own layout, which has a key for every part of a request."
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
    """The user's own; accepted and never used."""

    @classmethod
    def claims(cls, fields: Mapping[str, object]) -> bool:
        """Return True: a record that no other layout claims is read as this one."""
        return True

    def build_requests(self, index: str, options: ReadingOptions) -> tuple[EditRequest, ...]:
        """Return the request of the record."""
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

    def find_faults(self) -> tuple[Fault, ...]:
        """Return the prompts about other facts that do not name the subject."""
        faults = [
            Fault(
                f"other_facts[{number}]",
                f"does not name the subject {describe(self.subject)}, and is {describe(text)}; write {{}} where the subject "
                "belongs, or move it to neighbourhood.",
            )
            for number, text in enumerate(self.other_facts)
            if not names_subject(fill_subject(text, self.subject), self.subject) and "{}" not in text
        ]
        if self.true_aliases and self.target_true is None:
            faults.append(Fault("true_aliases", "are given without target_true, whose other names they are; add that."))
        return tuple(faults)
