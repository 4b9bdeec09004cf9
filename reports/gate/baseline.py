"""A baseline: the figures of an audit, kept for comparison with later audits. Version 1.

A pure function of the log, and of the state of the working directory that the caller looked up. As a file it is JSON with one
edit a line, sorted keys, and all but ASCII escaped, so that a review sees each change and nothing is hidden. Unknown
fields are errors. Out of scope: numbering and storing files (`audit/gate`).
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field, JsonValue, ValidationError, model_validator

from ..errors import BaselineError, BaselineRefused, DuplicateRecord, NotFiniteRecord
from ..log.header import DeclaredMetric
from ..log.schema import EditRecord, Header
from ..log.types import Count, Model, json_sha256
from ..text import printable, quote_names
from ..verdict.digest import digest
from .metrics import METRICS, MetricValue, metric_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails

    from ..log.file import Log
    from ..verdict.edit_summary import EditSummary

__all__ = [
    "BASELINE_VERSION",
    "Baseline",
    "BaselineEdit",
    "Git",
    "ModelReference",
    "build_baseline",
    "parse_baseline",
    "require_saveable",
]

BASELINE_VERSION: Final = 1

_ANEW = "save it anew from its audit's log with 'editguard baseline save LOG NAME', or audit again with --save-baseline NAME"
_RESTORE = f"restore the file as it was saved, or {_ANEW}"


class Git(Model):
    """Commit of the working directory, and whether tracked files differed from it."""

    commit: str
    dirty: bool


class ModelReference(Model):
    """A model: the user's name for it, and the hash over all its weights."""

    ref: str
    fingerprint: str


class BaselineControl(Model):
    """One control: its known result, and whether it had it."""

    id: str
    expect: Literal["collapse", "sound", "unedited"]
    ok: bool


class BaselineEdit(Model):
    """One edit: its decision, its verdict and its figures.

    `request_sha256` covers the whole request. `checks` passed or failed the edit, also those without a metric.
    """

    id: Annotated[str, Field(min_length=1)]
    request_sha256: str
    decision: Literal["allowed", "rewritten", "refused"]
    editor: str | None
    verdict: Literal["passed", "failed", "refused"]
    collapsed: bool
    checks: list[str]
    metrics: dict[str, MetricValue]

    @property
    def made(self) -> bool:
        """Whether the edit was made, so that there was something to measure."""
        return self.decision != "refused"


class Baseline(Model):
    """The figures of an audit, edit by edit, and its conditions.

    `engine` and `check_dtype` are empty if the log lacks them.
    """

    schema_version: Literal[1] = BASELINE_VERSION
    created: str
    editguard_version: str
    git: Git | None
    model: ModelReference
    layer: Count
    seed: int
    policy: dict[str, JsonValue]
    policy_sha256: str
    source: str
    source_sha256: str
    perplexity_corpus_sha256: str
    statistics_sha256: str | None
    engine: str
    check_dtype: str
    sequence: list[str] = Field(default_factory=list)
    """Ids of edits in sequence, in order; empty if each edit was undone before the next."""
    verdict: Literal["pass", "fail", "void"]
    status: Literal["finished", "unfinished"]
    edits: list[BaselineEdit]
    controls: list[BaselineControl]
    checkpoint: bool = False
    """Whether a checkpoint that another tool edited was audited; the file leaves it out where not."""
    declared: list[DeclaredMetric] = Field(default_factory=list)
    """Metrics of checks of other packages, as the log's header declares them; the file leaves an empty list out."""

    @model_validator(mode="after")
    def _coherent(self) -> Baseline:
        if self.policy_sha256 != json_sha256(self.policy):
            raise ValueError("policy_sha256 is not the hash of policy")
        names = {*METRICS, *(metric.name for metric in self.declared)}
        if unknown := sorted({name for edit in self.edits for name in edit.metrics} - names):
            raise ValueError(f"no metric is called {unknown[0]!r}")
        return self

    def to_json(self) -> str:
        """Return the file's content: one line a field, one line an edit, keys sorted."""
        absent = {name for name in ("declared", "checkpoint") if not getattr(self, name)}
        plain = self.model_dump(mode="json", exclude=absent)
        return "{\n" + ",\n".join(f"{_line(name)}: {_rows(plain[name])}" for name in sorted(plain)) + "\n}\n"


def build_baseline(log: Log, git: Git | None) -> Baseline:
    """Return the baseline of `log`, sound or not; `require_saveable` refuses an unsound one."""
    verdict_digest = digest(log)
    header = log.header
    declared = [metric for card in header.cards for metric in card.metrics]
    return Baseline(
        created=header.created,
        editguard_version=header.editguard_version,
        git=git,
        model=ModelReference(ref=header.model.ref, fingerprint=header.model.fingerprint),
        layer=header.layer,
        seed=header.seed,
        policy=header.policy,
        policy_sha256=header.policy_sha256,
        source=header.source,
        source_sha256=header.source_sha256,
        perplexity_corpus_sha256=header.perplexity_corpus_sha256,
        statistics_sha256=header.statistics.sha256,
        engine=_set(header, "engine"),
        check_dtype=_set(header, "check_dtype"),
        sequence=[record.id for record in log.edits] if header.in_sequence else [],
        verdict=verdict_digest.summary.verdict,
        status=verdict_digest.summary.status,
        edits=sorted((_edit(edit, declared) for edit in verdict_digest.edits), key=lambda edit: edit.id),
        controls=[BaselineControl(id=record.id, expect=record.expect, ok=record.ok) for record in log.controls],
        checkpoint=header.edited is not None,
        declared=declared,
    )


def require_saveable(baseline: Baseline, *, allow_failed: bool = False) -> None:
    """Raise `BaselineRefused` if `baseline` is no sound reference: unfinished, void, or failed without `allow_failed`."""
    if baseline.status == "unfinished":
        raise BaselineRefused(
            "The audit is unfinished, and a baseline must hold all edits; finish the audit, then save it."
        )
    if baseline.checkpoint and not baseline.edits:
        raise BaselineRefused(
            "The audit is of a checkpoint without a file of edits, and a baseline compares edits; audit it with the edits that "
            "it should hold, then save it."
        )
    if baseline.verdict == "void":
        raise BaselineRefused(
            "The audit is void: its controls proved nothing, so its figures prove nothing; run it again, then save it."
        )
    if baseline.verdict == "fail" and not allow_failed:
        raise BaselineRefused(
            "The audit failed, and later audits would be compared with its figures; save one that passed, or add "
            "--allow-failed if this state is the reference."
        )


def parse_baseline(data: bytes, name: str) -> Baseline:
    """Read the bytes of a baseline; `name` is for messages.

    Raises `BaselineError` for a malformed file, for other fields and for a file of a newer editguard, `DuplicateRecord` for an
    id that stands there twice, and `NotFiniteRecord` for a number that is not finite.
    """
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BaselineError(f"The baseline {name} is not JSON ({error}); {_RESTORE}.") from error
    if not isinstance(plain, dict):
        raise BaselineError(f"The baseline {name} must be a JSON object; {_RESTORE}.")
    version = plain.get("schema_version", 0)
    if isinstance(version, int) and version > BASELINE_VERSION:
        raise BaselineError(
            f"The baseline {name} has schema version {version}, and this editguard reads up to {BASELINE_VERSION}; read "
            "it with the editguard that wrote it or newer."
        )
    try:
        baseline = Baseline.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise _malformed(name, error, plain.get("editguard_version")) from error
    ids = [edit.id for edit in baseline.edits]
    if duplicates := [edit_id for edit_id, count in Counter(ids).items() if count > 1]:
        raise DuplicateRecord(
            f"The baseline {name} holds the edit {duplicates[0]!r} twice, and an edit has one record; {_RESTORE}."
        )
    return baseline


def _malformed(name: str, error: ValidationError, writer: object) -> BaselineError | NotFiniteRecord:
    faults = error.errors(include_url=False, include_context=False)
    missing, unknown = (_fields(faults, kind) for kind in ("missing", "extra_forbidden"))
    if missing or unknown:
        differs = " and ".join(
            f"{what} {quote_names(fields)}"
            for what, fields in (("lacks", missing), ("has the unknown", unknown))
            if fields
        )
        by = f" by editguard {printable(writer)}" if isinstance(writer, str) else ""
        return BaselineError(
            f"The baseline {name} was written{by} in another form of the format than this editguard reads: it {differs}; "
            f"{_ANEW}."
        )
    infinite = [fault for fault in faults if fault["type"] == "finite_number"]
    fault = (infinite or faults)[0]
    where = printable(".".join(str(part) for part in fault["loc"])) or "the file"
    kind = NotFiniteRecord if infinite else BaselineError
    return kind(f"The baseline {name}: {where}: {printable(fault['msg'], 300)}; {_RESTORE}.")


def _fields(faults: Sequence[ErrorDetails], kind: str) -> list[str]:
    """Return the fields with one kind of fault, each once, over all edits."""
    fields = (
        printable(".".join(str(part) for part in fault["loc"] if isinstance(part, str)))
        for fault in faults
        if fault["type"] == kind
    )
    return sorted(set(fields))


def _set(header: Header, name: str) -> str:
    return str(header.settings.get(name, ""))


def _edit(edit: EditSummary, declared: Sequence[DeclaredMetric]) -> BaselineEdit:
    record = edit.record
    assert isinstance(record, EditRecord)
    return BaselineEdit(
        id=record.id,
        request_sha256=_request(record),
        decision=edit.decision.value,
        editor=record.decision.editor,
        verdict=edit.result.value,
        collapsed=edit.collapsed,
        checks=sorted(
            {measurement.check for measurement in record.measurements if measurement.verdict in ("pass", "fail")}
        ),
        metrics=metric_values(record, declared),
    )


def _request(record: EditRecord) -> str:
    request_fields = {"subject", "prompt", "target_new", "target_true", "paraphrases", "neighbourhood"}
    return json_sha256(record.model_dump(mode="json", include=request_fields))[:16]


def _line(value: object) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)


def _rows(value: object) -> str:
    if not isinstance(value, list) or not value:
        return _line(value)
    return "[\n" + ",\n".join(f"  {_line(item)}" for item in value) + "\n]"
