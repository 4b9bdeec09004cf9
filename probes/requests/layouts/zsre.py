"""zsRE: question answering, as MEND and the benchmarks after it publish it.

There are two ways to read a record.
MEND and EasyEdit take `alt`, a wrong answer, as the new target, and the first of `answers` as the true one: the default.
ROME and MEMIT take the first of `answers`, the true answer, as the new target, and have no old one.
`ReadingOptions.zsre_target` chooses between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..layout import Layout, ReadingOptions, SubjectPlace, UnusedKey
from ..layout_fields import (
    NOT_JUDGED,
    OLD_ANSWERS,
    REPEATED,
    Answers,
    Question,
    Stripped,
    Text,
    fill_subject,
    other_answers,
    read_portability_questions,
)
from ..request import EditRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ZsRE"]


class ZsRE(Layout):
    """subject, src, alt, answers, rephrase, loc, and the answers to them."""

    name = "zsre"
    title = "zsRE"
    summary = "zsRE: question answering, as MEND and later benchmarks publish it."
    marker_keys = frozenset({"src", "alt", "loc", "loc_ans"})
    order = 10
    unused = (
        UnusedKey("loc_ans", OLD_ANSWERS),
        UnusedKey("pred", "what another model said is not asked"),
        UnusedKey("cond", REPEATED),
        UnusedKey("portability", NOT_JUDGED),
    )

    subject: Stripped
    src: Text
    alt: Stripped
    answers: Answers
    rephrase: Text | None = None
    loc: Question | None = None
    loc_ans: object = None
    pred: object = None
    cond: object = None
    portability: object = None

    @classmethod
    def locate_subjects(cls, fields: Mapping[str, object]) -> tuple[SubjectPlace, ...]:
        """Return the place of the question."""
        return (SubjectPlace(prompt=("src",)),)

    def build_requests(self, index: str, options: ReadingOptions) -> tuple[EditRequest, ...]:
        """Return the request of the record."""
        by_alt = options.zsre_target == "alt"
        request = EditRequest(
            id=self.id or index,
            subject=self.subject,
            prompt=fill_subject(self.src, self.subject),
            target_new=self.alt if by_alt else self.answers[0],
            target_true=self.answers[0] if by_alt else None,
            paraphrases=() if self.rephrase is None else (fill_subject(self.rephrase, self.subject),),
            neighbourhood=() if self.loc is None else (self.loc,),
            true_aliases=other_answers(self.answers) if by_alt else (),
            not_judged=read_portability_questions(self.portability),
        )
        return (request,)

    def find_unused_keys(self, options: ReadingOptions) -> tuple[UnusedKey, ...]:
        """Return the unused keys; with ROME's way of reading, the other answers are among them."""
        unused = super().find_unused_keys(options)
        if options.zsre_target == "answers":
            reason = "the first of answers is edited in, as ROME and MEMIT do"
            unused += (UnusedKey("alt", reason),)
            unused += (UnusedKey("answers[1:]", reason),) if other_answers(self.answers) else ()
        return unused
