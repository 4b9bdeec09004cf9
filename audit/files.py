"""Names of the files that an audit leaves in its folder; here alone, so that they can be asked for without a model."""

from __future__ import annotations

__all__ = ["EDITS", "JUNIT", "LOG", "MARKDOWN", "MEASUREMENTS", "REPORT", "SARIF", "SUMMARY", "WRITTEN"]

LOG, SUMMARY, REPORT = "audit.jsonl", "summary.json", "report.html"
JUNIT, SARIF, MARKDOWN = "junit.xml", "results.sarif", "summary.md"
EDITS, MEASUREMENTS = "edits.parquet", "measurements.parquet"
WRITTEN = (LOG, SUMMARY, REPORT, JUNIT, SARIF, MARKDOWN, EDITS, MEASUREMENTS)
"""All of them, the log first."""
