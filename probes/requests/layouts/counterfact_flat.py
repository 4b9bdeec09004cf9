"""CounterFact with one text a key, as the papers on collapse publish it."""

from __future__ import annotations

from ..request import EditRequest
from .base import (
    NOT_JUDGED,
    OLD_ANSWERS,
    Answers,
    Layout,
    Neighbour,
    ReadingOptions,
    Stripped,
    Text,
    UnusedKey,
    fill_subject,
    first_answer,
    other_answers,
    read_portability_questions,
)

__all__ = ["LAYOUT"]


class FlatCounterFact(Layout):
    """case_id, subject, prompt, target_new, ground_truth, rephrase_prompt, locality_prompt, locality_ground_truth."""

    title = "flat CounterFact"
    marks = frozenset({"ground_truth", "rephrase_prompt", "locality_prompt", "locality_ground_truth"})
    order = 40
    unused = (UnusedKey("locality_ground_truth", OLD_ANSWERS), UnusedKey("portability", NOT_JUDGED))

    subject: Stripped
    prompt: Text
    target_new: Stripped
    ground_truth: Answers | None = None
    rephrase_prompt: Text | None = None
    locality_prompt: Neighbour | None = None
    locality_ground_truth: object = None
    portability: object = None

    def requests(self, index: str, reading: ReadingOptions) -> tuple[EditRequest, ...]:
        """Return the one request."""
        request = EditRequest(
            id=self.id or index,
            subject=self.subject,
            prompt=fill_subject(self.prompt, self.subject),
            target_new=self.target_new,
            target_true=first_answer(self.ground_truth),
            paraphrases=() if self.rephrase_prompt is None else (fill_subject(self.rephrase_prompt, self.subject),),
            neighbourhood=() if self.locality_prompt is None else (self.locality_prompt,),
            true_aliases=other_answers(self.ground_truth),
            not_judged=read_portability_questions(self.portability),
        )
        return (request,)


LAYOUT = FlatCounterFact
