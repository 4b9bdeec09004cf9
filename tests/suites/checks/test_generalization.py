"""Generalization equals plain forward passes, and is judged only where the policy has a bound."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from editguard.suites.check import Bench, Outcome
from editguard.suites.checks.generalization import Generalization

from ...helpers.check_benches import ALWAYS, ASKED, bench_of, disturb, edit_of, pick, talkative
from ...helpers.target_rates import log_probs, outer_rows_broken, plain_rates

pytestmark = pytest.mark.tiny


@pytest.mark.parametrize("needs_prefix", [False, True])
def test_generalization_without_bound_equals_plain_passes_unjudged(needs_prefix: bool) -> None:
    bench = bench_of(talkative())
    before = Generalization().prepare(bench, [ASKED])[0]
    disturb(bench, 2, 3.0)
    rows = Generalization().measure(bench, edit_of(ASKED, before, needs_prefix=needs_prefix)).measurements
    assert {item.outcome for item in rows} == {Outcome.INFO}
    assert Generalization().known_bad(bench, edit_of(ASKED, before)) is None
    expected = plain_rates(bench, ASKED.paraphrases)
    for protocol in ("exact", "token-match", "probability"):
        item = pick(rows, "unprefixed", protocol)
        assert item.value == pytest.approx(expected["unprefixed", protocol])
        assert item.total == len(ASKED.paraphrases)


def sayable_paraphrases(bench: Bench) -> Any:
    """A request of which one paraphrase is continued by the target, bare, and the other is not."""
    texts = ("Istanbul has a twin in", "A city like Istanbul is")
    for target in ("Paris", "Lyon", "is", "not"):
        hits = [int(log_probs(bench, text, target)[0][0].argmax()) == token_of(bench, target) for text in texts]
        if sum(hits) == 1:
            return replace(ASKED, target_new=target, target_true=None, paraphrases=texts)
    raise AssertionError("both paraphrases are continued alike; take other ones")


def token_of(bench: Bench, word: str) -> int:
    (token,) = bench.lm.tokenizer(f" {word}", add_special_tokens=False).input_ids
    return int(token)


@pytest.mark.parametrize(("least", "outcome"), [(0.5, Outcome.PASS), (0.51, Outcome.FAIL), (1.0, Outcome.FAIL)])
def test_generalization_exact_share_is_judged_by_the_bound(least: float, outcome: Outcome) -> None:
    bench = bench_of(talkative(), limits=replace(ALWAYS, generalization=least))
    request = sayable_paraphrases(bench)
    before = Generalization().prepare(bench, [request])[0]
    rows = Generalization().measure(bench, edit_of(request, before)).measurements
    (judged,) = [row for row in rows if row.outcome is not Outcome.INFO]
    assert (judged.condition, judged.protocol, judged.value) == ("unprefixed", "exact", 0.5)
    assert (judged.outcome, judged.threshold, judged.passed, judged.failed) == (outcome, least, 1, 1)
    assert "paraphrases unprefixed that give the target: 1 of 2" in judged.message


def test_generalization_rewritten_edit_is_judged_after_a_prefix() -> None:
    bench = bench_of(talkative(), limits=replace(ALWAYS, generalization=0.5))
    before = Generalization().prepare(bench, [ASKED])[0]
    rows = Generalization().measure(bench, edit_of(ASKED, before, needs_prefix=True)).measurements
    assert [(row.condition, row.protocol) for row in rows if row.outcome is not Outcome.INFO] == [("prefixed", "exact")]


def test_generalization_one_paraphrase_unmeasured_is_unmeasured() -> None:
    bench = bench_of(talkative(), limits=replace(ALWAYS, generalization=1e-9))
    request = replace(ASKED, paraphrases=(*ASKED.paraphrases, "Far away from here Istanbul has a twin in"))
    before = Generalization().prepare(bench, [request])[0]
    with outer_rows_broken(bench):
        item = pick(Generalization().measure(bench, edit_of(request, before)).measurements, "unprefixed", "exact")
    assert 0 < item.not_judged < item.total
    assert item.outcome is Outcome.UNMEASURED


def test_generalization_bound_without_paraphrases_is_unmeasured() -> None:
    bench = bench_of(talkative(), limits=replace(ALWAYS, generalization=0.1))
    request = replace(ASKED, paraphrases=("No word about the city is",))
    (before,) = Generalization().prepare(bench, [request])
    (item,) = Generalization().measure(bench, edit_of(request, before)).measurements
    assert (item.outcome, item.value) == (Outcome.UNMEASURED, None)
    assert "min_generalization" in item.message
    assert Generalization().known_bad(bench, edit_of(request, before)) is None


def test_generalization_no_bound_no_paraphrases_measures_nothing() -> None:
    bench = bench_of(talkative())
    request = replace(ASKED, paraphrases=())
    (before,) = Generalization().prepare(bench, [request])
    assert Generalization().measure(bench, edit_of(request, before)).measurements == []


def test_generalization_known_bad_is_the_unedited_model() -> None:
    bench = bench_of(talkative(), limits=replace(ALWAYS, generalization=0.1))
    request = replace(ASKED, target_new="Chicago", target_true=None)
    (before,) = Generalization().prepare(bench, [request])
    bad = Generalization().known_bad(bench, edit_of(request, before))
    assert bad is not None
    assert [row.outcome for row in bad.measurements if row.outcome is not Outcome.INFO] == [Outcome.FAIL]
