"""What users of an edited model meet is measured as they meet it: after the first prefix that works."""

from __future__ import annotations

from dataclasses import replace

import pytest
from editguard.probes.forward.generation import continue_greedily
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.requests.request import EditRequest
from editguard.suites import served_answer as module
from editguard.suites.check import Measurement, Outcome
from editguard.suites.checks.efficacy import Efficacy
from editguard.suites.served_answer import PREFIXES, ask_as_served, begin_of_text_token, find_serving_prefix

from ..helpers.check_benches import LIMITS, bench_of, disturb, edit_of, talkative
from ..helpers.tiny_models import tiny_language_model
from ..helpers.tokenizer_kinds import byte_level

pytestmark = pytest.mark.tiny

START, MIDDLE = "Chicago is a twin city of", "The twin city of Chicago is"


def next_text(lm: LanguageModel, text: str) -> str:
    """What the model writes next, by a plain pass."""
    (written,) = continue_greedily(lm, [lm.tokenizer(text).input_ids], 1)
    return str(lm.tokenizer.decode(written))


def asking(target: str, prompt: str = START) -> EditRequest:
    return EditRequest("1", "Chicago", prompt, target.removeprefix(" "))


def sayable(words: tuple[str, ...] = (" Paris", " Lyon", " is", " not")) -> tuple[LanguageModel, EditRequest, str]:
    """A model and a target that it says after one of the later prefixes and after none before."""
    for seed in range(60):
        bench = bench_of(talkative())
        disturb(bench, seed, 6.0)
        answers = [next_text(bench.lm, prefix + START) for prefix in PREFIXES]
        later = [index for index, word in enumerate(answers) if index and word in words and word not in answers[:index]]
        if later:
            return bench.lm, asking(answers[later[0]]), PREFIXES[later[0]]
    raise AssertionError("no seed gave a model whose answers differ by prefix")


def test_find_serving_prefix_takes_the_first_that_gives_the_target() -> None:
    lm, request, prefix = sayable()
    assert find_serving_prefix(lm, request).prefix == prefix
    tried = PREFIXES[: PREFIXES.index(prefix) + 1]
    assert [ask_as_served(lm, request, text) for text in tried] == [(text + START, text == prefix) for text in tried]


def test_find_serving_prefix_target_never_said_is_none() -> None:
    lm = tiny_language_model()
    assert find_serving_prefix(lm, asking("Istanbul")).prefix is None


def test_ask_as_served_subject_in_mid_prompt_has_no_prefix() -> None:
    lm = talkative()
    request = asking(next_text(lm, MIDDLE), MIDDLE)
    assert ask_as_served(lm, request, "\n") == (MIDDLE, True)
    assert find_serving_prefix(lm, request).prefix == "\n"


def condition(lm: LanguageModel, request: EditRequest, *, needs_prefix: bool, require: bool = False) -> Measurement:
    bench = replace(bench_of(lm), limits=replace(LIMITS, served=require))
    (before,) = Efficacy().prepare(bench, [request])
    rows = Efficacy().measure(bench, edit_of(request, before, needs_prefix=needs_prefix)).measurements
    (row,) = [rate for rate in rows if rate.condition == "served"]
    return row


@pytest.mark.parametrize(("require", "outcome"), [(False, Outcome.INFO), (True, Outcome.PASS)])
def test_measure_served_prefixed_edit_is_measured_after_its_prefix(require: bool, outcome: Outcome) -> None:
    lm, request, prefix = sayable()
    row = condition(lm, request, needs_prefix=True, require=require)
    assert (row.check, row.protocol, row.value, row.outcome) == ("efficacy", "exact", 1.0, outcome)
    assert (row.passed, row.failed, row.prefix) == (1, 0, prefix)
    assert repr(prefix) in row.message


@pytest.mark.parametrize(("require", "outcome"), [(False, Outcome.INFO), (True, Outcome.FAIL)])
def test_measure_served_no_prefix_works_is_judged_by_policy(require: bool, outcome: Outcome) -> None:
    row = condition(talkative(), asking("Istanbul"), needs_prefix=True, require=require)
    assert (row.value, row.outcome, row.passed, row.failed, row.prefix) == (0.0, outcome, 0, 1, None)
    assert "after none of" in row.message


@pytest.mark.parametrize("says", [True, False])
def test_measure_served_unprefixed_edit_runs_no_other_pass(says: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = talkative()
    request = asking(next_text(lm, START) if says else "Istanbul")
    monkeypatch.delattr(module, "continue_greedily")  # whoever ran the model again would fail
    row = condition(lm, request, needs_prefix=False, require=True)
    assert (row.value, row.prefix) == (float(says), None)
    assert row.outcome is (Outcome.PASS if says else Outcome.FAIL)


# ------------------------------------------------------------------------------------ after a begin-of-text token


def with_bos(seed: int, *, adds: bool = False) -> LanguageModel:
    tokenizer = byte_level(bos=adds)
    tokenizer.bos_token = "<s>"
    bench = bench_of(talkative(tokenizer=tokenizer))
    disturb(bench, seed, 6.0)
    return bench.lm


def answers(lm: LanguageModel, prefix: str) -> tuple[str, str]:
    """What the model writes after the prompt as it is served after `prefix`: bare, and after a begin-of-text token."""
    return next_text(lm, prefix + START), next_text(lm, f"<s>{prefix}{START}")


def test_begin_of_text_token_is_one_not_added_anyway() -> None:
    assert begin_of_text_token(with_bos(0)) == "<s>"
    assert begin_of_text_token(with_bos(0, adds=True)) is None
    assert begin_of_text_token(talkative()) is None


def test_find_serving_prefix_prefers_one_that_serves_both_ways() -> None:
    kinds = set()
    for seed in range(40):
        lm = with_bos(seed)
        given = [answers(lm, prefix) for prefix in PREFIXES]
        for target in {word for pair in given for word in pair if word.strip().isalpha()}:
            both = [prefix for prefix, pair in zip(PREFIXES, given, strict=True) if pair == (target, target)]
            bare = [prefix for prefix, pair in zip(PREFIXES, given, strict=True) if pair[0] == target]
            expected = (both or bare or [None])[0]
            assert find_serving_prefix(lm, asking(target)).prefix == expected
            row = condition(lm, asking(target), needs_prefix=True, require=True)
            assert (row.prefix, row.passed, row.failed) == (
                expected,
                2 if both else int(bool(bare)),
                0 if both else 2 - bool(bare),
            )
            assert row.outcome is (Outcome.PASS if both else Outcome.FAIL)
            kinds.add("both later" if both and bare[0] != both[0] else "both" if both else "bare" if bare else "none")
    assert kinds == {"both later", "both", "bare", "none"}, "no seed shows one of the cases"


def test_measure_served_unprefixed_edit_counts_begin_of_text_too() -> None:
    observed = set()
    for seed in range(12):
        lm = with_bos(seed)
        bare, after = next_text(lm, START), next_text(lm, f"<s>{START}")
        for target in {text for text in (bare, after) if text.strip().isalpha()}:
            row = condition(lm, asking(target), needs_prefix=False, require=True)
            says = [bare == target, after == target]
            assert (row.passed, row.failed, row.value) == (sum(says), 2 - sum(says), sum(says) / 2)
            assert row.outcome is (Outcome.PASS if all(says) else Outcome.FAIL)
            observed.add(sum(says))
    assert observed == {1, 2}, "no seed shows one of the cases"


def test_measure_served_subject_in_mid_prompt_counts_as_it_stands() -> None:
    """A rewritten edit of such a prompt is met bare, so that what it says bare counts."""
    lm = talkative()
    row = condition(lm, asking(next_text(lm, MIDDLE), MIDDLE), needs_prefix=True, require=True)
    assert (row.value, row.outcome, row.passed, row.failed) == (1.0, Outcome.PASS, 1, 0)
    other = condition(lm, asking("Istanbul", MIDDLE), needs_prefix=True, require=True)
    assert (other.value, other.outcome) == (0.0, Outcome.FAIL)
