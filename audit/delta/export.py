"""Make edits under the guard and write only the changes: one delta file an edit, each made alone on the unedited model.

Each edit is probed, proposed, made and checked as an audit does it, and compared with the log where one is given.
The folder is written, whole, only when every edit is sound, and served where it needs a prefix.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal, NamedTuple

from ...probes.errors import EditRefused, InputError
from ...reports.log.file import Log, write_atomic
from ...reports.text import make_slugs
from ...reports.verdict.digest import summarise
from ..edit_result import EditResult, Proposal
from ..folders.whole_folder import check_replaceable, whole_folder
from ..guard import GuardedEditor
from ..progress import Progress, show_nothing
from ..run.execute import REQUESTS_PER_BATCH, propose_each
from ..saved_model.manifest import EXPORT_MARKER, AuditEvidence, ExportedEdit, ExportIndex
from ..saved_model.save import edit_manifest
from ..sequence import EditSequence
from ..setup import Setup, check_editable
from .evidence import read_evidence
from .file import SUFFIX, Delta, Factors, encode
from .selection import check_ids

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ...probes.requests.request import EditRequest
    from ...reports.log.schema import EditRecord

__all__ = ["export_edits"]


def export_edits(
    setup: Setup,
    requests: Sequence[EditRequest],
    out: Path,
    *,
    editor: str | None = None,
    only: Sequence[str] = (),
    log: Path | None = None,
    in_sequence: bool = False,
    overwrite: bool = False,
    progress: Progress = show_nothing,
) -> list[ExportedEdit]:
    """Make, check and undo every edit, and write the folder `out`: a delta file each, and ``editguard-export.json``.

    With `only` the edits of these ids alone are made. Their updates are still computed in the batches of the audit of all
    `requests`, since the batch decides about the last bits. With `log` each edit must be one that this audit passed, with
    the same edited weight to the bit. With `in_sequence` all of them are made one after the other, as an audit in sequence
    does, and taken out again at the end.

    Raises `EditRefused` where an edit is refused or fails, and `InputError` where the log is about other edits or nothing can
    be written. The folder is then as it was.
    """
    check_replaceable(out, EXPORT_MARKER, overwrite=overwrite)
    check_editable(setup.site)
    evidence = None if log is None else _AuditLog.read(log, setup, in_sequence=in_sequence)
    guard = GuardedEditor(setup)
    if in_sequence:
        if only:
            raise InputError("The edits of a sequence are exported together, and --only takes some; leave it out.")
        deltas = _make_sequence(guard, requests, editor, evidence, progress)
    else:
        deltas = _make_alone(guard, _propose(guard, requests, editor, only, progress), evidence, progress)
    with whole_folder(out, EXPORT_MARKER, overwrite=overwrite) as folder:
        return _write(folder, deltas)


def _make_alone(
    guard: GuardedEditor, proposals: Sequence[Proposal], evidence: _AuditLog | None, progress: Progress
) -> list[Delta]:
    deltas = []
    for index, proposal in enumerate(proposals):
        progress("edits", index, len(proposals))
        deltas.append(_delta(guard.setup, guard.try_proposal(proposal), evidence))
    progress("edits", len(proposals), len(proposals))
    return deltas


def _make_sequence(
    guard: GuardedEditor,
    requests: Sequence[EditRequest],
    editor: str | None,
    evidence: _AuditLog | None,
    progress: Progress,
) -> list[Delta]:
    """Make all edits one after the other, and take them out; raises `EditRefused` for the first one that is not kept."""
    deltas = []
    with EditSequence(guard) as sequence:
        for index, request in enumerate(requests):
            progress("edits", index, len(requests))
            result = sequence.edit(request, editor)
            deltas.append(_delta(sequence.guard.setup, result, evidence, sequence=(index + 1, len(requests))))
    progress("edits", len(requests), len(requests))
    return deltas


def _propose(
    guard: GuardedEditor, requests: Sequence[EditRequest], editor: str | None, only: Sequence[str], progress: Progress
) -> list[Proposal]:
    """Return the proposals for the chosen requests, computed in the audit's batches; raises the first one's error."""
    check_ids(only, [request.id for request in requests])
    chosen_ids = set(only) or {request.id for request in requests}
    outcomes: list[Proposal | Exception] = []
    for start in range(0, len(requests), REQUESTS_PER_BATCH):
        batch = requests[start : start + REQUESTS_PER_BATCH]
        if not chosen_ids.isdisjoint(request.id for request in batch):
            progress("updates", start, len(requests))
            pairs = zip(batch, propose_each(guard, batch, editor), strict=True)
            outcomes += [outcome for request, outcome in pairs if request.id in chosen_ids]
    progress("updates", len(requests), len(requests))
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, Proposal)]


class _AuditLog(NamedTuple):
    """A finished audit of the same model at the same site."""

    path: Path
    log: Log
    sha256: str

    @classmethod
    def read(cls, path: Path, setup: Setup, *, in_sequence: bool) -> _AuditLog:
        loaded = read_evidence(path, in_sequence=in_sequence)
        audited_model = (loaded.log.header.model.fingerprint, loaded.log.header.site)
        this_model = (setup.lm.fingerprint, setup.site.path)
        if audited_model != this_model:
            raise InputError(
                f"The log {str(path)!r} is of model {audited_model[0][:12]} at {audited_model[1]}, and not of "
                f"{this_model[0][:12]} at {this_model[1]}; give the log of an audit of this model, or leave out --log."
            )
        return cls(path, loaded.log, loaded.sha256)

    def evidence_for(self, request: EditRequest, edited: Mapping[str, str]) -> AuditEvidence:
        """Return the evidence for `request`, if it passed there with the same weights; `edited` are their hashes by path."""
        record = next((record for record in self.log.edits if _is_of(record, request)), None)
        if record is None:
            raise InputError(
                f"The log {str(self.path)!r} has no edit {request.id!r} with this subject, prompt and target; export the "
                "edits that were audited."
            )
        if record.verdict != "pass":
            raise EditRefused(
                f"The edit {request.id!r} did not pass its audit ({record.verdict}); nothing was exported."
            )
        audited = {} if record.weights is None else record.weights.edited
        if audited != edited:
            now, then = (", ".join(str(value)[:12] for value in hashes.values()) for hashes in (edited, audited))
            raise InputError(
                f"The edit {request.id!r} gives a weight that hashes to {now}, and {then or None} was audited; "
                "export with the audit's options and versions, on the machine that it ran on, or audit again."
            )
        summary = summarise(self.log)
        verdict: Literal["pass", "fail"] = "pass" if summary.verdict == "pass" else "fail"
        return AuditEvidence(log_sha256=self.sha256, verdict=verdict, controls_ok=summary.controls_ok)


def _is_of(record: EditRecord, request: EditRequest) -> bool:
    names = ("id", "subject", "prompt", "target_new")
    return all(getattr(record, name) == getattr(request, name) for name in names)


def _delta(
    setup: Setup, result: EditResult, log: _AuditLog | None, *, sequence: tuple[int, int] | None = None
) -> Delta:
    request = result.assessment.request
    if not result.sound or result.update is None or result.hashes is None:
        faults = [measurement.message for measurement in result.failures]
        why = result.refusal or "; ".join(faults) or "nothing was judged"
        way_out = "--only takes sound ones alone" if sequence is None else "leave it out of the file"
        raise EditRefused(
            f"The edit {request.id!r} is not sound, so nothing was exported: {why.rstrip('.')}; {way_out}."
        )
    edited = {path: hashes.edited for path, hashes in result.hashes.items()}
    audit = None if log is None else log.evidence_for(request, edited)
    factors = tuple(Factors(change.left, change.right) for change in result.update.changes)
    return Delta(edit_manifest(setup, result, audit, sequence=sequence), factors)


def _write(folder: Path, deltas: Sequence[Delta]) -> list[ExportedEdit]:
    exported = []
    for name, delta in zip(make_slugs(delta.manifest.id for delta in deltas), deltas, strict=True):
        content = encode(delta)
        write_atomic(folder / f"{name}{SUFFIX}", content)
        digest = hashlib.sha256(content).hexdigest()
        exported.append(ExportedEdit(file=f"{name}{SUFFIX}", sha256=digest, edit=delta.manifest))
    write_atomic(folder / EXPORT_MARKER.name, ExportIndex(edits=exported).model_dump_json(indent=2) + "\n")
    return exported
