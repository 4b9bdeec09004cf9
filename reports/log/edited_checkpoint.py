"""What the log of an audited checkpoint holds beside its edits: what changed, and what the model as a whole still is.

Source of the kinds of a change: ranks and names of the changed tensors (`editguard.probes.research`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .measurements import Generation, MeasurementRecord
from .prompt_outcomes import PromptOutcome
from .types import Count, Model

__all__ = ["ChangedTensorRecord", "EditedCheckpoint", "ModelRecord"]


class ChangedTensorRecord(Model):
    """One tensor that differs from the base's; `relative` is ||W' - W|| / ||W||, null where it is not finite."""

    name: str
    shape: list[int]
    rank: Count | None = None
    """Rank of the change, as far as rounding lets it be determined; null where it is not, and of a tensor that is no matrix."""
    relative: float | None


class EditedCheckpoint(Model):
    """The checkpoint that was audited, and how its files differ from those of the base."""

    ref: str
    fingerprint: str
    tensors: Count
    """Tensors that both have."""
    changed: Count
    cast: Count = 0
    """Tensors that differ by their type alone: the base's, rounded."""
    rounded_away: Count = 0
    """Tensors whose change is within what rounding can do."""
    kind: str
    """The kind of the change as one sentence."""
    changes: list[ChangedTensorRecord] = Field(default_factory=list)
    """The tensors that changed most, the largest change first; not all where there are many."""
    differences: list[str] = Field(default_factory=list)
    """Differences of tokenizer and configuration, and tensors that one of the two lacks, a sentence each; each is a fault."""


class ModelRecord(Model):
    """The edited model as a whole: is it still a model, and did facts move that nobody edited?"""

    kind: Literal["model"] = "model"
    measurements: list[MeasurementRecord] = Field(default_factory=list)
    prompts: list[PromptOutcome] = Field(default_factory=list)
    """Answers to prompts about subjects that are not in the file of edits."""
    generations: list[Generation] = Field(default_factory=list)
    verdict: Literal["pass", "fail"]
    error: str | None = None
    seconds: Annotated[float, Field(ge=0)]

    @model_validator(mode="after")
    def _coherent(self) -> ModelRecord:
        failed = [m.metric for m in self.measurements if m.verdict in ("fail", "unmeasured")]
        if self.verdict == "pass" and (failed or self.error is not None):
            raise ValueError(f"verdict 'pass' has measurements that did not pass ({', '.join(failed) or self.error})")
        if self.verdict == "pass" and not any(m.verdict == "pass" for m in self.measurements):
            raise ValueError("verdict 'pass' has no measurement that passed, and unmeasured is never a pass")
        return self
