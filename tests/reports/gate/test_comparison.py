"""What changed between two audits: paired by edit, the same whichever way records lie, and nothing against oneself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from editguard.reports.gate.comparison import Comparison, MetricChange, compare
from editguard.reports.gate.metrics import Metric
from editguard.reports.log.file import Log
from hypothesis import given, settings
from hypothesis import strategies as st

from ...helpers.audit_logs import audit, lost, ratio, refused, saved, times, with_edits


def against(before: Log, after: Log) -> Comparison:
    return compare(saved(before), saved(after), ("main@1", "build"))


def change(found: Comparison, metric: Metric) -> MetricChange:
    (one,) = (one for one in found.metrics if one.metric == metric)
    return one


def test_against_itself_nothing_changed() -> None:
    found = against(audit(), audit())
    assert len(found.metrics) >= 8
    for one in found.metrics:
        assert one.worse == 0
        assert one.low in (0, None)
        assert one.high in (0, None)
    assert (found.edits, found.missing, found.new, found.changed_requests, found.notes) == ([], [], [], [], [])
    assert found.paired == 14


@given(st.permutations(range(14)), st.permutations(range(14)))
@settings(max_examples=4, deadline=None)
def test_the_order_of_edits_does_not_matter(first: list[int], second: list[int]) -> None:
    before, after = audit(), with_edits(audit(), times(1.03), range(0, 14, 3))
    shuffled = against(
        replace(before, edits=tuple(before.edits[i] for i in first)),
        replace(after, edits=tuple(after.edits[i] for i in second)),
    )
    assert shuffled == against(before, after)


def test_a_rate_is_pooled_over_the_pairs_and_compared_in_points() -> None:
    one = change(against(audit(), with_edits(audit(), lost(), [0, 1])), Metric.EFFICACY_PREFIXED)
    assert (one.before, one.pairs) == (1.0, 14)
    assert one.after == pytest.approx(12 / 14)
    assert one.worse == pytest.approx(2 / 14)
    assert one.low is not None
    assert one.high is not None
    assert one.low <= one.worse <= one.high


def test_a_ratio_is_compared_relatively_and_the_worst_without_an_interval() -> None:
    found = against(audit(), with_edits(audit(), times(1.1), range(14)))
    one, worst = (change(found, metric) for metric in (Metric.PERPLEXITY_RATIO, Metric.WORST_PERPLEXITY_RATIO))
    assert one.worse == pytest.approx(0.1)
    assert (one.low, one.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert worst.worse == pytest.approx(0.1)
    assert (worst.low, worst.high) == (None, None)


def test_only_edits_of_both_that_ask_for_the_same_are_paired() -> None:
    log = audit()
    after = replace(log, edits=log.edits[2:])
    other = with_edits(after, lambda edit: edit.model_copy(update={"target_new": "Rome"}), [0])
    found = against(replace(log, edits=log.edits[:-1]), other)
    assert (found.missing, found.new) == (["case-0000", "case-0001"], ["case-0013"])
    assert (found.changed_requests, found.paired) == (["case-0002"], 10)


def test_edits_that_met_another_end_are_named_with_its_direction() -> None:
    found = against(audit(), with_edits(with_edits(audit(), refused, [1]), ratio(30.0), [2]))
    assert [(one.id, one.kind, one.after) for one in found.edits] == [
        ("case-0001", "worse", "refused"),
        ("case-0002", "worse", "allowed (rome), collapsed"),
    ]
    back = against(with_edits(audit(), ratio(30.0), [2]), audit())
    assert [(one.id, one.kind) for one in back.edits] == [("case-0002", "better")]


def test_other_conditions_are_told() -> None:
    after = audit(layer=6, editguard_version="0.2.0")
    after = replace(after, header=after.header.model_copy(update={"seed": 1}))
    notes = " ".join(against(audit(), after).notes)
    assert "seed is another: 0, now 1" in notes
    assert "layer is another: 5, now 6" in notes
    assert "0.2.0" in notes


def test_a_metric_without_a_pair_is_there_and_says_nothing() -> None:
    after = with_edits(audit(), ratio(None), range(14))
    one = change(against(audit(), after), Metric.PERPLEXITY_RATIO)
    assert (one.pairs, one.before, one.after, one.worse) == (0, None, None, None)
