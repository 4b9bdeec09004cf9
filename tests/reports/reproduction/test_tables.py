"""Tables read back from their files unchanged, types included, and no cell of a CSV file runs as a formula."""

from __future__ import annotations

import csv
import stat
from pathlib import Path
from typing import Any

import pandas
import pytest
from editguard.reports.errors import OutputError
from editguard.reports.reproduction.schema import Cell
from editguard.reports.reproduction.tables import remove_tables, write_tables
from hypothesis import given
from hypothesis import strategies as st

from ...helpers.reproduction_data import make_experiment, make_reproduction, make_skipped_experiment, make_table


def write_table(folder: Path, rows: list[list[Cell]], columns: list[str] | None = None) -> Path:
    """Write one table, and return its path without the suffix."""
    names = columns or [f"c{n}" for n in range(len(rows[0]))]
    write_tables(folder, make_reproduction(make_experiment(tables=[make_table(name="t", columns=names, rows=rows)])))
    return folder / "t"


def parquet(path: Path) -> list[list[Any]]:
    frame = pandas.read_parquet(path.with_suffix(".parquet"))
    rows = frame.astype(object).to_numpy().tolist()
    return [[None if pandas.isna(cell) else cell for cell in row] for row in rows]


def lines(path: Path) -> list[list[str]]:
    with path.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_write_tables_writes_two_private_files_each(tmp_path: Path) -> None:
    reproduction = make_reproduction(
        make_experiment(tables=[make_table(), make_table(name="more")]), make_skipped_experiment()
    )
    paths = write_tables(tmp_path / "new" / "tables", reproduction)
    assert [path.name for path in paths] == ["counts.csv", "counts.parquet", "more.csv", "more.parquet"]
    assert sorted((tmp_path / "new" / "tables").iterdir()) == sorted(paths)
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}


def test_write_tables_again_replaces_the_files(tmp_path: Path) -> None:
    write_table(tmp_path, [["old"]])
    path = write_table(tmp_path, [["new"]])
    assert (lines(path), parquet(path)) == ([["c0"], ["new"]], [["new"]])


def test_write_tables_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_table(tmp_path, [["old"]])

    def full(self: Path, target: Path) -> Path:
        raise OSError("no room")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match=r"t\.csv cannot be written \(no room\)"):
        write_table(tmp_path, [["new"]])
    assert lines(path) == [["c0"], ["old"]]
    assert len(list(tmp_path.iterdir())) == 2


def test_remove_tables_removes_only_files_of_dropped_tables(tmp_path: Path) -> None:
    before = make_reproduction(make_experiment(tables=[make_table(), make_table(name="gone")]))
    now = make_reproduction(make_experiment(tables=[make_table(), make_table(name="new")]))
    write_tables(tmp_path, before)
    (tmp_path / "mine.csv").touch()
    remove_tables(tmp_path, before, now)
    assert {path.name for path in tmp_path.iterdir()} == {"counts.csv", "counts.parquet", "mine.csv"}
    remove_tables(tmp_path, before, now)
    remove_tables(tmp_path, None, now)


@pytest.mark.parametrize(
    ("cells", "kind", "back"),
    [
        ([1, None, -3], "Int64", [1, None, -3]),
        ([1, 2.5, None], "Float64", [1.0, 2.5, None]),
        ([True, None, False], "boolean", [True, None, False]),
        (["a", None, ""], "string", ["a", None, ""]),
        (["a", 1, 2.5, True, None], "string", ["a", "1", "2.5", "True", None]),
        ([True, 1], "string", ["True", "1"]),
        ([2**63, 1], "string", ["9223372036854775808", "1"]),
        ([2**63 - 1, None], "Int64", [2**63 - 1, None]),
        ([None, None], "string", [None, None]),
        (["\ud800", "é\u202e"], "string", ["\\ud800", "é\u202e"]),
    ],
)
def test_write_tables_parquet_column_keeps_its_type(
    tmp_path: Path, cells: list[Cell], kind: str, back: list[Any]
) -> None:
    path = write_table(tmp_path, [[cell] for cell in cells])
    assert [row[0] for row in parquet(path)] == back
    types = pandas.read_parquet(path.with_suffix(".parquet")).dtypes
    assert str(types.iloc[0]) in {kind, "str", "object"} if kind == "string" else str(types.iloc[0]) == kind


def test_write_tables_csv_numbers_keep_every_digit(tmp_path: Path) -> None:
    path = write_table(tmp_path, [[0.1 + 0.2, 21919], [1e-300, None], [-2.5, -7]])
    assert lines(path) == [["c0", "c1"], ["0.30000000000000004", "21919"], ["1e-300", ""], ["-2.5", "-7"]]
    assert pandas.read_csv(path.with_suffix(".csv"))["c0"].tolist() == pytest.approx([0.3, 1e-300, -2.5])


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_write_tables_formula_is_defused_only_in_csv(tmp_path: Path, start: str) -> None:
    text = f"{start}HYPERLINK(A1)"
    path = write_table(tmp_path, [[text, -1], ["plain =1+1", -2.5]], [f"{start}c0", "c1"])
    assert lines(path) == [[f"'{start}c0", "c1"], [f"'{text}", "-1"], ["plain =1+1", "-2.5"]]
    assert parquet(path) == [[text, -1.0], ["plain =1+1", -2.5]]


def test_write_tables_without_rows_or_columns(tmp_path: Path) -> None:
    nothing = make_table(name="nothing", columns=[], rows=[])
    write_tables(tmp_path, make_reproduction(make_experiment(tables=[make_table(rows=[]), nothing])))
    assert lines(tmp_path / "counts") == [["Model", "n", "Share"]]
    assert list(pandas.read_parquet(tmp_path / "counts.parquet").columns) == ["Model", "n", "Share"]
    assert pandas.read_parquet(tmp_path / "nothing.parquet").shape == (0, 0)


CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
)


@given(rows=st.lists(st.tuples(CELLS, CELLS).map(list), min_size=1, max_size=6))
def test_write_tables_any_cells_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[list[Cell]]) -> None:
    path = write_table(tmp_path_factory.mktemp("any"), rows)
    back = parquet(path)
    assert len(back) == len(lines(path)) - 1 == len(rows)
    for row, read in zip(rows, back, strict=True):
        for cell, other in zip(row, read, strict=True):
            assert (other is None) == (cell is None)
            assert other == cell or other == str(cell)
