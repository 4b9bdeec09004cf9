"""MQuAKE (arXiv 2305.14795): cases of one or several edits, with questions over several facts.

Each edit of a case is a request of its own, and the case is its group.
The questions need all edits of a case and a chain of facts.
No check judges them, so they become the requests' `not_judged`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ..layout import Layout, ReadingOptions, SubjectPlace, UnusedKey
from ..layout_fields import NOT_JUDGED, OptionalText, Texts, fill_subject
from ..request import EditRequest
from .counterfact_nested import Rewrite

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MQuAKE"]

_HOPS = ("single_hops", "new_single_hops")
_CHAIN = "no check judges questions over several facts"


class CaseRewrite(Rewrite):
    """One edit of a case."""

    question: OptionalText = None


class MQuAKE(Layout):
    """case_id, requested_rewrite (a list), questions, and the answers to them."""

    name = "mquake"
    title = "MQuAKE"
    summary = "MQuAKE: cases of one or several edits, with questions over several facts."
    marker_keys = frozenset({"requested_rewrite"})
    order = 15
    unused = (
        UnusedKey("questions", NOT_JUDGED),
        *(UnusedKey(key, _CHAIN) for key in ("answer", "answer_alias", "new_answer", "new_answer_alias", *_HOPS)),
    )

    requested_rewrite: Annotated[list[CaseRewrite], Field(min_length=1)]
    questions: Texts = ()
    answer: object = None
    answer_alias: object = None
    new_answer: object = None
    new_answer_alias: object = None
    single_hops: object = None
    new_single_hops: object = None
    orig: object = None

    @classmethod
    def claims(cls, fields: Mapping[str, object]) -> bool:
        """Return whether the rewrites stand in a list."""
        return isinstance(fields.get("requested_rewrite"), list)

    @classmethod
    def locate_subjects(cls, fields: Mapping[str, object]) -> tuple[SubjectPlace, ...]:
        """Return a place for each edit."""
        rewrites = fields.get("requested_rewrite")
        count = len(rewrites) if isinstance(rewrites, list) else 0
        return tuple(
            SubjectPlace(("requested_rewrite", number, "subject"), ("requested_rewrite", number, "prompt"))
            for number in range(count)
        )

    def build_requests(self, index: str, options: ReadingOptions) -> tuple[EditRequest, ...]:
        """Return a request for each edit of the case."""
        case, several = self.id or index, len(self.requested_rewrite) > 1
        return tuple(
            EditRequest(
                id=f"{case}-{number}" if several else case,
                subject=rewrite.subject,
                prompt=fill_subject(rewrite.prompt, rewrite.subject),
                target_new=rewrite.target_new.text,
                target_true=None if rewrite.target_true is None else rewrite.target_true.text,
                group=case,
                question=fill_subject(rewrite.question, rewrite.subject) if rewrite.question else None,
                not_judged=self.questions,
            )
            for number, rewrite in enumerate(self.requested_rewrite, start=1)
        )
