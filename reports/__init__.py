"""What happened, for a reader? The versioned log of an audit, and pure functions from it to digest and HTML.

In this order: `LogWriter` writes records of `schema` to a file, `read_log` reads them back, `summarise` gives the one
verdict over them, `digest.digest` all that a page shows, and `render_html` the page. This room imports nothing else
of editguard's. Importing it loads nothing; each name loads its module when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .digest import Digest as Digest
    from .digest import summarise as summarise
    from .errors import LogError as LogError
    from .errors import OutputError as OutputError
    from .errors import ReportError as ReportError
    from .html import render_html as render_html
    from .log import Log as Log
    from .log import LogWriter as LogWriter
    from .log import read_log as read_log
    from .log import write_atomic as write_atomic
    from .schema import ControlRecord as ControlRecord
    from .schema import EditRecord as EditRecord
    from .schema import Footer as Footer
    from .schema import Header as Header
    from .schema import Rate as Rate
    from .summary import Summary as Summary

_HOME = {
    "LogError": "errors",
    "OutputError": "errors",
    "ReportError": "errors",
    "Header": "schema",
    "EditRecord": "schema",
    "ControlRecord": "schema",
    "Footer": "schema",
    "Rate": "schema",
    "Summary": "summary",
    "Log": "log",
    "LogWriter": "log",
    "read_log": "log",
    "write_atomic": "log",
    "Digest": "digest",
    "summarise": "digest",
    "render_html": "html",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    """Load the module that `name` lives in."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
