"""The records beside an edit that leaves the machine: the model it belongs to, and the evidence for it.

`DeltaManifest` lies in each delta file's metadata, `ExportIndex` beside the files, `EditProvenance` beside an edited model.
All are closed to unknown fields, as the log is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from ...reports.log.types import Count, Model, Rate
from ..folders.whole_folder import Marker

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "EXPORT_MARKER",
    "MODEL_MARKER",
    "AuditEvidence",
    "DeltaManifest",
    "ExportIndex",
    "ExportedEdit",
    "EditProvenance",
    "audit_status",
]

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class AuditEvidence(Model):
    """The audit that made the same edit: its log's hash, its verdict, and whether its controls held."""

    log_sha256: Sha256
    verdict: Literal["pass", "fail"]
    """Of the whole audit, which other edits may have failed; this edit passed."""
    controls_ok: bool


class DeltaManifest(Model):
    """One edit of one weight: where it belongs, how it was made, and how it must be served."""

    schema_version: Literal[1] = 1
    editguard_version: str
    created: str
    model: str
    """The base as its user named it."""
    model_fingerprint: Sha256
    architecture: str
    dtype: Literal["float16", "bfloat16", "float32", "float64"]
    site: str
    """Path of the down-projection, with ``{layer}``."""
    layer: Count
    orientation: Literal["out_in", "in_out"]
    weight_before: Sha256
    weight_edited: Sha256
    """Hash of the weight as it was audited: what applying the file must give, to the bit."""
    id: Annotated[str, Field(min_length=1)]
    subject: Annotated[str, Field(min_length=1)]
    prompt: str
    target_new: str
    editor: str
    reasons: list[str]
    """Why the guard made the edit as it did."""
    update_norm: float
    relative_norm: float
    needs_prefix: bool
    prefix: str | None = None
    """The text to put before a prompt that begins with the subject; measured with the edit in place."""
    families: dict[str, Rate]
    """Exact efficacy under held-out prefixes, by family."""
    seed: int
    statistics_sha256: Sha256
    """Of C, by which the update was made."""
    policy_sha256: Sha256
    audit: AuditEvidence | None = None
    """None where no log was given: then no control shows that the edit's checks work."""

    @model_validator(mode="after")
    def _can_be_served(self) -> DeltaManifest:
        if self.needs_prefix != bool(self.prefix):
            raise ValueError("a prefix must be given where the edit needs one, and nowhere else")
        return self


class ExportedEdit(Model):
    """One delta file of an export."""

    file: str
    sha256: Sha256
    edit: DeltaManifest


class ExportIndex(Model):
    """What an export wrote; each edit was audited alone, on the unedited model."""

    schema_version: Literal[1] = 1
    edits: list[ExportedEdit]


AuditStatus: TypeAlias = Literal["no", "alone", "each-alone"]


def audit_status(edits: Sequence[DeltaManifest]) -> AuditStatus:
    """Return how far these edits, together in one model, were audited."""
    if any(edit.audit is None or not edit.audit.controls_ok for edit in edits):
        return "no"
    return "alone" if len(edits) == 1 else "each-alone"


class EditProvenance(Model):
    """Where an edited model comes from."""

    schema_version: Literal[1] = 1
    editguard_version: str
    created: str
    base: str
    base_fingerprint: Sha256
    fingerprint: Sha256
    """Of the edited model as it was saved and loaded again."""
    audited: AuditStatus
    """``no``: an edit has no audit whose controls held; ``each-alone``: nobody has audited the sum."""
    edits: list[DeltaManifest]
    files: list[str]
    """Paths of all files beside this one; a folder that holds others is not replaced."""


def _files_of_export(content: bytes) -> list[str]:
    return [entry.file for entry in ExportIndex.model_validate_json(content, strict=True).edits]


def _files_of_model(content: bytes) -> list[str]:
    return EditProvenance.model_validate_json(content, strict=True).files


EXPORT_MARKER = Marker("editguard-export.json", _files_of_export)
"""Stands in a folder of delta files."""

MODEL_MARKER = Marker("editguard.json", _files_of_model)
"""Stands in the folder of an edited model."""
