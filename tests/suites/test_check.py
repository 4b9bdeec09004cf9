"""What is not finite is unmeasured, whatever the comparison said; counts add up."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from editguard.probes.errors import EditguardError, InputError
from editguard.probes.forward.partial import Row
from editguard.suites.check import CHECKS, ComparedMetric, Measurement, Outcome, judge

from ..helpers.check_benches import bench_of, disturb, edit_of, talkative
from ..helpers.tiny_models import TWIN_REQUEST


@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_judge_value_not_finite_is_unmeasured(value: float, passes: bool) -> None:
    assert judge(value, passes) is Outcome.UNMEASURED


def test_judge_finite_value_passes_or_fails() -> None:
    assert judge(0.0, True) is Outcome.PASS
    assert judge(0.0, False) is Outcome.FAIL


def test_measurement_total_is_the_sum_of_the_counts() -> None:
    assert (
        Measurement(check="c", metric="m", value=0.5, outcome=Outcome.INFO, passed=2, failed=3, not_judged=4).total == 9
    )
    assert Measurement(check="c", metric="m", value=None, outcome=Outcome.UNMEASURED).total == 0


@pytest.mark.tiny
@pytest.mark.parametrize("size", [0.0, 0.01, 3.0])
def test_checks_judged_figure_says_its_side_of_the_bound(size: float) -> None:
    request = replace(TWIN_REQUEST, neighbourhood=("Paris is not",), other_facts=("Istanbul is a city of",))
    bench, checked = bench_of(talkative()), []
    checks = [check() for _, check in CHECKS]
    befores = [check.prepare(bench, [request])[0] for check in checks]
    disturb(bench, seed=1, size=size)
    for check, before in zip(checks, befores, strict=True):
        for row in check.measure(bench, edit_of(request, before)).measurements:
            if row.outcome in (Outcome.PASS, Outcome.FAIL):
                side = "inside" if row.outcome is Outcome.PASS else "outside"
                assert f", {side} the bound (" in row.message, (check.name, row)
                checked.append(check.name)
    assert {"perplexity", "efficacy", "locality", "other-facts", "aftermath", "degeneracy", "drift"} <= {*checked}


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "Polite"},
        {"name": "tone/polite"},
        {"name": ""},
        {"allowance": -0.1},
        {"allowance": math.nan},
        {"allowance": 1.5},
        {"kind": "ratio", "allowance": math.inf},
    ],
    ids=str,
)
def test_compared_metric_wrong_field_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="metric"):
        ComparedMetric(**({"name": "polite", "metric": "polite"} | fields))


def test_compared_metric_ratio_may_allow_more_than_its_double() -> None:
    assert ComparedMetric(name="length", metric="length", kind="ratio", allowance=1.5).allowance == 1.5


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_measurement_helper_without_a_finite_value_has_none(value: float | None) -> None:
    row = CHECKS.get("drift")().measurement("relative-drift", value, Outcome.UNMEASURED, condition="weights")
    assert (row.check, row.metric, row.value, row.condition) == ("drift", "relative-drift", None, "weights")


@pytest.mark.tiny
def test_bench_stem_of_an_edited_model_is_refused() -> None:
    bench = bench_of(talkative())
    disturb(bench, 1)
    with pytest.raises(EditguardError, match="take stems in prepare"):
        bench.stem([Row((1, 2, 3), 0, (2,))])
