"""CounterFact with one text a key, as the papers on collapse publish it."""

from __future__ import annotations

from ..layout import Layout, ReadingOptions, UnusedKey
from ..layout_fields import (
    NOT_JUDGED,
    OLD_ANSWERS,
    Answers,
    Neighbour,
    Stripped,
    Text,
    fill_subject,
    first_answer,
    other_answers,
    read_portability_questions,
)
from ..request import EditRequest

__all__ = ["FlatCounterFact"]


class FlatCounterFact(Layout):
    """case_id, subject, prompt, target_new, ground_truth, rephrase_prompt, locality_prompt, locality_ground_truth."""

    name = "counterfact-flat"
    title = "flat CounterFact"
    summary = "CounterFact with one text a key, as the papers on collapse publish it."
    marker_keys = frozenset({"ground_truth", "rephrase_prompt", "locality_prompt", "locality_ground_truth"})
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

    def build_requests(self, index: str, options: ReadingOptions) -> tuple[EditRequest, ...]:
        """Return the request of the record."""
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
