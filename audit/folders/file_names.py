"""The names of the files that commands write; `output_folder` makes and locks their folder. Loads nothing heavy."""

from __future__ import annotations

__all__ = [
    "AUDIT_FILES",
    "DIFF",
    "DIFF_PAGE",
    "EDITS",
    "JUNIT",
    "LOG",
    "MARKDOWN",
    "MEASUREMENTS",
    "REPORT",
    "SARIF",
    "SUMMARY",
    "TRACE",
    "TRACE_PAGE",
]

LOG, SUMMARY, REPORT = "audit.jsonl", "summary.json", "report.html"
JUNIT, SARIF, MARKDOWN = "junit.xml", "results.sarif", "summary.md"
EDITS, MEASUREMENTS = "edits.parquet", "measurements.parquet"
AUDIT_FILES = (LOG, SUMMARY, REPORT, JUNIT, SARIF, MARKDOWN, EDITS, MEASUREMENTS)
"""All of an audit, the log first."""
DIFF, DIFF_PAGE = "diff.json", "diff.html"
TRACE, TRACE_PAGE = "trace.json", "trace.html"
