"""The tables of a reproduction as files: CSV for spreadsheets, Parquet for programs.

A column has one type in Parquet: whole numbers, numbers, truth values, or text where kinds are mixed. What is missing
is null there and empty in CSV. A lone surrogate, which UTF-8 cannot hold, is written as its escape (``\\ud800``).
Pandas is imported when a table is written.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ..log.file import remove_unfinished_files, write_atomic
from .schema import Cell, Reproduction, Table

__all__ = ["encodable", "remove_tables", "write_tables"]

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""A text that begins so is run by spreadsheets, or loses its first character and then is."""

_CSV: Final = ".csv"
_PARQUET: Final = ".parquet"

_INT64: Final = range(-(2**63), 2**63)


def write_tables(folder: Path, found: Reproduction) -> list[Path]:
    """Write each table as ``<folder>/<name>.csv`` and ``<name>.parquet``, whole or not at all, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for table in (table for one in found.experiments for table in one.tables):
        for suffix, content in ((_CSV, _csv(table)), (_PARQUET, _parquet(table))):
            path = folder / f"{table.name}{suffix}"
            write_atomic(path, content)
            written.append(path)
    return written


def remove_tables(folder: Path, before: Reproduction | None, found: Reproduction) -> None:
    """Remove the files of tables that an earlier run, `before`, wrote into `folder` and that `found` has not.

    So is what was left half-written of either's. What no run wrote stays.
    """
    old, new = (
        {table.name for one in run.experiments for table in one.tables} if run else set() for run in (before, found)
    )
    remove_unfinished_files(folder, [f"{name}{suffix}" for name in old | new for suffix in (_CSV, _PARQUET)])
    for name in old - new:
        for suffix in (_CSV, _PARQUET):
            (folder / f"{name}{suffix}").unlink(missing_ok=True)


def _csv(table: Table) -> str:
    # Of texts, and not of a frame with types: an int among floats, or beyond 64 bits, stays what it is.
    import pandas

    rows = [[_csv_cell(cell) for cell in row] for row in table.rows]
    frame = pandas.DataFrame(rows, columns=[_csv_cell(name) for name in table.columns], dtype=object)
    # Carriage returns inside a cell are quoted only where lines end in one too, as RFC 4180 has it.
    text: str = frame.to_csv(index=False, lineterminator="\r\n")
    return text


def _csv_cell(cell: Cell) -> str:
    if not isinstance(cell, str):
        return "" if cell is None else str(cell)
    return encodable(f"'{cell}" if cell.startswith(_FORMULA) else cell)


def _parquet(table: Table) -> bytes:
    import pandas

    columns = {encodable(name): _series([row[index] for row in table.rows]) for index, name in enumerate(table.columns)}
    content = io.BytesIO()
    pandas.DataFrame(columns, index=pandas.RangeIndex(len(table.rows))).to_parquet(content, index=False)
    return content.getvalue()


def _series(cells: Sequence[Cell]) -> Any:
    import pandas

    kind = _kind([cell for cell in cells if cell is not None])
    if kind != "string":
        return pandas.Series(cells, dtype=kind)
    return pandas.Series([None if cell is None else encodable(str(cell)) for cell in cells], dtype=kind)


def _kind(cells: Sequence[Cell]) -> str:
    """Return the nullable type that holds all of `cells` without a change."""
    kinds = {type(cell) for cell in cells}
    if kinds == {bool}:
        return "boolean"
    fits = all(cell in _INT64 for cell in cells if isinstance(cell, int))
    if kinds == {int} and fits:
        return "Int64"
    return "Float64" if kinds and kinds <= {int, float} and fits else "string"


def encodable(text: str) -> str:
    """Return text that UTF-8 can hold: a lone surrogate as its escape."""
    return text.encode(errors="backslashreplace").decode()
