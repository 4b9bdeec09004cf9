"""Requests and controls become records: proposed together, then each made, checked and undone; an error is a record too.

Requests that fail together are tried one by one, so that each is charged with its own fault only. A failing device ends
everything: nothing that it computes afterwards can be trusted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch

from ...probes.errors import EditRefused, InputError
from ...probes.measurement_faults import fault_finding
from ...probes.probe import PROBES
from ...probes.screen import require_screened_figures
from ..edit_result import Assessment, EditResult, Proposal, decided_action
from ..freed_memory import give_back_freed_memory
from ..policy import decide
from ..progress import Progress, show_nothing
from .control_observations import observe_control
from .controls import Candidate, Control, control_guard, iter_candidate_rounds, propose_controls, run_control
from .to_log import control_record, control_record_of_error, edit_record, edit_record_of_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ...probes.requests.request import EditRequest
    from ...reports.log.schema import ControlRecord, EditRecord
    from ..guard import GuardedEditor
    from ..setup import Setup

Item = TypeVar("Item")
Handled = TypeVar("Handled")

__all__ = [
    "REQUESTS_PER_BATCH",
    "assess_each",
    "edit_record_for",
    "iter_control_records",
    "iter_edit_records",
    "proposal_or_none",
    "propose_each",
    "record_or_error",
    "try_together_then_singly",
]

_SURVIVABLE = (InputError, EditRefused, RuntimeError, ValueError, ArithmeticError)
"""Errors of one request that do not end the audit. A failed roll-back, or our own fault, ends it."""
REQUESTS_PER_BATCH = 20
"""Requests whose updates are computed at once. The batch decides about the last bits, so a resumed audit computes the
same batches again."""


def iter_edit_records(
    guard: GuardedEditor,
    requests: Sequence[EditRequest],
    editor: str | None,
    done: int,
    progress: Progress = show_nothing,
) -> Iterator[EditRecord]:
    """Yield one record a request, in order, without the first `done`.

    Updates are computed in batches, and each edit is undone before the next is made.
    """
    for start in range(done - done % REQUESTS_PER_BATCH, len(requests), REQUESTS_PER_BATCH):
        batch = requests[start : start + REQUESTS_PER_BATCH]
        progress("updates", start, len(requests))
        proposals = propose_each(guard, batch, editor)
        progress("updates", start + len(batch), len(requests))
        for index, proposal in enumerate(proposals, start):
            if index >= done:
                yield edit_record_for(guard, requests[index], proposal, index)


def propose_each(
    guard: GuardedEditor, requests: Sequence[EditRequest], editor: str | None
) -> list[Proposal | Exception]:
    """Assess the requests and compute their updates together; return for each its proposal or its error."""

    def propose(guard: GuardedEditor, batch: Sequence[EditRequest]) -> list[Proposal]:
        return guard.propose(guard.assess_all(batch, editor))

    return try_together_then_singly(guard, requests, propose)


def assess_each(
    guard: GuardedEditor,
    requests: Sequence[EditRequest],
    editor: str | None = None,
    *,
    screen: bool = False,
    criterion: Callable[[Assessment], object] = decided_action,
) -> list[Assessment]:
    """Assess the requests together, as `GuardedEditor.assess_all` does; a request that ends in an error is refused with it.

    Raises `InputError` where a probe decides by figures that a screen does not bound.
    """
    if screen:
        # Raised for the run, not recorded as a fault of each request.
        require_screened_figures(PROBES)

    def assess(guard: GuardedEditor, batch: Sequence[EditRequest]) -> list[Assessment]:
        return guard.assess_all(batch, editor, screen=screen, criterion=criterion)

    outcomes = try_together_then_singly(guard, requests, assess)
    return [
        outcome if isinstance(outcome, Assessment) else _refuse(guard, request, outcome, editor)
        for request, outcome in zip(requests, outcomes, strict=True)
    ]


def _refuse(guard: GuardedEditor, request: EditRequest, error: Exception, editor: str | None) -> Assessment:
    findings = (fault_finding(error, f"{type(error).__name__}: {error}"),)
    decision = decide(guard.setup.policy, findings, editor)
    return Assessment(request=request, evidence=None, findings=findings, decision=decision)


def edit_record_for(
    guard: GuardedEditor, request: EditRequest, proposal: Proposal | Exception, index: int
) -> EditRecord:
    """Make, check and undo the `proposal` for a request, and return the record; an error instead of it is recorded."""

    def make_edit() -> EditResult:
        if isinstance(proposal, Exception):
            raise proposal
        return guard.try_proposal(proposal)

    return record_or_error(guard.setup, request, index, make_edit, proposal_or_none(proposal))


def record_or_error(
    setup: Setup,
    request: EditRequest,
    index: int,
    make_edit: Callable[[], EditResult],
    proposal: Proposal | None = None,
) -> EditRecord:
    """Return the record of the result of `make_edit`, or of its error together with the `proposal` that it was made from."""
    try:
        return edit_record(setup, make_edit(), index)
    except torch.AcceleratorError:
        raise
    except _SURVIVABLE as error:
        return edit_record_of_error(setup, request, index, error, proposal)


def try_together_then_singly(
    guard: GuardedEditor,
    items: Sequence[Item],
    handle: Callable[[GuardedEditor, Sequence[Item]], Sequence[Handled]],
) -> list[Handled | Exception]:
    """Return what `handle` gives for each item, or the item's error; items that fail together are handled one by one."""
    if not items:
        return []
    give_back_freed_memory()
    try:
        return [*handle(guard, items)]
    except torch.AcceleratorError:
        raise
    except _SURVIVABLE as error:
        if len(items) == 1:
            return [error]
        return [outcome for item in items for outcome in try_together_then_singly(guard, [item], handle)]


def iter_control_records(guard: GuardedEditor, controls: Sequence[Control]) -> Iterator[ControlRecord]:
    """Yield one record a control: candidates are made, checked and undone until one shows what the control expects."""
    wide = control_guard(guard)
    places = {control.id: index for index, control in enumerate(controls)}
    records: dict[str, ControlRecord] = {}
    tried: dict[str, list[str]] = {control.id: [] for control in controls}
    for candidates in iter_candidate_rounds(controls):
        open_pairs = [(control, candidate) for control, candidate in candidates if not _has_shown(records, control)]
        proposals = try_together_then_singly(wide, [candidate for _, candidate in open_pairs], propose_controls)
        for (control, candidate), proposal in zip(open_pairs, proposals, strict=True):
            if _has_shown(records, control):
                continue
            record = _record_control(wide, control, candidate, proposal, places[control.id])
            record = record.model_copy(update={"tried": [*tried[control.id]]})
            tried[control.id].append(f"{candidate.request.subject} by {candidate.editor}")
            # Where no candidate shows it, the first one stands for all.
            if record.ok or control.id not in records:
                records[control.id] = record
    for control in controls:
        record = records[control.id]
        yield record if record.ok else record.model_copy(update={"tried": tried[control.id]})


def _has_shown(records: Mapping[str, ControlRecord], control: Control) -> bool:
    return control.id in records and records[control.id].ok


def _record_control(
    guard: GuardedEditor, control: Control, candidate: Candidate, proposal: Proposal | Exception, index: int
) -> ControlRecord:
    try:
        if isinstance(proposal, Exception):
            raise proposal
        result, as_expected = run_control(guard, control, proposal)
        observations = observe_control(guard, control.expect, proposal, result)
        return control_record(
            guard.setup,
            result,
            index,
            expect=control.expect,
            as_expected=as_expected,
            observations=observations,
        )
    except torch.AcceleratorError:
        raise
    except _SURVIVABLE as error:
        return control_record_of_error(
            guard.setup, candidate.request, index, error, proposal_or_none(proposal), expect=control.expect
        )


def proposal_or_none(proposal: Proposal | Exception) -> Proposal | None:
    """Return the proposal; None where an error stands in its place."""
    return None if isinstance(proposal, Exception) else proposal
