"""The records beside an edit that leaves the machine: the model it belongs to, and the evidence for it.

`DeltaManifest` lies in each delta file's metadata, `ExportIndex` beside the files, `EditProvenance` beside an edited model.
All are closed to unknown fields, as the log is. Each is read by its `from_json`, which converts what version 1 wrote: there an
edit had one site.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from ...reports.log.types import Count, Model, Rate
from ..folders.whole_folder import Marker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "EXPORT_MARKER",
    "MODEL_MARKER",
    "AuditEvidence",
    "DeltaManifest",
    "DeltaSite",
    "ExportIndex",
    "ExportedEdit",
    "EditProvenance",
    "audit_status",
    "is_whole_sequence",
]

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class AuditEvidence(Model):
    """The audit that made the same edit: its log's hash, its verdict, and whether its controls held."""

    log_sha256: Sha256
    verdict: Literal["pass", "fail"]
    """Of the whole audit, which other edits may have failed; this edit passed."""
    controls_ok: bool


class DeltaSite(Model):
    """The change of the weight at one site."""

    layer: Count
    path: str
    """Path of the down-projection, with ``{layer}``."""
    orientation: Literal["out_in", "in_out"]
    rank: Annotated[int, Field(ge=1)]
    """Columns of each of the two factors."""
    weight_before: Sha256
    weight_edited: Sha256
    """Hash of the weight as it was audited: what applying the file must give, to the bit."""
    update_norm: float
    relative_norm: float
    """||Delta|| / ||W||."""
    statistics_sha256: Sha256 | None = None
    """Hash of C of this site; None where its change was made without, or before this was recorded."""


class DeltaManifest(Model):
    """One edit of one or more weights: where it belongs, how it was made, and how it must be served."""

    schema_version: Literal[2] = 2
    editguard_version: str
    created: str
    model: str
    """The base as its user named it."""
    model_fingerprint: Sha256
    architecture: str
    dtype: Literal["float16", "bfloat16", "float32", "float64"]
    sites: Annotated[list[DeltaSite], Field(min_length=1)]
    """The changed weights, from the lowest layer up."""
    id: Annotated[str, Field(min_length=1)]
    subject: Annotated[str, Field(min_length=1)]
    prompt: str
    target_new: str
    editor: str
    reasons: list[str]
    """Why the guard made the edit as it did."""
    update_norm: float
    """||Delta|| over all sites: the root of the sum of their squares."""
    relative_norm: float
    """The root of the sum of the squares of the sites' ||Delta|| / ||W||."""
    needs_prefix: bool
    prefix: str | None = None
    """The text to put before a prompt that begins with the subject; measured with the edit in place."""
    families: dict[str, Rate]
    """Exact efficacy under held-out prefixes, by family."""
    seed: int
    statistics_sha256: Sha256
    """Of C at the main site; each site has its own."""
    policy_sha256: Sha256
    sequence: Annotated[int, Field(ge=1)] | None = None
    """Its place, from 1, in the sequence that it was audited in, on the weights that the edits before it left; None: alone."""
    sequence_length: Annotated[int, Field(ge=1)] | None = None
    """The number of edits of that sequence."""
    audit: AuditEvidence | None = None
    """None where no log was given: then no control shows that the edit's checks work."""

    @model_validator(mode="after")
    def _can_be_served(self) -> DeltaManifest:
        if self.needs_prefix != bool(self.prefix):
            raise ValueError("a prefix must be given where the edit needs one, and nowhere else")
        return self

    @model_validator(mode="after")
    def _has_distinct_sites(self) -> DeltaManifest:
        places = [(site.layer, site.path) for site in self.sites]
        if places != sorted(set(places)):
            raise ValueError("sites must be distinct and sorted by layer")
        return self

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the manifest of a delta file of any version; raises `ValidationError`."""
        return cls.model_validate_json(_convert(text, _upgrade_manifest), strict=True)


class ExportedEdit(Model):
    """One delta file of an export."""

    file: str
    sha256: Sha256
    edit: DeltaManifest


class ExportIndex(Model):
    """What an export wrote: edits that were made alone, on the unedited model, or all those of one sequence."""

    schema_version: Literal[2] = 2
    edits: list[ExportedEdit]

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the index of an export of any version; raises `ValidationError`."""
        return cls.model_validate_json(_convert(text, _upgrade_index), strict=True)


AuditStatus: TypeAlias = Literal["no", "alone", "each-alone", "together"]


def audit_status(edits: Sequence[DeltaManifest]) -> AuditStatus:
    """Return how far these edits, together in one model, were audited."""
    if any(edit.audit is None or not edit.audit.controls_ok for edit in edits):
        return "no"
    if is_whole_sequence(edits):
        return "together"
    return "alone" if len(edits) == 1 else "each-alone"


def is_whole_sequence(edits: Sequence[DeltaManifest]) -> bool:
    """Return whether `edits` are all edits of one sequence, in order."""
    places = [(edit.sequence, edit.sequence_length) for edit in edits]
    logs = {edit.audit and edit.audit.log_sha256 for edit in edits}
    return bool(edits) and len(logs) == 1 and places == [(place, len(edits)) for place in range(1, len(edits) + 1)]


class EditProvenance(Model):
    """Where an edited model comes from."""

    schema_version: Literal[2] = 2
    editguard_version: str
    created: str
    base: str
    base_fingerprint: Sha256
    fingerprint: Sha256
    """Of the edited model as it was saved and loaded again."""
    audited: AuditStatus
    """``no``: an edit has no audit whose controls held; ``each-alone``: nobody has audited the sum; ``together``: in sequence."""
    edits: list[DeltaManifest]
    files: list[str]
    """Paths of all files beside this one; a folder that holds others is not replaced."""

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the provenance of a saved model of any version; raises `ValidationError`."""
        return cls.model_validate_json(_convert(text, _upgrade_provenance), strict=True)


_OF_SITE = ("layer", "orientation", "weight_before", "weight_edited")


def _convert(text: str | bytes, upgrade: Callable[[dict[str, Any]], dict[str, Any]]) -> str | bytes:
    """Return JSON of version 1 as this version has it; whatever else it is, it stays, and is judged as it is."""
    try:
        plain = json.loads(text)
        return json.dumps(upgrade(plain)) if _is_first_version(plain) else text
    except (ValueError, RecursionError):
        return text


def _is_first_version(plain: Any) -> bool:
    return isinstance(plain, dict) and type(plain.get("schema_version")) is int and plain["schema_version"] == 1


def _upgrade_manifest(plain: Any) -> Any:
    """Return a manifest of version 1 as one of this version. What is missing stays missing, and is refused as it would be."""
    if not _is_first_version(plain) or "sites" in plain:
        return plain
    site = {name: plain[name] for name in (*_OF_SITE, "update_norm", "relative_norm") if name in plain}
    if "site" in plain:
        site["path"] = plain["site"]
    rest = {name: value for name, value in plain.items() if name not in (*_OF_SITE, "site")}
    return {**rest, "schema_version": 2, "sites": [{**site, "rank": 1}]}


def _upgrade_index(plain: dict[str, Any]) -> dict[str, Any]:
    entries = plain.get("edits")
    if not isinstance(entries, list):
        return plain
    upgraded = [
        {**entry, "edit": _upgrade_manifest(entry.get("edit"))} if isinstance(entry, dict) else entry
        for entry in entries
    ]
    return {**plain, "schema_version": 2, "edits": upgraded}


def _upgrade_provenance(plain: dict[str, Any]) -> dict[str, Any]:
    edits = plain.get("edits")
    if not isinstance(edits, list):
        return plain
    return {**plain, "schema_version": 2, "edits": [_upgrade_manifest(edit) for edit in edits]}


def _files_of_export(content: bytes) -> list[str]:
    return [entry.file for entry in ExportIndex.from_json(content).edits]


def _files_of_model(content: bytes) -> list[str]:
    return EditProvenance.from_json(content).files


EXPORT_MARKER = Marker("editguard-export.json", _files_of_export)
"""Stands in a folder of delta files."""

MODEL_MARKER = Marker("editguard.json", _files_of_model)
"""Stands in the folder of an edited model."""
