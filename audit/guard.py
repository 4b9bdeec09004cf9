"""The guarded editor: probe, decide, compute, bound, apply, check, and then keep the edit or undo it.

The public Python API::

    guard = GuardedEditor.load("smollm2-135m")
    result = guard.edit(EditRequest("1", "Chicago", "Chicago is a twin city of", "Istanbul"))
    result.kept, result.decision.reasons
    guard.save("edited")

`assess` changes nothing. `try_edit` makes the edit, checks it and always undoes it. `edit` keeps it when it is sound.
For many edits `assess_all` and `propose` work in batches, and `try_proposal` or `commit_proposal` takes one proposal.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..probes.errors import EditguardError, EditRefused, InputError, NotFinite, RequestError
from ..probes.evidence import Evidence
from ..probes.measurement_faults import fault_finding
from ..probes.model.language_model import LanguageModel, load_model
from ..probes.probe import PROBES, ProbeInput, run_probes
from ..probes.screen import bracket_evidence, require_screened_figures
from ..suites.check import CHECKS, Check, CheckResult, EditUnderTest, Outcome, list_single_edit_checks
from .edit_result import Assessment, EditResult, Proposal, decided_action
from .editors.base import EDITORS, compute_updates, find_editor
from .policy import Action, Decision, Policy, decide, load_policy
from .progress import Progress, show_nothing
from .saved_model.save import save_edited_model
from .setup import Setup, prepare
from .transaction import Transaction, check_update, relative_norms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from ..probes.requests.request import EditRequest
    from .editors.update import WeightUpdate
    from .editors.value import ValueSettings
    from .saved_model.manifest import EditProvenance

__all__ = ["GuardedEditor"]


@dataclass(frozen=True)
class GuardedEditor:
    """Edits a model under a policy; every edit is a transaction."""

    setup: Setup
    checks: Sequence[str] = field(default_factory=list_single_edit_checks)
    """Names of the checks that judge an edit."""
    _kept_results: list[EditResult] = field(default_factory=list, init=False, repr=False, compare=False)

    @classmethod
    def load(
        cls,
        model: str | LanguageModel = "smollm2-135m",
        *,
        policy: Policy | None = None,
        layer: int | None = None,
        site_path: str | None = None,
        seed: int = 0,
        statistics: str | None = None,
        corpus: str | None = None,
        perplexity_corpus: tuple[str, ...] | None = None,
        settings: ValueSettings | None = None,
        check_dtype: torch.dtype | None = None,
        fresh: bool = False,
        progress: Progress = show_nothing,
    ) -> GuardedEditor:
        """Load a model, make it ready and return its guard.

        Args:
            model: Name or folder of the model, or a model that is loaded already.
            policy: Rules and bounds. None takes ``[tool.editguard]`` of ./pyproject.toml, as the command line does, and
                the defaults where there is no such table.
            layer: Layer to edit, from 0. None takes the measured layer of the embedded model, else a fifth of the way up.
            site_path: Path of the weight to edit, with ``{layer}``, for a family that editguard does not find by itself.
            seed: Seed of everything random, from 0.
            statistics: File of key statistics, or ``identity``. None computes them, or takes those of the cache.
            corpus: Text file or data set to compute key statistics from. None samples text from the model.
            perplexity_corpus: Texts for the perplexity check. None takes the built-in ones.
            settings: Settings of the search for v*.
            check_dtype: Dtype of the checks' matrix products: faster where the processor has it, and less exact. None takes
                that of the weights.
            fresh: Compute again what the cache keeps of this model, and replace it there.
            progress: Called with the name of the stage, the steps done and the number of steps.

        Raises:
            ModelError: The model cannot be loaded or edited.
            PolicyError: The policy is not valid.
            StatisticsError: The key statistics are missing, foreign or malformed.
            NotFinite: A weight or a measurement of the unedited model is NaN or infinite.
        """
        chosen_policy = load_policy(None) if policy is None else policy
        setup = prepare(
            load_model(model) if isinstance(model, str) else model,
            policy=chosen_policy,
            layer=layer,
            site_path=site_path,
            seed=seed,
            statistics=statistics,
            corpus=corpus,
            perplexity_corpus=perplexity_corpus,
            settings=settings,
            check_dtype=check_dtype,
            fresh=fresh,
            progress=progress,
        )
        return cls(setup)

    def assess(self, request: EditRequest, editor: str | None = None) -> Assessment:
        """Return findings and decision. It changes nothing, and refuses a bad request instead of raising."""
        (assessment,) = self.assess_all([request], editor)
        return assessment

    def assess_all(
        self,
        requests: Sequence[EditRequest],
        editor: str | None = None,
        *,
        screen: bool = False,
        criterion: Callable[[Assessment], object] = decided_action,
    ) -> list[Assessment]:
        """Return what `assess` does for each request, measured together: the faster way for many.

        With `screen` few contexts settle the clear cases (see `editguard.probes.screen`). Their figures are near the exact
        ones, and whether the model says the target already is not measured. A case is clear where `criterion`, by default
        the decision, is the same wherever the exact figures may lie. Raises `InputError` where a probe cannot be screened.

        An assessment holds its keys under all contexts, some 200 kB in a small model.
        """
        if editor is not None:
            find_editor(editor)
        if screen:
            require_screened_figures(PROBES)
        started = time.monotonic()
        measured = list(self.setup.meter.measure_all(requests, screen=screen))
        if screen:
            close = [
                index
                for index, (request, evidence) in enumerate(zip(requests, measured, strict=True))
                if not self._is_clear(request, evidence, editor, criterion)
            ]
            exact = self.setup.meter.measure_all([requests[index] for index in close])
            for index, evidence in zip(close, exact, strict=True):
                measured[index] = evidence
        share = (time.monotonic() - started) / max(len(requests), 1)
        return [
            self._assessment(request, evidence, editor, share)
            for request, evidence in zip(requests, measured, strict=True)
        ]

    def _is_clear(
        self,
        request: EditRequest,
        measured: Evidence | EditguardError,
        editor: str | None,
        criterion: Callable[[Assessment], object],
    ) -> bool:
        """Return whether `criterion` is the same wherever the exact figures may lie."""
        margins = self.setup.calibration.margins
        if not isinstance(measured, Evidence):
            return True
        if not margins.settle:
            return False
        worst, best = (self._assessment(request, end, editor, 0.0) for end in bracket_evidence(measured, margins))
        return criterion(worst) == criterion(best)

    def _assessment(
        self, request: EditRequest, measured: Evidence | EditguardError, editor: str | None, seconds: float
    ) -> Assessment:
        setup, started = self.setup, time.monotonic()
        evidence = measured if isinstance(measured, Evidence) else None
        try:
            if not isinstance(measured, Evidence):
                raise measured
            self._check_reaches_answer(measured)
            findings = run_probes(ProbeInput(setup.lm, request, measured, setup.calibration.thresholds))
        except (RequestError, NotFinite) as error:
            findings = (fault_finding(error),)
        return Assessment(
            request=request,
            evidence=evidence,
            findings=findings,
            decision=self._take_alternative(decide(self._policy_for(editor), findings, editor)),
            seconds=seconds + time.monotonic() - started,
        )

    def _policy_for(self, editor: str | None) -> Policy:
        """Return the policy; a requested `editor` that can rewrite makes the edit itself."""
        policy = self.setup.policy
        if editor is None or not find_editor(editor).rewrites:
            return policy
        return policy.model_copy(update={"rewrite_editor": editor})

    def _take_alternative(self, decision: Decision) -> Decision:
        """Return the decision with another editor where its own can make no edit in this model, and say why."""
        if decision.editor is None:
            return decision
        alternative = EDITORS.get(decision.editor)().find_alternative(self.setup.edit_context)
        if alternative is None:
            return decision
        reason = f"editor {decision.editor!r} gives way to {alternative.editor!r}: {alternative.reason}"
        return replace(decision, editor=alternative.editor, reasons=(*decision.reasons, reason))

    def _check_reaches_answer(self, evidence: Evidence) -> None:
        """Raise `RequestError` where a change at the subject cannot change the answer.

        The main site is asked about, whatever sites the editor changes. The probes' figures are its figures, and a part of the
        fact is put in there: from the last layer that part cannot act. Of an editor of several layers the others are checked
        with the edit: a change that cannot act fails efficacy.
        """
        site, position = self.setup.site, evidence.keys.position
        if site.layer == len(site.blocks) - 1 and position.last < len(position.input_ids) - 1:
            raise RequestError(
                f"From layer {site.layer}, the last one, nothing reaches a later token, and the prompt goes on after the "
                "subject. No edit there can change the answer; edit a lower layer."
            )

    def propose(self, assessments: Sequence[Assessment], *, bound: float | None = None) -> list[Proposal]:
        """Compute the updates that were decided on, in batches, and compare each with `bound` (the policy's).

        An edit that was allowed and whose update is over the bound is rewritten where the policy says so, and compared with
        the bound again. Nothing is written. Raises `InputError` where the model is not the one that this guard was prepared
        with.
        """
        started, policy = time.monotonic(), self.setup.policy
        limit = policy.max_relative_update if bound is None else bound
        proposals = self._compute(assessments, limit)
        too_large = [index for index, proposal in enumerate(proposals) if self._is_to_rewrite(proposal, limit)]
        rewritten = self._compute([self._rewrite(proposals[index]) for index in too_large], limit)
        for index, proposal in zip(too_large, rewritten, strict=True):
            proposals[index] = proposal
        proposals = self._prepare_checks(proposals)
        computed = [proposal.assessment.decision.editor is not None for proposal in proposals]
        share = (time.monotonic() - started) / max(sum(computed), 1)
        # A bound of the caller's own is for experiments, which ask what one editor does.
        tries_left = policy.tries - 1 if bound is None else 0
        return [
            replace(proposal, seconds=proposal.assessment.seconds + share * is_computed, tries_left=tries_left)
            for proposal, is_computed in zip(proposals, computed, strict=True)
        ]

    def propose_unguarded(self, edits: Sequence[tuple[EditRequest, str]]) -> list[Proposal]:
        """Compute the updates of requests by the editors named, without policy and bound: for controls and experiments."""
        forced = Decision(Action.ALLOW, None, ("made without the guard",))
        return self.propose(
            [replace(self.assess(request), decision=replace(forced, editor=editor)) for request, editor in edits],
            bound=float("inf"),
        )

    def _compute(self, assessments: Sequence[Assessment], limit: float) -> list[Proposal]:
        jobs = [
            (editor, assessment.request)
            for assessment in assessments
            if (editor := assessment.decision.editor) is not None
        ]
        self.setup.check_unedited()
        updates = iter(compute_updates(self.setup.edit_context, jobs))
        return [
            self._proposal(assessment, next(updates), limit)
            if assessment.decision.editor is not None
            else Proposal(assessment=assessment, refusal="; ".join(assessment.decision.reasons))
            for assessment in assessments
        ]

    def _is_to_rewrite(self, proposal: Proposal, limit: float) -> bool:
        relative, policy = proposal.relative_norm, self.setup.policy
        too_large = relative is not None and limit < relative < float("inf")
        if not too_large or policy.over_bound != "rewrite":
            return False
        # An edit that the policy rewrote has the rewriter's update already. One by an editor that can rewrite gains nothing: the
        # update of `everywhere` is that of `prefixed` and more.
        editor = proposal.assessment.decision.editor
        able = editor is not None and EDITORS.get(editor).rewrites
        return not able and editor != self._rewrite(proposal).decision.editor

    def _rewrite(self, proposal: Proposal) -> Assessment:
        assessment = proposal.assessment
        reasons = (*assessment.decision.reasons, f"update: {proposal.refusal}")
        decision = Decision(Action.REWRITE, self.setup.policy.rewrite_editor, reasons)
        return replace(assessment, decision=self._take_alternative(decision))

    def _prepare_checks(self, proposals: Sequence[Proposal]) -> list[Proposal]:
        """Return the proposals, each writable one with the state of the checks on the unedited model.

        Edits of the same sites are prepared together, on the bench of these sites.
        """
        groups: dict[tuple[str, ...], list[int]] = {}
        for index, proposal in enumerate(proposals):
            if (update := proposal.writable) is not None:
                groups.setdefault(tuple(site.path for site in update.sites), []).append(index)
        prepared = [*proposals]
        for members in groups.values():
            for index, before in zip(members, self._prepare_states([proposals[n] for n in members]), strict=True):
                prepared[index] = replace(proposals[index], before=before, checks=tuple(self.checks))
        return prepared

    def _prepare_states(self, proposals: Sequence[Proposal]) -> list[tuple[Any, ...]]:
        """Return for each of these writable proposals, which edit the same sites, the state of each check."""
        updates = [update for proposal in proposals if (update := proposal.writable) is not None]
        requests = [proposal.assessment.request for proposal in proposals]
        bench = self.setup.bench_for(updates[0].sites)
        with bench.autocast():
            states = [check.prepare(bench, requests, updates) for check in self._new_checks()]
        return list(zip(*states, strict=True)) if states else [()] * len(proposals)

    def _new_checks(self) -> list[Check[Any]]:
        return [CHECKS.get(name)() for name in self.checks]

    def _proposal(self, assessment: Assessment, update: WeightUpdate | EditguardError, limit: float) -> Proposal:
        if isinstance(update, EditguardError):
            return Proposal(assessment=assessment, refusal=str(update))
        weight_norms, refusal = self.setup.weight_norms(update.sites), None
        try:
            check_update(update, weight_norms, limit)
        except EditRefused as error:
            refusal = str(error)
        by_site = relative_norms(update, weight_norms)
        return Proposal(assessment=assessment, update=update, relative_norms=by_site, refusal=refusal)

    def try_proposal(self, proposal: Proposal) -> EditResult:
        """Make the edit, check the model, and undo the edit in any case.

        An edit that fails is made again as often as the policy's `tries` says, each time by the editor that the last one
        names (`Editor.next_try`). The first try that passes counts, else the one with the fewest failures.
        """
        return self._run_tries(proposal, keep=False)

    def commit_proposal(self, proposal: Proposal) -> EditResult:
        """Do what `try_proposal` does, and keep the edit if every check passes; otherwise the weights are as before."""
        return self._run_tries(proposal, keep=True)

    def _run_tries(self, proposal: Proposal, *, keep: bool) -> EditResult:
        result = self._run(proposal, keep=keep)
        results = [result]
        while not result.sound and (again := self._propose_again(proposal, result)) is not None:
            proposal = again
            result = self._run(proposal, keep=keep)
            results.append(result)
        # A try that was not written has no failures, and is no better for it.
        measured = [each for each in results if each.hashes is not None] or results
        best = result if result.sound else min(measured, key=lambda each: len(each.failures))
        return replace(best, seconds=sum(each.seconds for each in results))

    def _propose_again(self, proposal: Proposal, failed: EditResult) -> Proposal | None:
        """Return the proposal of the next try; None where there is none, or where nothing was written in the last one."""
        editor = failed.decision.editor
        if failed.hashes is None or proposal.tries_left < 1 or editor is None:
            return None
        if all(CHECKS.get(failure.check).of_sequence for failure in failed.failures):
            return None  # it is sound by itself, and a sequence is at its end
        following = EDITORS.get(editor).next_try
        return None if following is None else self.propose_with(proposal, following, _describe_failures(failed))

    def propose_with(self, proposal: Proposal, editor: str, reason: str) -> Proposal:
        """Return the proposal of the same edit by another editor, with one try less; `reason` is added to the decision's.

        It is computed by itself, so that its last bits do not depend on what else was proposed.
        """
        started, decision = time.monotonic(), proposal.assessment.decision
        decision = replace(decision, editor=editor, reasons=(*decision.reasons, reason))
        computed = self._compute(
            [replace(proposal.assessment, decision=decision)], self.setup.policy.max_relative_update
        )
        (again,) = self._prepare_checks(computed)
        first, second = (
            None if update is None else [site.path for site in update.sites]
            for update in (proposal.update, again.update)
        )
        if first is not None and second is not None and first != second:
            raise InputError(
                f"The editor {editor!r} makes the next try of {proposal.assessment.decision.editor!r} at other weights, and "
                "all tries of an edit change the same; correct Editor.next_try."
            )
        return replace(again, tries_left=proposal.tries_left - 1, seconds=time.monotonic() - started)

    def try_edit(self, request: EditRequest, editor: str | None = None) -> EditResult:
        """Make the edit as the guard would, check the model, and undo the edit in any case."""
        return self.try_proposal(*self.propose([self.assess(request, editor)]))

    def edit(self, request: EditRequest, editor: str | None = None) -> EditResult:
        """Make the edit as the guard would and keep it if every check passes; otherwise the weights are as before."""
        return self.commit_proposal(*self.propose([self.assess(request, editor)]))

    def try_unguarded(self, request: EditRequest, editor: str) -> EditResult:
        """Make the edit without policy and bound, check the model and undo it: for controls and experiments."""
        return self.try_proposal(*self.propose_unguarded([(request, editor)]))

    def _run(self, proposal: Proposal, *, keep: bool) -> EditResult:
        assessment, update = proposal.assessment, proposal.writable
        unwritten = EditResult(
            assessment=assessment,
            update=proposal.update,
            relative_norms=proposal.relative_norms,
            refusal=proposal.refusal,
            seconds=proposal.seconds,
        )
        if update is None:
            return unwritten
        if proposal.checks != tuple(self.checks):
            raise InputError(
                f"The proposal was prepared for the checks {', '.join(proposal.checks) or 'of no guard'}, and this guard makes "
                f"{', '.join(self.checks)}; let this guard propose it."
            )
        self.setup.check_unedited()
        started, bench = time.monotonic(), self.setup.bench_for(update.sites)
        measured: list[tuple[Check[Any], CheckResult]] = []
        with Transaction(update) as transaction, bench.autocast():
            for check, state in zip(self._new_checks(), proposal.before, strict=True):
                edit = EditUnderTest(request=assessment.request, state=state, needs_prefix=update.needs_prefix)
                answer = check.measure(bench, edit)
                measured.append((check, answer))
            self.setup.check_edited(update.sites)
            transaction.prove()
            sound = _is_sound(measured)
            if keep and sound:
                transaction.commit()
        result = replace(
            unwritten,
            measurements=tuple(row for _, answer in measured for row in answer.measurements),
            generations=tuple(row for _, answer in measured for row in answer.generations),
            prompts=tuple(row for _, answer in measured for row in answer.prompts),
            sound=sound,
            kept=keep and sound,
            hashes=transaction.hashes,
            seconds=proposal.seconds + time.monotonic() - started,
        )
        if result.kept:
            self._kept_results.append(result)
        return result

    def save(self, folder: Path | str, *, overwrite: bool = False) -> EditProvenance:
        """Save model, tokenizer and ``editguard.json`` as `folder`, whole or not at all, and return the provenance.

        ``editguard.json`` holds the prefix of an edit that does not act without one; `editguard.load_provenance` reads it
        and `editguard.serve_prompt` puts the prefix before a prompt. The saved model is loaded again and compared.

        With `overwrite` a folder that editguard wrote is replaced, and no other.

        Raises:
            InputError: No edit is kept, a weight is not the kept one, or nothing can be written to `folder`.
            EditRefused: The kept edit needs a prefix and none serves it, or the saved model differs from the one in memory.
            ModelError: The model is in float64, which cannot be saved and loaded again as it is.
        """
        if not self._kept_results:
            raise InputError(
                "No edit is kept in this guard's model, so there is nothing to save; keep a sound one with edit(), or export "
                "delta files with editguard.export_edits()."
            )
        self.setup.check_edited(
            site for result in self._kept_results if result.update is not None for site in result.update.sites
        )
        return save_edited_model(self.setup, self._kept_results, Path(folder), overwrite=overwrite)


def _describe_failures(result: EditResult) -> str:
    names = ", ".join(dict.fromkeys(f"{failure.check} ({failure.metric})" for failure in result.failures))
    return f"the edit of editor {result.decision.editor!r} failed {names or 'its checks'}, and was made again"


def _is_sound(measured: Sequence[tuple[Check[Any], CheckResult]]) -> bool:
    """Return whether every judged measurement passed, and one was judged of the edit itself.

    An edit of which nothing was judged is refused: what was not measured is never a pass.
    """
    judged = [
        (check, row) for check, answer in measured for row in answer.measurements if row.outcome is not Outcome.INFO
    ]
    return any(not check.of_sequence for check, _ in judged) and all(row.outcome is Outcome.PASS for _, row in judged)
