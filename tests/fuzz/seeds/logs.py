"""Logs, a baseline and overrides."""

from __future__ import annotations

from pathlib import Path

from editguard.probes.requests.loader import LoadedRequests
from editguard.probes.requests.request import EditRequest
from editguard.reports.gate.baseline import build_baseline
from editguard.reports.gate.result import Override
from editguard.reports.log.file import Log

from ...helpers.audit_logs import make_audit

__all__ = ["AUDIT", "LOGS", "BASELINE", "OVERRIDE", "REQUESTS", "OVERRIDES"]


def _lines(log: Log) -> bytes:
    records = [log.header, *log.edits, *log.controls, *([] if log.footer is None else [log.footer])]
    return b"".join(record.model_dump_json().encode() + b"\n" for record in records)


AUDIT = make_audit(3)
OLD = Path(__file__).parents[2] / "reports" / "log" / "first_version" / "audit.jsonl"
LOGS = [
    _lines(AUDIT),
    _lines(Log(AUDIT.header, AUDIT.edits[:1], AUDIT.controls[:1], None)),
    b"".join(OLD.read_bytes().splitlines(keepends=True)[:2]),
]
BASELINE = build_baseline(AUDIT, None).to_json().encode()
OVERRIDE = Override(
    time="2026-01-01T00:00:00+00:00",
    author="a",
    reason="r",
    baseline="main@1",
    baseline_sha256="0" * 64,
    log_sha256="1" * 64,
    closings=["regressed:efficacy"],
)
REQUESTS = LoadedRequests(
    requests=tuple(EditRequest(record.id, record.subject, record.prompt, record.target_new) for record in AUDIT.edits),
    invalid=(),
    source="edits.json",
    sha256="0" * 64,
)
OVERRIDES = f"{OVERRIDE.model_dump_json()}\n".encode() * 2
