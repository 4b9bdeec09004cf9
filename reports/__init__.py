"""What happened, for a reader? The versioned log of an audit, and pure functions from it to digest and HTML.

In this order: `LogWriter` writes records of `log.schema` to a file, `read_log` reads them back, `summarise` gives the one
verdict over them, `verdict.digest` the data of a page, and `render_html` the page. Of the other rooms it imports
`probes.errors` alone. Importing it loads nothing; each name loads its module at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .errors import LogError as LogError
    from .errors import OutputError as OutputError
    from .errors import ReportError as ReportError
    from .html.report_page import render_html as render_html
    from .log.file import Log as Log
    from .log.file import LogWriter as LogWriter
    from .log.file import read_log as read_log
    from .log.file import write_atomic as write_atomic
    from .log.schema import ControlRecord as ControlRecord
    from .log.schema import EditRecord as EditRecord
    from .log.schema import Footer as Footer
    from .log.schema import Header as Header
    from .log.types import Rate as Rate
    from .verdict.digest import Digest as Digest
    from .verdict.digest import summarise as summarise
    from .verdict.summary import Summary as Summary

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "LogError": ".errors",
        "OutputError": ".errors",
        "ReportError": ".errors",
        "ControlRecord": ".log.schema",
        "EditRecord": ".log.schema",
        "Footer": ".log.schema",
        "Header": ".log.schema",
        "Rate": ".log.types",
        "Summary": ".verdict.summary",
        "Log": ".log.file",
        "LogWriter": ".log.file",
        "read_log": ".log.file",
        "write_atomic": ".log.file",
        "Digest": ".verdict.digest",
        "summarise": ".verdict.digest",
        "render_html": ".html.report_page",
    },
)
