"""QAEdit (arXiv 2502.11177): questions of several benchmarks.

An id is unique only together with the name of its benchmark, so a request's id holds both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator

from ..layout import Layout, ReadingOptions, RecordPart, UnusedKey
from ..layout_fields import OLD_ANSWERS, OptionalText, Question, Stripped, Text, fill_subject, to_tuple
from ..request import EditRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["QAEdit"]


class LocalityQuestion(RecordPart):
    """A question about something else, with its answer."""

    loc: Question
    loc_ans: object = None


class QAEdit(Layout):
    """id, source, subject, prompt, target, rephrase, locality."""

    name = "qaedit"
    title = "QAEdit"
    summary = "QAEdit: questions of several benchmarks, with an id for each benchmark."
    marker_keys = frozenset({"target", "source", "locality"})
    order = 35

    source: Stripped | None = None
    subject: Stripped
    prompt: Text
    target: Stripped
    rephrase: OptionalText = None
    locality: Annotated[tuple[LocalityQuestion, ...], BeforeValidator(to_tuple)] = ()

    @classmethod
    def claims(cls, fields: Mapping[str, object]) -> bool:
        """Return whether locality is a list, or target stands beside another key of this layout."""
        return isinstance(fields.get("locality"), list) or (
            "target" in fields and bool({"source", "rephrase"} & fields.keys())
        )

    @classmethod
    def read_id(cls, fields: Mapping[str, object]) -> str:
        """Return the id with its source in front."""
        own, source = super().read_id(fields), fields.get("source")
        return f"{source.strip()}-{own}" if own and isinstance(source, str) and source.strip() else own

    def build_requests(self, index: str, options: ReadingOptions) -> tuple[EditRequest, ...]:
        """Return the request of the record."""
        own = self.id or index
        request = EditRequest(
            id=f"{self.source}-{own}" if self.source and self.id else own,
            subject=self.subject,
            prompt=fill_subject(self.prompt, self.subject),
            target_new=self.target,
            paraphrases=(fill_subject(self.rephrase, self.subject),) if self.rephrase else (),
            neighbourhood=tuple(item.loc for item in self.locality),
        )
        return (request,)

    def find_unused_keys(self, options: ReadingOptions) -> tuple[UnusedKey, ...]:
        """Return the answers to the questions about others."""
        return (UnusedKey("locality.loc_ans", OLD_ANSWERS),) if any(item.loc_ans for item in self.locality) else ()
