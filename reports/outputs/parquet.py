"""A log as two tables for notebooks: edits, and measurements in long form; Parquet, written through pandas.

Columns and their types are fixed, whatever is in the log, so that the tables of many audits can be put together. A missing
measurement is null. Controls are left out, so that a mean over a column is a mean over edits. Pandas is imported when a table
is written.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, Final

from ..reproduction.tables import escape_surrogates
from ..verdict.digest import digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..log.file import Log
    from ..log.schema import EditBody, Update
    from ..verdict.edit_summary import EditSummary

__all__ = ["EDITS", "MEASUREMENTS", "edits_table", "measurements_table"]

EDITS: Final[Mapping[str, str]] = {
    "id": "string",
    "index": "Int64",
    "group": "string",
    "subject": "string",
    "prompt": "string",
    "target_new": "string",
    "target_true": "string",
    "decision": "string",
    "editor": "string",
    "first_token": "boolean",
    "denominator": "Float64",
    "denominator_prefixed": "Float64",
    "denominator_ratio": "Float64",
    "cosine": "Float64",
    "norm_ratio": "Float64",
    "numerator": "Float64",
    "update_denominator": "Float64",
    "update_norm": "Float64",
    "relative_norm": "Float64",
    "steps": "Int64",
    "final_loss": "Float64",
    "changes": "string",
    "needs_prefix": "boolean",
    "perplexity_ratio": "Float64",
    "collapsed": "boolean",
    "outcome": "string",
    "verdict": "string",
    "result": "string",
    "faults": "string",
    "restored_ok": "boolean",
    "kept": "boolean",
    "seconds": "Float64",
}
"""Columns of the table of edits, one row an edit, with their pandas types."""

MEASUREMENTS: Final[Mapping[str, str]] = {
    "id": "string",
    "index": "Int64",
    "group": "string",
    "decision": "string",
    "check": "string",
    "metric": "string",
    "condition": "string",
    "protocol": "string",
    "value": "Float64",
    "baseline": "Float64",
    "threshold": "Float64",
    "unit": "string",
    "passed": "Int64",
    "failed": "Int64",
    "not_judged": "Int64",
    "total": "Int64",
    "verdict": "string",
    "message": "string",
}
"""Columns of the table of measurements, one row an edit, check, metric, condition and protocol."""


def edits_table(log: Log) -> bytes:
    """Return one row an edit, with the columns of `EDITS`, as Parquet."""
    return _parquet(EDITS, [_edit(story) for story in digest(log).edits])


def measurements_table(log: Log) -> bytes:
    """Return one row a measurement of an edit, with the columns of `MEASUREMENTS`, as Parquet."""
    rows = [
        {**_head(edit.record), "decision": edit.decision.value, **measurement.model_dump()}
        for edit in digest(log).edits
        for measurement in edit.record.measurements
    ]
    return _parquet(MEASUREMENTS, rows)


def _head(record: EditBody) -> dict[str, Any]:
    return {"id": record.id, "index": record.index, "group": record.group}


def _edit(edit: EditSummary) -> dict[str, Any]:
    record, keys, update = edit.record, edit.record.keys, edit.record.update
    request_fields = record.model_dump(
        include={"subject", "prompt", "target_new", "target_true", "outcome", "verdict", "seconds"}
    )
    return {
        **_head(record),
        **request_fields,
        **({} if keys is None else keys.model_dump(include=EDITS.keys() & type(keys).model_fields)),
        **({} if update is None else _update(update)),
        "editor": record.decision.editor if update is None else update.editor,
        "decision": edit.decision.value,
        "perplexity_ratio": edit.ratio,
        "collapsed": None if edit.ratio is None and not edit.collapsed else edit.collapsed,
        "result": edit.result.value,
        "faults": "; ".join(edit.faults) or None,
        "restored_ok": None if record.weights is None else record.weights.restored_ok,
        "kept": None if record.weights is None else record.weights.kept,
    }


def _update(update: Update) -> dict[str, Any]:
    """Return the columns of an update; figures of one value are empty where an edit has several sites, each with its own."""
    figures = update.changes[0].model_dump() if len(update.changes) == 1 else {}
    return {
        **{name: figures.get(name) for name in ("numerator", "steps", "final_loss")},
        "update_denominator": figures.get("denominator"),
        "update_norm": update.update_norm,
        "relative_norm": update.relative_norm,
        "needs_prefix": update.needs_prefix,
        "changes": json.dumps([change.model_dump() for change in update.changes]),
    }


def _parquet(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pandas

    content = io.BytesIO()
    frame = pandas.DataFrame(
        {name: pandas.Series([_cell(row.get(name)) for row in rows], dtype=kind) for name, kind in columns.items()}
    )
    frame.to_parquet(content, index=False)
    return content.getvalue()


def _cell(value: Any) -> Any:
    return escape_surrogates(value) if isinstance(value, str) else value
