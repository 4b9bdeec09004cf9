"""Drift is the real change of the weights, after the cast to their dtype."""

from __future__ import annotations

import math

import pytest
import torch
from editguard.suites.check import Outcome
from editguard.suites.checks.drift import Drift

from ...helpers.check_benches import bench_of, disturb, edit_of
from ...helpers.tiny_models import TWIN_REQUEST, tiny_language_model


@pytest.mark.tiny
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(
    ("size", "outcome"), [(0.0, Outcome.FAIL), (0.29, Outcome.PASS), (0.31, Outcome.FAIL), (50.0, Outcome.FAIL)]
)
def test_drift_is_the_share_of_the_weights_norm(family: str, size: float, outcome: Outcome) -> None:
    bench = bench_of(tiny_language_model(family))
    disturb(bench, 3, size)
    verdict, each = (
        Drift().measure(bench, edit_of(TWIN_REQUEST, Drift().prepare(bench, [TWIN_REQUEST])[0])).measurements
    )
    assert verdict.value == pytest.approx(size, rel=1e-5)
    assert verdict.outcome is outcome
    assert each.value == pytest.approx(size * float(bench.weight.norm()) / bench.weight.numel(), rel=1e-5)
    assert each.outcome is Outcome.INFO


@pytest.mark.tiny
def test_drift_edit_rounded_away_by_the_cast_fails() -> None:
    lm = tiny_language_model("llama")
    lm.model.to(torch.bfloat16)
    bench = bench_of(lm)
    disturb(bench, 3, 1e-5)
    assert Drift().measure(bench, edit_of(TWIN_REQUEST, None)).measurements[0].outcome is Outcome.FAIL


@pytest.mark.tiny
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_drift_weight_not_finite_is_unmeasured(bad: float) -> None:
    bench = bench_of(tiny_language_model("llama"))
    bench.site.write(torch.full_like(bench.weight, bad))
    for item in Drift().measure(bench, edit_of(TWIN_REQUEST, None)).measurements:
        assert (item.outcome, item.value) == (Outcome.UNMEASURED, None)
