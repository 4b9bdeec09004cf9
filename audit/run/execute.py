"""From requests and controls to their records: proposed together, then each made, checked and undone, an error a record too.

What fails together is tried one by one, so that one request's fault is its own. A failing device ends everything: nothing
that it computes afterwards can be trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch

from ...probes.errors import EditRefused, InputError
from ...probes.probe import PROBES, Finding, Level
from ...probes.requests.request import EditRequest
from ...probes.screen import require_screened_figures
from ...reports.log.schema import ControlRecord, EditRecord
from ..guard import Assessment, EditResult, GuardedEditor, Proposal, decided_action
from ..policy import decide
from ..process import give_back_freed_memory
from ..setup import Setup
from .control_observations import observe_control
from .controls import Candidate, Control, control_guard, iter_candidate_rounds, propose_controls, run_control
from .to_log import control_record, edit_record, errored

T = TypeVar("T")
Made = TypeVar("Made")

__all__ = [
    "REQUESTS_PER_BATCH",
    "iter_edit_records",
    "assess_each",
    "iter_control_records",
    "proposal_or_none",
    "propose_each",
    "try_together_then_singly",
    "edit_record_for",
    "record_or_error",
]

_SURVIVABLE = (InputError, EditRefused, RuntimeError, ValueError, ArithmeticError)
"""What one request may fail with while the others go on; a failed roll-back, or our own fault, ends the audit."""
REQUESTS_PER_BATCH = 20
"""Requests whose updates are computed at once. Who computes with whom decides about the last bits, so that a resumed audit
computes the same ones together again."""


def iter_edit_records(
    guard: GuardedEditor, requests: Sequence[EditRequest], editor: str | None, done: int
) -> Iterator[EditRecord]:
    """Yield one record a request, in order, the first `done` left out; updates are computed for some requests at once,
    and each edit is undone before the next is made."""
    for start in range(done - done % REQUESTS_PER_BATCH, len(requests), REQUESTS_PER_BATCH):
        chunk = requests[start : start + REQUESTS_PER_BATCH]
        for index, made in enumerate(propose_each(guard, chunk, editor), start):
            if index >= done:
                yield edit_record_for(guard, requests[index], made, index)


def propose_each(
    guard: GuardedEditor, requests: Sequence[EditRequest], editor: str | None
) -> list[Proposal | Exception]:
    """Assess the requests and compute their updates, together: for each the proposal, or the error that it ended in."""

    def propose(guard: GuardedEditor, chunk: Sequence[EditRequest]) -> list[Proposal]:
        return guard.propose(guard.assess_all(chunk, editor))

    return try_together_then_singly(guard, requests, propose)


def assess_each(
    guard: GuardedEditor,
    requests: Sequence[EditRequest],
    editor: str | None = None,
    *,
    screen: bool = False,
    asked: Callable[[Assessment], object] = decided_action,
) -> list[Assessment]:
    """Assess the requests together, as `GuardedEditor.assess_all` does; one that ends in an error is refused with it."""

    if screen:
        # Raised for the run, not recorded as a fault of each request.
        require_screened_figures(PROBES)

    def assess(guard: GuardedEditor, chunk: Sequence[EditRequest]) -> list[Assessment]:
        return guard.assess_all(chunk, editor, screen=screen, asked=asked)

    found = try_together_then_singly(guard, requests, assess)
    return [
        one if isinstance(one, Assessment) else _unassessed(guard, request, one, editor)
        for request, one in zip(requests, found, strict=True)
    ]


def _unassessed(guard: GuardedEditor, request: EditRequest, error: Exception, editor: str | None) -> Assessment:
    findings = (Finding(probe="well-formed", level=Level.ERROR, message=f"{type(error).__name__}: {error}"),)
    return Assessment(request, None, findings, decide(guard.setup.policy, findings, editor), 0.0)


def edit_record_for(guard: GuardedEditor, request: EditRequest, made: Proposal | Exception, index: int) -> EditRecord:
    """Make, check and undo what was `made` for a request and return its record."""

    def test() -> EditResult:
        if isinstance(made, Exception):
            raise made
        return guard.try_proposal(made)

    return record_or_error(guard.setup, request, index, test, proposal_or_none(made))


def record_or_error(
    setup: Setup, request: EditRequest, index: int, make: Callable[[], EditResult], made: Proposal | None = None
) -> EditRecord:
    """Return the record of what `make` gives for a request: of an error, where it ends in one, with what was `made` of it."""
    try:
        return edit_record(setup, make(), index)
    except torch.AcceleratorError:
        raise
    except _SURVIVABLE as error:
        return EditRecord(**errored(setup, request, index, error, made))


def try_together_then_singly(
    guard: GuardedEditor, asked: Sequence[T], propose: Callable[[GuardedEditor, Sequence[T]], Sequence[Made]]
) -> list[Made | Exception]:
    """Return what is made for each of `asked`, or the error that it ended in; what fails together is tried one by one."""
    if not asked:
        return []
    give_back_freed_memory()
    try:
        return [*propose(guard, asked)]
    except torch.AcceleratorError:
        raise
    except _SURVIVABLE as error:
        if len(asked) == 1:
            return [error]
        return [found for one in asked for found in try_together_then_singly(guard, [one], propose)]


def iter_control_records(guard: GuardedEditor, controls: Sequence[Control]) -> Iterator[ControlRecord]:
    """Make, check and undo the candidates of every control until one shows what it must, and yield one record a control."""
    wide = control_guard(guard)
    shown: dict[str, ControlRecord] = {}
    tried: dict[str, list[str]] = {control.id: [] for control in controls}
    for candidates in iter_candidate_rounds(controls):
        open_ones = [(control, one) for control, one in candidates if not _is_shown(shown, control)]
        made = try_together_then_singly(wide, [one for _, one in open_ones], propose_controls)
        for (control, candidate), proposal in zip(open_ones, made, strict=True):
            if _is_shown(shown, control):
                continue
            index = [one.id for one in controls].index(control.id)
            record = _control(wide, control, candidate, proposal, index, tried[control.id])
            tried[control.id].append(f"{candidate.request.subject} by {candidate.editor}")
            # Where no candidate shows it, the first one stands for all.
            if record.ok or control.id not in shown:
                shown[control.id] = record
    for control in controls:
        record = shown[control.id]
        yield record if record.ok else record.model_copy(update={"tried": tried[control.id]})


def _is_shown(shown: Mapping[str, ControlRecord], control: Control) -> bool:
    return control.id in shown and shown[control.id].ok


def _control(
    guard: GuardedEditor,
    control: Control,
    candidate: Candidate,
    made: Proposal | Exception,
    index: int,
    tried: Sequence[str],
) -> ControlRecord:
    try:
        if isinstance(made, Exception):
            raise made
        result, shown = run_control(guard, control, made)
        seen = observe_control(guard, control.expect, made, result)
        return control_record(guard.setup, result, index, control.expect, shown, seen, tried)
    except torch.AcceleratorError:
        raise
    except _SURVIVABLE as error:
        fields = errored(guard.setup, candidate.request, index, error, proposal_or_none(made))
        return ControlRecord(**fields, expect=control.expect, ok=False)


def proposal_or_none(made: Proposal | Exception) -> Proposal | None:
    """Return what was proposed; None where that ended in an error."""
    return None if isinstance(made, Exception) else made
