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
    "ObjectSearch",
    "Search",
    "TensorRecord",
    "TensorState",
    "TextPair",
    "TokenGuess",
    "describe_object_search",
    "describe_search",
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
    """A subject and how alike its key is to those that the change was made for."""

    subject: str
    cosine: float
    p_value: float


class Search(Model):
    """The subjects that one change of low rank may have been made for."""

    tensor: str
    rank: Count | None = None
    """Determined rank of the change."""
    candidates: Count
    guesses: list[Guess]
    """Those that stand out, with a p value of at most 0.05; empty where none does."""
    margin: float | None = None
    """Cosine of the best over that of the next."""
    p_value: float | None = None
    """(b + 1) / (n + 1), where in b of n null draws a candidate is as alike as the best is to the change."""
    error: str | None = None
    """Why nothing was measured; the other figures are missing then."""

    @model_validator(mode="after")
    def _measured_or_not(self) -> Search:
        figures = (self.margin is not None, self.p_value is not None)
        if set(figures) != {self.error is None} or (self.error is not None and self.guesses):
            raise ValueError("a search has margin and p value, or an error that says why it has none")
        return self


class TokenGuess(Model):
    """A token that the change may have been made to say."""

    token: str
    score: float
    """Cosine between the left factor and its row of the unembedding, as the final norm scales it."""


class ObjectSearch(Model):
    """The tokens that one change of rank one may have been made to say; a guess, since it reads one factor alone."""

    tensor: str
    tokens: list[TokenGuess]
    """The five best where the best stands out, with a p value of at most 0.05; else empty."""
    p_value: float | None = None
    """(b + 1) / (n + 1), where for b of n random directions a token scores as high as the best does."""
    error: str | None = None
    """Why nothing was measured."""

    @model_validator(mode="after")
    def _measured_or_not(self) -> ObjectSearch:
        if (self.p_value is None) != (self.error is not None) or (self.error is not None and self.tokens):
            raise ValueError("a search has a p value, or an error that says why it has none")
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
    not_searched: str | None
    """Why no subject was searched; null where one was."""
    objects: list[ObjectSearch]
    objects_not_searched: str | None
    """The same of objects."""
    verdict: Literal["pass", "fail"]
    reasons: list[str]

    def list_shown(self) -> list[TensorRecord]:
        """Return the tensors that are shown one by one: all but casts, which are counted, unless one is not finite."""
        return [record for record in self.changes if record.status != "cast" or not record.finite]

    @model_validator(mode="after")
    def _honest(self) -> DiffFile:
        if (self.verdict == "fail") != bool(self.reasons):
            raise ValueError("a comparison fails exactly where there are reasons")
        for entries, reason in ((self.searches, self.not_searched), (self.objects, self.objects_not_searched)):
            if bool(entries) == (reason is not None):
                raise ValueError("a search that was not made says why, and no other")
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


def describe_search(search: Search) -> str:
    """Return what a search for subjects came to, in a clause."""
    if search.error is not None:
        return f"not searched for a subject: {search.error}"
    if not search.guesses:
        return f"no candidate of {search.candidates} stands out as the subject (p = {search.p_value:.2g})"
    names = ", ".join(f"{guess.subject} {guess.cosine:.3f} (p = {guess.p_value:.2g})" for guess in search.guesses)
    return f"was made for, of {search.candidates}: {names}"


def describe_object_search(search: ObjectSearch) -> str:
    """Return what a search for the object came to, in a clause."""
    if search.error is not None:
        return f"not searched for an object: {search.error}"
    if not search.tokens:
        return f"no token stands out as the object (p = {search.p_value:.2g})"
    tokens = ", ".join(f"{guess.token!r}" for guess in search.tokens)
    return f"may make the model say (a guess, p = {search.p_value:.2g}): {tokens}"


def render_diff(comparison: DiffFile) -> str:
    """Return the comparison as one self-contained HTML page."""
    return render_page(
        "diff.html.j2",
        [],
        d=comparison,
        describe_object_search=describe_object_search,
        judged=judge_behaviour(comparison.behaviour),
        alike=all(pair.base == pair.edited for pair in comparison.written),
    )
