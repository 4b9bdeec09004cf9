"""Drift is the real change of the weights, after the cast to their dtype."""

from __future__ import annotations

import math

import pytest
import torch
from editguard.suites.check import Outcome
from editguard.suites.checks.drift import Drift

from ...helpers.check_benches import bench_of, disturb, edit_of, unedited
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
    assert each.value == pytest.approx(size * float(unedited(bench).norm()) / unedited(bench).numel(), rel=1e-5)
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
    bench.lowest_site.write(torch.full_like(unedited(bench), bad))
    for item in Drift().measure(bench, edit_of(TWIN_REQUEST, None)).measurements:
        assert (item.outcome, item.value) == (Outcome.UNMEASURED, None)


@pytest.mark.tiny
def test_drift_of_two_sites_judges_the_whole_and_shows_each() -> None:
    bench = bench_of(tiny_language_model("llama"), 0, further=(1,))
    shares = (0.03, 0.04)
    for weight, share in zip(bench.weights, shares, strict=True):
        weight.site.write(weight.matrix(torch.float64) * (1 + share))
    verdict, _, *each = Drift().measure(bench, edit_of(TWIN_REQUEST, None)).measurements
    assert verdict.value == pytest.approx(0.05, rel=1e-5)
    assert verdict.outcome is Outcome.PASS
    assert [row.value for row in each] == pytest.approx(shares, rel=1e-5)
    assert [row.condition for row in each] == [f"weights:{site.path}" for site in bench.sites]
    assert all(row.outcome is Outcome.INFO for row in each)
    assert all(site.path in verdict.message for site in bench.sites)


@pytest.mark.tiny
def test_drift_change_of_one_site_rounded_away_fails() -> None:
    bench = bench_of(tiny_language_model("llama"), 0, further=(1,))
    disturb(bench, 3, 0.1)
    assert Drift().measure(bench, edit_of(TWIN_REQUEST, None)).measurements[0].outcome is Outcome.FAIL
