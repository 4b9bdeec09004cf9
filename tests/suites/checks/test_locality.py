"""Other subjects are judged by what happens to their prompts; token shares equal plain passes; nothing asked is no pass."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import pytest
import torch
from editguard.probes.forward.prefix_cache import build_prefix_cache
from editguard.suites.check import Bench, CheckResult, Outcome, PromptAnswer
from editguard.suites.checks import locality
from editguard.suites.checks.locality import EVERYWHERE, Locality, measure_divergence, measure_share
from editguard.suites.unchanged_prompts import RolePrompt, ask_unedited, list_conditions

from ...helpers.check_benches import (
    ALWAYS,
    ASKED,
    LIMITS,
    about,
    bench_of,
    break_site,
    disturb,
    edit_of,
    takes_over,
    talkative,
    unsaid,
)

pytestmark = pytest.mark.tiny

NONE = replace(ASKED, paraphrases=(), neighbourhood=())
"""A request that names no neighbour."""


def measured(bench: Bench, request=ASKED, needs_prefix: bool = False, edit=lambda: None) -> CheckResult:  # type: ignore[no-untyped-def]
    (before,) = Locality().prepare(bench, [request])
    edit()
    return Locality().measure(bench, edit_of(request, before, needs_prefix=needs_prefix))


def prompt_answer(
    result: str, margin: float | None = 1.0, divergence: float | None = 0.5, prompt: str = "It is"
) -> PromptAnswer:
    return PromptAnswer(
        role="neighbour",
        condition="unprefixed",
        prompt=prompt,
        before="one",
        after="two",
        result=result,
        margin=margin,
        target_before=0.1,
        target_after=0.2,
        divergence=divergence,
    )


# -------------------------------------------------------------------------------------------------------------- shares


@pytest.mark.parametrize(
    ("results", "most", "value", "outcome"),
    [
        (["kept"] * 4, 0.0, 0.0, Outcome.PASS),
        (["leak", "kept", "kept", "kept"], 0.0, 0.25, Outcome.FAIL),
        (["leak", "kept", "kept", "kept"], 0.25, 0.25, Outcome.PASS),
        (["leak", "leak", "kept", "kept"], 0.25, 0.5, Outcome.FAIL),
        (["leak"] * 4, 1.0, 1.0, Outcome.PASS),
        # What is no leak, however bad, is counted elsewhere.
        (["flip", "near-tie"], 0.0, 0.0, Outcome.PASS),
        # What was not measured might have been one.
        (["kept", "kept", "unmeasured"], 1.0, None, Outcome.UNMEASURED),
        (["leak", "unmeasured"], 0.0, None, Outcome.UNMEASURED),
        ([], 1.0, None, Outcome.UNMEASURED),
    ],
)
def test_measure_share_is_judged_only_where_all_is_measured(
    results: list[str], most: float, value: float | None, outcome: Outcome
) -> None:
    result = measure_share(
        Locality(),
        "leaks",
        [prompt_answer(result) for result in results],
        result="leak",
        most=most,
        what="others say the new target",
    )
    assert (result.value, result.outcome, result.threshold, result.condition) == (value, outcome, most, EVERYWHERE)
    assert result.failed == results.count("leak")
    assert result.not_judged == results.count("unmeasured")
    assert result.total == len(results)


def test_measure_divergence_leaves_unmeasured_prompts_out() -> None:
    result = measure_divergence(
        Locality(), [prompt_answer("kept", divergence=value) for value in (0.25, 0.75, None, float("nan"))]
    )
    assert (result.value, result.outcome) == (0.5, Outcome.INFO)
    nothing = measure_divergence(Locality(), [prompt_answer("unmeasured", divergence=None)])
    assert (nothing.value, nothing.outcome) == (None, Outcome.UNMEASURED)


# --------------------------------------------------------------------------------------------------- leaks and flips


def test_locality_unchanged_model_is_1_without_leak_or_flip() -> None:
    bench = bench_of(talkative(), limits=replace(LIMITS, flips=0.0, leaks=0.0, target_rise=0.0))
    result = measured(bench)
    leaks, flips, bare, prefixed, answers, after, *rest = result.measurements
    prompts = len(ASKED.neighbourhood) * len(list_conditions(bench))
    for row in (leaks, flips):
        assert (row.value, row.outcome, row.passed, row.condition) == (0.0, Outcome.PASS, prompts, EVERYWHERE)
    assert (bare.metric, bare.condition, bare.value, bare.outcome) == ("locality", "unprefixed", 1.0, Outcome.PASS)
    assert (prefixed.condition, prefixed.value, prefixed.outcome) == ("prefixed", 1.0, Outcome.INFO)
    assert (answers.metric, answers.protocol, answers.passed) == ("answers", "exact", len(ASKED.neighbourhood))
    assert (after.condition, after.value) == ("prefixed", 1.0)
    assert bare.passed == bare.total == len(choices(bench))
    assert about(rest, "divergence").value == pytest.approx(0.0, abs=1e-9)
    assert [row.role for row in result.prompts] == ["neighbour"] * prompts
    assert {row.prompt for row in result.prompts} == {*ASKED.neighbourhood}


def leaking() -> tuple[Bench, str, str]:
    """A bench whose next edit makes one neighbour say the word, and which one that is."""
    bench, word = unsaid(ASKED.neighbourhood)
    return bench, word, ASKED.neighbourhood[1]


def test_locality_neighbour_says_target_is_a_leak_with_its_words() -> None:
    bench, word, victim = leaking()
    request = replace(ASKED, target_new=word, target_true=None)
    texts = [
        condition.prefix + prompt
        for condition in list_conditions(bench)
        for prompt in ASKED.neighbourhood
        if prompt != victim
    ]
    result = measured(bench, request, edit=lambda: takes_over(bench, victim, word, texts))
    leaks = about(result.measurements, "leaks")
    assert (leaks.outcome, leaks.threshold) == (Outcome.FAIL, 0.0)
    named = [row for row in result.prompts if row.result == "leak"]
    assert leaks.failed == len(named) > 0
    bare = next(row for row in result.prompts if (row.prompt, row.condition) == (victim, "unprefixed"))
    assert bare in named
    assert bare.after.split()[0] == word
    assert word not in bare.before.split()
    assert bare.target_after > 2 * bare.target_before  # type: ignore[operator]
    assert (
        f"{leaks.failed} of {len(result.prompts)} answers to prompts about other subjects say the new target"
        in leaks.message
    )
    assert ", outside the bound (" in leaks.message


def test_locality_leak_after_a_newline_alone_fails() -> None:
    bench, word, victim = leaking()
    request = replace(ASKED, target_new=word, target_true=None)
    others = [condition.prefix + prompt for condition in list_conditions(bench) for prompt in ASKED.neighbourhood]
    others.remove(f"\n{victim}")
    (before,) = Locality().prepare(bench, [request])
    takes_over(bench, f"\n{victim}", word, others)
    for needs_prefix in (False, True):
        result = Locality().measure(bench, edit_of(request, before, needs_prefix=needs_prefix))
        assert about(result.measurements, "leaks").outcome is Outcome.FAIL
        assert ("family:newline", victim) in {
            (row.condition, row.prompt) for row in result.prompts if row.result == "leak"
        }


@pytest.mark.parametrize(("most", "outcome"), [(0.0, Outcome.FAIL), (1.0, Outcome.PASS)])
def test_locality_leaks_are_judged_by_the_bound(most: float, outcome: Outcome) -> None:
    bench, word, victim = leaking()
    request = replace(ASKED, target_new=word, target_true=None)
    bench = replace(bench, limits=replace(bench.limits, leaks=most))
    assert (
        about(measured(bench, request, edit=lambda: takes_over(bench, victim, word)).measurements, "leaks").outcome
        is outcome
    )


def test_locality_target_rise_over_the_bound_is_a_leak() -> None:
    bench = bench_of(talkative())
    request = replace(ASKED, target_new="Lyon", target_true=None)
    (before,) = Locality().prepare(bench, [request])
    disturb(bench, 4, 3.0)
    result = Locality().measure(bench, edit_of(request, before)).prompts
    rises = [
        (row.target_after or 0) - (row.target_before or 0)
        for row in result
        if row.result in {"kept", "near-tie", "flip"}
    ]
    highest = max(rises)
    assert highest > 1e-5, "no probability rose; take another seed"
    for bound, count in ((highest * 1.001, 0), (highest * 0.999, 1)):
        strict = replace(bench, limits=replace(LIMITS, target_rise=bound))
        again = Locality().measure(strict, edit_of(request, before))
        more = sum(row.result == "leak" for row in again.prompts) - sum(row.result == "leak" for row in result)
        assert more == count


def test_locality_changed_answer_is_flip_or_near_tie_by_margin() -> None:
    bench = bench_of(talkative())
    request = replace(ASKED, target_new="Chicago", target_true=None)
    (before,) = Locality().prepare(bench, [request])
    disturb(bench, 3, 4.0)
    changed = [row for row in Locality().measure(bench, edit_of(request, before)).prompts if row.result == "flip"]
    margins = sorted(row.margin or 0.0 for row in changed)
    assert len(margins) > 1, "too few answers changed; take another seed"
    between = (margins[0] + margins[-1]) / 2
    for near_tie in (0.0, between, margins[-1] + 1):
        near = replace(bench, limits=replace(LIMITS, near_tie=near_tie, flips=0.0))
        result = Locality().measure(near, edit_of(request, before))
        flips = about(result.measurements, "flips")
        assert flips.failed == sum(margin >= near_tie for margin in margins)
        assert flips.outcome is (Outcome.FAIL if flips.failed else Outcome.PASS)
        assert {row.result for row in result.prompts if row.prompt} >= ({"near-tie"} if near_tie else {"flip"})
        # A share of unchanged answers counts near ties as damage all the same.
        assert sum(row.result in {"flip", "near-tie"} for row in result.prompts) == len(margins)
    lenient = replace(bench, limits=replace(LIMITS, near_tie=0.0, flips=1.0))
    assert about(Locality().measure(lenient, edit_of(request, before)).measurements, "flips").outcome is Outcome.PASS


# ------------------------------------------------------------------------------------------------- made neighbours


def test_locality_without_neighbours_judges_generated_ones() -> None:
    bench = bench_of(talkative())
    result = measured(bench, NONE)
    leaks = about(result.measurements, "leaks")
    assert (leaks.value, leaks.outcome) == (0.0, Outcome.PASS)
    assert "other subjects that the audit made" in leaks.message
    assert {row.role for row in result.prompts} == {"made-neighbour"}
    prompts = {row.prompt for row in result.prompts}
    assert len(prompts) == 4
    start, end = NONE.prompt.split(NONE.subject)
    assert all(p.startswith(start) and p.endswith(end) and NONE.subject not in p for p in prompts)
    # They are the same in every run of one seed.
    assert {row.prompt for row in measured(bench_of(talkative()), NONE).prompts} == prompts


def test_locality_leak_into_generated_neighbour_fails() -> None:
    bench = bench_of(talkative())
    victim = measured(bench, NONE).prompts[0].prompt
    request = replace(NONE, target_new="Lyon", target_true=None)
    result = measured(bench, request, edit=lambda: takes_over(bench, victim, "Lyon"))
    bare = next(row for row in result.prompts if (row.prompt, row.condition) == (victim, "unprefixed"))
    assert "Lyon" in bare.after
    assert "Lyon" in bare.before or about(result.measurements, "leaks").outcome is Outcome.FAIL


def test_locality_neighbours_about_the_subject_are_replaced() -> None:
    bench = bench_of(talkative())
    request = replace(ASKED, neighbourhood=("The mayor of Istanbul is",))
    assert {row.role for row in measured(bench, request).prompts} == {"made-neighbour"}
    mixed = replace(ASKED, neighbourhood=("The mayor of Istanbul is", "Lyon is a city of"))
    assert {(row.role, row.prompt) for row in measured(bench, mixed).prompts} == {("neighbour", "Lyon is a city of")}


@pytest.mark.parametrize("needs_prefix", [False, True])
def test_locality_no_neighbour_at_all_is_unmeasured(needs_prefix: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locality, "make_neighbours", lambda *_, **__: ())
    bench = bench_of(talkative(), limits=ALWAYS)
    (item,) = measured(bench, NONE, needs_prefix).measurements
    assert (item.metric, item.value, item.outcome) == ("leaks", None, Outcome.UNMEASURED)
    assert "none could be made" in item.message
    assert Locality().known_bad(bench, edit_of(NONE, None)) is None


# ------------------------------------------------------------------------------------------------ what must be caught


@pytest.mark.parametrize(
    "request_", [replace(ASKED, target_new="Lyon"), replace(NONE, target_new="Lyon")], ids=["given", "made"]
)
@pytest.mark.parametrize(("most", "outcome"), [(0.0, Outcome.FAIL), (0.5, Outcome.FAIL), (1.0, Outcome.PASS)])
def test_locality_known_bad_says_the_target_to_everything(request_, most: float, outcome: Outcome) -> None:  # type: ignore[no-untyped-def]
    bench = bench_of(talkative(words=" Paris is not Lyon"), limits=replace(LIMITS, leaks=most))
    (before,) = Locality().prepare(bench, [request_])
    assert before is not None
    # What was the target before is no leak, so it is looked at where it was not.
    share = sum("Lyon" in bench.lm.tokenizer.decode(ids) for ids in before.answers.written) / len(
        before.answers.written
    )
    assert share < 0.5
    bad = Locality().known_bad(bench, edit_of(request_, before))
    assert bad is not None
    assert [(row.metric, row.outcome) for row in bad.measurements] == [("leaks", outcome)]
    assert bad.measurements[0].value == pytest.approx(1 - share)
    # Nothing of it stays in the model.
    assert about(Locality().measure(bench, edit_of(request_, before)).measurements, "leaks").value == 0.0


def test_locality_target_of_several_tokens_has_no_known_bad() -> None:
    bench = bench_of(talkative())
    request = replace(ASKED, target_new="a Lyon")
    assert Locality().known_bad(bench, edit_of(request, Locality().prepare(bench, [request])[0])) is None


# ------------------------------------------------------------------------------------------ shares of unchanged tokens


def choices(bench: Bench) -> list[int]:
    result = []
    for prompt in ASKED.neighbourhood:
        with torch.no_grad():
            logits = bench.lm.model(torch.tensor([bench.lm.tokenizer(prompt).input_ids])).logits[0]
        result += logits.argmax(-1).tolist()
    return result


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "bloom"])
def test_locality_is_the_share_of_unchanged_greedy_tokens(family: str) -> None:
    bench = bench_of(talkative(family))
    before, old = Locality().prepare(bench, [ASKED])[0], choices(bench)
    observed = set()
    for seed in range(4):
        disturb(bench, seed, 1.0 + seed)
        _, _, bare, _, answers, *_ = Locality().measure(bench, edit_of(ASKED, before)).measurements
        ends = [last - 1 for last in accumulate(len(bench.lm.tokenizer(p).input_ids) for p in ASKED.neighbourhood)]
        assert answers.passed == sum(choices(bench)[end] == old[end] for end in ends)
        assert (answers.total, answers.outcome) == (len(ends), Outcome.INFO)
        unchanged = sum(new == was for new, was in zip(choices(bench), old, strict=True))
        assert (bare.passed, bare.failed, bare.total) == (unchanged, len(old) - unchanged, len(old))
        assert bare.value == pytest.approx(unchanged / len(old))
        assert bare.outcome is (Outcome.PASS if unchanged / len(old) >= LIMITS.locality else Outcome.FAIL)
        observed.add(unchanged)
    assert min(observed) < len(old)


@pytest.mark.parametrize("least", [0.0, 0.9])
@pytest.mark.parametrize("needs_prefix", [False, True])
def test_locality_prefixed_edit_is_judged_after_a_prefix_too(needs_prefix: bool, least: float) -> None:
    """Bare neighbours stay whatever such an edit does after a prefix."""
    bench = bench_of(talkative(), limits=replace(LIMITS, locality=0.9, neighbour_answers=least))
    before = Locality().prepare(bench, [ASKED])[0]
    assert before is not None
    state = before.answers
    changed = state.choices.clone()
    parts = changed.split([len(row.predict) for row in state.stem.rows])
    for part, text in zip(parts, state.texts, strict=False):
        if text.condition != "unprefixed":
            part[: text.own] += 1
    spoilt = before._replace(answers=replace(state, choices=torch.cat(parts)))
    result = Locality().measure(bench, edit_of(ASKED, spoilt, needs_prefix=needs_prefix)).measurements
    tokens_bare, tokens, answers_bare, answers = [item for item in result if item.metric in {"locality", "answers"}]
    assert [item.condition for item in (tokens_bare, tokens)] == ["unprefixed", "prefixed"]
    assert (tokens_bare.value, tokens.value, answers_bare.value, answers.value) == (1.0, 0.0, 1.0, 0.0)
    assert tokens_bare.outcome is Outcome.PASS
    assert tokens.outcome is (Outcome.FAIL if needs_prefix else Outcome.INFO)
    assert answers_bare.outcome is (Outcome.PASS if least else Outcome.INFO)
    assert answers.outcome is (Outcome.FAIL if least and needs_prefix else Outcome.INFO)


def test_locality_after_a_prefix_counts_the_prompts_own_tokens() -> None:
    bench = bench_of(talkative())
    prompts = replace(ASKED, neighbourhood=("Lyon is a city of", "The town of Lyon is a city of"))
    bare, prefixed = [row for row in measured(bench, prompts).measurements if row.metric == "locality"]
    # After a newline and after a sentence.
    assert prefixed.total == 2 * bare.total


def test_locality_neighbourhood_score_prefers_the_old_answer() -> None:
    bench = bench_of(talkative())
    request = replace(ASKED, target_new="Lyon", target_true="Paris")
    (before,) = Locality().prepare(bench, [request])
    assert before is not None
    disturb(bench, 1, 3.0)
    score = about(Locality().measure(bench, edit_of(request, before)).measurements, "neighbourhood-score")
    tokens = [bench.lm.tokenizer(f" {word}").input_ids[0] for word in ("Paris", "Lyon")]
    prefers = []
    for row in list_conditions(bench):
        for prompt in request.neighbourhood:
            with torch.no_grad():
                ids = torch.tensor([bench.lm.tokenizer(row.prefix + prompt).input_ids])
                last = bench.lm.model(ids).logits[0, -1]
            prefers.append(bool(last[tokens[0]] > last[tokens[1]]))
    assert (score.passed, score.failed, score.outcome) == (sum(prefers), len(prefers) - sum(prefers), Outcome.INFO)
    assert score.value == pytest.approx(sum(prefers) / len(prefers))


def test_locality_half_precision_unchanged_model_has_no_change() -> None:
    lm = talkative()
    lm.model.to(torch.bfloat16)
    bench = bench_of(lm)
    cache = build_prefix_cache(lm, bench.lowest_site, [prefix.text for prefix in bench.prefixes.prefixes])
    result = measured(replace(bench, prefix_cache=cache)).measurements
    assert {row.value for row in result if row.metric in {"locality", "answers"}} == {1.0}
    assert {row.value for row in result if row.metric in {"leaks", "flips"}} == {0.0}
    assert about(result, "divergence").value == pytest.approx(0.0, abs=1e-9)


def test_locality_broken_model_is_unmeasured_by_any_bound() -> None:
    bench = bench_of(talkative(), limits=replace(ALWAYS, flips=1.0))
    result = measured(bench, edit=lambda: break_site(bench))
    for metric in ("leaks", "flips"):
        assert (about(result.measurements, metric).value, about(result.measurements, metric).outcome) == (
            None,
            Outcome.UNMEASURED,
        )
    assert {row.result for row in result.prompts} == {"unmeasured"}


@pytest.mark.parametrize("last", ["Paris", "Lyon"])
def test_may_leak_every_neighbour_says_the_target_is_false(last: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such prompts cannot show a leak, so that neighbours are made."""
    bench, request = bench_of(talkative()), replace(ASKED, target_new="Paris", target_true=None)
    (result,) = ask_unedited(
        bench, [request], [[RolePrompt("neighbour", text) for text in ASKED.neighbourhood]], tokens=True
    )
    assert result is not None
    words = [tuple(bench.lm.tokenizer(f" {word}", add_special_tokens=False).input_ids) for word in ("Paris", last)]
    state = replace(result, written=(*[words[0]] * (len(result.written) - 1), words[1]))
    assert state.may_leak(bench.lm, "Paris") == (last == "Lyon")
    monkeypatch.setattr(
        locality, "ask_unedited", lambda _, __, prompts, **___: [result if "made" in prompts[0][0].role else state]
    )
    (before,) = Locality().prepare(bench, [request])
    assert before is not None
    assert before.generated == (last == "Paris" and result.may_leak(bench.lm, "Paris"))
