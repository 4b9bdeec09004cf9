"""What may be worse, as users write it."""

from __future__ import annotations

import pytest
from editguard.reports.errors import AllowanceError
from editguard.reports.gate.allowances import read_allowances
from editguard.reports.gate.metrics import METRICS, Metric


def test_read_allowances_without_texts_gives_defaults() -> None:
    allowances = read_allowances()
    assert dict(allowances.limits) == {m: s.allowed for m, s in METRICS.items() if s.allowed is not None}
    assert allowances.requested == frozenset()


@pytest.mark.parametrize(
    ("text", "metric", "limit"),
    [
        ("efficacy-prefixed:5%", Metric.EFFICACY_PREFIXED, 0.05),
        ("efficacy-prefixed:5pp", Metric.EFFICACY_PREFIXED, 0.05),
        ("perplexity-ratio:0.5%", Metric.PERPLEXITY_RATIO, 0.005),
        ("worst-perplexity-ratio: 150 %", Metric.WORST_PERPLEXITY_RATIO, 1.5),
        ("answers-prefixed:0%", Metric.ANSWERS_PREFIXED, 0.0),
        ("efficacy-prefixed-probability:1%", Metric.EFFICACY_PREFIXED_PROBABILITY, 0.01),
    ],
)
def test_read_allowances_text_changes_its_metric(text: str, metric: Metric, limit: float) -> None:
    allowances = read_allowances([text])
    assert allowances.limits[metric] == pytest.approx(limit)
    assert allowances.requested == {metric}
    others = {m: s.allowed for m, s in METRICS.items() if s.allowed is not None and m is not metric}
    assert {m: allowances.limits[m] for m in others} == others


def test_read_allowances_off_leaves_metric_out() -> None:
    assert Metric.ANSWERS_PREFIXED not in read_allowances(["answers-prefixed:off"]).limits


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["eficacy-prefixed:5%"], "did you mean 'efficacy-prefixed', 'efficacy-unprefixed' or 'efficacy-served'\\?"),
        (["efficacy:5%"], "did you mean 'efficacy-unprefixed', 'efficacy-prefixed' or 'efficacy-served'\\?"),
        (["eficcacy:5%"], "did you mean 'efficacy-unprefixed', 'efficacy-prefixed' or 'efficacy-served'\\?"),
        (["anwsers:5%"], "did you mean 'answers-unprefixed' or 'answers-prefixed'\\?"),
        (["perplexity:5%"], "did you mean 'perplexity-ratio' or 'worst-perplexity-ratio'\\?"),
        (["speed:5%"], "Unknown metric 'speed' .*write one of perplexity-ratio, "),
        (["efficacy-prefixed"], "no amount with its unit"),
        (["efficacy-prefixed:0.05"], "no amount with its unit"),
        (["efficacy-prefixed:-5%"], "no amount with its unit"),
        (["efficacy-prefixed:nan%"], "no amount with its unit"),
        (["efficacy-prefixed:101%"], "at most 100%"),
        (["perplexity-ratio:5pp"], "compared relatively; use %"),
        (["perplexity-ratio:5%", "perplexity-ratio:6%"], "second time"),
    ],
)
def test_read_allowances_wrong_text_gives_way_out(texts: list[str], message: str) -> None:
    with pytest.raises(AllowanceError, match=message) as caught:
        read_allowances(texts)
    assert caught.value.exit_code == 2
