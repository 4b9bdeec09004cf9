"""The exceptions of the reports, and the exit code that belongs to each.

::

    LogError      2   a log that cannot be read or may not be written: file, line, rule and way out

This room imports nothing else of editguard's, so that a log can be read without the rest of the program; its errors
carry an `exit_code` as all others do.
"""

from __future__ import annotations

__all__ = ["LogError"]


class LogError(Exception):
    """A log cannot be read, or may not be written to; the message names file, line, rule and way out."""

    exit_code = 2
