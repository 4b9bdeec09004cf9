"""The exceptions of the reports, and the exit code that belongs to each.

::

    EditguardError                 3   of `probes.errors`, the one root
    └── ReportError                2   base of these
        ├── LogError               2   a log that cannot be read or may not be written: file, line, rule and way out
        │   ├── DuplicateRecord    2   an id that stands twice in a log or a baseline
        │   └── NotFiniteRecord    2   NaN or infinity where a log or a baseline holds a number
        ├── OutputError            2   a file that cannot be written: no room, no permission
        ├── AllowanceError         2   an allowance that names no metric or gives no usable amount
        └── BaselineError          2   a baseline or an override that does not exist or cannot be read
            └── BaselineRefused    1   an audit that is no sound reference

`probes.errors` is the only module of another room that the reports import: it needs the standard library alone, so a log can
be read without the rest of the program.
"""

from __future__ import annotations

from ..probes.errors import EditguardError

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


class ReportError(EditguardError):
    """Base of every error that the reports raise on purpose."""

    exit_code = 2


class LogError(ReportError):
    """A log cannot be read or may not be written. The message names file, line, rule and way out."""


class DuplicateRecord(LogError):
    """An id stands twice in a log or a baseline, so nothing says which record counts."""


class NotFiniteRecord(LogError):
    """A log or a baseline holds NaN or infinity. A writer puts null where there is no number."""


class OutputError(ReportError):
    """A file cannot be written. The message names the file and the system's reason."""


class AllowanceError(ReportError):
    """An allowance names no metric, or its amount does not fit the metric."""


class BaselineError(ReportError):
    """A baseline or an override does not exist, cannot be read, or has a forbidden name."""


class BaselineRefused(BaselineError):
    """An audit is no sound reference, so no baseline is saved."""

    exit_code = 1
