"""QAEdit (arXiv 2502.11177): questions of several benchmarks, whose ids are unique only beside the name of the benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator

from ..request import EditRequest
from .base import (
    OLD_ANSWERS,
    Layout,
    OptionalText,
    Question,
    ReadingOptions,
    RecordPart,
    Stripped,
    Text,
    UnusedKey,
    fill_subject,
    to_tuple,
)

__all__ = ["LAYOUT"]


class Local(RecordPart):
    """A question about something else, with its answer."""

    loc: Question
    loc_ans: object = None


class QAEdit(Layout):
    """id, source, subject, prompt, target, rephrase, locality."""

    title = "QAEdit"
    marks = frozenset({"target", "source", "locality"})
    order = 35

    source: Stripped | None = None
    subject: Stripped
    prompt: Text
    target: Stripped
    rephrase: OptionalText = None
    locality: Annotated[tuple[Local, ...], BeforeValidator(to_tuple)] = ()

    @classmethod
    def claims(cls, fields: Mapping[str, object]) -> bool:
        """Return whether locality is a list, or target stands beside another key of this layout."""
        return isinstance(fields.get("locality"), list) or (
            "target" in fields and bool({"source", "rephrase"} & fields.keys())
        )

    @classmethod
    def claimed_id(cls, fields: Mapping[str, object]) -> str:
        """Return the id with its source in front."""
        own, source = super().claimed_id(fields), fields.get("source")
        return f"{source.strip()}-{own}" if own and isinstance(source, str) and source.strip() else own

    def requests(self, index: str, reading: ReadingOptions) -> tuple[EditRequest, ...]:
        """Return the one request."""
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

    def left_out(self, reading: ReadingOptions) -> tuple[UnusedKey, ...]:
        """Return the answers to the questions about others."""
        return (UnusedKey("locality.loc_ans", OLD_ANSWERS),) if any(item.loc_ans for item in self.locality) else ()


LAYOUT = QAEdit
