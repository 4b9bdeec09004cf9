"""One audit from start to end: header, controls, every request, footer; then summary and report.

Each edit is made on the unedited model, checked and undone, or in a sequence on the model with all that was kept before.
Everything that is printed later (summary, report, exit code) is computed from the log alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ...probes.requests.loader import LoadedRequests
from ...reports.log.file import Log, LogWriter, log_so_far
from ...reports.log.schema import ControlRecord, EditRecord, Footer, Header
from ...reports.verdict.summary import Summary
from ..guard import GuardedEditor
from ..process import trusted_device
from ..sequence import EditSequence, iter_sequence_records, retention_rate
from ..setup import Progress, Setup, check_editable
from .controls import Control, controls_for
from .execute import iter_control_records, iter_edit_records
from .file_names import AUDIT_FILES, LOG
from .outputs import write_outputs
from .resume import check_resumed_run
from .to_log import header

__all__ = ["run_audit"]


def run_audit(
    setup: Setup,
    loaded: LoadedRequests,
    out: Path,
    *,
    editor: str | None = None,
    arguments: dict[str, Any] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    in_sequence: bool = False,
    progress: Progress = lambda *_: None,
) -> Summary:
    """Audit all requests into the folder `out` and return the verdict; see `folders.locked_folder` for its rules.

    With `overwrite` an audit that `out` holds is removed when the model is ready and the new log is begun. With `resume` the
    log that `out` holds is gone on with, and only its outputs are written where it is finished; raises `InputError`
    where another run began it. Where there is none, one is begun.

    With `in_sequence` each sound edit stays in the model for those behind it, until the accumulated drift leaves the policy's
    bounds (see `editguard.audit.sequence`); at the end the weights are those of before.
    """
    check_editable(setup.site)
    guard, started = GuardedEditor(setup), time.monotonic()
    controls = controls_for(setup) if setup.policy.controls else ()
    head = header(setup, loaded, arguments or {}, [control.id for control in controls], setup.baselines())
    head = head.model_copy(update={"in_sequence": in_sequence})
    begun = log_so_far(out / LOG) if resume else None
    if begun is not None:
        check_resumed_run(begun, head, loaded.requests, out / LOG)
    for name in AUDIT_FILES if overwrite else ():
        (out / name).unlink(missing_ok=True)
    if begun is None or begun.footer is None:
        with (
            trusted_device(setup.lm.device, "the audit", "go on with --resume, since what was logged is sound"),
            _sequence(guard, wanted=in_sequence) as sequence,
            LogWriter(out / LOG) as log,
        ):
            for record in _records(guard, sequence, head, loaded, controls, editor, begun, progress):
                log.write(record)
            records, seconds = len(controls) + len(loaded.requests), round(time.monotonic() - started, 3)
            held: dict[str, Any] = {}
            if sequence is not None:
                said = sequence.retained()
                lost = [one.request.id for one, holds in zip(sequence.kept, said, strict=True) if holds is False]
                held = {"retained": retention_rate(said), "lost": lost}
                # Proved before the log says that it is finished.
                sequence.undo()
            log.write(Footer(records=records, seconds=seconds, **held))
    return write_outputs(out)


def _sequence(guard: GuardedEditor, *, wanted: bool) -> AbstractContextManager[EditSequence | None]:
    """Return a sequence where one is wanted, which leaves the model as it was."""
    return EditSequence(guard) if wanted else nullcontext()


def _records(
    guard: GuardedEditor, sequence: EditSequence | None, head: Header, loaded: LoadedRequests,
    controls: Sequence[Control], editor: str | None, begun: Log | None, progress: Progress,
) -> Iterator[Header | ControlRecord | EditRecord]:  # fmt: skip
    """Yield the records that are not `begun`, as they are made: header, controls, edits."""
    requests = loaded.requests
    if begun is None:
        yield head
    done = 0 if begun is None else len(begun.controls)
    progress("controls", done, len(controls))
    first = guard if sequence is None else sequence.guard
    for index, control in enumerate(iter_control_records(first, controls) if done < len(controls) else ()):
        if index >= done:
            yield control
            progress("controls", index + 1, len(controls))
    edits = [] if begun is None else begun.edits
    progress("edits", len(edits), len(requests))
    for record in (
        iter_edit_records(guard, requests, editor, len(edits))
        if sequence is None
        else iter_sequence_records(sequence, requests, editor, edits, progress)
    ):
        yield record
        progress("edits", record.index + 1, len(requests))
