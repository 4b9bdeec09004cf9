"""Files that a reproduction keeps between its runs."""

from __future__ import annotations

from pathlib import Path

from editguard.audit.research.reproduction.cases import CaseKind, CaseSelection
from editguard.audit.research.reproduction.layer_shifts import LayerShifts
from editguard.audit.research.reproduction.run import load_kept_selection
from editguard.audit.research.reproduction.stamp import check_stamp
from editguard.probes.research.layer_sweep import LayerShift

from ...helpers.reproduction_data import make_experiment, make_reproduction, make_skipped_experiment

__all__ = ["STAMP", "KINDS", "CHOICES", "SHIFTS", "RESULT", "RESULTS", "read_choice"]

STAMP = {"model": "tiny 0123456789ab", "seed": "0", "policy probes": "[]"}
KINDS = {"first": CaseKind.FIRST, "ordinary": CaseKind.ORDINARY}
CHOICES = [
    CaseSelection(stamp=STAMP, probed=2, unusable=0, found={CaseKind.FIRST: 1}, kinds=KINDS, left_out=left)
    .model_dump_json()
    .encode()
    for left in (None, ["ordinary"])
]
SHIFTS = [
    LayerShifts(stamp=STAMP, source="text", ids=[*KINDS], layers={0: [LayerShift(0.1, 0.2, 0.3)] * 2})
    .model_dump_json()
    .encode()
]
RESULT = make_reproduction(make_experiment(), make_skipped_experiment())
RESULTS = [RESULT.model_dump_json().encode()]


def read_choice(path: Path) -> CaseSelection | None:
    """Read a choice and compare its stamp with that of another run, whose error repeats both."""
    result = load_kept_selection(path)
    if result is not None:
        check_stamp("The reproduction", result.stamp, STAMP)
    return result
