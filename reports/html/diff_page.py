"""The page of a comparison of two checkpoints: changed tensors, behaviour, and the likely subjects of a change.

A pure function of `DiffFile`, which is what ``diff.json`` holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydantic import model_validator

from ..log.types import Count, Model
from ..numbers import format_number
from .page import render_page

__all__ = [
    "Behaviour",
    "BehaviourRow",
    "DiffFile",
    "Difference",
    "Guess",
    "Search",
    "TensorRecord",
    "TensorState",
    "TextPair",
    "judge_behaviour",
    "render_diff",
]


class TensorState(StrEnum):
    """What all differences of tensors are together."""

    IDENTICAL = "identical"
    CAST = "cast"
    WITHIN_ROUNDING = "within rounding"
    CHANGED = "changed"


class TensorRecord(Model):
    """One tensor that is not the same in both; figures are null where they could not be measured."""

    name: str
    status: Literal["changed", "cast", "shape", "missing", "new", "tied"]
    """``cast``: the base's numbers, rounded to another dtype. ``tied``: on one side only, as a copy of another tensor there."""
    shape: list[int]
    dtype: str
    base_dtype: str | None = None
    """Null of a tensor on one side only."""
    norm: float | None = None
    relative: float | None = None
    largest: float | None = None
    share: float | None = None
    effective_rank: float | None = None
    first_share: float | None = None
    rank: Literal["one", "more", "within rounding"] | None = None
    determined_rank: Count | None = None
    """The smallest rank that explains the change but for rounding."""
    within_rounding: bool = False
    """Whether rounding alone could have made the change."""
    exact: bool = True
    finite: bool = True


class Difference(Model):
    """One thing beside the weights that differs: of the tokenizer or of the configuration."""

    file: str
    field: str
    base: str
    edited: str
    sentence: str


class Behaviour(Model):
    """Perplexity and word entropy of both models; null if it could not be measured."""

    base_perplexity: float | None
    edited_perplexity: float | None
    ratio: float | None
    max_ratio: float
    collapse_ratio: float
    entropy_ratio: float | None
    min_entropy_ratio: float


class TextPair(Model):
    """The texts of both models after one prompt."""

    prompt: str
    base: str
    edited: str


class Guess(Model):
    """A subject and how alike its key is to the one that the change was made for."""

    subject: str
    cosine: float


class Search(Model):
    """The most likely subjects of one change of rank one."""

    tensor: str
    candidates: Count
    guesses: list[Guess]
    margin: float | None = None
    """Cosine of the best over that of the next."""
    p_value: float | None = None
    """(b + 1) / (n + 1), b of n candidates being as alike to another one as the best is to the change."""
    error: str | None = None
    """Why nothing was measured; the other figures are missing then."""

    @model_validator(mode="after")
    def _measured_or_not(self) -> Search:
        figures = (bool(self.guesses), self.margin is not None, self.p_value is not None)
        if set(figures) != {self.error is None}:
            raise ValueError("a search has guesses, margin and p value, or an error that says why it has none")
        return self


class DiffFile(Model):
    """A comparison of two checkpoints."""

    schema_version: Literal[2] = 2
    editguard_version: str
    created: str
    base: str
    edited: str
    base_fingerprint: str
    edited_fingerprint: str
    notes: list[str]
    """What was done to read them: a GGUF file is dequantised."""
    state: TensorState
    summary: str
    """What is said first: whether there is a change at all."""
    kind: str
    """What the changes look like together, as `probes.research.change_kind` names it."""
    kind_sentence: str
    differences: list[Difference]
    """Of tokenizer and configuration."""
    tensors: Count
    """In both checkpoints."""
    unchanged: Count
    cast: Count
    """Those of `changes` that are equal but for their dtype."""
    changed: Count
    """Those of `changes` with other numbers."""
    changes: list[TensorRecord]
    behaviour: Behaviour
    written: list[TextPair]
    searches: list[Search]
    verdict: Literal["pass", "fail"]
    reasons: list[str]

    def list_shown(self) -> list[TensorRecord]:
        """Return the tensors that are shown one by one: all but casts, which are counted, unless one is not finite."""
        return [record for record in self.changes if record.status != "cast" or not record.finite]

    @model_validator(mode="after")
    def _honest(self) -> DiffFile:
        if (self.verdict == "fail") != bool(self.reasons):
            raise ValueError("a comparison fails exactly where there are reasons")
        if self.differences and self.verdict == "pass":
            raise ValueError("another tokenizer or configuration is a reason to fail")
        if self.verdict == "pass" and (
            self.behaviour.ratio is None or not all(change.finite for change in self.changes)
        ):
            raise ValueError("what was not measured never passes")
        return self


@dataclass(frozen=True, kw_only=True)
class BehaviourRow:
    """One measure of behaviour as a row of the page; a dash replaces a value if the file holds the ratio alone."""

    name: str
    base: str
    edited: str
    ratio: float | None
    allowed: str
    verdict: Literal["pass", "fail", "unmeasured"]


def judge_behaviour(behaviour: Behaviour) -> tuple[BehaviourRow, ...]:
    """Return each measure of behaviour beside its bound."""
    over = None if behaviour.ratio is None else behaviour.ratio > behaviour.max_ratio
    under = None if behaviour.entropy_ratio is None else behaviour.entropy_ratio < behaviour.min_entropy_ratio
    return (
        BehaviourRow(
            name="Perplexity",
            base=format_number(behaviour.base_perplexity),
            edited=format_number(behaviour.edited_perplexity),
            ratio=behaviour.ratio,
            allowed=f"up to {format_number(behaviour.max_ratio)}; over {format_number(behaviour.collapse_ratio)} a collapse",
            verdict=_judge_bound(over),
        ),
        BehaviourRow(
            name="Word entropy of its texts",
            base="–",
            edited="–",
            ratio=behaviour.entropy_ratio,
            allowed=f"at least {format_number(behaviour.min_entropy_ratio)}",
            verdict=_judge_bound(under),
        ),
    )


def _judge_bound(beyond: bool | None) -> Literal["pass", "fail", "unmeasured"]:
    return "unmeasured" if beyond is None else "fail" if beyond else "pass"


def render_diff(comparison: DiffFile) -> str:
    """Return the comparison as one self-contained HTML page."""
    return render_page(
        "diff.html.j2",
        [],
        d=comparison,
        judged=judge_behaviour(comparison.behaviour),
        alike=all(pair.base == pair.edited for pair in comparison.written),
    )
