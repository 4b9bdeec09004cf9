"""The files beside an audit's log: each is a pure function of the log, so that `report` can write it again.

Out of scope: the content of the files; each has a module of its own in the room `reports`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from ...reports.html.report_page import render_html
from ...reports.log.file import Log, read_log, write_atomic
from ...reports.outputs.junit import render_junit
from ...reports.outputs.markdown import render_markdown
from ...reports.outputs.parquet import edits_table, measurements_table
from ...reports.outputs.sarif import render_sarif
from ...reports.verdict.digest import summarise
from ..folders.file_names import EDITS, JUNIT, LOG, MARKDOWN, MEASUREMENTS, REPORT, SARIF, SUMMARY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ...reports.gate.result import Gate, Override
    from ...reports.verdict.summary import Summary

__all__ = ["OUTPUTS", "write_outputs"]


def _summary(log: Log) -> str:
    return summarise(log).model_dump_json(indent=2) + "\n"


OUTPUTS: Final[Mapping[str, Callable[[Log], str | bytes]]] = {
    SUMMARY: _summary,
    REPORT: render_html,
    JUNIT: render_junit,
    SARIF: render_sarif,
    MARKDOWN: render_markdown,
    EDITS: edits_table,
    MEASUREMENTS: measurements_table,
}
"""File name to the function of the log that gives its content, in the order of writing."""


def write_outputs(
    folder: Path, log: Path | None = None, *, gate: Gate | None = None, overrides: Sequence[Override] = ()
) -> Summary:
    """Write all `OUTPUTS` from the log alone, which lies in `folder` unless it is named, and return the summary.

    Page, JUnit and Markdown also show the decision of a `gate` about the log, or else the `overrides` on record for it.
    """
    loaded = read_log(log or folder / LOG)
    with_gate: dict[str, Callable[[Log], str | bytes]] = {
        REPORT: partial(render_html, gate=gate, overrides=overrides),
        JUNIT: partial(render_junit, gate=gate, overrides=overrides),
        MARKDOWN: partial(render_markdown, gate=gate, overrides=overrides),
    }
    contents: dict[str, Callable[[Log], str | bytes]] = {**OUTPUTS, **with_gate}
    for name, content in contents.items():
        write_atomic(folder / name, content(loaded))
    return summarise(loaded)
