"""Files that a reproduction keeps between its runs."""

from __future__ import annotations

from pathlib import Path

from editguard.audit.research.reproduction.cases import Chosen, Kind
from editguard.audit.research.reproduction.layer_shifts import LayerShifts
from editguard.audit.research.reproduction.run import kept_choice
from editguard.audit.research.reproduction.stamp import refuse_another
from editguard.probes.research.layer_sweep import LayerShift

from ...helpers.reproduction_data import experiment, reproduction, skipped

__all__ = ["STAMP", "KINDS", "CHOICES", "SHIFTS", "RESULT", "RESULTS", "read_choice"]

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


def read_choice(path: Path) -> Chosen | None:
    """Read a choice and compare its stamp with that of another run, whose error repeats both."""
    result = kept_choice(path)
    if result is not None:
        refuse_another("The reproduction", result.stamp, STAMP)
    return result
