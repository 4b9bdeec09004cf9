"""CounterFact as ROME (arXiv 2202.05262) publishes it, with the edit in an object of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ..layout import Layout, ReadingOptions, RecordPart, SubjectPlace, UnusedKey
from ..layout_fields import NOT_JUDGED, Neighbours, Stripped, Text, Texts, fill_subject, read_portability_questions
from ..request import EditRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NestedCounterFact"]


class Target(RecordPart):
    """One answer with its identifier."""

    text: Stripped = Field(validation_alias="str")
    id: object = None


class Rewrite(RecordPart):
    """The edit itself."""

    subject: Stripped
    prompt: Text
    target_new: Target
    target_true: Target | None = None
    relation_id: object = None


class NestedCounterFact(Layout):
    """case_id, requested_rewrite, paraphrase_prompts, neighborhood_prompts, and prompts of other tests."""

    name = "counterfact-nested"
    title = "nested CounterFact"
    summary = "CounterFact as ROME publishes it, with the edit in an object of its own."
    marker_keys = frozenset({"requested_rewrite"})
    order = 20
    unused = (
        UnusedKey("attribute_prompts", "subjects that have the new answer already are not asked about"),
        UnusedKey("generation_prompts", "texts are written from the prompt itself"),
        UnusedKey("portability", NOT_JUDGED),
    )

    requested_rewrite: Rewrite
    paraphrase_prompts: Texts = ()
    neighborhood_prompts: Neighbours = ()
    pararel_idx: object = None
    attribute_prompts: object = None
    generation_prompts: object = None
    portability: object = None

    @classmethod
    def locate_subjects(cls, fields: Mapping[str, object]) -> tuple[SubjectPlace, ...]:
        """Return the place in the edit's object."""
        return (SubjectPlace(("requested_rewrite", "subject"), ("requested_rewrite", "prompt")),)

    def build_requests(self, index: str, options: ReadingOptions) -> tuple[EditRequest, ...]:
        """Return the request of the record."""
        rewrite = self.requested_rewrite
        request = EditRequest(
            id=self.id or index,
            subject=rewrite.subject,
            prompt=fill_subject(rewrite.prompt, rewrite.subject),
            target_new=rewrite.target_new.text,
            target_true=None if rewrite.target_true is None else rewrite.target_true.text,
            paraphrases=tuple(fill_subject(text, rewrite.subject) for text in self.paraphrase_prompts),
            neighbourhood=self.neighborhood_prompts,
            not_judged=read_portability_questions(self.portability),
        )
        return (request,)
