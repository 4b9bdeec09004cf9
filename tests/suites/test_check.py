"""What is not finite is unmeasured, whatever the comparison said; counts add up."""

from __future__ import annotations

import math

import pytest
from editguard.suites.check import Measurement, Outcome, judge


@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_unmeasured(value: float, passes: bool) -> None:
    assert judge(value, passes) is Outcome.UNMEASURED


def test_a_finite_value_passes_or_fails() -> None:
    assert judge(0.0, True) is Outcome.PASS
    assert judge(0.0, False) is Outcome.FAIL


def test_the_total_is_all_that_was_asked_for() -> None:
    assert Measurement("c", "m", 0.5, Outcome.INFO, passed=2, failed=3, not_judged=4).total == 9
    assert Measurement("c", "m", None, Outcome.UNMEASURED).total == 0
