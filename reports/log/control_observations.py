"""What a control showed of a probe or a check, as the log holds it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import model_validator

from .types import Model

__all__ = ["ObservedBehaviour", "ControlObservation"]


class ObservedBehaviour(StrEnum):
    """What a control saw of a probe or a check: a check whose figure was not measured fails."""

    FIRES = "fires"
    SILENT = "silent"
    ERRORS = "errors"
    FAILS = "fails"
    PASSES = "passes"
    JUDGES_NOTHING = "judges nothing"


class ControlObservation(Model):
    """What one control showed of one probe or check.

    `by_edit`: the control's own edit showed what was `expected`; `by_evidence`: all evidence that the probe or check brings
    for its control did. `ok` is null where it is not controlled, and `why` says so.
    """

    kind: Literal["probe", "check"]
    name: str
    expected: ObservedBehaviour
    seen: ObservedBehaviour
    by_edit: bool
    by_evidence: bool
    ok: bool | None
    why: str = ""

    @model_validator(mode="after")
    def _honest(self) -> ControlObservation:
        if self.ok and (self.seen is not self.expected or not (self.by_edit or self.by_evidence)):
            raise ValueError(f"ok is true of {self.name!r}, of which {self.expected.value!r} was expected and not seen")
        return self
