"""The log of an audit as evidence for edits that are exported; it is read without torch, before a model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...probes.errors import EditRefused, InputError
from ...reports.verdict.digest import summarise
from ...reports.verdict.edit_sequence import sequence_reasons
from ...reports.verdict.reasons import incomplete_reasons
from ..gate.evaluate import LoadedLog, read_audit

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_evidence"]


def read_evidence(path: Path, *, in_sequence: bool = False) -> LoadedLog:
    """Read the log of a finished, sound audit of edits made alone, or `in_sequence`.

    Raises `EditRefused`, `InputError` and `ReportError`.
    """
    loaded = read_audit(path)
    log = loaded.log
    if log.footer is None or log.torn:
        raise EditRefused(
            f"The log {str(path)!r} is unfinished (it has no footer), so it proves nothing about any edit; finish the audit "
            "by running it again into its folder."
        )
    if log.header.edited is not None:
        raise InputError(
            f"The log {str(path)!r} is of a checkpoint, and an export holds edits that editguard made; give the log of an audit "
            "without --edited."
        )
    if log.header.in_sequence and not in_sequence:
        raise InputError(
            f"The log {str(path)!r} is of edits in sequence, each judged with others in the model; add --in-sequence to export "
            "all of them together, or audit them without it."
        )
    if in_sequence and not log.header.in_sequence:
        raise InputError(
            f"The log {str(path)!r} is of edits that were made alone, and nobody has judged them in sequence; audit them with "
            "--in-sequence, or export them without it."
        )
    if in_sequence and (faults := [*sequence_reasons(log), *incomplete_reasons(log)]):
        raise EditRefused(f"The sequence of {str(path)!r} did not pass, so it does not ship: {faults[0]}")
    if summarise(log).verdict not in ("pass", "fail"):
        raise EditRefused(f"The audit {str(path)!r} is void, so it proves nothing about any edit; audit again.")
    return loaded
