"""The exceptions of the reports, and the exit code that belongs to each.

::

    ReportError                    2   base of these
    ├── LogError                   2   a log that cannot be read or may not be written: file, line, rule and way out
    │   ├── DuplicateRecord        2   an id that is there twice, in a log or a baseline
    │   └── NotFiniteRecord        2   NaN or infinity where a log or a baseline holds a number
    ├── OutputError                2   a file that cannot be written: no room, no permission
    ├── AllowanceError             2   how much worse a metric may be, said wrongly
    └── BaselineError              2   a baseline or an override that is not there or cannot be read
        └── BaselineRefused        1   an audit that is no sound reference

This room imports nothing else of editguard's, so that a log can be read without the rest of the program; its errors
carry an `exit_code` as all others do.
"""

from __future__ import annotations

__all__ = [
    "AllowanceError",
    "BaselineError",
    "BaselineRefused",
    "DuplicateRecord",
    "LogError",
    "NotFiniteRecord",
    "OutputError",
    "ReportError",
]


class ReportError(Exception):
    """Base of what this room raises on purpose."""

    exit_code = 2


class LogError(ReportError):
    """A log cannot be read, or may not be written to; the message names file, line, rule and way out."""


class DuplicateRecord(LogError):
    """An id stands in a log or a baseline twice, so that it is not known which record counts."""


class NotFiniteRecord(LogError):
    """A log or a baseline holds NaN or infinity; whoever measures writes null where there is no number."""


class OutputError(ReportError):
    """A file cannot be written; the message names it, and the reason that the system gives."""


class AllowanceError(ReportError):
    """An allowance names no metric, or gives no amount that it can be compared by."""


class BaselineError(ReportError):
    """A baseline or an override is not there, cannot be read, or has a name that it may not have."""


class BaselineRefused(BaselineError):
    """An audit is no sound reference, so it is not saved as a baseline."""

    exit_code = 1
