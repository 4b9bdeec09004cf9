"""The edits of a file, judged in a checkpoint that holds them: every check of an audit, the base against the edited model.

All edits are in the model together. The checks measure the base first, for some edits at a time; then the edited weights are
put in place, and the same checks measure again. A check of the model alone is asked once.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from ...probes.errors import EditguardError, RequestError
from ...probes.model.site import find_site
from ...probes.model.stored_weight import store_weight
from ...suites.check import CHECKS, Bench, Check, CheckResult, EditUnderTest, Outcome, list_single_edit_checks
from ...suites.checks.drift import Drift
from ..edit_result import Assessment, EditResult
from ..policy import Action, Decision
from ..setup import build_limits

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from ...probes.requests.request import EditRequest
    from ..setup import Setup
    from .edited_weights import EditedWeights

__all__ = ["EDITOR", "CheckpointBench", "Judged", "list_checkpoint_checks"]

EDITOR = "checkpoint"
"""Stands where a log names the editor: another tool made the edit."""


def list_checkpoint_checks() -> list[str]:
    """Return the checks of a single edit, without the one of its update: of a checkpoint the sum of all changes is known."""
    return [name for name in list_single_edit_checks() if name != Drift.name]


@dataclass(frozen=True)
class Judged:
    """One request, and what came of measuring it: a result, or an error."""

    request: EditRequest
    result: EditResult | None
    error: Exception | None
    states: tuple[Any, ...] = ()
    """The state of each check on the base."""


@dataclass(frozen=True, kw_only=True)
class CheckpointBench:
    """A prepared base, the edited weights, and the checks that compare the two."""

    setup: Setup
    weights: EditedWeights
    checks: Sequence[str] = field(default_factory=list_checkpoint_checks)
    needs_prefix: Collection[str] = ()
    """Ids of the edits that are said to act after a prefix only."""
    bench: Bench = field(init=False)
    _model_answers: dict[tuple[bool, str], CheckResult] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Make the bench: partial passes begin at the lowest layer that differs, and are whole where one lies outside."""
        object.__setattr__(self, "bench", self._make_bench())

    def _make_bench(self) -> Bench:
        setup, layer = self.setup, self.weights.lowest_layer
        plain = layer is None or setup.lm.plain
        site = setup.site if layer is None else find_site(setup.lm.model, layer, setup.site_path)
        return Bench(
            lm=replace(setup.lm, plain=True) if plain else setup.lm,
            prefixes=setup.prefixes,
            corpus=setup.corpus,
            limits=build_limits(setup.policy),
            weights=(store_weight(site),),
            prefix_cache=None if plain else setup.prefix_cache_at(site),
            dtype=setup.check_dtype,
        )

    def judge(self, assessments: Sequence[Assessment], *, edited: bool = True) -> Iterator[Judged]:
        """Yield what the checks say of each edit in the edited model, or in the base itself where not `edited`."""
        checks = [CHECKS.get(name)() for name in self.checks]
        self.setup.check_unedited()
        started = time.monotonic()
        measurable = [each for each in assessments if each.decision.action is not Action.REFUSE]
        states = dict(
            zip([a.request.id for a in measurable], self._prepare(checks, measurable, edited=edited), strict=True)
        )
        share = (time.monotonic() - started) / max(len(measurable), 1)
        for assessment in assessments:
            state = states.get(assessment.request.id)
            if state is None:
                yield Judged(assessment.request, None, RequestError("; ".join(assessment.decision.reasons)))
            elif isinstance(state, Exception):
                yield Judged(assessment.request, None, state)
            else:
                yield self._measure(assessment, checks, state, share, edited=edited)

    def _draft(
        self, checks: Sequence[Check[Any]], requests: Sequence[EditRequest], states: Sequence[Sequence[Any]]
    ) -> list[Sequence[Any]]:
        pairs = zip(checks, states, strict=True)
        return [check.with_drafts(self.bench, requests, each) for check, each in pairs]

    def _prepare(
        self, checks: Sequence[Check[Any]], assessments: Sequence[Assessment], *, edited: bool
    ) -> list[tuple[Any, ...] | Exception]:
        """Return the states of all checks on the base for each edit; edits that fail together are prepared one by one."""
        requests = [assessment.request for assessment in assessments]
        if not requests:
            return []
        try:
            with self.bench.autocast():
                states = [check.prepare(self.bench, requests) for check in checks]
                with self.weights.in_place() if edited else nullcontext():
                    # Texts of the reference engine are written without any guess.
                    drafted = states if self.bench.plain else self._draft(checks, requests, states)
            return list(zip(*drafted, strict=True))
        except torch.AcceleratorError:
            raise
        except (EditguardError, RuntimeError, ValueError, ArithmeticError) as error:
            if len(requests) == 1:
                return [error]
            return [self._prepare(checks, [assessment], edited=edited)[0] for assessment in assessments]

    def _measure(
        self,
        assessment: Assessment,
        checks: Sequence[Check[Any]],
        states: tuple[Any, ...],
        share: float,
        *,
        edited: bool,
    ) -> Judged:
        started, request = time.monotonic(), assessment.request
        answers: list[CheckResult] = []
        try:
            for check, state in zip(checks, states, strict=True):
                edit = EditUnderTest(request=request, state=state, needs_prefix=request.id in self.needs_prefix)
                answers.append(self._ask(check, edit, edited=edited))
        except torch.AcceleratorError:
            raise
        except (EditguardError, RuntimeError, ValueError, ArithmeticError) as error:
            return Judged(request, None, error)
        measurements = tuple(row for answer in answers for row in answer.measurements)
        judged = [row.outcome for row in measurements if row.outcome is not Outcome.INFO]
        result = EditResult(
            assessment=assessment,
            measurements=measurements,
            generations=tuple(row for answer in answers for row in answer.generations),
            prompts=tuple(row for answer in answers for row in answer.prompts),
            sound=bool(judged) and all(outcome is Outcome.PASS for outcome in judged),
            seconds=assessment.seconds + share + time.monotonic() - started,
        )
        return Judged(request, result, None, states)

    def _ask(self, check: Check[Any], edit: EditUnderTest[Any], *, edited: bool) -> CheckResult:
        """Return the check's answer; that of a check of the model alone is computed once."""
        earlier = self._model_answers.get((edited, check.name)) if check.of_model else None
        if earlier is not None:
            return earlier
        if edited:
            with self.weights.in_place(), self.bench.autocast():
                answer = check.measure(self.bench, edit)
        else:
            with self.bench.autocast():
                answer = check.measure(self.bench, edit)
        if check.of_model:
            self._model_answers[edited, check.name] = answer
        return answer


def as_found(assessment: Assessment) -> Assessment:
    """Return the assessment of an edit that is in the checkpoint already: refused only where it cannot be measured."""
    decision = assessment.decision
    measured = all(finding.level.value != "error" for finding in assessment.findings)
    if not measured:
        return replace(assessment, decision=replace(decision, action=Action.REFUSE, editor=None))
    return replace(assessment, decision=Decision(Action.ALLOW, EDITOR, decision.reasons))
