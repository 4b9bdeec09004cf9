"""The interval is the percentile bootstrap's, whatever the block that it is computed in."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from editguard.reports.gate import bootstrap
from editguard.reports.gate.bootstrap import paired_interval, unchanged_share
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ...helpers.examples import count_examples


def share(sums: np.ndarray) -> np.ndarray:
    shares: np.ndarray = sums[..., 0] / sums[..., 1]
    return shares


def test_paired_interval_agrees_with_scipy() -> None:
    rng = np.random.default_rng(5)
    columns = np.stack([rng.integers(0, 18, 40), np.full(40, 17)], axis=1).astype(float)
    interval = paired_interval(columns, share)
    theirs = stats.bootstrap(
        (columns[:, 0], columns[:, 1]),
        lambda passed, total, axis: passed.sum(axis) / total.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert interval.low == pytest.approx(theirs.low, abs=0.005)
    assert interval.high == pytest.approx(theirs.high, abs=0.005)


def test_paired_interval_agrees_with_every_possible_draw() -> None:
    columns = np.array([[0.0, 1.0], [1.3, 1.0], [2.1, 1.0], [3.7, 1.0], [4.4, 1.0]])
    means = columns[np.array([*itertools.product(range(5), repeat=5)]), 0].mean(axis=1)
    exact = np.quantile(means, [0.05, 0.95])
    assert paired_interval(columns, share, resamples=100_000) == pytest.approx(tuple(exact), abs=0.05)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=30))
@settings(max_examples=count_examples(40), deadline=None)
def test_paired_interval_holds_middle_and_repeats(rows: list[tuple[int, int]]) -> None:
    columns = np.array(rows, dtype=float)
    low, high = paired_interval(columns, share, resamples=400)
    values = columns[:, 0] / columns[:, 1]
    assert values.min() - 1e-9 <= low <= high <= values.max() + 1e-9
    assert (low, high) == paired_interval(columns, share, resamples=400)


def test_paired_interval_many_edits_are_drawn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = np.stack([np.arange(50.0), np.ones(50)], axis=1)
    whole = paired_interval(columns, share)
    monkeypatch.setattr(bootstrap, "_CELLS", 501)
    assert paired_interval(columns, share) == pytest.approx(whole, abs=0.5)


def test_paired_interval_equal_differences_have_no_width() -> None:
    assert paired_interval(np.full((20, 2), 0.5), share) == (1.0, 1.0)


def test_paired_interval_without_edits_is_refused() -> None:
    with pytest.raises(ValueError, match="no edit"):
        paired_interval(np.empty((0, 2)), share)


@pytest.mark.parametrize(
    ("differences", "share"), [([0, 0, 1, 1], 1 / 16), ([0, 0, -1, 0], 81 / 256), ([0, 0], 1), ([1, -1], None)]
)
def test_unchanged_share_is_exact(differences: list[float], share: float | None) -> None:
    assert unchanged_share(np.array(differences)) == share
    draws = np.array([*itertools.product(differences, repeat=len(differences))])
    assert share is None or share == (draws == 0).all(axis=1).mean()
