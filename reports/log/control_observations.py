"""Control observations: how a probe or a check behaved on a control, as the log holds it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import model_validator

from .types import Model

__all__ = ["ControlObservation", "ObservedBehaviour"]


class ObservedBehaviour(StrEnum):
    """Behaviour of a probe or a check on a control. A check whose figure was not measured fails."""

    FIRES = "fires"
    SILENT = "silent"
    ERRORS = "errors"
    FAILS = "fails"
    PASSES = "passes"
    JUDGES_NOTHING = "judges nothing"


class ControlObservation(Model):
    """Behaviour of one probe or check on one control: `expected` and `seen`.

    `by_edit`: the control's own edit showed the expected behaviour. `by_evidence`: all evidence that the probe or check brings
    for its control showed it. `ok` is null for what is not controlled, and `why` gives the reason.
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
            raise ValueError(f"ok is true for {self.name!r}, but {self.expected.value!r} was expected and not observed")
        return self
