"""What the guard hands out: the assessment of a request, the proposal of its edit, and the result of making it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..probes.model.site_change import combine_norms
from ..suites.check import GeneratedText, Measurement, Outcome, PromptAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..probes.evidence import Evidence
    from ..probes.probe import Finding
    from ..probes.requests.request import EditRequest
    from .editors.update import WeightUpdate
    from .policy import Action, Decision
    from .transaction import WeightHashes

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
    update: WeightUpdate | None = None
    relative_norms: Mapping[str, float] = field(default_factory=dict)
    """||Delta||_F / ||W||_F of each changed site, by path; empty where there is no update."""
    refusal: str | None = None
    before: tuple[Any, ...] = ()
    """The state of each check, measured on the unedited model."""
    checks: tuple[str, ...] = ()
    """The names of these checks."""
    tries_left: int = 0
    """How often the edit may be made again, by the editor that its own names for that, where it fails its checks."""
    seconds: float = 0.0
    """Time of probing, and this edit's share of the time of its batch."""

    @property
    def relative_norm(self) -> float | None:
        """The size of the whole update: the root of the sum of the squares of `relative_norms`; None without an update."""
        return combine_norms(self.relative_norms.values()) if self.relative_norms else None

    @property
    def writable(self) -> WeightUpdate | None:
        """The update, where nothing speaks against writing it so far."""
        return self.update if self.refusal is None else None


@dataclass(frozen=True, kw_only=True)
class EditResult:
    """The end of a request; nothing is left in the model unless `kept`."""

    assessment: Assessment
    update: WeightUpdate | None = None
    relative_norms: Mapping[str, float] = field(default_factory=dict)
    """||Delta||_F / ||W||_F of each changed site, by path; empty where there is no update."""
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
    hashes: Mapping[str, WeightHashes] | None = None
    """The hashes of each changed weight, by the path of its site: before, with the edit, and after the roll-back."""
    seconds: float = 0.0
    """Time of probing, computing (a share of the batch), applying, checking and undoing."""

    @property
    def relative_norm(self) -> float | None:
        """The size of the whole update, as `Proposal.relative_norm` gives it."""
        return combine_norms(self.relative_norms.values()) if self.relative_norms else None

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
