"""The tables of a reproduction as files: CSV for spreadsheets, Parquet for programs.

A column has one type in Parquet: whole numbers, numbers, truth values, or text for mixed kinds. A missing value is null
in Parquet and empty in CSV. A lone surrogate, which UTF-8 cannot hold, is written as its escape (``\\ud800``).
Pandas is imported when a table is written.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

from ..log.file import remove_unfinished_files, write_atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .schema import Cell, Reproduction, Table

__all__ = ["escape_surrogates", "remove_tables", "write_tables"]

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""A spreadsheet runs a text that begins with one of these, or drops the character and runs the rest."""

_CSV: Final = ".csv"
_PARQUET: Final = ".parquet"

_INT64: Final = range(-(2**63), 2**63)


def write_tables(folder: Path, reproduction: Reproduction) -> list[Path]:
    """Write each table as ``<folder>/<name>.csv`` and ``<name>.parquet``, and return the paths.

    Each file is written whole or not at all. Raises `OutputError` if a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for table in (table for experiment in reproduction.experiments for table in experiment.tables):
        for suffix, content in ((_CSV, _encode_csv(table)), (_PARQUET, _encode_parquet(table))):
            path = folder / f"{table.name}{suffix}"
            write_atomic(path, content)
            paths.append(path)
    return paths


def remove_tables(folder: Path, earlier: Reproduction | None, reproduction: Reproduction) -> None:
    """Remove the files of tables of an `earlier` run from `folder` that `reproduction` does not have.

    Unfinished files of both runs are removed too. Files that no run wrote stay.
    """
    old, new = _name_tables(earlier), _name_tables(reproduction)
    remove_unfinished_files(folder, [f"{name}{suffix}" for name in old | new for suffix in (_CSV, _PARQUET)])
    for name in old - new:
        for suffix in (_CSV, _PARQUET):
            (folder / f"{name}{suffix}").unlink(missing_ok=True)


def _name_tables(reproduction: Reproduction | None) -> set[str]:
    experiments = reproduction.experiments if reproduction else []
    return {table.name for experiment in experiments for table in experiment.tables}


def _encode_csv(table: Table) -> str:
    # Cells are texts here, without a type of the column: so an int among floats, or beyond 64 bits, stays exact.
    import pandas

    rows = [[_format_csv_cell(cell) for cell in row] for row in table.rows]
    frame = pandas.DataFrame(rows, columns=[_format_csv_cell(name) for name in table.columns], dtype=object)
    # Pandas quotes a carriage return inside a cell only if lines end in one too, as in RFC 4180.
    text: str = frame.to_csv(index=False, lineterminator="\r\n")
    return text


def _format_csv_cell(cell: Cell) -> str:
    if not isinstance(cell, str):
        return "" if cell is None else str(cell)
    return escape_surrogates(f"'{cell}" if cell.startswith(_FORMULA) else cell)


def _encode_parquet(table: Table) -> bytes:
    import pandas

    columns = {
        escape_surrogates(name): _make_series([row[index] for row in table.rows])
        for index, name in enumerate(table.columns)
    }
    content = io.BytesIO()
    pandas.DataFrame(columns, index=pandas.RangeIndex(len(table.rows))).to_parquet(content, index=False)
    return content.getvalue()


def _make_series(cells: Sequence[Cell]) -> Any:
    import pandas

    dtype = _choose_type([cell for cell in cells if cell is not None])
    if dtype != "string":
        return pandas.Series(cells, dtype=dtype)
    return pandas.Series([None if cell is None else escape_surrogates(str(cell)) for cell in cells], dtype=dtype)


def _choose_type(cells: Sequence[Cell]) -> str:
    """Return the nullable type that holds all of `cells` without a change."""
    kinds = {type(cell) for cell in cells}
    if kinds == {bool}:
        return "boolean"
    fits = all(cell in _INT64 for cell in cells if isinstance(cell, int))
    if kinds == {int} and fits:
        return "Int64"
    return "Float64" if kinds and kinds <= {int, float} and fits else "string"


def escape_surrogates(text: str) -> str:
    """Return `text` with each lone surrogate as its escape, so that UTF-8 can hold it."""
    return text.encode(errors="backslashreplace").decode()
