"""The log of an audit: its schema, and the file that holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_names

if TYPE_CHECKING:
    from .file import Log as Log
    from .file import LogWriter as LogWriter
    from .file import append_line as append_line
    from .file import log_bytes as log_bytes
    from .file import parse_log as parse_log
    from .file import read_log as read_log
    from .file import read_unfinished_log as read_unfinished_log
    from .file import remove_unfinished_files as remove_unfinished_files
    from .file import rewrite_log as rewrite_log
    from .file import write_atomic as write_atomic

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Log": ".file",
        "LogWriter": ".file",
        "append_line": ".file",
        "log_bytes": ".file",
        "read_unfinished_log": ".file",
        "parse_log": ".file",
        "read_log": ".file",
        "rewrite_log": ".file",
        "remove_unfinished_files": ".file",
        "write_atomic": ".file",
    },
)
