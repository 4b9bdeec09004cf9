"""How a gate stands and exits, and by what name a ground for closing is lifted."""

from __future__ import annotations

import pytest
from editguard.reports.gate.metrics import Metric
from editguard.reports.gate.result import ACCEPTABLE, OVERRIDABLE, ClosingReason, Gate, Override, ReasonCode

OVERRIDE = Override(
    time="2026-01-01T00:00:00+00:00",
    author="Ada",
    reason="seen",
    baseline="main",
    baseline_sha256="0" * 64,
    log_sha256="1" * 64,
    closings=["regressed"],
)


@pytest.mark.parametrize(
    ("is_open", "override", "standing", "code"),
    [
        (True, None, "open", 0),
        (True, OVERRIDE, "override", 0),
        (False, None, "closed", 1),
        # An override on record that does not open the gate leaves it closed.
        (False, OVERRIDE, "closed", 1),
    ],
)
def test_gate_standing_and_exit_code(is_open: bool, override: Override | None, standing: str, code: int) -> None:
    gate = Gate(open=is_open, baseline="main", closings=[], accepted=[], override=override, allowed={})
    assert (gate.standing, gate.exit_code) == (standing, code)


def test_closing_reason_key_has_its_metric() -> None:
    assert ClosingReason(reason=ReasonCode.AUDIT_VOID, message="void").key == "audit-void"
    closing = ClosingReason(reason=ReasonCode.REGRESSED, message="worse", metric=Metric.LOCALITY_UNPREFIXED)
    assert closing.key == f"regressed:{Metric.LOCALITY_UNPREFIXED.value}"


def test_overridable_reasons_have_evidence() -> None:
    never = {"unreadable", "no-baseline", "duplicate-edits", "not-finite", "audit-unfinished", "audit-void", "no-cases"}
    assert {reason.value for reason in set(ReasonCode) - OVERRIDABLE} == never
    assert {reason.value for reason in ACCEPTABLE} == {"missing-edits", "new-edits"}
