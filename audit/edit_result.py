"""What the guard hands out: the assessment of a request, the proposal of its edit, and the result of making it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..suites.check import GeneratedText, Measurement, Outcome, PromptAnswer

if TYPE_CHECKING:
    from ..probes.evidence import Evidence
    from ..probes.probe import Finding
    from ..probes.requests.request import EditRequest
    from .editors.base import RankOneUpdate
    from .policy import Action, Decision

__all__ = ["Assessment", "EditResult", "Proposal", "decided_action"]


@dataclass(frozen=True)
class Assessment:
    """What the probes say of a request before anything is changed, and what the policy decides."""

    request: EditRequest
    evidence: Evidence | None
    """None where the subject could not be located or the keys could not be measured."""
    findings: tuple[Finding, ...]
    decision: Decision
    seconds: float = 0.0
    """Time that probing took."""


def decided_action(assessment: Assessment) -> Action:
    """Return what the policy decided."""
    return assessment.decision.action


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """An update that was computed and not written, or the reason why there is none."""

    assessment: Assessment
    update: RankOneUpdate | None = None
    relative_norm: float | None = None
    """||Delta||_F / ||W||_F."""
    refusal: str | None = None
    before: tuple[Any, ...] = ()
    """The state of each check, measured on the unedited model."""
    checks: tuple[str, ...] = ()
    """The names of these checks."""
    seconds: float = 0.0
    """Time of probing, and this edit's share of the time of its batch."""

    @property
    def writable(self) -> RankOneUpdate | None:
        """The update, where nothing speaks against writing it so far."""
        return self.update if self.refusal is None else None


@dataclass(frozen=True, kw_only=True)
class EditResult:
    """The end of a request; nothing is left in the model unless `kept`."""

    assessment: Assessment
    update: RankOneUpdate | None = None
    relative_norm: float | None = None
    """||Delta||_F / ||W||_F."""
    measurements: tuple[Measurement, ...] = ()
    generations: tuple[GeneratedText, ...] = ()
    prompts: tuple[PromptAnswer, ...] = ()
    """The answers to each prompt that the edit must not change."""
    sound: bool = False
    """Whether every judged measurement passed."""
    kept: bool = False
    """Whether the edit is in the model now."""
    refusal: str | None = None
    """Why nothing was written, where the guard refused after the decision."""
    hashes: tuple[str, str, str | None] | None = None
    """The weight's hash before, with the edit, and after the roll-back (None where the edit was kept)."""
    seconds: float = 0.0
    """Time of probing, computing (a share of the batch), applying, checking and undoing."""

    @property
    def decision(self) -> Decision:
        """The decision before the edit."""
        return self.assessment.decision

    @property
    def prefix(self) -> str | None:
        """The text to put before a prompt that begins with the subject when the edit is served.

        `editguard.serve_prompt` puts it there. None where the edit needs no prefix, and where no prefix of those tried
        serves it.
        """
        return next((m.prefix for m in self.measurements if m.prefix is not None), None)

    @property
    def failures(self) -> tuple[Measurement, ...]:
        """The measurements that failed or could not be taken."""
        return tuple(m for m in self.measurements if m.outcome in (Outcome.FAIL, Outcome.UNMEASURED))
