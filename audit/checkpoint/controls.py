"""The controls of a checkpoint's audit, with the base and a damaged copy of it in the edited model's place.

The base itself must not say a target and must pass everything else. The damaged copy must be called collapsed, and every probe
and check must catch its own known-bad evidence there. A control that shows anything else voids the audit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from ...probes.errors import EditguardError
from ...reports.verdict.reasons import has_unedited_result
from ...suites.builtin import load_control_candidates
from ..edit_result import Proposal
from ..run.control_observations import observe_control
from ..run.to_log import control_record, control_record_of_error
from .edited_weights import EditedWeights
from .measure import CheckpointBench, as_found

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...reports.log.schema import ControlRecord
    from ..edit_result import Assessment
    from ..guard import GuardedEditor
    from .measure import Judged

__all__ = ["CONTROLS", "iter_checkpoint_controls"]

CONTROLS = ("control-base", "control-damaged")
_DAMAGE = 30.0
"""Norm of the damage over that of the weight; updates collapse this project's models from 8 on."""


class _Trial(NamedTuple):
    expect: Literal["collapse", "unedited"]
    judged: Judged
    assessment: Assessment


def iter_checkpoint_controls(guard: GuardedEditor, bench: CheckpointBench) -> Iterator[ControlRecord]:
    """Yield the record of each of `CONTROLS`, in order."""
    assessments = guard.assess_all([replace(edit, id=CONTROLS[0]) for edit in load_control_candidates()])
    assessment = next((each for each in assessments if _is_open(each)), assessments[0])
    (base,) = bench.judge([as_found(assessment)], edited=False)
    yield _record(guard, bench, _Trial("unedited", base, assessment), 0)
    request = replace(assessment.request, id=CONTROLS[1])
    damaged = replace(bench, weights=_damage(bench), needs_prefix=())
    second = as_found(replace(assessment, request=request))
    (broken,) = damaged.judge([second])
    yield _record(guard, damaged, _Trial("collapse", broken, second), 1)


def _is_open(assessment: Assessment) -> bool:
    """Return whether the base does not say the target already, so that efficacy must fail there."""
    return assessment.evidence is not None and assessment.evidence.says_target is False


def _damage(bench: CheckpointBench) -> EditedWeights:
    """Return weights of which the one at the main site is far from the base's, by a fixed pseudo-random matrix."""
    site = bench.setup.site
    own = site.weight.detach()
    noise = torch.randn(own.shape, generator=torch.Generator().manual_seed(bench.setup.seed)).to(own)
    value = own + noise * (_DAMAGE * own.float().norm() / noise.float().norm()).to(own)
    name = f"{site.path}.weight"
    return EditedWeights(ref="a damaged copy", lm=bench.weights.lm, values={name: value}, changes={}, tensors=1)


def _record(guard: GuardedEditor, bench: CheckpointBench, trial: _Trial, index: int) -> ControlRecord:
    setup, judged = guard.setup, trial.judged
    result = judged.result
    if result is None:
        error = judged.error or EditguardError("it was not measured")
        return control_record_of_error(setup, judged.request, index, error, None, expect=trial.expect)
    wide = replace(guard, setup=replace(setup, policy=setup.policy.at_least_as_wide_as_default()), checks=bench.checks)
    proposal = Proposal(assessment=trial.assessment, before=judged.states, checks=tuple(bench.checks))
    if trial.expect == "unedited":
        record = control_record(
            setup, result, index, expect="unedited", as_expected=False, observations=(), is_made=False
        )
        return record.model_copy(update={"ok": has_unedited_result(record)})
    observations = observe_control(wide, "collapse", proposal, result)
    ratios = [m.value for m in result.measurements if m.check == "perplexity" and m.metric == "ratio"]
    collapsed = any(ratio is None or ratio > setup.policy.collapse_ratio for ratio in ratios)
    return control_record(
        setup,
        result,
        index,
        expect="collapse",
        as_expected=collapsed and not result.sound,
        observations=observations,
        is_made=False,
    )
