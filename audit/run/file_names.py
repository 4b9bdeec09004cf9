"""The names of the files in an audit's folder; `output_folder` makes and locks the folder. Loads nothing heavy."""

from __future__ import annotations

__all__ = ["EDITS", "JUNIT", "LOG", "MARKDOWN", "MEASUREMENTS", "REPORT", "SARIF", "SUMMARY", "AUDIT_FILES"]

LOG, SUMMARY, REPORT = "audit.jsonl", "summary.json", "report.html"
JUNIT, SARIF, MARKDOWN = "junit.xml", "results.sarif", "summary.md"
EDITS, MEASUREMENTS = "edits.parquet", "measurements.parquet"
AUDIT_FILES = (LOG, SUMMARY, REPORT, JUNIT, SARIF, MARKDOWN, EDITS, MEASUREMENTS)
"""All of them, the log first."""
