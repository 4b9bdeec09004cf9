"""Efficacy equals plain forward passes, under every protocol and condition; only the exact one is judged."""

from __future__ import annotations

from dataclasses import replace

import pytest
from editguard.probes.keys.prefixes import Role
from editguard.suites.check import Bench, Outcome
from editguard.suites.checks.efficacy import Efficacy

from ...helpers.check_benches import ALWAYS, ASKED, bench_of, disturb, edit_of, pick, talkative
from ...helpers.target_rates import log_probs, plain_answer, plain_rates, rates_of
from ...helpers.tiny_models import PREFIXES
from ...helpers.tokenizer_kinds import byte_level

pytestmark = pytest.mark.tiny


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "bloom"])
def test_efficacy_equals_plain_forward_passes(family: str) -> None:
    bench = bench_of(talkative(family))
    before = Efficacy().prepare(bench, [ASKED])[0]
    start = plain_rates(bench, (ASKED.prompt,))
    observed: dict[str, set[float]] = {"exact": set(), "token-match": set(), "probability": set()}
    for seed in range(6):
        disturb(bench, seed, 3.0)
        rows = Efficacy().measure(bench, edit_of(ASKED, before)).measurements
        expected = plain_rates(bench, (ASKED.prompt,))
        *rows, as_served = rows
        assert as_served == replace(
            pick(rows, "unprefixed", "exact"),
            condition="served",
            message=as_served.message,
            outcome=Outcome.INFO,
            threshold=None,
            baseline=None,
        )
        assert rates_of(rows) == pytest.approx(expected)
        for item in rows:
            assert item.baseline == pytest.approx(start[item.condition, str(item.protocol)])
            assert item.total == (
                1 if item.condition == "unprefixed" else 4 if item.condition == "prefixed" else item.total
            )
            assert item.not_judged == 0
            observed[str(item.protocol)].add(round(float(item.value or 0), 3))
    assert len(observed["token-match"]) > 1, "every edit gave the same; the comparison shows nothing"
    assert len(observed["probability"]) > 1


def test_efficacy_one_token_target_is_hit_by_the_greedy_choice() -> None:
    bench = bench_of(talkative())
    outcomes = set()
    for target in ("Paris", "Lyon", "is", "not"):
        request = replace(ASKED, target_new=target, target_true=None)
        before = Efficacy().prepare(bench, [request])[0]
        item = pick(Efficacy().measure(bench, edit_of(request, before)).measurements, "unprefixed", "exact")
        new, (token,) = log_probs(bench, ASKED.prompt, target)
        assert item.value == float(int(new[0].argmax()) == token)
        assert item.outcome is (Outcome.PASS if item.value else Outcome.FAIL)
        outcomes.add(item.outcome)
    assert outcomes == {Outcome.PASS, Outcome.FAIL}


@pytest.mark.parametrize("needs_prefix", [False, True])
def test_efficacy_judges_the_exact_protocol_of_its_condition(needs_prefix: bool) -> None:
    bench = bench_of(talkative(), limits=ALWAYS)
    before = Efficacy().prepare(bench, [ASKED])[0]
    rows = Efficacy().measure(bench, edit_of(ASKED, before, needs_prefix=needs_prefix)).measurements
    judged = [(item.condition, item.protocol) for item in rows if item.outcome is not Outcome.INFO]
    assert judged == [("prefixed" if needs_prefix else "unprefixed", "exact")]
    assert [item.condition for item in rows][:6] == ["unprefixed"] * 3 + ["prefixed"] * 3


def test_efficacy_without_true_target_has_no_preference() -> None:
    bench = bench_of(talkative(), limits=ALWAYS)
    request = replace(ASKED, target_true=None)
    before = Efficacy().prepare(bench, [request])[0]
    rows = Efficacy().measure(bench, edit_of(request, before)).measurements
    assert {item.protocol for item in rows} == {"exact", "token-match"}
    assert Outcome.UNMEASURED not in {item.outcome for item in rows}


def test_efficacy_rewritten_edit_without_held_out_prefix_does_not_pass() -> None:
    bench = bench_of(talkative(), limits=ALWAYS)
    bare = replace(bench, prefixes=replace(bench.prefixes, prefixes=()))
    rows = (
        Efficacy().measure(bare, edit_of(ASKED, Efficacy().prepare(bare, [ASKED])[0], needs_prefix=True)).measurements
    )
    assert {item.outcome for item in rows if item.condition == "prefixed"} == {Outcome.UNMEASURED}
    unchanged = Efficacy().measure(bare, edit_of(ASKED, Efficacy().prepare(bare, [ASKED])[0])).measurements
    assert Outcome.UNMEASURED not in {item.outcome for item in unchanged}


def with_specials(*, bos: bool = False, template: str | None = None) -> Bench:
    tokenizer = byte_level(bos=bos)
    tokenizer.bos_token, tokenizer.chat_template = "<s>", template
    return bench_of(talkative(tokenizer=tokenizer))


@pytest.mark.parametrize(
    ("bos", "template", "tokens"),
    [
        (False, None, ["<s>"]),
        (False, "<|im_start|>{{ messages[0].content }}", ["<s>", "<|im_start|>"]),
        (True, None, []),
        (True, "<|im_start|>{{ messages[0].content }}", ["<|im_start|>"]),
    ],
)
def test_efficacy_is_measured_after_each_special_token(bos: bool, template: str | None, tokens: list[str]) -> None:
    bench = with_specials(bos=bos, template=template)
    before = Efficacy().prepare(bench, [ASKED])[0]
    disturb(bench, 2, 3.0)
    rows = Efficacy().measure(bench, edit_of(ASKED, before)).measurements
    named = [f"special:{token}" for token in tokens]
    assert [row.condition for row in rows if row.protocol == "token-match" and "special" in row.condition] == named
    for token in tokens:
        whole, match, preferred = plain_answer(bench, token + ASKED.prompt)
        for protocol, value in (("exact", whole), ("token-match", match), ("probability", preferred)):
            item = pick(rows, f"special:{token}", protocol)
            assert (item.value, item.total, item.outcome) == (pytest.approx(float(value)), 1, Outcome.INFO)
    # They are no held-out prefixes.
    assert pick(rows, "prefixed", "exact").total == len(PREFIXES.of(Role.HELD_OUT))
