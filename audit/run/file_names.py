"""An audit's folder: the names of its files, and whether it can be written to. Loads nothing heavy."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from ...probes.errors import InputError

__all__ = ["EDITS", "JUNIT", "LOG", "MARKDOWN", "MEASUREMENTS", "REPORT", "SARIF", "SUMMARY", "AUDIT_FILES", "writable"]

LOG, SUMMARY, REPORT = "audit.jsonl", "summary.json", "report.html"
JUNIT, SARIF, MARKDOWN = "junit.xml", "results.sarif", "summary.md"
EDITS, MEASUREMENTS = "edits.parquet", "measurements.parquet"
AUDIT_FILES = (LOG, SUMMARY, REPORT, JUNIT, SARIF, MARKDOWN, EDITS, MEASUREMENTS)
"""All of them, the log first."""


def writable(out: Path, *, inside: bool = False) -> None:
    """Make the folder `out`, for its owner only, where it is not there; raises `InputError` where nothing can be written to it.

    One `inside` a folder of ours may be no link; the outermost one is the user's to choose.
    """
    if out.is_symlink() and inside:
        raise InputError(
            f"The folder {str(out)!r} is a link, which may lead anywhere; remove it, or choose another --out."
        )
    if out.exists() and not out.is_dir():
        raise InputError(f"The output {str(out)!r} is a file, and must be a folder; choose another --out.")
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Permissions do not tell: the file system may be read-only.
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InputError(
            f"The output folder {str(out)!r} cannot be written to ({error.strerror}); choose another --out."
        ) from error
