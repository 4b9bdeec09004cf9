"""Rows and Markdown of a comparison: the metric's own direction, and text of users without marks."""

from __future__ import annotations

from editguard.reports.gate.allowances import read_allowances
from editguard.reports.gate.comparison import compare
from editguard.reports.gate.comparison_rows import compare_markdown, comparison_rows, gate_markdown
from editguard.reports.gate.decision import judge_gate
from editguard.reports.gate.metrics import Metric

from ...helpers.audit_logs import change_edits, fail_measurement, make_audit, make_baseline, scale_ratio

BEFORE = make_baseline(make_audit(60))
AFTER = make_baseline(
    change_edits(change_edits(make_audit(60), fail_measurement(), range(3)), scale_ratio(1.02), range(60))
)
FOUND = compare(BEFORE, AFTER, ("main@1", "build"))


def test_comparison_rows_show_movement_of_the_metric() -> None:
    shown = {row.metric: row for row in comparison_rows(FOUND, read_allowances().limits)}
    rate, ratio = shown["efficacy-prefixed"], shown["perplexity-ratio"]
    assert (rate.difference, rate.allowed, rate.word) == ("−5.00 pp", "−2 pp", "worse")
    assert rate.interval.startswith("−")
    assert (ratio.difference, ratio.allowed, ratio.word) == ("+2.00 %", "+1 %", "worse")
    assert shown["answers-unprefixed"].difference == "0.00 pp"
    assert Metric.EFFICACY_PREFIXED_TOKEN_MATCH.value not in shown  # nobody judges it


def test_comparison_rows_noise_differs_from_within() -> None:
    comparison = compare(
        BEFORE, make_baseline(change_edits(make_audit(60), fail_measurement(), range(2))), ("main@1", "build")
    )
    moods = {row.metric: row.mood for row in comparison_rows(comparison, read_allowances().limits)}
    assert (moods["efficacy-prefixed"], moods["perplexity-ratio"]) == ("noise", "within")
    assert {row.mood for row in comparison_rows(comparison)} <= {"open", "unmeasured"}


def test_compare_markdown_escapes_names() -> None:
    text = compare_markdown(compare(BEFORE, AFTER, ("<b>|x", "[y](z)")))
    assert "&lt;b&gt;\\|x against \\[y\\](z)" in text
    gate = judge_gate(BEFORE, AFTER, ("a|b", "now"), read_allowances())
    assert "closed against a\\|b" in gate_markdown(gate)
