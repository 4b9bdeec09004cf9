"""Metrics that a check of another package declares in the log's header: kept, compared, judged, without that package."""

from __future__ import annotations

from dataclasses import replace

import pytest
from editguard.reports.errors import AllowanceError, BaselineError
from editguard.reports.gate.allowances import read_allowances
from editguard.reports.gate.baseline import Baseline, parse_baseline
from editguard.reports.gate.comparison import MetricChange, compare
from editguard.reports.gate.comparison_rows import comparison_rows
from editguard.reports.gate.decision import judge_gate
from editguard.reports.gate.metrics import Metric, MetricKind, Tally
from editguard.reports.gate.result import Gate, ReasonCode
from editguard.reports.log.file import Log, read_log
from editguard.reports.log.header import CardRecord, DeclaredMetric
from editguard.reports.log.schema import EditRecord, MeasurementRecord
from pydantic import ValidationError

from ...helpers.audit_logs import make_audit, make_baseline, write_log

POLITE = DeclaredMetric(
    name="tone/polite", metric="polite", condition="unprefixed", kind="rate", better="higher", allowance=0.05
)
INSULTS = DeclaredMetric(
    name="tone/insults", metric="insults", condition="unprefixed", kind="rate", better="lower", allowance=0.05
)
LENGTH = DeclaredMetric(
    name="tone/length", metric="length", condition="corpus", kind="ratio", better="higher", allowance=0.1
)
SHOWN = DeclaredMetric(
    name="tone/delay", metric="delay", condition="corpus", kind="ratio", better="lower", allowance=None
)
ALL = (POLITE, INSULTS, LENGTH, SHOWN)


def counts(metric: str, passed: int) -> MeasurementRecord:
    return MeasurementRecord(
        check="tone", metric=metric, value=passed / 10, passed=passed, failed=10 - passed, total=10, verdict="info"
    )


def value(metric: str, number: float | None) -> MeasurementRecord:
    verdict = "info" if number is not None else "unmeasured"
    return MeasurementRecord(check="tone", metric=metric, condition="corpus", value=number, verdict=verdict)


def tone_audit(
    polite: int = 9, insults: int = 1, length: float | None = 0.8, declared: tuple[DeclaredMetric, ...] = ALL
) -> Log:
    """Return an audit of which each edit was measured by a check ``tone`` of another package."""
    log = make_audit()
    card = CardRecord(
        kind="check",
        name="tone",
        question="?",
        source="",
        needs="",
        unit="",
        range="",
        threshold="",
        action="",
        metrics=list(declared),
    )
    rows = [counts("polite", polite), counts("insults", insults), value("length", length), value("delay", 2.0)]

    def measured(edit: EditRecord) -> EditRecord:
        return edit.model_copy(update={"measurements": [*edit.measurements, *rows]})

    header = log.header.model_copy(update={"cards": [*log.header.cards, card]})
    return replace(log, header=header, edits=tuple(map(measured, log.edits)))


def gate(before: Log, after: Log, *allowances: str) -> Gate:
    return judge_gate(make_baseline(before), make_baseline(after), ("main@1", "build"), read_allowances(allowances))


def change(before: Log, after: Log, name: str) -> MetricChange:
    changes = {
        row.metric: row for row in compare(make_baseline(before), make_baseline(after), ("main@1", "build")).metrics
    }
    return changes[name]


def test_baseline_holds_declared_figures_and_reads_back() -> None:
    baseline = make_baseline(tone_audit())
    figures = baseline.edits[0].metrics
    assert figures["tone/polite"] == Tally(passed=9, failed=1, not_judged=0, total=10)
    assert figures["tone/length"] == 0.8
    assert parse_baseline(baseline.to_json().encode(), "b") == baseline
    assert [metric.name for metric in baseline.declared] == [metric.name for metric in ALL]


def test_baseline_without_declared_metrics_has_no_such_key() -> None:
    assert "declared" not in make_baseline(make_audit()).to_json()


def test_baseline_with_an_undeclared_metric_is_refused() -> None:
    text = make_baseline(tone_audit()).to_json().replace("tone/polite", "tone/other", 1)
    with pytest.raises(BaselineError, match="tone/"):
        parse_baseline(text.encode(), "b")


def test_declared_metrics_survive_the_log_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    log = read_log(write_log(tone_audit(), tmp_path / "audit.jsonl"))
    assert make_baseline(log) == make_baseline(tone_audit())


def test_gate_same_declared_figures_open() -> None:
    assert gate(tone_audit(), tone_audit()).open


@pytest.mark.parametrize(
    ("after", "name", "before_value", "after_value", "worse"),
    [
        (tone_audit(polite=7), "tone/polite", 0.9, 0.7, 0.2),
        (tone_audit(insults=3), "tone/insults", 0.1, 0.3, 0.2),
        (tone_audit(length=0.4), "tone/length", 0.8, 0.4, 1.0),
    ],
    ids=["rate-falls", "rate-rises", "ratio-falls"],
)
def test_gate_worse_declared_figure_closes(
    after: Log, name: str, before_value: float, after_value: float, worse: float
) -> None:
    row = change(tone_audit(), after, name)
    assert (row.before, row.after) == (pytest.approx(before_value), pytest.approx(after_value))
    assert row.worse == pytest.approx(worse)
    assert row.low is not None
    assert row.low > 0
    assert len(row.worse_edits) == row.pairs == 14
    assert [closing.key for closing in gate(tone_audit(), after).closings] == [f"regressed:{name}"]


@pytest.mark.parametrize(
    "after", [tone_audit(polite=10), tone_audit(insults=0), tone_audit(length=1.6)], ids=["up", "down", "longer"]
)
def test_gate_better_declared_figure_stays_open(after: Log) -> None:
    assert gate(tone_audit(), after).open


def test_rows_show_the_direction_that_the_figure_moved() -> None:
    result = gate(tone_audit(), tone_audit(insults=3, length=0.4))
    assert result.comparison is not None
    rows = {row.metric: row for row in comparison_rows(result.comparison, result.allowed)}
    assert rows["tone/insults"].difference == "+20.00 pp"
    assert rows["tone/insults"].allowed == "+5 pp"
    assert rows["tone/length"].difference.startswith("−")
    assert "tone/delay" not in rows  # it is shown in a comparison, and not judged


def test_gate_unmeasured_declared_figure_closes() -> None:
    closings = gate(tone_audit(), tone_audit(length=None)).closings
    assert [closing.key for closing in closings] == ["unmeasured:tone/length"]


def test_gate_baseline_of_before_the_check_compares_nothing() -> None:
    assert gate(make_audit(), tone_audit(polite=0)).open


def test_gate_check_that_is_gone_closes() -> None:
    assert {closing.reason for closing in gate(tone_audit(), make_audit()).closings} == {ReasonCode.UNMEASURED}


def test_allowance_of_a_declared_metric_is_used() -> None:
    worse = tone_audit(polite=7)
    assert gate(tone_audit(), worse, "tone/polite:30pp").open
    assert gate(tone_audit(), worse, "tone/polite:off").open
    assert not gate(tone_audit(), worse, "tone/polite:10%").open
    assert not gate(tone_audit(), tone_audit(), "tone/delay:1%", "tone/nothing:1%").open


@pytest.mark.parametrize(
    ("text", "fault"),
    [("tone/length:5pp", "compared relatively"), ("tone/polite:150%", "more than a rate can fall")],
)
def test_allowance_that_does_not_suit_its_metric_is_refused(text: str, fault: str) -> None:
    with pytest.raises(AllowanceError, match=fault):
        gate(tone_audit(), tone_audit(), text)


@pytest.mark.parametrize("text", ["tone/polite", "tone/polite:5"])
def test_allowance_without_an_amount_is_refused_at_once(text: str) -> None:
    with pytest.raises(AllowanceError, match="no amount"):
        read_allowances([text])


def test_later_declaration_counts() -> None:
    changed = POLITE.model_copy(update={"allowance": 0.5})
    after = tone_audit(polite=7, declared=(changed, INSULTS, LENGTH, SHOWN))
    result = gate(tone_audit(), after)
    assert result.open
    assert result.allowed["tone/polite"] == 0.5


@pytest.mark.parametrize(
    "fields", [{"name": "polite"}, {"name": "tone/Polite!"}, {"allowance": -0.1}, {"kind": "worst"}, {"better": "up"}]
)
def test_declaration_with_a_wrong_field_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DeclaredMetric(**(POLITE.model_dump() | fields))


def test_metric_names_of_our_own_checks_have_no_slash() -> None:
    assert not [metric for metric in Metric if "/" in metric]
    assert {metric.kind for metric in ALL} <= {MetricKind.RATE, MetricKind.RATIO}
    assert isinstance(make_baseline(tone_audit()), Baseline)
