"""The guarded editor: probe, decide, compute, bound, apply, check, and then keep the edit or undo it.

The public Python API::

    guard = GuardedEditor.load("smollm2-135m")
    result = guard.edit(EditRequest("1", "Chicago", "Chicago is a twin city of", "Istanbul"))
    result.kept, result.decision.reasons

`assess` changes nothing. `try_edit` makes the edit, checks it and always undoes it; `edit` keeps it when it is sound.
For many edits `propose` computes the updates of several assessments at once, and `test` makes, checks and undoes each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..probes.errors import EditguardError, EditRefused, InputError, NotFinite, RequestError
from ..probes.evidence import Evidence
from ..probes.model.language_model import LanguageModel, load_model
from ..probes.probe import Finding, Level, ProbeInput, run_probes
from ..probes.requests.request import EditRequest
from ..probes.screen import ends
from ..suites.check import CHECKS, Generated, Measurement, Outcome, PromptAnswer, checks_of_one
from .editors.base import RankOneUpdate, chosen_editor, compute_updates
from .policy import Action, Decision, decide, load_policy
from .setup import Setup, prepare
from .transaction import Transaction, check_update, relative_norm

__all__ = ["Assessment", "GuardedEditor", "Proposal", "EditResult"]


@dataclass(frozen=True)
class Assessment:
    """What is known about a request before anything is changed."""

    request: EditRequest
    evidence: Evidence | None
    """None where the subject could not be located."""
    findings: tuple[Finding, ...]
    decision: Decision
    seconds: float = 0.0
    """Time that probing took."""


def decided_action(assessment: Assessment) -> Action:
    """Return what was decided."""
    return assessment.decision.action


@dataclass(frozen=True)
class Proposal:
    """An update that was computed and not written, or the reason why there is none."""

    assessment: Assessment
    update: RankOneUpdate | None = None
    relative_norm: float | None = None
    """||Delta||_F / ||W||_F."""
    refusal: str | None = None
    before: tuple[Any, ...] = ()
    """What each check measured of the unedited model."""
    checks: tuple[str, ...] = ()
    """The names of these checks."""
    seconds: float = 0.0
    """Time of probing, and this edit's share of what it was computed together with."""

    @property
    def writable(self) -> RankOneUpdate | None:
        """The update where nothing speaks against it so far, and it may be written to be checked."""
        return self.update if self.refusal is None else None


@dataclass(frozen=True)
class EditResult:
    """What came of a request; nothing is left in the model unless `kept`."""

    assessment: Assessment
    update: RankOneUpdate | None = None
    relative_norm: float | None = None
    measurements: tuple[Measurement, ...] = ()
    generations: tuple[Generated, ...] = ()
    prompts: tuple[PromptAnswer, ...] = ()
    """What became of each prompt that the edit must not change."""
    sound: bool = False
    """Whether every judged measurement passed."""
    kept: bool = False
    refusal: str | None = None
    """Why nothing was written, where the guard refused after the decision."""
    hashes: tuple[str, str, str | None] | None = None
    """The weight's hash before, with the edit, and after the roll-back (None where it was kept)."""
    seconds: float = 0.0
    """Time of probing, computing (its share where several were computed together), applying, checking and undoing."""

    @property
    def decision(self) -> Decision:
        """The decision before the edit."""
        return self.assessment.decision

    @property
    def prefix(self) -> str | None:
        """What is put before a text that begins with the subject when the edit is served: see `editguard.audit.serving`.

        None where the edit needs nothing, and where it needs something and is served behind none of the prefixes tried.
        """
        return next((m.prefix for m in self.measurements if m.prefix is not None), None)

    @property
    def failures(self) -> tuple[Measurement, ...]:
        """The measurements that failed or could not be taken."""
        return tuple(m for m in self.measurements if m.outcome in (Outcome.FAIL, Outcome.UNMEASURED))


@dataclass(frozen=True)
class GuardedEditor:
    """Edits a model under a policy; every edit is a transaction."""

    setup: Setup
    checks: Sequence[str] = field(default_factory=checks_of_one)

    @classmethod
    def load(cls, model: str | LanguageModel = "smollm2-135m", **options: Any) -> GuardedEditor:
        """Load and prepare a model; `options` are those of `editguard.audit.setup.prepare`.

        Without a policy among them the project's is kept, as on the command line: ``[tool.editguard]`` of ./pyproject.toml.
        """
        if "policy" not in options:
            options["policy"] = load_policy(None)
        return cls(prepare(load_model(model) if isinstance(model, str) else model, **options))

    def assess(self, request: EditRequest, editor: str | None = None) -> Assessment:
        """Return findings and decision; changes nothing, and never raises for a bad request: it refuses it."""
        (found,) = self.assess_all([request], editor)
        return found

    def assess_all(
        self,
        requests: Sequence[EditRequest],
        editor: str | None = None,
        *,
        screen: bool = False,
        asked: Callable[[Assessment], object] = decided_action,
    ) -> list[Assessment]:
        """Return what `assess` does for each request, measured together: the faster way for many.

        With `screen` the clear cases are settled under few contexts (see `editguard.probes.screen`): their figures are
        near the exact ones, and whether the target is said already is not asked. Clear is a case where what is `asked`, the
        decision where nothing else is said, is the same wherever the exact figures may lie. An assessment holds its keys under
        all contexts, some 200 kB in a small model: keep what is needed of many.
        """
        if editor is not None:
            chosen_editor(editor)
        started = time.monotonic()
        measured = self.setup.meter.measure_all(requests, screen=screen)
        if screen:
            close = [
                index
                for index, one in enumerate(zip(requests, measured, strict=True))
                if not self._clear(*one, editor, asked)
            ]
            exact = self.setup.meter.measure_all([requests[index] for index in close])
            measured = [dict(zip(close, exact, strict=True)).get(index, one) for index, one in enumerate(measured)]
        share = (time.monotonic() - started) / max(len(requests), 1)
        return [self._assessment(*one, editor, share) for one in zip(requests, measured, strict=True)]

    def _clear(
        self,
        request: EditRequest,
        measured: Evidence | EditguardError,
        editor: str | None,
        asked: Callable[[Assessment], object],
    ) -> bool:
        """Whether what is asked is the same wherever the exact figures may lie."""
        margins = self.setup.calibration.margins
        if not isinstance(measured, Evidence):
            return True
        if not margins.settle:
            return False
        worst, best = (self._assessment(request, end, editor, 0.0) for end in ends(measured, margins))
        return asked(worst) == asked(best)

    def _assessment(
        self, request: EditRequest, measured: Evidence | EditguardError, editor: str | None, seconds: float
    ) -> Assessment:
        setup, started = self.setup, time.monotonic()
        evidence = measured if isinstance(measured, Evidence) else None
        try:
            if not isinstance(measured, Evidence):
                raise measured
            self._reaches_the_answer(measured)
            findings = run_probes(ProbeInput(setup.lm, request, measured, setup.calibration.thresholds))
        except (RequestError, NotFinite) as error:
            findings = (Finding("well-formed", Level.ERROR, str(error)),)
        decision = decide(setup.policy, findings, editor)
        return Assessment(request, evidence, findings, decision, seconds + time.monotonic() - started)

    def _reaches_the_answer(self, seen: Evidence) -> None:
        """Raise `RequestError` where what is put in at the subject cannot change what the model says."""
        site, place = self.setup.site, seen.keys.position
        if site.layer == len(site.blocks) - 1 and place.last < len(place.input_ids) - 1:
            raise RequestError(
                f"Layer {site.layer} is the last one, from which nothing reaches a later token, and the prompt goes on behind "
                "the subject, so that no edit there can take; edit a lower layer."
            )

    def propose(self, assessments: Sequence[Assessment], *, bound: float | None = None) -> list[Proposal]:
        """Compute the updates that were decided on, in batches, and hold each to `bound` (the policy's).

        An edit that was allowed and whose update is over the bound is rewritten where the policy says so, and held to the
        bound again. Nothing is written. Raises `InputError` where the model is not the one that this guard was prepared
        with.
        """
        started, policy = time.monotonic(), self.setup.policy
        limit = policy.max_relative_update if bound is None else bound
        found = self._computed(assessments, limit)
        over = [index for index, one in enumerate(found) if self._to_rewrite(one, limit)]
        again = self._computed([self._rewritten(found[index]) for index in over], limit)
        found = [dict(zip(over, again, strict=True)).get(index, one) for index, one in enumerate(found)]
        found = self._prepared(found)
        made = [one.assessment.decision.editor is not None for one in found]
        share = (time.monotonic() - started) / max(sum(made), 1)
        return [
            replace(one, seconds=one.assessment.seconds + share * computed)
            for one, computed in zip(found, made, strict=True)
        ]

    def _computed(self, assessments: Sequence[Assessment], limit: float) -> list[Proposal]:
        asked = [(one.decision.editor, one.request) for one in assessments]
        jobs = [(editor, request) for editor, request in asked if editor is not None]
        self.setup.unedited()
        updates = iter(compute_updates(self.setup.editing, jobs))
        return [
            self._proposal(one, next(updates), limit)
            if one.decision.editor is not None
            else Proposal(one, refusal="; ".join(one.decision.reasons))
            for one in assessments
        ]

    def _to_rewrite(self, proposal: Proposal, limit: float) -> bool:
        relative, policy = proposal.relative_norm, self.setup.policy
        too_large = relative is not None and limit < relative < float("inf")
        # What the policy has rewritten is the rewriter's already.
        other = proposal.assessment.decision.editor != policy.rewrite_editor
        return too_large and other and policy.over_bound == "rewrite"

    def _rewritten(self, proposal: Proposal) -> Assessment:
        assessment = proposal.assessment
        reasons = (*assessment.decision.reasons, f"update: {proposal.refusal}")
        return replace(assessment, decision=Decision(Action.REWRITE, self.setup.policy.rewrite_editor, reasons))

    def _prepared(self, proposals: Sequence[Proposal]) -> list[Proposal]:
        """Return the proposals with what the checks measured of the unedited model, for those that may be written."""
        made = [(one.assessment.request, update) for one in proposals if (update := one.writable) is not None]
        if not made:
            return [*proposals]
        asked, updates = [request for request, _ in made], [update for _, update in made]
        checks = [CHECKS.get(name)() for name in self.checks]
        with self.setup.bench.computing():
            states = [check.prepare(self.setup.bench, asked, updates) for check in checks]
        rows = iter(zip(*states, strict=True) if states else [() for _ in asked])
        return [
            one if one.writable is None else replace(one, before=next(rows), checks=tuple(self.checks))
            for one in proposals
        ]

    def _proposal(self, assessment: Assessment, update: RankOneUpdate | EditguardError, limit: float) -> Proposal:
        if isinstance(update, EditguardError):
            return Proposal(assessment, refusal=str(update))
        weight_norm = self.setup.meter.weight_norm
        relative, refusal = relative_norm(update, weight_norm), None
        try:
            check_update(update, weight_norm, limit)
        except EditRefused as error:
            refusal = str(error)
        return Proposal(assessment, update, relative, refusal)

    def test(self, proposal: Proposal) -> EditResult:
        """Make the edit, check the model, and undo it in any case."""
        return self._run(proposal, keep=False)

    def try_edit(self, request: EditRequest, editor: str | None = None) -> EditResult:
        """Make the edit as the guard would, check the model, and undo it in any case."""
        return self.test(*self.propose([self.assess(request, editor)]))

    def edit(self, request: EditRequest, editor: str | None = None) -> EditResult:
        """Make the edit as the guard would and keep it if every check passes; otherwise the weights are as before."""
        return self.keep(*self.propose([self.assess(request, editor)]))

    def keep(self, proposal: Proposal) -> EditResult:
        """Make the edit, check the model, and keep the edit if every check passes; otherwise the weights are as before."""
        return self._run(proposal, keep=True)

    def unguarded(self, request: EditRequest, editor: str) -> EditResult:
        """Make the edit without asking the policy, check the model and undo it: for controls and experiments."""
        return self.test(*self.propose([self.force(request, editor)], bound=float("inf")))

    def force(self, request: EditRequest, editor: str) -> Assessment:
        """Return the assessment with the decision to make the edit as asked, whatever was found."""
        return replace(self.assess(request), decision=Decision(Action.ALLOW, editor, ("made without the guard",)))

    def _run(self, proposal: Proposal, *, keep: bool) -> EditResult:
        assessment, update = proposal.assessment, proposal.writable
        if update is None:
            return EditResult(
                assessment, proposal.update, proposal.relative_norm, refusal=proposal.refusal, seconds=proposal.seconds
            )
        if proposal.checks != tuple(self.checks):
            raise InputError(
                f"The proposal was prepared for the checks {', '.join(proposal.checks) or 'of no guard'}, and this guard makes "
                f"{', '.join(self.checks)}; let this guard propose it."
            )
        self.setup.unedited()
        started, bench, request = time.monotonic(), self.setup.bench, assessment.request
        checks = [CHECKS.get(name)() for name in self.checks]
        measurements: list[Measurement] = []
        generations: list[Generated] = []
        prompts: list[PromptAnswer] = []
        of_edit = False
        with Transaction(self.setup.site, update) as transaction, bench.computing():
            for check, state in zip(checks, proposal.before, strict=True):
                measured = check.measure(bench, request, state, update.needs_prefix)
                measurements += measured.measurements
                generations += measured.generations
                prompts += measured.prompts
                judges = any(m.outcome is not Outcome.INFO for m in measured.measurements)
                of_edit = of_edit or (judges and not check.of_sequence)
            self.setup.edited()
            transaction.prove()
            judged = [m for m in measurements if m.outcome is not Outcome.INFO]
            # Nothing judged of the edit itself is not a pass: what was not measured is refused.
            sound = of_edit and all(m.outcome is Outcome.PASS for m in judged)
            if keep and sound:
                transaction.commit()
        return EditResult(
            assessment=assessment,
            update=update,
            relative_norm=proposal.relative_norm,
            measurements=tuple(measurements),
            generations=tuple(generations),
            prompts=tuple(prompts),
            sound=sound,
            kept=keep and sound,
            hashes=(transaction.before, transaction.edited, transaction.restored),
            seconds=proposal.seconds + time.monotonic() - started,
        )
