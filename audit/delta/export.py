"""Make edits under the guard and write only the changes: one delta file an edit, each made alone on the unedited model.

Order: probe, propose, test (as an audit does, with the model as it would be served), hold against the log where one is given,
and only when every edit is sound, and served where it needs a prefix, write the folder, whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

from ...probes.errors import EditRefused, InputError
from ...probes.requests.request import EditRequest
from ...reports.log.file import Log, write_atomic
from ...reports.log.schema import EditRecord
from ...reports.log.types import Rate, json_sha256
from ...reports.text import slugs
from ...reports.verdict.digest import summarise
from ...suites.served_answer import PREFIXES
from ..gate.evaluate import LoadedLog, read_audit
from ..guard import EditResult, GuardedEditor, Proposal
from ..run.execute import REQUESTS_PER_BATCH, propose_each
from ..setup import Progress, Setup, check_editable
from .chosen import check_ids
from .file import SUFFIX, Delta, encode
from .folder import check_replaceable, whole_folder
from .manifest import EXPORT_MARKER, AuditEvidence, DeltaManifest, ExportedEdit, ExportIndex

__all__ = ["read_evidence", "export_edits"]


def export_edits(
    setup: Setup,
    requests: Sequence[EditRequest],
    out: Path,
    *,
    editor: str | None = None,
    only: Sequence[str] = (),
    log: Path | None = None,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> list[ExportedEdit]:
    """Make, check and undo every edit, and write the folder `out`: a delta file each, and ``editguard-export.json``.

    With `only` the edits of these ids alone are made; their updates are still computed beside those that they were
    computed with in the audit of all `requests`, since who shares a batch decides about the last bits. With `log` each
    edit must be the one that this audit passed, with the same edited weight to the bit. Raises `EditRefused` where an edit
    is refused or fails, `InputError` where the log is about other edits or nothing can be written; the folder is then as it
    was.
    """
    check_replaceable(out, EXPORT_MARKER, overwrite=overwrite)
    check_editable(setup.site)
    evidence = None if log is None else _Evidence.read(log, setup)
    guard = GuardedEditor(setup)
    deltas = []
    for index, made in enumerate(chosen := _proposals(guard, requests, editor, only)):
        progress("edits", index, len(chosen))
        deltas.append(_exported(guard, made, evidence))
    progress("edits", len(chosen), len(chosen))
    with whole_folder(out, EXPORT_MARKER, overwrite=overwrite) as folder:
        return _write(folder, deltas)


def _proposals(
    guard: GuardedEditor, requests: Sequence[EditRequest], editor: str | None, only: Sequence[str]
) -> list[Proposal]:
    """Return the proposals for the wanted requests, computed in the audit's batches."""
    check_ids(only, [request.id for request in requests])
    wanted = set(only) or {request.id for request in requests}
    found: list[Proposal | Exception] = []
    for start in range(0, len(requests), REQUESTS_PER_BATCH):
        chunk = requests[start : start + REQUESTS_PER_BATCH]
        if wanted & {request.id for request in chunk}:
            made = propose_each(guard, chunk, editor)
            found += [one for one, request in zip(made, chunk, strict=True) if request.id in wanted]
    for one in found:
        if isinstance(one, Exception):
            raise one
    return [one for one in found if isinstance(one, Proposal)]


def read_evidence(path: Path) -> LoadedLog:
    """Read the log of a finished, sound audit of edits made alone; raises `EditRefused`, `InputError` and `ReportError`."""
    found = read_audit(path)
    log = found.log
    if log.footer is None or log.torn:
        raise EditRefused(
            f"The log {str(path)!r} is unfinished (it has no footer), so it proves nothing about any edit; finish the audit "
            "by running it again into its folder."
        )
    if log.header.in_sequence:
        raise InputError(
            f"The log {str(path)!r} is of edits in sequence, each judged with others in the model, and an export holds each "
            "alone; audit them without --in-sequence, or keep and save them with EditSequence in Python."
        )
    if summarise(log).verdict not in ("pass", "fail"):
        raise EditRefused(f"The audit {str(path)!r} is void, so it proves nothing about any edit; audit again.")
    return found


class _Evidence(NamedTuple):
    """A finished audit of the same model at the same site."""

    path: Path
    log: Log
    sha256: str

    @classmethod
    def read(cls, path: Path, setup: Setup) -> _Evidence:
        found = read_evidence(path)
        theirs = (found.log.header.model.fingerprint, found.log.header.site)
        ours = (setup.lm.fingerprint, setup.site.path)
        if theirs != ours:
            raise InputError(
                f"The log {str(path)!r} is of model {theirs[0][:12]} at {theirs[1]}, and not of {ours[0][:12]} at {ours[1]}; "
                "give the log of an audit of this model, or leave out --log."
            )
        return cls(path, found.log, found.sha256)

    def of(self, request: EditRequest, edited: str) -> AuditEvidence:
        """Return what the log says for `request`, if it passed there with the same weight."""
        found = next((one for one in self.log.edits if _same(one, request)), None)
        if found is None:
            raise InputError(
                f"The log {str(self.path)!r} has no edit {request.id!r} with this subject, prompt and target; export the "
                "edits that were audited."
            )
        if found.verdict != "pass":
            raise EditRefused(
                f"The edit {request.id!r} did not pass its audit ({found.verdict}); nothing was exported."
            )
        audited = None if found.weights is None else found.weights.edited
        if audited != edited:
            raise InputError(
                f"The edit {request.id!r} gives a weight that hashes to {edited[:12]}, and {str(audited)[:12]} was audited; "
                "export with the audit's options and versions, on the machine that it ran on, or audit again."
            )
        summary = summarise(self.log)
        verdict: Literal["pass", "fail"] = "pass" if summary.verdict == "pass" else "fail"
        return AuditEvidence(log_sha256=self.sha256, verdict=verdict, controls_ok=summary.controls_ok)


def _same(record: EditRecord, request: EditRequest) -> bool:
    return (record.id, record.subject, record.prompt, record.target_new) == (
        request.id, request.subject, request.prompt, request.target_new,
    )  # fmt: skip


def _exported(guard: GuardedEditor, proposal: Proposal, evidence: _Evidence | None) -> Delta:
    result, request = guard.test(proposal), proposal.assessment.request
    if not result.sound or result.update is None or result.hashes is None:
        faults = [measurement.message for measurement in result.failures]
        why = result.refusal or "; ".join(faults) or "nothing was judged"
        raise EditRefused(
            f"The edit {request.id!r} is not sound, so nothing was exported: {why.rstrip('.')}; --only takes sound ones alone."
        )
    edited = result.hashes[1]
    audit = None if evidence is None else evidence.of(request, edited)
    if result.update.needs_prefix and result.prefix is None:
        raise EditRefused(
            f"The edit {request.id!r} needs a prefix, and served behind none of {', '.join(map(repr, PREFIXES))} does the "
            "model say the target, so nothing was exported; edit another layer, or reword the prompt."
        )
    return Delta(_manifest(guard.setup, result, audit), result.update.left, result.update.right)


def _manifest(setup: Setup, result: EditResult, audit: AuditEvidence | None) -> DeltaManifest:
    request, update, site, lm = result.assessment.request, result.update, setup.site, setup.lm
    assert update is not None
    assert result.hashes is not None
    assert result.relative_norm is not None
    return DeltaManifest(
        editguard_version=version("editguard"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=lm.ref,
        model_fingerprint=lm.fingerprint,
        architecture=lm.architecture,
        dtype=str(site.weight.dtype).removeprefix("torch."),  # type: ignore[arg-type]  # pydantic checks it
        site=site.path.replace(f"{site.blocks_path}.{site.layer}.", f"{site.blocks_path}.{{layer}}.", 1),
        layer=site.layer,
        orientation=site.orientation.value,
        weight_before=result.hashes[0],
        weight_edited=result.hashes[1],
        id=request.id,
        subject=request.subject,
        prompt=request.prompt,
        target_new=request.target_new,
        editor=update.editor,
        reasons=list(result.decision.reasons),
        update_norm=update.norm,
        relative_norm=result.relative_norm,
        needs_prefix=update.needs_prefix,
        prefix=result.prefix,
        families=_families(result),
        seed=setup.seed,
        statistics_sha256=setup.statistics.sha256,
        policy_sha256=json_sha256(setup.policy.model_dump(mode="json")),
        audit=audit,
    )


def _families(result: EditResult) -> dict[str, Rate]:
    return {
        one.condition.removeprefix("family:"): Rate(
            passed=one.passed, failed=one.failed, not_judged=one.not_judged, total=one.total, rate=one.value
        )
        for one in result.measurements
        if (one.check, one.protocol) == ("efficacy", "exact") and one.condition.startswith("family:")
    }


def _write(folder: Path, deltas: Sequence[Delta]) -> list[ExportedEdit]:
    found = []
    for name, delta in zip(slugs(one.manifest.id for one in deltas), deltas, strict=True):
        content = encode(delta)
        write_atomic(folder / f"{name}{SUFFIX}", content)
        digest = hashlib.sha256(content).hexdigest()
        found.append(ExportedEdit(file=f"{name}{SUFFIX}", sha256=digest, edit=delta.manifest))
    write_atomic(folder / EXPORT_MARKER.name, ExportIndex(edits=found).model_dump_json(indent=2) + "\n")
    return found
