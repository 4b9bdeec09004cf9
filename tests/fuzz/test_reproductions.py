"""What a reproduction keeps between its runs: read, or told in one sentence what is wrong with it, and never acted on blindly."""

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
from .harness import FUZZED, spoilt, told_or_read

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


@FUZZED
@given(content=spoilt(CHOICES))
def test_cases_spoilt_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cases.json"
    path.write_bytes(content)
    told_or_read(lambda: read_choice(path), tmp_path)


def read_choice(path: Path) -> Chosen | None:
    """Read a choice and hold its stamp to that of another run, whose error repeats both."""
    found = kept_choice(path)
    if found is not None:
        refuse_another("The reproduction", found.stamp, STAMP)
    return found


@FUZZED
@given(content=spoilt(SHIFTS))
def test_layer_shifts_spoilt_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    path.write_bytes(content)
    assert isinstance(told_or_read(lambda: kept_shifts(path), tmp_path), LayerShifts | None)


@FUZZED
@given(content=spoilt(RESULTS))
def test_reproduction_spoilt_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "reproduction.json"
    path.write_bytes(content)
    found = told_or_read(lambda: kept_result(path), tmp_path)
    assert isinstance(found, Reproduction | None)
    # Tables that it names and the next run has not are removed; nothing but a table is, whatever it names.
    (tmp_path / TABLES).mkdir(exist_ok=True)
    told_or_read(lambda: remove_tables(tmp_path / TABLES, found, RESULT), tmp_path)
    (tmp_path / TABLES).rmdir()
