"""An audit's folder: the names of its files, and whether it can be written to. Loads nothing heavy."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from ..probes.errors import InputError

__all__ = ["LOG", "REPORT", "SUMMARY", "writable"]

LOG, SUMMARY, REPORT = "audit.jsonl", "summary.json", "report.html"


def writable(out: Path) -> None:
    """Make the folder `out` where it is not there; raises `InputError` where nothing can be written to it."""
    if out.exists() and not out.is_dir():
        raise InputError(f"The output {str(out)!r} is a file, and must be a folder; choose another --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        # Permissions do not tell: the file system may be read-only.
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InputError(
            f"The output folder {str(out)!r} cannot be written to ({error.strerror}); choose another --out."
        ) from error
