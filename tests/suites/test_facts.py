"""Efficacy, generalization and locality equal plain forward passes; what is not finite is unmeasured, never a pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest
import torch
from editguard.probes.errors import EditguardError
from editguard.probes.partial import Row
from editguard.probes.prefix_cache import prefix_cache
from editguard.probes.prefixes import Role
from editguard.suites.check import Bench, Check, Measurement, Outcome
from editguard.suites.facts import Efficacy, Generalization, Locality, _score
from torch import Tensor, nn

from ..tiny import PREFIXES, REQUEST
from .benches import LIMITS, bench_of, break_site, disturb, talkative

pytestmark = pytest.mark.tiny

ASKED = replace(REQUEST, target_new="Lyon is", target_true="Paris")
ALWAYS = replace(LIMITS, efficacy=0.0, locality=0.0)
"""Limits that any number meets: what does not pass under them was not measured."""

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


def pick(measurements: Any, condition: str, protocol: str) -> Measurement:
    (found,) = [item for item in measurements if (item.condition, item.protocol) == (condition, protocol)]
    return found


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
        found = Efficacy().measure(bench, ASKED, before, False).measurements
        expected = rates_by_hand(bench, (ASKED.prompt,))
        *found, as_served = found
        assert as_served == replace(
            pick(found, "unprefixed", "exact"), condition="served", message=as_served.message, outcome=Outcome.INFO,
            threshold=None,
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
        item = pick(Efficacy().measure(bench, asked, before, False).measurements, "unprefixed", "exact")
        new, (token,) = log_probs(bench, ASKED.prompt, target)
        assert item.value == float(int(new[0].argmax()) == token)
        assert item.outcome is (Outcome.PASS if item.value else Outcome.FAIL)
        outcomes.add(item.outcome)
    assert outcomes == {Outcome.PASS, Outcome.FAIL}


@pytest.mark.parametrize("needs_prefix", [False, True])
def test_only_the_exact_protocol_of_the_condition_asked_for_is_judged(needs_prefix: bool) -> None:
    bench = bench_of(talkative(), limits=ALWAYS)
    before = Efficacy().prepare(bench, [ASKED])[0]
    found = Efficacy().measure(bench, ASKED, before, needs_prefix).measurements
    judged = [(item.condition, item.protocol) for item in found if item.outcome is not Outcome.INFO]
    assert judged == [("prefixed" if needs_prefix else "unprefixed", "exact")]
    assert [item.condition for item in found][:6] == ["unprefixed"] * 3 + ["prefixed"] * 3


def test_without_a_true_target_nothing_is_asked_of_a_preference() -> None:
    bench = bench_of(talkative(), limits=ALWAYS)
    asked = replace(ASKED, target_true=None)
    before = Efficacy().prepare(bench, [asked])[0]
    found = Efficacy().measure(bench, asked, before, False).measurements
    assert {item.protocol for item in found} == {"exact", "token-match"}
    assert Outcome.UNMEASURED not in {item.outcome for item in found}


@pytest.mark.parametrize("check", [Efficacy, Generalization, Locality])
@pytest.mark.parametrize("needs_prefix", [False, True])
def test_a_broken_model_is_unmeasured_everywhere(check: type[Check], needs_prefix: bool) -> None:
    bench = bench_of(talkative(), limits=ALWAYS)
    before = check().prepare(bench, [ASKED])[0]
    break_site(bench)
    found = check().measure(bench, ASKED, before, needs_prefix).measurements
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
        found = check().measure(bench, asked, before, True).measurements
    (item,) = [one for one in found if one.condition == condition and one.protocol in {"exact", "token-match"}][:1]
    assert 0 < item.not_judged < item.total
    assert item.outcome is Outcome.UNMEASURED


def test_a_rewritten_edit_that_cannot_be_tested_under_a_prefix_does_not_pass() -> None:
    bench = bench_of(talkative(), limits=ALWAYS)
    bare = replace(bench, prefixes=replace(bench.prefixes, prefixes=()))
    found = Efficacy().measure(bare, ASKED, Efficacy().prepare(bare, [ASKED])[0], True).measurements
    assert {item.outcome for item in found if item.condition == "prefixed"} == {Outcome.UNMEASURED}
    kept = Efficacy().measure(bare, ASKED, Efficacy().prepare(bare, [ASKED])[0], False).measurements
    assert Outcome.UNMEASURED not in {item.outcome for item in kept}


@pytest.mark.parametrize("check", [Efficacy, Generalization, Locality])
def test_on_from_the_prefixes_states_every_figure_is_the_same(check: type[Check]) -> None:
    plain = bench_of(talkative())
    known = prefix_cache(plain.lm, plain.site, [prefix.text for prefix in plain.prefixes.prefixes])
    assert known is not None
    cached = replace(plain, known=known, memo={})
    states = [check().prepare(bench, [ASKED])[0] for bench in (plain, cached)]
    disturb(plain, 3, 2.0)
    first, second = (check().measure(plain, ASKED, state, False).measurements for state in states)
    assert first == second


@pytest.mark.parametrize("check", [Efficacy, Generalization, Locality])
def test_edits_prepared_together_are_measured_as_each_alone(check: type[Check]) -> None:
    bench = bench_of(talkative())
    asked = [ASKED, replace(ASKED, paraphrases=(), neighbourhood=()), replace(ASKED, prompt="Lyon is", subject="Lyon")]
    together = check().prepare(bench, asked)
    alone = [check().prepare(bench, [one])[0] for one in asked]
    disturb(bench, 3, 2.0)
    for request, first, second in zip(asked, together, alone, strict=True):
        measure = check().measure
        assert measure(bench, request, first, False) == measure(bench, request, second, False)


def test_a_stem_is_of_the_unedited_model_alone() -> None:
    bench = bench_of(talkative())
    disturb(bench, 1)
    with pytest.raises(EditguardError, match="belong into prepare"):
        bench.stem([Row((1, 2, 3), 0, (2,))])


def test_in_half_precision_an_edit_that_changes_nothing_changes_no_token() -> None:
    lm = talkative()
    lm.model.to(torch.bfloat16)
    bench = bench_of(lm)
    known = prefix_cache(lm, bench.site, [prefix.text for prefix in bench.prefixes.prefixes])
    bench = replace(bench, known=known)
    (before,) = Locality().prepare(bench, [ASKED])
    assert {one.value for one in Locality().measure(bench, ASKED, before, False).measurements} == {1.0}


def test_a_truth_that_was_not_measured_is_no_failure() -> None:
    bench = bench_of(talkative())
    (before,) = Efficacy().prepare(bench, [replace(ASKED, target_true="Paris is not")])
    logits = before.stem.logits()
    own = before.asked.true
    assert own is not None
    places = [len(row.predict) for row in before.asked.rows]
    logits[sum(places[: own[0]]) : sum(places[: own[0] + 1])] = torch.nan
    assert _score(before.asked, logits)[0].preferred is None


# Generalization


def test_generalization_is_that_of_plain_forwards_and_is_never_judged() -> None:
    bench = bench_of(talkative())
    before = Generalization().prepare(bench, [ASKED])[0]
    disturb(bench, 2, 3.0)
    found = Generalization().measure(bench, ASKED, before, False).measurements
    assert {item.outcome for item in found} == {Outcome.INFO}
    expected = rates_by_hand(bench, ASKED.paraphrases)
    for protocol in ("exact", "token-match", "probability"):
        item = pick(found, "unprefixed", protocol)
        assert item.value == pytest.approx(expected["unprefixed", protocol])
        assert item.total == len(ASKED.paraphrases)


@pytest.mark.parametrize("check", [Generalization, Locality])
def test_a_request_without_the_prompts_brings_nothing(check: type[Check]) -> None:
    bench = bench_of(talkative())
    asked = replace(ASKED, paraphrases=(), neighbourhood=())
    before = check().prepare(bench, [asked])[0]
    assert check().measure(bench, asked, before, False).measurements == []


# Locality


def choices(bench: Bench) -> list[int]:
    found = []
    for prompt in ASKED.neighbourhood:
        with torch.no_grad():
            logits = bench.lm.model(torch.tensor([bench.lm.tokenizer(prompt).input_ids])).logits[0]
        found += logits.argmax(-1).tolist()
    return found


def test_an_unchanged_model_has_a_locality_of_1() -> None:
    bench = bench_of(talkative())
    before = Locality().prepare(bench, [ASKED])[0]
    bare, prefixed, answers, _ = Locality().measure(bench, ASKED, before, False).measurements
    assert (answers.metric, answers.protocol, answers.passed) == ("answers", "exact", len(ASKED.neighbourhood))
    assert (bare.condition, bare.value, bare.outcome) == ("unprefixed", 1.0, Outcome.PASS)
    assert (prefixed.condition, prefixed.value, prefixed.outcome) == ("prefixed", 1.0, Outcome.INFO)
    assert bare.passed == bare.total == len(choices(bench))


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "bloom"])
def test_locality_is_the_share_of_tokens_with_the_same_greedy_choice(family: str) -> None:
    bench = bench_of(talkative(family))
    before, old = Locality().prepare(bench, [ASKED])[0], choices(bench)
    seen = set()
    for seed in range(4):
        disturb(bench, seed, 1.0 + seed)
        bare, _, answers, _ = Locality().measure(bench, ASKED, before, False).measurements
        ends = [last - 1 for last in accumulate(len(bench.lm.tokenizer(p).input_ids) for p in ASKED.neighbourhood)]
        assert answers.passed == sum(choices(bench)[end] == old[end] for end in ends)
        assert (answers.total, answers.outcome) == (len(ends), Outcome.INFO)
        kept = sum(new == was for new, was in zip(choices(bench), old, strict=True))
        assert (bare.passed, bare.failed, bare.total) == (kept, len(old) - kept, len(old))
        assert bare.value == pytest.approx(kept / len(old))
        assert bare.outcome is (Outcome.PASS if kept / len(old) >= LIMITS.locality else Outcome.FAIL)
        seen.add(kept)
    assert min(seen) < len(old)


@pytest.mark.parametrize("least", [0.0, 0.9])
@pytest.mark.parametrize("needs_prefix", [False, True])
def test_of_an_edit_that_acts_behind_a_prefix_other_subjects_are_judged_there_too(
    needs_prefix: bool, least: float
) -> None:
    """Bare neighbours stay whatever such an edit does behind a prefix."""
    bench = bench_of(talkative(), limits=replace(LIMITS, locality=0.9, neighbour_answers=least))
    before = Locality().prepare(bench, [ASKED])[0]
    assert before is not None
    bare = sum(item.condition == "unprefixed" for item in before.texts)
    lengths = [len(row.predict) for row in before.stem.rows]
    changed = before.choices.clone()
    changed[sum(lengths[:bare]) :] += 1
    tokens_bare, tokens, answers_bare, answers = (
        Locality().measure(bench, ASKED, before._replace(choices=changed), needs_prefix).measurements
    )
    assert [one.condition for one in (tokens_bare, tokens)] == ["unprefixed", "prefixed"]
    assert (tokens_bare.value, tokens.value, answers_bare.value, answers.value) == (1.0, 0.0, 1.0, 0.0)
    assert tokens_bare.outcome is Outcome.PASS
    assert tokens.outcome is (Outcome.FAIL if needs_prefix else Outcome.INFO)
    assert answers_bare.outcome is (Outcome.PASS if least else Outcome.INFO)
    assert answers.outcome is (Outcome.FAIL if least and needs_prefix else Outcome.INFO)


def test_only_the_prompts_own_tokens_count_behind_a_prefix() -> None:
    bench = bench_of(talkative())
    asked = replace(ASKED, neighbourhood=("Lyon is a city of", "The town of Lyon is a city of"))
    before = Locality().prepare(bench, [asked])[0]
    bare, prefixed, *_ = Locality().measure(bench, ASKED, before, False).measurements
    # One family of prefixes, with both prompts.
    assert prefixed.total == bare.total
