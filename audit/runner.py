"""One audit from start to end: header, controls, every request on the unedited model, footer; then summary and report.

The audit of one request keeps nothing for the next one: each edit is made, checked and undone. Everything that is
printed later (summary, report, exit code) is computed from the log alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..probes.errors import DeviceFailed, EditRefused, InputError
from ..probes.request_files import LoadedRequests
from ..probes.requests import EditRequest
from ..reports.log import Log, LogWriter, log_so_far
from ..reports.schema import ControlRecord, EditRecord, Footer, Header
from ..reports.summary import Summary
from .controls import Control, control_guard, controls_for, propose_controls, run_control
from .files import LOG, WRITTEN
from .guard import GuardedEditor, Proposal
from .outputs import write_outputs
from .records import control_record, edit_record, errored, header
from .resume import continues
from .setup import Progress, Setup, editable
from .sightings import sightings

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
"""Requests whose updates are computed at once. Who computes with whom decides about the last bits, so that a resumed audit
computes the same ones together again."""


def run_audit(
    setup: Setup,
    loaded: LoadedRequests,
    out: Path,
    *,
    editor: str | None = None,
    arguments: dict[str, Any] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress = lambda *_: None,
) -> Summary:
    """Audit all requests into the folder `out` and return the verdict; see `folders.locked_folder` for its rules.

    With `overwrite` an audit that `out` holds is removed when the model is ready and the new log is begun. With `resume` the
    log that `out` holds is gone on with, and only its outputs are written where it is finished; raises `InputError`
    where another run began it. Where there is none, one is begun.
    """
    editable(setup.site)
    guard, started = GuardedEditor(setup), time.monotonic()
    controls = controls_for(setup) if setup.policy.controls else ()
    head = header(setup, loaded, arguments or {}, [control.request.id for control in controls], setup.baselines())
    begun = log_so_far(out / LOG) if resume else None
    if begun is not None:
        continues(begun, head, loaded.requests, out / LOG)
    for name in WRITTEN if overwrite else ():
        (out / name).unlink(missing_ok=True)
    if begun is None or begun.footer is None:
        with _trusted_device(setup), LogWriter(out / LOG) as log:
            for record in _records(guard, head, loaded.requests, controls, editor, begun, progress):
                log.write(record)
            records = len(controls) + len(loaded.requests)
            log.write(Footer(records=records, seconds=round(time.monotonic() - started, 3)))
    return write_outputs(out)


@contextmanager
def _trusted_device(setup: Setup) -> Iterator[None]:
    """End the audit where the device itself fails: nothing that it computes afterwards can be trusted."""
    try:
        yield
    except torch.AcceleratorError as error:
        reason = str(error).partition("\n")[0]
        raise DeviceFailed(
            f"The device {setup.lm.device} failed ({reason}), and the audit ended there; what was logged is sound: see to the "
            "device, then go on with --resume."
        ) from error


def _records(
    guard: GuardedEditor, head: Header, requests: Sequence[EditRequest], controls: Sequence[Control],
    editor: str | None, begun: Log | None, progress: Progress,
) -> Iterator[Header | ControlRecord | EditRecord]:  # fmt: skip
    """Yield the records that are not `begun`, as they are made: header, controls, edits."""
    if begun is None:
        yield head
    done = 0 if begun is None else len(begun.controls)
    progress("controls", done, len(controls))
    for index, control in enumerate(control_records(guard, controls) if done < len(controls) else ()):
        if index >= done:
            yield control
            progress("controls", index + 1, len(controls))
    done = 0 if begun is None else len(begun.edits)
    progress("edits", done, len(requests))
    for record in _edits(guard, requests, editor, done):
        yield record
        progress("edits", record.index + 1, len(requests))


def _edits(
    guard: GuardedEditor, requests: Sequence[EditRequest], editor: str | None, done: int
) -> Iterator[EditRecord]:
    """Yield one record a request, in order, the first `done` left out; updates are computed for some requests at once."""
    for start in range(done - done % TOGETHER, len(requests), TOGETHER):
        chunk = requests[start : start + TOGETHER]
        for index, made in enumerate(proposals(guard, chunk, editor), start):
            if index >= done:
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
    except torch.AcceleratorError:
        raise
    except _SURVIVABLE as error:
        return EditRecord(**errored(guard.setup, request, index, error, _made(made)))


def proposed(guard: GuardedEditor, asked: Sequence[T], propose: _Propose[T]) -> list[Proposal | Exception]:
    """Return the proposal for each of `asked`, or the error that it ended in; what fails together is tried one by one."""
    if not asked:
        return []
    try:
        return [*propose(guard, asked)]
    except torch.AcceleratorError:
        raise
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
        result, shown = run_control(guard, control, made)
        seen = sightings(guard, control.expect, made, result)
        return control_record(guard.setup, result, index, control.expect, shown, seen)
    except torch.AcceleratorError:
        raise
    except _SURVIVABLE as error:
        fields = errored(guard.setup, control.request, index, error, _made(made))
        return ControlRecord(**fields, expect=control.expect, ok=False)


def _made(made: Proposal | Exception) -> Proposal | None:
    return None if isinstance(made, Exception) else made
