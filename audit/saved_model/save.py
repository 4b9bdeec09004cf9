"""An edited model as a folder: weights, tokenizer, and ``editguard.json`` with the prefixes that its edits are served after.

The folder appears whole or not at all. The weights are loaded again and must have the fingerprint of the model in memory,
so that the model that ships is the model that was judged.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from ...probes.errors import EditRefused, InputError, ModelError
from ...probes.model.fingerprint import compute_fingerprint, hash_tensor
from ...probes.model.language_model import load_model
from ...reports.log.file import write_atomic
from ...reports.log.types import Rate, json_sha256
from ...suites.served_answer import PREFIXES
from ..folders.whole_folder import check_replaceable, whole_folder
from .manifest import MODEL_MARKER, AuditEvidence, DeltaManifest, DeltaSite, EditProvenance, audit_status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from ...probes.model.site import EditSite
    from ...probes.model.site_change import SiteChange
    from ..edit_result import EditResult
    from ..setup import Setup
    from ..transaction import WeightHashes

__all__ = ["check_savable", "edit_manifest", "save_edited_model", "write_provenance", "write_weights"]


def save_edited_model(
    setup: Setup, results: Sequence[EditResult], out: Path, *, overwrite: bool = False
) -> EditProvenance:
    """Save the model of `setup`, in which the edits of `results` are kept, as the folder `out`.

    Raises `InputError` where an edit is not in the model or nothing can be written, `EditRefused` where an edit needs
    a prefix and none serves it or the saved model is another one, and `ModelError` for a dtype that cannot be saved.
    """
    manifests = [edit_manifest(setup, result) for result in results]
    check_replaceable(out, MODEL_MARKER, overwrite=overwrite)
    check_savable(manifests[-1].dtype)
    _check_in_model(results)
    with whole_folder(out, MODEL_MARKER, overwrite=overwrite) as folder:
        saved_fingerprint = write_weights(setup.lm.model, setup.lm.tokenizer, folder)
        return write_provenance(folder, base=setup.lm.ref, manifests=manifests, saved_fingerprint=saved_fingerprint)


class _LastEdit(NamedTuple):
    """The last edit of one site, and the hash of the weight that it left."""

    id: str
    site: EditSite
    sha256: str


def _check_in_model(results: Sequence[EditResult]) -> None:
    """Raise `InputError` unless each edit began with the weights that the earlier ones left, and the last ones are there."""
    last_edits: dict[str, _LastEdit] = {}
    for result in results:
        assert result.update is not None
        assert result.hashes is not None
        name = result.assessment.request.id
        for site in result.update.sites:
            hashes, earlier = result.hashes[site.path], last_edits.get(site.path)
            if earlier is not None and earlier.sha256 != hashes.before:
                raise InputError(
                    f"The edit {earlier.id!r} is not in the model: the edit {name!r} was made on another weight than it left; "
                    "make the edits again with a new guard before the model is saved."
                )
            last_edits[site.path] = _LastEdit(name, site, hashes.edited)
    for edit in last_edits.values():
        if hash_tensor(edit.site.weight) != edit.sha256:
            raise InputError(
                f"The weight {edit.site.path} is not the one that the edit {edit.id!r} left, so the edit is no longer in the "
                "model; make the edit again before it is saved."
            )


def edit_manifest(
    setup: Setup, result: EditResult, audit: AuditEvidence | None = None, *, sequence: tuple[int, int] | None = None
) -> DeltaManifest:
    """Return the manifest of a sound edit; raises `EditRefused` where the edit needs a prefix and none serves it.

    `sequence` is its place, from 1, and the number of edits, where it was made in a sequence.
    """
    request, update, lm = result.assessment.request, result.update, setup.lm
    assert update is not None
    assert result.hashes is not None
    assert result.relative_norm is not None
    if update.needs_prefix and result.prefix is None:
        raise EditRefused(
            f"The edit {request.id!r} needs a prefix, and after none of {', '.join(map(repr, PREFIXES))} does the model say "
            "the target, so nothing was written; edit another layer, or reword the prompt."
        )
    return DeltaManifest(
        editguard_version=version("editguard"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=lm.ref,
        model_fingerprint=setup.base_fingerprint,
        architecture=lm.architecture,
        dtype=str(update.sites[0].weight.dtype).removeprefix("torch."),  # type: ignore[arg-type]  # pydantic checks it
        sites=[
            _describe_site(setup, change, result.hashes[change.site.path], result.relative_norms[change.site.path])
            for change in update.changes
        ],
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
        families=_efficacy_by_family(result),
        seed=setup.seed,
        statistics_sha256=setup.statistics.sha256,
        policy_sha256=json_sha256(setup.policy.model_dump(mode="json")),
        sequence=None if sequence is None else sequence[0],
        sequence_length=None if sequence is None else sequence[1],
        audit=audit,
    )


def _describe_site(setup: Setup, change: SiteChange, hashes: WeightHashes, relative_norm: float) -> DeltaSite:
    site = change.site
    return DeltaSite(
        layer=site.layer,
        path=site.path.replace(f"{site.blocks_path}.{site.layer}.", f"{site.blocks_path}.{{layer}}.", 1),
        orientation=site.orientation.value,
        rank=change.rank,
        weight_before=hashes.before,
        weight_edited=hashes.edited,
        update_norm=change.norm,
        relative_norm=relative_norm,
        statistics_sha256=setup.hash_statistics(site),
    )


def _efficacy_by_family(result: EditResult) -> dict[str, Rate]:
    return {
        row.condition.removeprefix("family:"): Rate(
            passed=row.passed, failed=row.failed, not_judged=row.not_judged, total=row.total, rate=row.value
        )
        for row in result.measurements
        if (row.check, row.protocol) == ("efficacy", "exact") and row.condition.startswith("family:")
    }


def check_savable(dtype: str) -> None:
    """Raise `ModelError` for a dtype in which a model is not saved and loaded again as it is."""
    if dtype == "float64":
        raise ModelError(
            f"A model in {dtype} cannot be saved and loaded again as it is; export delta files and apply them in Python."
        )


def write_weights(model: torch.nn.Module, tokenizer: Any, folder: Path) -> str:
    """Save `model` and `tokenizer` into `folder` and return the model's fingerprint."""
    from transformers.utils import logging

    shows_progress = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)  # type: ignore[operator]
        tokenizer.save_pretrained(folder)
        return compute_fingerprint(model)
    finally:
        if shows_progress:
            logging.enable_progress_bar()


def write_provenance(
    folder: Path, *, base: str, manifests: Sequence[DeltaManifest], saved_fingerprint: str
) -> EditProvenance:
    """Load the weights in `folder` again, compare them, and write ``editguard.json`` beside them.

    `base` is the base model as its user named it. Raises `EditRefused` where the fingerprint differs.
    """
    provenance = EditProvenance(
        editguard_version=version("editguard"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        base=base,
        base_fingerprint=manifests[0].model_fingerprint,
        fingerprint=saved_fingerprint,
        audited=audit_status(manifests),
        edits=list(manifests),
        files=sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()),
    )
    loaded_fingerprint = load_model(folder, device="cpu", dtype=manifests[0].dtype).fingerprint
    if loaded_fingerprint != saved_fingerprint:
        raise EditRefused(
            f"The saved model has the fingerprint {loaded_fingerprint[:12]} and the model in memory {saved_fingerprint[:12]}, so "
            "the model that would ship is not the one that was judged; nothing was written."
        )
    write_atomic(folder / MODEL_MARKER.name, provenance.model_dump_json(indent=2) + "\n")
    return provenance
