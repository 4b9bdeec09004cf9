"""Files that a reproduction keeps between its runs: read, or refused in one sentence, and never trusted blindly."""

from __future__ import annotations

from pathlib import Path

from editguard.audit.research.reproduction.layer_shifts import LayerShifts, load_kept_shifts
from editguard.audit.research.reproduction.run import TABLES, load_kept_result
from editguard.reports.reproduction.schema import Reproduction
from editguard.reports.reproduction.tables import remove_tables
from hypothesis import given

from .harness import FUZZ_SETTINGS, read_or_refuse, spoil
from .seeds.reproductions import CHOICES, RESULT, RESULTS, SHIFTS, read_choice


@FUZZ_SETTINGS
@given(content=spoil(CHOICES))
def test_cases_spoilt_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cases.json"
    path.write_bytes(content)
    read_or_refuse(lambda: read_choice(path), tmp_path)


@FUZZ_SETTINGS
@given(content=spoil(SHIFTS))
def test_layer_shifts_spoilt_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    path.write_bytes(content)
    assert isinstance(read_or_refuse(lambda: load_kept_shifts(path), tmp_path), LayerShifts | None)


@FUZZ_SETTINGS
@given(content=spoil(RESULTS))
def test_reproduction_spoilt_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "reproduction.json"
    path.write_bytes(content)
    result = read_or_refuse(lambda: load_kept_result(path), tmp_path)
    assert isinstance(result, Reproduction | None)
    # Tables that it names and the next run lacks are removed. Nothing but a table is removed, whatever it names.
    (tmp_path / TABLES).mkdir(exist_ok=True)
    read_or_refuse(lambda: remove_tables(tmp_path / TABLES, result, RESULT), tmp_path)
    (tmp_path / TABLES).rmdir()
