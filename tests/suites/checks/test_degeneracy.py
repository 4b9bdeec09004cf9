"""Entropy and repetition by hand; a model that repeats itself fails."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from editguard.probes.forward import generation
from editguard.suites.check import Bench, Measurement, Outcome
from editguard.suites.checks.degeneracy import Degeneracy, generate, repeated_pair_share, word_entropy
from hypothesis import given
from hypothesis import strategies as st

from ...helpers.check_benches import bench_of, break_site, disturb, edit_of, talkative, unedited
from ...helpers.tiny_models import TWIN_REQUEST, tiny_language_model
from ...helpers.weight_updates import rank_one


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", 0.0),
        ("word", 0.0),
        ("a b", 1.0),
        ("one two three four", 1.0),
        ("a a", 0.0),
        ("A a", 0.0),
        ("the the the the the", 0.0),
        ("a a b b", math.log(2) / math.log(4)),
        ("a a a b", (0.75 * math.log(4 / 3) + 0.25 * math.log(4)) / math.log(4)),
        ("a, b", 1.0),
        ("!!! !!!", 0.0),
        ("東京 は 東京", (2 / 3 * math.log(3 / 2) + 1 / 3 * math.log(3)) / math.log(3)),
    ],
)
def test_word_entropy_by_hand(text: str, value: float) -> None:
    assert word_entropy(text) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", 0.0),
        ("a", 0.0),
        ("a b", 0.0),
        ("a b c d", 0.0),
        ("a b a b", 1 / 3),
        ("a a a", 1 / 2),
        ("x x x x x x x x x x x", 9 / 10),
        ("A b a B", 1 / 3),
    ],
)
def test_repetition_by_hand(text: str, value: float) -> None:
    assert repeated_pair_share(text) == pytest.approx(value)


@given(st.text())
def test_entropy_and_repetition_lie_between_0_and_1(text: str) -> None:
    assert 0.0 <= word_entropy(text) <= 1.0 + 1e-12
    assert 0.0 <= repeated_pair_share(text) <= 1.0


def degeneracy(bench: Bench, before: object) -> dict[str, Measurement]:
    return {item.metric: item for item in Degeneracy().measure(bench, edit_of(TWIN_REQUEST, before)).measurements}  # type: ignore[arg-type]


@pytest.mark.tiny
def test_generate_returns_the_continuation_alone() -> None:
    lm = tiny_language_model("llama")
    (rows,) = generate(lm, [TWIN_REQUEST.prompt], 4)
    ids = lm.tokenizer(TWIN_REQUEST.prompt).input_ids
    with torch.no_grad():
        whole = lm.model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=4, do_sample=False
        )
    assert rows == whole[0, len(ids) :].tolist()


@pytest.mark.tiny
def test_degeneracy_unchanged_model_writes_as_before() -> None:
    bench = bench_of(tiny_language_model("llama"))
    measured = Degeneracy().measure(bench, edit_of(TWIN_REQUEST, Degeneracy().prepare(bench, [TWIN_REQUEST])[0]))
    ratio, repeated = measured.measurements
    assert (ratio.value, ratio.outcome) == (pytest.approx(1.0), Outcome.PASS)
    assert (repeated.value, repeated.outcome) == (pytest.approx(repeated.baseline), Outcome.INFO)
    assert [shown.before for shown in measured.generations] == [shown.after for shown in measured.generations]
    assert measured.generations[2].prompt == TWIN_REQUEST.prompt
    assert measured.generations[3].prompt.endswith(TWIN_REQUEST.prompt)
    assert len(measured.generations) == 4


@pytest.mark.tiny
def test_degeneracy_one_word_over_and_over_fails() -> None:
    bench = bench_of(tiny_language_model("llama"))
    before = Degeneracy().prepare(bench, [TWIN_REQUEST])[0]
    head = bench.lm.model.get_output_embeddings().weight
    word = bench.lm.tokenizer(" Paris", add_special_tokens=False).input_ids[0]
    with torch.no_grad():
        # All tokens alike but for one that is greater whichever way the hidden state points.
        head.zero_()
        bench.lm.model.lm_head.bias = torch.nn.Parameter(
            torch.nn.functional.one_hot(torch.tensor(word), len(head)).float()
        )
    rows = degeneracy(bench, before)
    assert (rows["word-entropy-ratio"].value, rows["word-entropy-ratio"].outcome) == (0.0, Outcome.FAIL)
    assert rows["repetition"].value == pytest.approx(12 / 13)


@pytest.mark.tiny
def test_degeneracy_broken_model_never_passes() -> None:
    bench = bench_of(tiny_language_model("llama"))
    before = Degeneracy().prepare(bench, [TWIN_REQUEST])[0]
    break_site(bench)
    assert degeneracy(bench, before)["word-entropy-ratio"].outcome is not Outcome.PASS


@pytest.mark.tiny
def test_degeneracy_without_words_before_is_unmeasured() -> None:
    bench = bench_of(tiny_language_model("llama"))
    before = Degeneracy().prepare(bench, [TWIN_REQUEST])[0]
    rows = degeneracy(bench, before._replace(ids=[[], [], *before.ids[2:]]))
    assert (rows["word-entropy-ratio"].value, rows["word-entropy-ratio"].outcome) == (None, Outcome.UNMEASURED)


@pytest.mark.tiny
def test_degeneracy_fixed_prompts_are_written_once_a_run() -> None:
    bench = bench_of(talkative())
    first = Degeneracy().prepare(bench, [TWIN_REQUEST])[0]
    disturb(bench, 1, 5.0)
    again = Degeneracy().prepare(bench, [replace(TWIN_REQUEST, prompt="Istanbul is")])[0]
    assert again.ids[:2] == first.ids[:2]
    assert again.prompts[2] == "Istanbul is"


@pytest.mark.tiny
def test_degeneracy_edits_together_write_as_each_alone() -> None:
    bench, apart = bench_of(talkative()), bench_of(talkative())
    both = [TWIN_REQUEST, replace(TWIN_REQUEST, prompt="Istanbul is")]
    assert Degeneracy().prepare(bench, both) == [Degeneracy().prepare(apart, [request])[0] for request in both]


@pytest.mark.tiny
def test_degeneracy_guesses_are_only_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(talkative())
    updates = [rank_one(bench.lowest_site, scale=8.0, seed=seed) for seed in range(2)]
    requests = [TWIN_REQUEST, replace(TWIN_REQUEST, prompt="Istanbul is")]
    states = Degeneracy().prepare(bench, requests, updates)
    assert [state.prompts[2] for state in states] == [request.prompt for request in requests]
    for request, state, update in zip(requests, states, updates, strict=True):
        bench.lowest_site.write(unedited(bench) + update.changes[0].delta())
        unaided = Degeneracy().measure(bench, edit_of(request, state._replace(guesses=[[0]] * 4)))
        with monkeypatch.context() as patch:
            patch.setattr(generation, "_generate", lambda *_, **__: pytest.fail("the guess was not enough"))
            aided = Degeneracy().measure(bench, edit_of(request, state))
        assert aided == unaided
        assert [shown.after for shown in aided.generations] != [shown.before for shown in aided.generations]
        bench.lowest_site.write(unedited(bench))
