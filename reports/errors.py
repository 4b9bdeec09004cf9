"""The exceptions of the reports, and the exit code that belongs to each.

::

    ReportError          2   base of these
    ├── LogError         2   a log that cannot be read or may not be written: file, line, rule and way out
    └── OutputError      2   a file that cannot be written: no room, no permission

This room imports nothing else of editguard's, so that a log can be read without the rest of the program; its errors
carry an `exit_code` as all others do.
"""

from __future__ import annotations

__all__ = ["LogError", "OutputError", "ReportError"]


class ReportError(Exception):
    """Base of what this room raises on purpose."""

    exit_code = 2


class LogError(ReportError):
    """A log cannot be read, or may not be written to; the message names file, line, rule and way out."""


class OutputError(ReportError):
    """A file cannot be written; the message names it, and the reason that the system gives."""
