"""What efficacy, generalization and locality share: states, batches, and measurements that could not be taken."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from editguard.probes.forward.prefix_cache import build_prefix_cache
from editguard.suites.check import Check, Outcome
from editguard.suites.checks._answers import score_texts
from editguard.suites.checks.efficacy import Efficacy
from editguard.suites.checks.generalization import Generalization
from editguard.suites.checks.locality import Locality

from ...helpers.check_benches import ALWAYS, ASKED, bench_of, break_site, disturb, edit_of, talkative
from ...helpers.target_rates import outer_rows_broken, rounded

pytestmark = pytest.mark.tiny


@pytest.mark.parametrize("check", [Efficacy, Generalization, Locality])
@pytest.mark.parametrize("needs_prefix", [False, True])
def test_checks_broken_model_unmeasured_everywhere(check: type[Check], needs_prefix: bool) -> None:
    bench = bench_of(talkative(), limits=ALWAYS)
    before = check().prepare(bench, [ASKED])[0]
    break_site(bench)
    rows = check().measure(bench, edit_of(ASKED, before, needs_prefix=needs_prefix)).measurements
    assert rows
    for item in rows:
        assert (item.outcome, item.value) == (Outcome.UNMEASURED, None)
        assert (item.passed, item.failed, item.not_judged) == (0, 0, item.total)


@pytest.mark.parametrize(("check", "condition"), [(Efficacy, "prefixed"), (Locality, "unprefixed")])
def test_checks_partly_measured_share_does_not_pass(check: type[Check], condition: str) -> None:
    bench = bench_of(talkative(), limits=ALWAYS)
    request = replace(ASKED, neighbourhood=(*ASKED.neighbourhood, *(prompt + " a" for prompt in ASKED.neighbourhood)))
    before = check().prepare(bench, [request])[0]
    with outer_rows_broken(bench):
        rows = check().measure(bench, edit_of(request, before, needs_prefix=True)).measurements
    (item,) = [row for row in rows if row.condition == condition and row.protocol in {"exact", "token-match"}][:1]
    assert 0 < item.not_judged < item.total
    assert item.outcome is Outcome.UNMEASURED


@pytest.mark.parametrize("check", [Efficacy, Generalization, Locality])
def test_checks_cached_prefixes_give_the_same_figures(check: type[Check]) -> None:
    plain = bench_of(talkative())
    cache = build_prefix_cache(plain.lm, plain.lowest_site, [prefix.text for prefix in plain.prefixes.prefixes])
    assert cache is not None
    cached = replace(plain, prefix_cache=cache, memo={})
    states = [check().prepare(bench, [ASKED])[0] for bench in (plain, cached)]
    disturb(plain, 3, 2.0)
    first, second = (check().measure(plain, edit_of(ASKED, state)).measurements for state in states)
    assert rounded(first) == rounded(second)


@pytest.mark.parametrize("check", [Efficacy, Generalization, Locality])
def test_checks_prepared_together_equal_each_alone(check: type[Check]) -> None:
    bench = bench_of(talkative())
    requests = [
        ASKED,
        replace(ASKED, paraphrases=(), neighbourhood=()),
        replace(ASKED, prompt="Lyon is", subject="Lyon"),
    ]
    together = check().prepare(bench, requests)
    single = [check().prepare(bench, [request])[0] for request in requests]
    disturb(bench, 3, 2.0)
    for request, first, second in zip(requests, together, single, strict=True):
        measure = check().measure
        row, other = (measure(bench, edit_of(request, state)) for state in (first, second))
        assert rounded(row.measurements) == rounded(other.measurements)
        assert [answer.after for answer in row.prompts] == [answer.after for answer in other.prompts]


def test_score_texts_unmeasured_truth_has_no_preference() -> None:
    bench = bench_of(talkative())
    (before,) = Efficacy().prepare(bench, [replace(ASKED, target_true="Paris is not")])
    logits = before.stem.logits()
    own = before.prompts.true
    assert own is not None
    places = [len(row.predict) for row in before.prompts.rows]
    logits[sum(places[: own[0]]) : sum(places[: own[0] + 1])] = torch.nan
    assert score_texts(before.prompts, logits)[0].preferred is None
