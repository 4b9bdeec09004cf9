"""The log of an audit as evidence for edits that are exported; it is read without torch, before a model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...probes.errors import EditRefused, InputError
from ...reports.verdict.digest import summarise
from ..gate.evaluate import LoadedLog, read_audit

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_evidence"]


def read_evidence(path: Path) -> LoadedLog:
    """Read the log of a finished, sound audit of edits made alone; raises `EditRefused`, `InputError` and `ReportError`."""
    loaded = read_audit(path)
    log = loaded.log
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
    return loaded
