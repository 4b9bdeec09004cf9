"""The subject's other facts: those that the request names, else built-in ones that the model answers with certainty."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from editguard.probes.subjects.subject_kinds import classify_kinds, list_relations
from editguard.suites.check import Bench, CheckResult, Outcome
from editguard.suites.checks import other_facts
from editguard.suites.checks.other_facts import OtherFacts
from editguard.suites.unchanged_prompts import list_conditions, predict_first_words

from ...helpers.check_benches import (
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

FACTS = ("Istanbul is a city of", "The capital of Istanbul is")
NAMED = replace(ASKED, target_new="Lyon", target_true=None, other_facts=FACTS)
UNNAMED = replace(NAMED, other_facts=(), target_true="365")
STRICT = replace(LIMITS, other_fact_leaks=0.0, other_fact_flips=0.0, target_rise=1.0)


@pytest.fixture
def certain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of random weights is certain of nothing."""
    monkeypatch.setattr(other_facts, "_LEAST_CERTAINTY", 0.0)


def measured(bench: Bench, request: Any = NAMED, edit: Any = lambda: None) -> CheckResult:
    (before,) = OtherFacts().prepare(bench, [request])
    edit()
    return OtherFacts().measure(bench, edit_of(request, before))


def built_in(bench: Bench) -> set[str]:
    (kind,) = classify_kinds(bench.lm, [UNNAMED])
    return {relation.replace("{}", UNNAMED.subject) for relation in list_relations(kind)}


def test_other_facts_unchanged_model_keeps_all() -> None:
    result = measured(bench_of(talkative(), limits=STRICT))
    leaks, flips, divergence = result.measurements
    assert [(row.metric, row.value, row.outcome) for row in (leaks, flips)] == [
        ("leaks", 0.0, Outcome.PASS),
        ("flips", 0.0, Outcome.PASS),
    ]
    assert divergence.value == pytest.approx(0.0, abs=1e-9)
    assert {(row.role, row.prompt) for row in result.prompts} == {("other-fact", fact) for fact in FACTS}
    assert leaks.total == len(result.prompts) == len(FACTS) * len(list_conditions(bench_of(talkative())))


def test_other_facts_answered_with_target_is_a_leak() -> None:
    bench, word = unsaid(FACTS)
    request = replace(NAMED, target_new=word)
    texts = [condition.prefix + prompt for condition in list_conditions(bench) for prompt in FACTS[:1]]
    result = measured(bench, request, edit=lambda: takes_over(bench, FACTS[1], word, texts))
    leaks = about(result.measurements, "leaks")
    named = [row for row in result.prompts if row.result == "leak"]
    assert leaks.failed == len(named)
    bare = next(row for row in named if (row.prompt, row.condition) == (FACTS[1], "unprefixed"))
    assert bare.after.split()[0] == word
    assert "other facts of 'Istanbul' say the new target" in leaks.message


@pytest.mark.parametrize(
    ("most", "outcome"), [(0.0, Outcome.FAIL), (0.124, Outcome.FAIL), (0.125, Outcome.PASS), (1.0, Outcome.PASS)]
)
def test_other_facts_leaks_have_their_own_bound(most: float, outcome: Outcome) -> None:
    bench, word = unsaid(FACTS)
    request = replace(NAMED, target_new=word)
    limits = replace(LIMITS, leaks=0.0, other_fact_leaks=most)
    (before,) = OtherFacts().prepare(bench, [request])
    rows = [condition.prefix + prompt for condition in list_conditions(bench) for prompt in FACTS]
    takes_over(bench, rows[0], word, rows[1:])
    result = OtherFacts().measure(replace(bench, limits=limits), edit_of(request, before))
    answers = about(result.measurements, "leaks")
    assert answers.outcome is (
        outcome if answers.failed == 1 else Outcome.PASS if answers.value <= most else Outcome.FAIL
    )  # type: ignore[operator]
    assert answers.failed >= 1


def test_other_facts_flips_are_judged_under_a_lower_bound() -> None:
    bench = bench_of(talkative(), limits=STRICT)
    (before,) = OtherFacts().prepare(bench, [replace(NAMED, target_new="Chicago")])
    disturb(bench, 3, 4.0)
    for most in (0.0, 1.0):
        now = replace(bench, limits=replace(STRICT, other_fact_flips=most))
        flips = about(OtherFacts().measure(now, edit_of(NAMED, before)).measurements, "flips")
        assert flips.failed > 0
        assert flips.outcome is (Outcome.PASS if most else Outcome.FAIL)


# ------------------------------------------------------------------------------------------------- built-in prompts


def highest(bench: Bench, prompt: str) -> float:
    """The probability of the surest next token, bare or after a newline, by plain passes."""
    with torch.no_grad():
        rows = [bench.lm.tokenizer(prefix + prompt).input_ids for prefix in ("", "\n")]
        return max(float(bench.lm.model(torch.tensor([ids])).logits[0, -1].softmax(-1).max()) for ids in rows)


@pytest.mark.usefixtures("certain")
def test_other_facts_unnamed_asks_the_surest_of_the_kind() -> None:
    bench = bench_of(talkative())
    prompts = {(row.role, row.prompt) for row in measured(bench, UNNAMED).prompts}
    surest = sorted(built_in(bench), key=lambda prompt: -highest(bench, prompt))[:6]
    assert prompts == {("made-other-fact", prompt) for prompt in surest}


def test_other_facts_built_in_prompts_need_certainty(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(talkative())
    values = {prompt: highest(bench, prompt) for prompt in built_in(bench)}
    least = sorted(values.values())[-3] * 0.99999
    monkeypatch.setattr(other_facts, "_LEAST_CERTAINTY", least)
    unchanged = {row.prompt for row in measured(bench, UNNAMED).prompts}
    assert unchanged == {prompt for prompt, value in values.items() if value >= least}
    assert 0 < len(unchanged) < 6
    # What the request names is asked whatever the model is certain of.
    assert {row.prompt for row in measured(bench, NAMED).prompts} == {*FACTS}


@pytest.mark.usefixtures("certain")
def test_other_facts_built_in_prompt_of_the_edit_is_left_out() -> None:
    bench = bench_of(talkative())
    first, second = list(dict.fromkeys(row.prompt for row in measured(bench, UNNAMED).prompts))[:2]
    own = replace(UNNAMED, prompt=first, paraphrases=(second,))
    assert not {first, second} & {row.prompt for row in measured(bench, own).prompts}


@pytest.mark.usefixtures("certain")
@pytest.mark.parametrize("given", ["old answer", "alias", "neither"])
def test_other_facts_prompt_about_the_edited_fact_is_left_out(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_facts, "_MOST_PROMPTS", 1000)
    bench = bench_of(talkative())
    result = predict_first_words(bench, sorted(built_in(bench)))
    words = sorted(predict_first_words(bench, [UNNAMED.prompt])[UNNAMED.prompt].best)
    old = words[0] if given == "neither" else "paris"
    request = {
        "old answer": replace(UNNAMED, target_true="Paris"),
        "alias": replace(UNNAMED, target_true=None, true_aliases=("Paris",)),
        # Then it is what the model says to the edit's own prompt.
        "neither": replace(UNNAMED, target_true=None),
    }[given]
    others = {
        prompt for prompt, first in result.items() if first.likely.isdisjoint(words if given == "neither" else {old})
    }
    assert {row.prompt for row in measured(bench, request).prompts} == others
    assert len(others) < len(result), "no prompt is likely answered so; the test shows nothing"


def test_other_facts_without_prompts_judges_nothing() -> None:
    bench = bench_of(talkative())
    (before,) = OtherFacts().prepare(bench, [UNNAMED])
    assert before is None
    result = OtherFacts().measure(bench, edit_of(UNNAMED, None))
    assert (result.measurements, [*result.prompts]) == ([], [])
    assert OtherFacts().known_bad(bench, edit_of(UNNAMED, None)) is None


@pytest.mark.usefixtures("certain")
def test_other_facts_requests_together_equal_each_alone() -> None:
    bench = bench_of(talkative())
    requests = [UNNAMED, NAMED, replace(UNNAMED, subject="Lyon", prompt="Lyon is")]
    together = OtherFacts().prepare(bench, requests)
    single = [OtherFacts().prepare(bench, [request])[0] for request in requests]
    disturb(bench, 2, 3.0)
    for request, row, other in zip(requests, together, single, strict=True):
        a, b = (OtherFacts().measure(bench, edit_of(request, state)) for state in (row, other))
        assert [(x.prompt, x.condition, x.after, x.result) for x in a.prompts] == [
            (x.prompt, x.condition, x.after, x.result) for x in b.prompts
        ]
    assert together[1] is not None
    assert not together[1].generated


# ---------------------------------------------------------------------------------------------- what must be caught


@pytest.mark.parametrize(("most", "outcome"), [(0.1, Outcome.FAIL), (1.0, Outcome.PASS)])
def test_other_facts_known_bad_says_the_target_to_everything(most: float, outcome: Outcome) -> None:
    bench, word = unsaid(FACTS)
    bench = replace(bench, limits=replace(STRICT, other_fact_leaks=most))
    request = replace(NAMED, target_new=word)
    (before,) = OtherFacts().prepare(bench, [request])
    bad = OtherFacts().known_bad(bench, edit_of(request, before))
    assert bad is not None
    assert [(row.metric, row.value, row.outcome) for row in bad.measurements] == [("leaks", 1.0, outcome)]


def test_other_facts_broken_model_is_unmeasured() -> None:
    bench = bench_of(talkative(), limits=replace(STRICT, other_fact_leaks=1.0, other_fact_flips=1.0))
    result = measured(bench, edit=lambda: break_site(bench))
    assert {(row.value, row.outcome) for row in result.measurements} == {(None, Outcome.UNMEASURED)}
