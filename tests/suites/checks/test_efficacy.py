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
    seen: dict[str, set[float]] = {"exact": set(), "token-match": set(), "probability": set()}
    for seed in range(6):
        disturb(bench, seed, 3.0)
        found = Efficacy().measure(bench, edit_of(ASKED, before)).measurements
        expected = plain_rates(bench, (ASKED.prompt,))
        *found, as_served = found
        assert as_served == replace(
            pick(found, "unprefixed", "exact"), condition="served", message=as_served.message, outcome=Outcome.INFO,
            threshold=None, baseline=None,
        )  # fmt: skip
        assert rates_of(found) == pytest.approx(expected)
        for item in found:
            assert item.baseline == pytest.approx(start[item.condition, str(item.protocol)])
            assert item.total == (
                1 if item.condition == "unprefixed" else 4 if item.condition == "prefixed" else item.total
            )
            assert item.not_judged == 0
            seen[str(item.protocol)].add(round(float(item.value or 0), 3))
    assert len(seen["token-match"]) > 1, "every edit gave the same; the comparison shows nothing"
    assert len(seen["probability"]) > 1


def test_efficacy_one_token_target_is_hit_by_the_greedy_choice() -> None:
    bench = bench_of(talkative())
    outcomes = set()
    for target in ("Paris", "Lyon", "is", "not"):
        asked = replace(ASKED, target_new=target, target_true=None)
        before = Efficacy().prepare(bench, [asked])[0]
        item = pick(Efficacy().measure(bench, edit_of(asked, before)).measurements, "unprefixed", "exact")
        new, (token,) = log_probs(bench, ASKED.prompt, target)
        assert item.value == float(int(new[0].argmax()) == token)
        assert item.outcome is (Outcome.PASS if item.value else Outcome.FAIL)
        outcomes.add(item.outcome)
    assert outcomes == {Outcome.PASS, Outcome.FAIL}


@pytest.mark.parametrize("needs_prefix", [False, True])
def test_efficacy_judges_the_exact_protocol_of_its_condition(needs_prefix: bool) -> None:
    bench = bench_of(talkative(), limits=ALWAYS)
    before = Efficacy().prepare(bench, [ASKED])[0]
    found = Efficacy().measure(bench, edit_of(ASKED, before, needs_prefix=needs_prefix)).measurements
    judged = [(item.condition, item.protocol) for item in found if item.outcome is not Outcome.INFO]
    assert judged == [("prefixed" if needs_prefix else "unprefixed", "exact")]
    assert [item.condition for item in found][:6] == ["unprefixed"] * 3 + ["prefixed"] * 3


def test_efficacy_without_true_target_has_no_preference() -> None:
    bench = bench_of(talkative(), limits=ALWAYS)
    asked = replace(ASKED, target_true=None)
    before = Efficacy().prepare(bench, [asked])[0]
    found = Efficacy().measure(bench, edit_of(asked, before)).measurements
    assert {item.protocol for item in found} == {"exact", "token-match"}
    assert Outcome.UNMEASURED not in {item.outcome for item in found}


def test_efficacy_rewritten_edit_without_held_out_prefix_does_not_pass() -> None:
    bench = bench_of(talkative(), limits=ALWAYS)
    bare = replace(bench, prefixes=replace(bench.prefixes, prefixes=()))
    found = (
        Efficacy().measure(bare, edit_of(ASKED, Efficacy().prepare(bare, [ASKED])[0], needs_prefix=True)).measurements
    )
    assert {item.outcome for item in found if item.condition == "prefixed"} == {Outcome.UNMEASURED}
    kept = Efficacy().measure(bare, edit_of(ASKED, Efficacy().prepare(bare, [ASKED])[0])).measurements
    assert Outcome.UNMEASURED not in {item.outcome for item in kept}


def with_specials(*, bos: bool = False, template: str | None = None) -> Bench:
    made = byte_level(bos=bos)
    made.bos_token, made.chat_template = "<s>", template
    return bench_of(talkative(tokenizer=made))


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
    found = Efficacy().measure(bench, edit_of(ASKED, before)).measurements
    named = [f"special:{token}" for token in tokens]
    assert [one.condition for one in found if one.protocol == "token-match" and "special" in one.condition] == named
    for token in tokens:
        whole, match, preferred = plain_answer(bench, token + ASKED.prompt)
        for protocol, value in (("exact", whole), ("token-match", match), ("probability", preferred)):
            item = pick(found, f"special:{token}", protocol)
            assert (item.value, item.total, item.outcome) == (pytest.approx(float(value)), 1, Outcome.INFO)
    # They are no held-out prefixes.
    assert pick(found, "prefixed", "exact").total == len(PREFIXES.of(Role.HELD_OUT))
