"""Efficacy, generalization and locality equal plain forward passes; what is not finite is unmeasured, never a pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from editguard.probes.errors import EditguardError
from editguard.probes.forward.partial import Row
from editguard.probes.forward.prefix_cache import prefix_cache
from editguard.probes.keys.prefixes import Role
from editguard.suites.check import Bench, Check, Measurement, Outcome
from editguard.suites.checks._answers import score_texts
from editguard.suites.checks.efficacy import Efficacy
from editguard.suites.checks.generalization import Generalization
from editguard.suites.checks.locality import Locality
from torch import Tensor, nn

from ...helpers.check_benches import ALWAYS, ASKED, bench_of, break_site, disturb, edit_of, pick, talkative
from ...helpers.tiny_models import PREFIXES
from ...helpers.tokenizer_kinds import byte_level

pytestmark = pytest.mark.tiny

Answer = tuple[bool, float, bool]
Rates = dict[tuple[str, str], float]


def log_probs(bench: Bench, text: str, target: str) -> tuple[Tensor, list[int]]:
    """Log-probabilities at the target's tokens, from one text run alone; the target is joined as ids."""
    ids = bench.lm.tokenizer(text).input_ids
    wanted = bench.lm.tokenizer(f" {target}", add_special_tokens=False).input_ids
    with torch.no_grad():
        logits = bench.lm.model(torch.tensor([ids + wanted])).logits[0].double()
    return logits.log_softmax(-1)[len(ids) - 1 : len(ids) + len(wanted) - 1], wanted


def answer(bench: Bench, text: str) -> Answer:
    new, target = log_probs(bench, text, ASKED.target_new)
    true, truth = log_probs(bench, text, str(ASKED.target_true))
    hits = [int(row.argmax()) == token for row, token in zip(new, target, strict=True)]
    mean_new, mean_true = (
        sum(float(row[token]) for row, token in zip(rows, tokens, strict=True)) / len(tokens)
        for rows, tokens in ((new, target), (true, truth))
    )
    return all(hits), sum(hits) / len(hits), mean_new > mean_true


def rates_by_hand(bench: Bench, prompts: tuple[str, ...]) -> Rates:
    answers: dict[str, list[Answer]] = {"unprefixed": [answer(bench, prompt) for prompt in prompts], "prefixed": []}
    for prefix in PREFIXES.of(Role.HELD_OUT):
        for prompt in prompts:
            found = answer(bench, prefix.text + prompt)
            answers["prefixed"].append(found)
            answers.setdefault(f"family:{prefix.family.value}", []).append(found)
    return {
        (condition, protocol): sum(row[place] for row in rows) / len(rows)
        for condition, rows in answers.items()
        for place, protocol in enumerate(("exact", "token-match", "probability"))
    }


def rates(measurements: Any) -> Rates:
    return {(item.condition, str(item.protocol)): item.value for item in measurements}


@contextmanager
def outer_rows_broken(bench: Bench) -> Iterator[None]:
    """Make the site's output NaN in the first and the last row of every batch: its longest and its shortest text."""

    def spoil(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        broken = output.clone()
        broken[[0, -1]] = torch.nan
        return broken

    handle = bench.site.module.register_forward_hook(spoil)
    try:
        yield
    finally:
        handle.remove()


# Efficacy


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "bloom"])
def test_efficacy_is_that_of_plain_forwards_under_every_protocol_and_condition(family: str) -> None:
    bench = bench_of(talkative(family))
    before = Efficacy().prepare(bench, [ASKED])[0]
    start = rates_by_hand(bench, (ASKED.prompt,))
    seen: dict[str, set[float]] = {"exact": set(), "token-match": set(), "probability": set()}
    for seed in range(6):
        disturb(bench, seed, 3.0)
        found = Efficacy().measure(bench, edit_of(ASKED, before)).measurements
        expected = rates_by_hand(bench, (ASKED.prompt,))
        *found, as_served = found
        assert as_served == replace(
            pick(found, "unprefixed", "exact"), condition="served", message=as_served.message, outcome=Outcome.INFO,
            threshold=None, baseline=None,
        )  # fmt: skip
        assert rates(found) == pytest.approx(expected)
        for item in found:
            assert item.baseline == pytest.approx(start[item.condition, str(item.protocol)])
            assert item.total == (
                1 if item.condition == "unprefixed" else 4 if item.condition == "prefixed" else item.total
            )
            assert item.not_judged == 0
            seen[str(item.protocol)].add(round(float(item.value or 0), 3))
    assert len(seen["token-match"]) > 1, "every edit gave the same; the comparison shows nothing"
    assert len(seen["probability"]) > 1


def test_a_target_of_one_token_is_hit_exactly_where_it_is_the_greedy_choice() -> None:
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
def test_only_the_exact_protocol_of_the_condition_asked_for_is_judged(needs_prefix: bool) -> None:
    bench = bench_of(talkative(), limits=ALWAYS)
    before = Efficacy().prepare(bench, [ASKED])[0]
    found = Efficacy().measure(bench, edit_of(ASKED, before, needs_prefix=needs_prefix)).measurements
    judged = [(item.condition, item.protocol) for item in found if item.outcome is not Outcome.INFO]
    assert judged == [("prefixed" if needs_prefix else "unprefixed", "exact")]
    assert [item.condition for item in found][:6] == ["unprefixed"] * 3 + ["prefixed"] * 3


def test_without_a_true_target_nothing_is_asked_of_a_preference() -> None:
    bench = bench_of(talkative(), limits=ALWAYS)
    asked = replace(ASKED, target_true=None)
    before = Efficacy().prepare(bench, [asked])[0]
    found = Efficacy().measure(bench, edit_of(asked, before)).measurements
    assert {item.protocol for item in found} == {"exact", "token-match"}
    assert Outcome.UNMEASURED not in {item.outcome for item in found}


@pytest.mark.parametrize("check", [Efficacy, Generalization, Locality])
@pytest.mark.parametrize("needs_prefix", [False, True])
def test_a_broken_model_is_unmeasured_everywhere(check: type[Check], needs_prefix: bool) -> None:
    bench = bench_of(talkative(), limits=ALWAYS)
    before = check().prepare(bench, [ASKED])[0]
    break_site(bench)
    found = check().measure(bench, edit_of(ASKED, before, needs_prefix=needs_prefix)).measurements
    assert found
    for item in found:
        assert (item.outcome, item.value) == (Outcome.UNMEASURED, None)
        assert (item.passed, item.failed, item.not_judged) == (0, 0, item.total)


@pytest.mark.parametrize(("check", "condition"), [(Efficacy, "prefixed"), (Locality, "unprefixed")])
def test_a_share_of_which_a_part_was_not_measured_does_not_pass(check: type[Check], condition: str) -> None:
    bench = bench_of(talkative(), limits=ALWAYS)
    asked = replace(ASKED, neighbourhood=(*ASKED.neighbourhood, *(prompt + " a" for prompt in ASKED.neighbourhood)))
    before = check().prepare(bench, [asked])[0]
    with outer_rows_broken(bench):
        found = check().measure(bench, edit_of(asked, before, needs_prefix=True)).measurements
    (item,) = [one for one in found if one.condition == condition and one.protocol in {"exact", "token-match"}][:1]
    assert 0 < item.not_judged < item.total
    assert item.outcome is Outcome.UNMEASURED


def test_a_rewritten_edit_that_cannot_be_tested_under_a_prefix_does_not_pass() -> None:
    bench = bench_of(talkative(), limits=ALWAYS)
    bare = replace(bench, prefixes=replace(bench.prefixes, prefixes=()))
    found = (
        Efficacy().measure(bare, edit_of(ASKED, Efficacy().prepare(bare, [ASKED])[0], needs_prefix=True)).measurements
    )
    assert {item.outcome for item in found if item.condition == "prefixed"} == {Outcome.UNMEASURED}
    kept = Efficacy().measure(bare, edit_of(ASKED, Efficacy().prepare(bare, [ASKED])[0])).measurements
    assert Outcome.UNMEASURED not in {item.outcome for item in kept}


@pytest.mark.parametrize("check", [Efficacy, Generalization, Locality])
def test_on_from_the_prefixes_states_every_figure_is_the_same(check: type[Check]) -> None:
    plain = bench_of(talkative())
    known = prefix_cache(plain.lm, plain.site, [prefix.text for prefix in plain.prefixes.prefixes])
    assert known is not None
    cached = replace(plain, prefix_cache=known, memo={})
    states = [check().prepare(bench, [ASKED])[0] for bench in (plain, cached)]
    disturb(plain, 3, 2.0)
    first, second = (check().measure(plain, edit_of(ASKED, state)).measurements for state in states)
    assert rounded(first) == rounded(second)


def rounded(measurements: list[Measurement]) -> list[Measurement]:
    """A divergence has all digits of the logits, and the last ones depend on who is computed with whom."""
    return [
        replace(one, value=round(one.value, 6)) if one.metric == "divergence" and one.value is not None else one
        for one in measurements
    ]


@pytest.mark.parametrize("check", [Efficacy, Generalization, Locality])
def test_edits_prepared_together_are_measured_as_each_alone(check: type[Check]) -> None:
    bench = bench_of(talkative())
    asked = [ASKED, replace(ASKED, paraphrases=(), neighbourhood=()), replace(ASKED, prompt="Lyon is", subject="Lyon")]
    together = check().prepare(bench, asked)
    alone = [check().prepare(bench, [one])[0] for one in asked]
    disturb(bench, 3, 2.0)
    for request, first, second in zip(asked, together, alone, strict=True):
        measure = check().measure
        one, other = (measure(bench, edit_of(request, state)) for state in (first, second))
        assert rounded(one.measurements) == rounded(other.measurements)
        assert [told.after for told in one.prompts] == [told.after for told in other.prompts]


def test_a_stem_is_of_the_unedited_model_alone() -> None:
    bench = bench_of(talkative())
    disturb(bench, 1)
    with pytest.raises(EditguardError, match="take stems in prepare"):
        bench.stem([Row((1, 2, 3), 0, (2,))])


def test_a_truth_that_was_not_measured_is_no_failure() -> None:
    bench = bench_of(talkative())
    (before,) = Efficacy().prepare(bench, [replace(ASKED, target_true="Paris is not")])
    logits = before.stem.logits()
    own = before.prompts.true
    assert own is not None
    places = [len(row.predict) for row in before.prompts.rows]
    logits[sum(places[: own[0]]) : sum(places[: own[0] + 1])] = torch.nan
    assert score_texts(before.prompts, logits)[0].preferred is None


# Generalization


@pytest.mark.parametrize("needs_prefix", [False, True])
def test_generalization_is_that_of_plain_forwards_and_without_a_bound_it_is_not_judged(needs_prefix: bool) -> None:
    bench = bench_of(talkative())
    before = Generalization().prepare(bench, [ASKED])[0]
    disturb(bench, 2, 3.0)
    found = Generalization().measure(bench, edit_of(ASKED, before, needs_prefix=needs_prefix)).measurements
    assert {item.outcome for item in found} == {Outcome.INFO}
    assert Generalization().known_bad(bench, edit_of(ASKED, before)) is None
    expected = rates_by_hand(bench, ASKED.paraphrases)
    for protocol in ("exact", "token-match", "probability"):
        item = pick(found, "unprefixed", protocol)
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
def test_with_a_bound_the_exact_share_of_paraphrases_is_judged_by_it(least: float, outcome: Outcome) -> None:
    bench = bench_of(talkative(), limits=replace(ALWAYS, generalization=least))
    asked = sayable_paraphrases(bench)
    before = Generalization().prepare(bench, [asked])[0]
    found = Generalization().measure(bench, edit_of(asked, before)).measurements
    (judged,) = [one for one in found if one.outcome is not Outcome.INFO]
    assert (judged.condition, judged.protocol, judged.value) == ("unprefixed", "exact", 0.5)
    assert (judged.outcome, judged.threshold, judged.passed, judged.failed) == (outcome, least, 1, 1)
    assert "paraphrases unprefixed that give the target: 1 of 2" in judged.message


def test_of_a_rewritten_edit_paraphrases_are_judged_after_a_prefix() -> None:
    bench = bench_of(talkative(), limits=replace(ALWAYS, generalization=0.5))
    before = Generalization().prepare(bench, [ASKED])[0]
    found = Generalization().measure(bench, edit_of(ASKED, before, needs_prefix=True)).measurements
    assert [(one.condition, one.protocol) for one in found if one.outcome is not Outcome.INFO] == [
        ("prefixed", "exact")
    ]


def test_paraphrases_of_which_one_could_not_be_measured_are_unmeasured() -> None:
    bench = bench_of(talkative(), limits=replace(ALWAYS, generalization=1e-9))
    asked = replace(ASKED, paraphrases=(*ASKED.paraphrases, "Far away from here Istanbul has a twin in"))
    before = Generalization().prepare(bench, [asked])[0]
    with outer_rows_broken(bench):
        item = pick(Generalization().measure(bench, edit_of(asked, before)).measurements, "unprefixed", "exact")
    assert 0 < item.not_judged < item.total
    assert item.outcome is Outcome.UNMEASURED


def test_a_bound_on_paraphrases_is_not_met_by_a_request_without_any() -> None:
    bench = bench_of(talkative(), limits=replace(ALWAYS, generalization=0.1))
    asked = replace(ASKED, paraphrases=("No word about the city is",))
    (before,) = Generalization().prepare(bench, [asked])
    (item,) = Generalization().measure(bench, edit_of(asked, before)).measurements
    assert (item.outcome, item.value) == (Outcome.UNMEASURED, None)
    assert "min_generalization" in item.message
    assert Generalization().known_bad(bench, edit_of(asked, before)) is None


def test_without_a_bound_a_request_without_paraphrases_brings_nothing() -> None:
    bench = bench_of(talkative())
    asked = replace(ASKED, paraphrases=())
    (before,) = Generalization().prepare(bench, [asked])
    assert Generalization().measure(bench, edit_of(asked, before)).measurements == []


def test_the_unedited_model_is_what_a_judged_generalization_must_catch() -> None:
    bench = bench_of(talkative(), limits=replace(ALWAYS, generalization=0.1))
    asked = replace(ASKED, target_new="Chicago", target_true=None)
    (before,) = Generalization().prepare(bench, [asked])
    bad = Generalization().known_bad(bench, edit_of(asked, before))
    assert bad is not None
    assert [one.outcome for one in bad.measurements if one.outcome is not Outcome.INFO] == [Outcome.FAIL]


# Special tokens before the prompt


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
def test_efficacy_is_measured_after_each_special_token_alone(
    bos: bool, template: str | None, tokens: list[str]
) -> None:
    bench = with_specials(bos=bos, template=template)
    before = Efficacy().prepare(bench, [ASKED])[0]
    disturb(bench, 2, 3.0)
    found = Efficacy().measure(bench, edit_of(ASKED, before)).measurements
    named = [f"special:{token}" for token in tokens]
    assert [one.condition for one in found if one.protocol == "token-match" and "special" in one.condition] == named
    for token in tokens:
        whole, match, preferred = answer(bench, token + ASKED.prompt)
        for protocol, value in (("exact", whole), ("token-match", match), ("probability", preferred)):
            item = pick(found, f"special:{token}", protocol)
            assert (item.value, item.total, item.outcome) == (pytest.approx(float(value)), 1, Outcome.INFO)
    # They are no held-out prefixes.
    assert pick(found, "prefixed", "exact").total == len(PREFIXES.of(Role.HELD_OUT))
