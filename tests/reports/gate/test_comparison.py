"""What changed between two audits: paired by edit, the same whichever way records lie, and nothing against oneself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from editguard.reports.gate.comparison import Comparison, MetricChange, compare
from editguard.reports.gate.metrics import Metric
from editguard.reports.log.file import Log
from hypothesis import given, settings
from hypothesis import strategies as st

from ...helpers.audit_logs import (
    change_edits,
    fail_measurement,
    make_audit,
    make_baseline,
    refuse,
    scale_ratio,
    set_ratio,
)


def against(before: Log, after: Log) -> Comparison:
    return compare(make_baseline(before), make_baseline(after), ("main@1", "build"))


def change(comparison: Comparison, metric: Metric) -> MetricChange:
    (metric_change,) = (metric_change for metric_change in comparison.metrics if metric_change.metric == metric)
    return metric_change


def test_compare_audit_with_itself_changes_nothing() -> None:
    comparison = against(make_audit(), make_audit())
    assert len(comparison.metrics) >= 8
    for metric_change in comparison.metrics:
        assert metric_change.worse == 0
        assert metric_change.low in (0, None)
        assert metric_change.high in (0, None)
    assert (comparison.edits, comparison.missing, comparison.new, comparison.changed_requests, comparison.notes) == (
        [],
        [],
        [],
        [],
        [],
    )
    assert comparison.paired == 14


@given(st.permutations(range(14)), st.permutations(range(14)))
@settings(max_examples=4, deadline=None)
def test_compare_order_of_edits_does_not_matter(first: list[int], second: list[int]) -> None:
    before, after = make_audit(), change_edits(make_audit(), scale_ratio(1.03), range(0, 14, 3))
    shuffled = against(
        replace(before, edits=tuple(before.edits[i] for i in first)),
        replace(after, edits=tuple(after.edits[i] for i in second)),
    )
    assert shuffled == against(before, after)


def test_compare_metric_rate_is_pooled_in_points() -> None:
    rate = change(
        against(make_audit(), change_edits(make_audit(), fail_measurement(), [0, 1])), Metric.EFFICACY_PREFIXED
    )
    assert (rate.before, rate.pairs) == (1.0, 14)
    assert rate.after == pytest.approx(12 / 14)
    assert rate.worse == pytest.approx(2 / 14)
    assert rate.low is not None
    assert rate.high is not None
    assert rate.low <= rate.worse <= rate.high


def test_compare_metric_ratio_is_relative_and_worst_lacks_interval() -> None:
    comparison = against(make_audit(), change_edits(make_audit(), scale_ratio(1.1), range(14)))
    mean, worst = (change(comparison, metric) for metric in (Metric.PERPLEXITY_RATIO, Metric.WORST_PERPLEXITY_RATIO))
    assert mean.worse == pytest.approx(0.1)
    assert (mean.low, mean.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert worst.worse == pytest.approx(0.1)
    assert (worst.low, worst.high) == (None, None)


def test_pair_edits_same_request_in_both_only() -> None:
    log = make_audit()
    after = replace(log, edits=log.edits[2:])
    other = change_edits(after, lambda edit: edit.model_copy(update={"target_new": "Rome"}), [0])
    comparison = against(replace(log, edits=log.edits[:-1]), other)
    assert (comparison.missing, comparison.new) == (["case-0000", "case-0001"], ["case-0013"])
    assert (comparison.changed_requests, comparison.paired) == (["case-0002"], 10)


def test_compare_other_result_has_its_direction() -> None:
    comparison = against(make_audit(), change_edits(change_edits(make_audit(), refuse, [1]), set_ratio(30.0), [2]))
    assert [(edit_change.id, edit_change.kind, edit_change.after) for edit_change in comparison.edits] == [
        ("case-0001", "worse", "refused"),
        ("case-0002", "worse", "allowed (rome), collapsed"),
    ]
    back = against(change_edits(make_audit(), set_ratio(30.0), [2]), make_audit())
    assert [(edit_change.id, edit_change.kind) for edit_change in back.edits] == [("case-0002", "better")]


def test_compare_other_conditions_are_noted() -> None:
    after = make_audit(layer=6, editguard_version="0.2.0")
    after = replace(after, header=after.header.model_copy(update={"seed": 1}))
    notes = " ".join(against(make_audit(), after).notes)
    assert "seed is another: 0, now 1" in notes
    assert "layer is another: 5, now 6" in notes
    assert "0.2.0" in notes


def test_compare_metric_without_pairs_has_no_figures() -> None:
    after = change_edits(make_audit(), set_ratio(None), range(14))
    mean = change(against(make_audit(), after), Metric.PERPLEXITY_RATIO)
    assert (mean.pairs, mean.before, mean.after, mean.worse) == (0, None, None, None)
