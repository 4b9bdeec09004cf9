"""The verdict of the gate as data: why it is closed, and who overrode it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

from pydantic import Field

from ..log.types import Model
from .comparison import Comparison

__all__ = ["ACCEPTABLE", "OVERRIDABLE", "ClosingReason", "Gate", "LapsedOverride", "Override", "ReasonCode"]


class ReasonCode(StrEnum):
    """Kind of a ground for closing the gate."""

    UNREADABLE = "unreadable"
    NO_BASELINE = "no-baseline"
    DUPLICATE_EDITS = "duplicate-edits"
    NOT_FINITE = "not-finite"
    AUDIT_UNFINISHED = "audit-unfinished"
    AUDIT_VOID = "audit-void"
    AUDIT_FAILED = "audit-failed"
    NO_CASES = "no-cases"
    MISSING_EDITS = "missing-edits"
    NEW_EDITS = "new-edits"
    CHANGED_EDITS = "changed-edits"
    OTHER_MODEL = "other-model"
    OTHER_POLICY = "other-policy"
    OTHER_CORPUS = "other-corpus"
    OTHER_ARITHMETIC = "other-arithmetic"
    OTHER_ORDER = "other-order"
    OTHER_KIND = "other-kind"
    NEW_REFUSALS = "new-refusals"
    NEW_COLLAPSE = "new-collapse"
    MISSING_CHECKS = "missing-checks"
    UNMEASURED = "unmeasured"
    REGRESSED = "regressed"


OVERRIDABLE: Final = frozenset(ReasonCode) - {
    ReasonCode.UNREADABLE,
    ReasonCode.NO_BASELINE,
    ReasonCode.DUPLICATE_EDITS,
    ReasonCode.NOT_FINITE,
    ReasonCode.AUDIT_UNFINISHED,
    ReasonCode.AUDIT_VOID,
    ReasonCode.NO_CASES,
}
"""Grounds that a person may override. With the others there is no evidence to judge."""

ACCEPTABLE: Final = frozenset({ReasonCode.MISSING_EDITS, ReasonCode.NEW_EDITS})
"""Grounds that may be accepted beforehand: a set of edits that shrank or grew on purpose."""


class ClosingReason(Model):
    """One ground for closing, with the `metric` and the ids of all `edits` that it is about."""

    reason: ReasonCode
    message: str
    metric: str | None = None
    edits: list[str] = Field(default_factory=list)

    @property
    def key(self) -> str:
        """The ground's name with its metric. An override must list it to lift the ground."""
        return self.reason.value if self.metric is None else f"{self.reason.value}:{self.metric}"


class Override(Model):
    """A person's signed decision that lifts exactly `closings` for one log and one baseline, known by their hashes."""

    time: str
    author: str
    reason: str
    baseline: str
    baseline_sha256: str
    log_sha256: str
    closings: list[str]


class LapsedOverride(Model):
    """A recorded override that lifts nothing here; `why` says in words what it was given for instead."""

    override: Override
    why: str


class Gate(Model):
    """The verdict: `closings` are the grounds for closing, `override` opened the gate, the `lapsed` overrides did not.

    `comparison` is null if there was nothing to compare; `allowed` holds the allowance of each judged metric.
    """

    open: bool
    baseline: str
    closings: list[ClosingReason]
    accepted: list[str]
    override: Override | None = None
    lapsed: list[LapsedOverride] = Field(default_factory=list)
    allowed: dict[str, float]
    comparison: Comparison | None = None

    @property
    def standing(self) -> Literal["open", "closed", "override"]:
        """The gate's state; a gate that a person opened is not simply open."""
        return "closed" if not self.open else "open" if self.override is None else "override"

    @property
    def exit_code(self) -> int:
        """0 for an open gate, 1 for a closed one."""
        return 0 if self.open else 1
