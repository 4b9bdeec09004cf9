"""Files that a reproduction keeps between its runs: read, or refused in one sentence, and never trusted blindly."""

from __future__ import annotations

from pathlib import Path

from editguard.audit.research.reproduction.cases import Chosen, Kind
from editguard.audit.research.reproduction.layer_shifts import LayerShifts, kept_shifts
from editguard.audit.research.reproduction.run import TABLES, kept_choice, kept_result
from editguard.audit.research.reproduction.stamp import refuse_another
from editguard.probes.research.layer_sweep import LayerShift
from editguard.reports.reproduction.schema import Reproduction
from editguard.reports.reproduction.tables import remove_tables
from hypothesis import given

from ..helpers.reproduction_data import experiment, reproduction, skipped
from .harness import FUZZ_SETTINGS, read_or_refuse, spoil

STAMP = {"model": "tiny 0123456789ab", "seed": "0", "policy probes": "[]"}
KINDS = {"first": Kind.FIRST, "ordinary": Kind.ORDINARY}
CHOICES = [
    Chosen(stamp=STAMP, probed=2, unusable=0, found={Kind.FIRST: 1}, kinds=KINDS, left_out=left)
    .model_dump_json()
    .encode()
    for left in (None, ["ordinary"])
]
SHIFTS = [
    LayerShifts(stamp=STAMP, source="text", ids=[*KINDS], layers={0: [LayerShift(0.1, 0.2, 0.3)] * 2})
    .model_dump_json()
    .encode()
]
RESULT = reproduction(experiment(), skipped())
RESULTS = [RESULT.model_dump_json().encode()]


@FUZZ_SETTINGS
@given(content=spoil(CHOICES))
def test_cases_spoilt_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cases.json"
    path.write_bytes(content)
    read_or_refuse(lambda: read_choice(path), tmp_path)


def read_choice(path: Path) -> Chosen | None:
    """Read a choice and compare its stamp with that of another run, whose error repeats both."""
    result = kept_choice(path)
    if result is not None:
        refuse_another("The reproduction", result.stamp, STAMP)
    return result


@FUZZ_SETTINGS
@given(content=spoil(SHIFTS))
def test_layer_shifts_spoilt_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    path.write_bytes(content)
    assert isinstance(read_or_refuse(lambda: kept_shifts(path), tmp_path), LayerShifts | None)


@FUZZ_SETTINGS
@given(content=spoil(RESULTS))
def test_reproduction_spoilt_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "reproduction.json"
    path.write_bytes(content)
    result = read_or_refuse(lambda: kept_result(path), tmp_path)
    assert isinstance(result, Reproduction | None)
    # Tables that it names and the next run lacks are removed. Nothing but a table is removed, whatever it names.
    (tmp_path / TABLES).mkdir(exist_ok=True)
    read_or_refuse(lambda: remove_tables(tmp_path / TABLES, result, RESULT), tmp_path)
    (tmp_path / TABLES).rmdir()
