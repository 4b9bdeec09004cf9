"""zsRE: question answering, as MEND and the benchmarks after it publish it.

Whose reading: MEND and EasyEdit edit `alt` in, a wrong answer, and hold the first of `answers` for the true one. That is
the default. The readers of ROME and MEMIT edit the first of `answers` in, the true answer, and know no old one:
`ReadingOptions.zsre_target` chooses theirs.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..request import EditRequest
from .base import (
    NOT_JUDGED,
    OLD_ANSWERS,
    REPEATED,
    Answers,
    Layout,
    Question,
    ReadingOptions,
    Stripped,
    SubjectPlace,
    Text,
    UnusedKey,
    fill_subject,
    other_answers,
    read_portability_questions,
)

__all__ = ["LAYOUT"]


class ZsRE(Layout):
    """subject, src, alt, answers, rephrase, loc, and the answers to them."""

    title = "zsRE"
    marks = frozenset({"src", "alt", "loc", "loc_ans"})
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
    def places(cls, fields: Mapping[str, object]) -> tuple[SubjectPlace, ...]:
        """Return the place of the question."""
        return (SubjectPlace(prompt=("src",)),)

    def requests(self, index: str, reading: ReadingOptions) -> tuple[EditRequest, ...]:
        """Return the one request."""
        by_alt = reading.zsre_target == "alt"
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

    def left_out(self, reading: ReadingOptions) -> tuple[UnusedKey, ...]:
        """Return the unused keys; the other answer among them where ROME's reading was asked for."""
        found = super().left_out(reading)
        if reading.zsre_target == "answers":
            why = "the first of answers is edited in, as ROME and MEMIT do"
            found += (UnusedKey("alt", why),)
            found += (UnusedKey("answers[1:]", why),) if other_answers(self.answers) else ()
        return found


LAYOUT = ZsRE
