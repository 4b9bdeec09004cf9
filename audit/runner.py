"""One audit from start to end: header, controls, every request on the unedited model, footer; then summary and report.

The audit of one request keeps nothing for the next one: each edit is made, checked and undone. Everything that is
printed later (summary, report, exit code) is computed from the log alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..probes.errors import EditRefused, InputError
from ..probes.request_files import LoadedRequests
from ..probes.requests import EditRequest
from ..reports.log import LogWriter
from ..reports.schema import ControlRecord, EditRecord, Footer
from ..reports.summary import Summary
from .controls import Control, control_guard, controls_for, propose_controls, run_control
from .files import LOG, WRITTEN
from .guard import GuardedEditor, Proposal
from .outputs import write_outputs
from .records import control_record, edit_record, errored, header
from .setup import Progress, Setup, editable

T = TypeVar("T")
_Propose = Callable[[GuardedEditor, Sequence[T]], list[Proposal]]

__all__ = [
    "TOGETHER",
    "control_records",
    "proposals",
    "proposed",
    "recorded",
    "run_audit",
]

_SURVIVABLE = (InputError, EditRefused, RuntimeError, ValueError, ArithmeticError)
"""What one request may fail with while the others go on; a failed roll-back, or our own fault, ends the audit."""
TOGETHER = 20
"""Requests whose updates are computed at once; a killed audit leaves the records of all but the last so many.
Who computes with whom decides about the last bits."""


def run_audit(
    setup: Setup,
    loaded: LoadedRequests,
    out: Path,
    *,
    editor: str | None = None,
    arguments: dict[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> Summary:
    """Audit all requests into the folder `out` and return the verdict; see `folders.locked_folder` for its rules.

    With `overwrite` an audit that `out` holds is removed when the model is ready and the new log is begun.
    """
    editable(setup.site)
    guard, started = GuardedEditor(setup), time.monotonic()
    baselines = setup.baselines()
    controls = controls_for(setup) if setup.policy.controls else ()
    for name in WRITTEN if overwrite else ():
        (out / name).unlink(missing_ok=True)
    with LogWriter(out / LOG) as log:
        log.write(header(setup, loaded, arguments or {}, [control.request.id for control in controls], baselines))
        progress("controls", 0, len(controls))
        for index, control in enumerate(control_records(guard, controls)):
            log.write(control)
            progress("controls", index + 1, len(controls))
        total = len(loaded.requests)
        progress("edits", 0, total)
        for index, record in enumerate(_edits(guard, loaded.requests, editor)):
            log.write(record)
            progress("edits", index + 1, total)
        log.write(Footer(records=len(controls) + total, seconds=round(time.monotonic() - started, 3)))
    return write_outputs(out)


def _edits(guard: GuardedEditor, requests: Sequence[EditRequest], editor: str | None) -> Iterator[EditRecord]:
    """Yield one record a request, in order; updates are computed for some requests at once."""

    for start in range(0, len(requests), TOGETHER):
        chunk = requests[start : start + TOGETHER]
        for index, made in enumerate(proposals(guard, chunk, editor), start):
            yield recorded(guard, requests[index], made, index)


def proposals(guard: GuardedEditor, requests: Sequence[EditRequest], editor: str | None) -> list[Proposal | Exception]:
    """Assess the requests and compute their updates, together: for each the proposal, or the error that it ended in."""

    def propose(guard: GuardedEditor, chunk: Sequence[EditRequest]) -> list[Proposal]:
        return guard.propose(guard.assess_all(chunk, editor))

    return proposed(guard, requests, propose)


def recorded(guard: GuardedEditor, request: EditRequest, made: Proposal | Exception, index: int) -> EditRecord:
    """Make, check and undo what was `made` for a request and return its record: of an error, where it ended in one."""
    try:
        if isinstance(made, Exception):
            raise made
        return edit_record(guard.setup, guard.test(made), index)
    except _SURVIVABLE as error:
        return EditRecord(**errored(guard.setup, request, index, error, _made(made)))


def proposed(guard: GuardedEditor, asked: Sequence[T], propose: _Propose[T]) -> list[Proposal | Exception]:
    """Return the proposal for each of `asked`, or the error that it ended in; what fails together is tried one by one."""
    if not asked:
        return []
    try:
        return [*propose(guard, asked)]
    except _SURVIVABLE as error:
        if len(asked) == 1:
            return [error]
        return [found for one in asked for found in proposed(guard, [one], propose)]


def control_records(guard: GuardedEditor, controls: Sequence[Control]) -> Iterator[ControlRecord]:
    """Make, check and undo every control, and yield its record with whether it showed what it must."""
    wide = control_guard(guard)
    for index, (control, made) in enumerate(zip(controls, proposed(wide, controls, propose_controls), strict=True)):
        yield _control(wide, control, made, index)


def _control(guard: GuardedEditor, control: Control, made: Proposal | Exception, index: int) -> ControlRecord:
    try:
        if isinstance(made, Exception):
            raise made
        result, ok = run_control(guard, control, made)
        return control_record(guard.setup, result, index, control.expect, ok)
    except _SURVIVABLE as error:
        fields = errored(guard.setup, control.request, index, error, _made(made))
        return ControlRecord(**fields, expect=control.expect, ok=False)


def _made(made: Proposal | Exception) -> Proposal | None:
    return None if isinstance(made, Exception) else made
