"""One audit from start to end: header, controls, every request, footer; then summary and report.

Each edit is made on the unedited model, checked and undone, or in a sequence on the model with all that was kept before.
Everything that is printed later (summary, report, exit code) is computed from the log alone.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from ...reports.log.file import Log, LogWriter, read_unfinished_log
from ...reports.log.schema import ControlRecord, EditRecord, Footer, Header
from ..device_failure import trusted_device
from ..folders.file_names import AUDIT_FILES, LOG
from ..guard import GuardedEditor
from ..progress import Progress, show_nothing
from ..sequence import EditSequence
from ..setup import Setup, check_editable
from .controls import Control, controls_for
from .execute import iter_control_records, iter_edit_records
from .outputs import write_outputs
from .resume import check_resumed_run
from .sequence_records import iter_sequence_records, retention_rate
from .to_log import header

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ...probes.requests.loader import LoadedRequests
    from ...reports.verdict.summary import Summary

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
    progress: Progress = show_nothing,
) -> Summary:
    """Audit all requests into the folder `out` and return the verdict; `output_folder.locked_folder` has its rules.

    With `overwrite` an audit that `out` holds is removed when the model is ready and the new log is begun. With `resume` the
    log that `out` holds is continued, and only its outputs are written where it is finished. Where there is no log, one is
    begun. Raises `InputError` where another run began the log.

    With `in_sequence` each sound edit stays in the model for the later ones, until the accumulated drift leaves the policy's
    bounds (see `editguard.audit.sequence`). At the end the weights are those of before.
    """
    check_editable(setup.site)
    started, guard = time.monotonic(), GuardedEditor(setup)
    controls = controls_for(setup) if setup.policy.controls else ()
    progress("baselines", 0, 1)
    baselines = setup.baselines()
    progress("baselines", 1, 1)
    head = header(setup, loaded, arguments or {}, [control.id for control in controls], baselines)
    head = head.model_copy(update={"in_sequence": in_sequence})
    begun = read_unfinished_log(out / LOG) if resume else None
    if begun is not None:
        check_resumed_run(begun, head, loaded.requests, out / LOG)
    for name in AUDIT_FILES if overwrite else ():
        (out / name).unlink(missing_ok=True)
    if begun is None or begun.footer is None:
        with (
            trusted_device(setup.lm.device, "the audit", "continue with --resume, since the log so far is sound"),
            _open_sequence(guard, in_sequence=in_sequence) as sequence,
            LogWriter(out / LOG) as log,
        ):
            for record in _records(
                guard,
                sequence,
                head=head,
                loaded=loaded,
                controls=controls,
                editor=editor,
                begun=begun,
                progress=progress,
            ):
                log.write(record)
            log.write(_close(sequence, records=len(controls) + len(loaded.requests), started=started))
    progress("writing files", 0, 1)
    summary = write_outputs(out)
    progress("writing files", 1, 1)
    return summary


def _open_sequence(guard: GuardedEditor, *, in_sequence: bool) -> AbstractContextManager[EditSequence | None]:
    """Return a sequence, which leaves the model as it was, or None where edits are made alone."""
    return EditSequence(guard) if in_sequence else nullcontext()


def _close(sequence: EditSequence | None, *, records: int, started: float) -> Footer:
    """Return the footer; the edits of a sequence are asked for a last time and taken out, which proves the weight."""
    seconds = round(time.monotonic() - started, 3)
    if sequence is None:
        return Footer(records=records, seconds=seconds)
    retained = sequence.retained()
    pairs = zip(sequence.kept, retained, strict=True)
    lost = [edit.request.id for edit, is_retained in pairs if is_retained is False]
    sequence.undo()
    return Footer(records=records, seconds=seconds, retained=retention_rate(retained), lost=lost)


def _records(
    guard: GuardedEditor,
    sequence: EditSequence | None,
    *,
    head: Header,
    loaded: LoadedRequests,
    controls: Sequence[Control],
    editor: str | None,
    begun: Log | None,
    progress: Progress,
) -> Iterator[Header | ControlRecord | EditRecord]:
    """Yield the records that `begun` does not hold, as they are made: header, controls, edits."""
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
        iter_edit_records(guard, requests, editor, len(edits), progress)
        if sequence is None
        else iter_sequence_records(sequence, requests, editor, edits, progress)
    ):
        yield record
        progress("edits", record.index + 1, len(requests))
