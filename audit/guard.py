"""The guarded editor: probe, decide, compute, bound, apply, check, and then keep the edit or undo it.

The public Python API::

    guard = GuardedEditor.load("smollm2-135m")
    result = guard.edit(EditRequest("1", "Chicago", "Chicago is a twin city of", "Istanbul"))
    result.kept, result.decision.reasons

`assess` changes nothing. `try_edit` makes the edit, checks it and always undoes it; `edit` keeps it when it is sound.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..probes import builtin as _builtin_probes  # noqa: F401  (registers the built-in probes)
from ..probes.errors import EditRefused, InputError, NotFinite, RequestError
from ..probes.evidence import Evidence
from ..probes.fingerprint import tensor_hash
from ..probes.model import LanguageModel, load_model
from ..probes.probe import Case, Finding, Level, run_probes
from ..probes.requests import EditRequest
from ..suites import condition as _condition  # noqa: F401  (registers the built-in checks)
from ..suites import facts as _facts  # noqa: F401
from ..suites import perplexity as _perplexity  # noqa: F401
from ..suites.check import CHECKS, Generated, Measurement, Outcome
from .editors import prefixed as _prefixed  # noqa: F401  (registers the built-in editors)
from .editors import published as _published  # noqa: F401
from .editors.base import EDITORS, RankOneUpdate
from .policy import Action, Decision, decide
from .setup import Setup, prepare
from .transaction import Transaction, check_update

__all__ = ["Assessment", "GuardedEditor", "Result"]


@dataclass(frozen=True)
class Assessment:
    """What is known about a request before anything is changed."""

    request: EditRequest
    evidence: Evidence | None
    """None where the subject could not be located."""
    findings: tuple[Finding, ...]
    decision: Decision


@dataclass(frozen=True)
class Result:
    """What came of a request; nothing is left in the model unless `kept`."""

    assessment: Assessment
    update: RankOneUpdate | None = None
    relative_norm: float | None = None
    measurements: tuple[Measurement, ...] = ()
    generations: tuple[Generated, ...] = ()
    sound: bool = False
    """Whether every judged measurement passed."""
    kept: bool = False
    refusal: str | None = None
    """Why nothing was written, where the guard refused after the decision."""
    hashes: tuple[str, str, str | None] | None = None
    """The weight's hash before, with the edit, and after the roll-back (None where it was kept)."""
    seconds: float = 0.0

    @property
    def decision(self) -> Decision:
        """The decision before the edit."""
        return self.assessment.decision

    @property
    def failures(self) -> tuple[Measurement, ...]:
        """The measurements that failed or could not be taken."""
        return tuple(m for m in self.measurements if m.outcome in (Outcome.FAIL, Outcome.UNMEASURED))


@dataclass(frozen=True)
class GuardedEditor:
    """Edits a model under a policy; every edit is a transaction."""

    setup: Setup
    checks: Sequence[str] = field(default_factory=lambda: tuple(CHECKS.names()))

    @classmethod
    def load(cls, model: str | LanguageModel = "smollm2-135m", **options: Any) -> GuardedEditor:
        """Load and prepare a model; `options` are those of `editguard.audit.setup.prepare`."""
        return cls(prepare(load_model(model) if isinstance(model, str) else model, **options))

    def assess(self, request: EditRequest, editor: str | None = None) -> Assessment:
        """Return findings and decision; changes nothing, and never raises for a bad request: it refuses it."""
        setup = self.setup
        try:
            evidence = setup.gauge.measure(request)
            findings = run_probes(Case(setup.lm, request, evidence, setup.calibration.thresholds))
        except (RequestError, NotFinite) as error:
            fault = (Finding("well-formed", Level.ERROR, str(error)),)
            return Assessment(request, None, fault, decide(setup.policy, fault, editor))
        return Assessment(request, evidence, findings, decide(setup.policy, findings, editor))

    def try_edit(self, request: EditRequest, editor: str | None = None) -> Result:
        """Make the edit as the guard would, check the model, and undo it in any case."""
        return self._run(self.assess(request, editor), keep=False)

    def edit(self, request: EditRequest, editor: str | None = None) -> Result:
        """Make the edit as the guard would and keep it if every check passes; otherwise the weights are as before."""
        return self._run(self.assess(request, editor), keep=True)

    def unguarded(self, request: EditRequest, editor: str) -> Result:
        """Make the edit without asking the policy, check the model and undo it: for controls and experiments."""
        assessment = self.assess(request)
        forced = Decision(Action.ALLOW, editor, ("made without the guard",))
        chosen = Assessment(request, assessment.evidence, assessment.findings, forced)
        return self._run(chosen, keep=False, bound=float("inf"))

    def _run(self, assessment: Assessment, *, keep: bool, bound: float | None = None) -> Result:
        started, decision = time.monotonic(), assessment.decision
        if decision.editor is None:
            return Result(assessment, refusal="; ".join(decision.reasons), seconds=time.monotonic() - started)
        self._unedited()
        limit = self.setup.policy.max_relative_update if bound is None else bound
        update = relative = None
        try:
            update = EDITORS.get(decision.editor)().update(self.setup.editing, assessment.request)
            relative = update.norm / self.setup.gauge.weight_norm
            check_update(update, self.setup.gauge.weight_norm, limit)
        except (EditRefused, RequestError) as error:
            return Result(assessment, update, relative, refusal=str(error), seconds=time.monotonic() - started)
        return self._apply(assessment, update, relative, keep, started)

    def _unedited(self) -> None:
        """Raise `InputError` where the model is not the one that baselines and statistics were taken from."""
        site = self.setup.site
        if tensor_hash(site.weight) != self.setup.weight_hash:
            raise InputError(
                f"The weight {site.path} is not the one that this guard was prepared with (an edit was kept, or it was "
                "written to), so an edit would be judged by another model's baselines; load and prepare the model again."
            )

    def _apply(
        self, assessment: Assessment, update: RankOneUpdate, relative: float, keep: bool, started: float
    ) -> Result:
        bench, request = self.setup.bench, assessment.request
        checks = [CHECKS.get(name)() for name in self.checks]
        before = [check.prepare(bench, request) for check in checks]
        measurements: list[Measurement] = []
        generations: list[Generated] = []
        with Transaction(self.setup.site, update) as transaction:
            for check, state in zip(checks, before, strict=True):
                measured = check.measure(bench, request, state, update.needs_prefix)
                measurements += measured.measurements
                generations += measured.generations
            judged = [m for m in measurements if m.outcome is not Outcome.INFO]
            # Nothing judged is not a pass: what was not measured is refused.
            sound = bool(judged) and all(m.outcome is Outcome.PASS for m in judged)
            if keep and sound:
                transaction.commit()
        return Result(
            assessment, update, relative, tuple(measurements), tuple(generations), sound, keep and sound,
            hashes=(transaction.before, transaction.edited, transaction.restored), seconds=time.monotonic() - started,
        )  # fmt: skip
