"""Names of the files that an audit leaves in its folder; here alone, so that they can be asked for without a model."""

from __future__ import annotations

__all__ = ["LOG", "REPORT", "SUMMARY", "WRITTEN"]

LOG, SUMMARY, REPORT = "audit.jsonl", "summary.json", "report.html"
WRITTEN = (LOG, SUMMARY, REPORT)
