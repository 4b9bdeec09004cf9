"""Paired answers, McNemar's exact test and Newcombe's interval, against published figures and an exact sum."""

from __future__ import annotations

import math

import pytest
from editguard.probes.errors import EditguardError
from editguard.suites.tasks.comparison import PairedAnswers, bound_change, compute_p_value, pair_answers
from hypothesis import given
from hypothesis import strategies as st


def pairs_of(both: int, lost: int, gained: int, neither: int) -> PairedAnswers:
    return PairedAnswers(both=both, lost=tuple(range(lost)), gained=tuple(range(gained)), neither=neither, unmeasured=0)


def test_pair_answers_sorts_each_item_into_one_group() -> None:
    before = [True, True, False, False, None, True]
    after = [True, False, True, False, True, None]
    pairs = pair_answers(before, after)
    assert (pairs.both, pairs.lost, pairs.gained, pairs.neither, pairs.unmeasured) == (1, (1,), (2,), 1, 2)
    assert (pairs.measured, pairs.before, pairs.after) == (4, 2, 2)


def test_pair_answers_of_other_items_is_an_error() -> None:
    with pytest.raises(EditguardError, match="2 items of a task and the edited model 1"):
        pair_answers([True, False], [True])


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # Bentur et al. 2009 and Cavo et al. 2012, as in Fagerland, Lydersen and Laake, Statistical Analysis of Contingency
        # Tables (2017), chapter 8: "Newcombe square-and-add". There the first share minus the second, here the other way round.
        ((1, 1, 7, 12), 0.026, 0.507),
        ((59, 6, 16, 80), 0.0046, 0.1186),
    ],
)
def test_bound_change_of_a_published_table_is_the_published_interval(
    table: tuple[int, int, int, int], low: float, high: float
) -> None:
    digits = 3 if low > 0.01 else 4
    assert [round(bound, digits) for bound in bound_change(pairs_of(*table))] == [low, high]


tables = st.tuples(*[st.integers(0, 60)] * 4).filter(any)


@given(tables)
def test_bound_change_holds_the_difference_and_turns_with_the_models(table: tuple[int, int, int, int]) -> None:
    both, lost, gained, neither = table
    low, high = bound_change(pairs_of(*table))
    assert -1 <= low <= (gained - lost) / sum(table) <= high <= 1
    other = bound_change(pairs_of(both, gained, lost, neither))
    assert (-other.high, -other.low) == pytest.approx((low, high), abs=1e-12)


def test_bound_change_is_tighter_with_more_items_and_less_confidence() -> None:
    few, many = bound_change(pairs_of(40, 3, 2, 5)), bound_change(pairs_of(400, 30, 20, 50))
    assert few.low < many.low < many.high < few.high
    assert bound_change(pairs_of(40, 3, 2, 5), confidence=0.8).low > few.low


def test_bound_change_without_an_item_is_an_error() -> None:
    with pytest.raises(EditguardError, match="No item"):
        bound_change(pairs_of(0, 0, 0, 0))


@given(st.integers(0, 60), st.integers(0, 60))
def test_compute_p_value_is_the_sum_of_the_tails(lost: int, gained: int) -> None:
    count, most = lost + gained, max(lost, gained)
    tail = sum(math.comb(count, k) for k in range(most, count + 1)) / 2**count
    expected = 1.0 if lost == gained else min(1.0, 2 * tail)
    assert compute_p_value(lost, gained) == pytest.approx(expected)


def test_compute_p_value_equals_that_of_statsmodels() -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    for lost, gained in ((0, 1), (6, 1), (7, 1), (16, 6)):
        reference = tables.mcnemar([[59, lost], [gained, 80]], exact=True).pvalue
        assert compute_p_value(lost, gained) == pytest.approx(reference)
