"""Other words at the start of the prompt: who says the target after the edit, and how much of the update reaches them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from editguard.audit.transaction import Transaction
from editguard.probes.keys.first_token_keys import list_check_words
from editguard.probes.keys.subject_keys import compute_row_keys
from editguard.suites.check import Outcome
from editguard.suites.checks.first_words import OtherFirstWords

from ...helpers.check_benches import LIMITS, about, bench_of, break_site, edit_of, talkative
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST
from ...helpers.weight_updates import scaled_update

pytestmark = pytest.mark.tiny

STRICT = replace(LIMITS, first_word_leaks=0.02)


def test_first_words_subject_in_mid_prompt_is_not_asked() -> None:
    bench = bench_of(talkative(), limits=STRICT)
    (state,) = OtherFirstWords().prepare(bench, [MID_PROMPT_REQUEST])
    assert state is None
    assert OtherFirstWords().measure(bench, edit_of(MID_PROMPT_REQUEST, state)).measurements == []


def test_first_words_unchanged_model_leaks_nothing() -> None:
    bench = bench_of(talkative(), limits=STRICT)
    (state,) = OtherFirstWords().prepare(bench, [FIRST_TOKEN_REQUEST])
    (leaks,) = OtherFirstWords().measure(bench, edit_of(FIRST_TOKEN_REQUEST, state)).measurements
    assert (leaks.value, leaks.outcome) == (0.0, Outcome.PASS)
    own = bench.lm.tokenizer(FIRST_TOKEN_REQUEST.subject, add_special_tokens=False).input_ids[0]
    assert leaks.total == len(set(list_check_words(bench.lm)) - {own})


def test_first_words_counts_those_that_say_the_target_now_as_plain_calls_do() -> None:
    lm = talkative(words=" Paris Lyon is not Chicago France capital Istanbul")
    bench = bench_of(lm, 0, limits=STRICT)
    own, *rest = lm.tokenizer(FIRST_TOKEN_REQUEST.prompt).input_ids
    words = [word for word in list_check_words(lm) if word != own]

    def choices() -> list[int]:
        with torch.no_grad():
            return [int(lm.model(torch.tensor([[word, *rest]])).logits[0, -1].argmax()) for word in words]

    before = choices()
    gained: set[int] = set()
    for seed in range(20):
        update = scaled_update([bench.lowest_site], [1], 3.0, seed=seed)
        with Transaction(update):
            after = choices()
        gained = {token for token in after if lm.tokenizer.decode([token]).startswith(" ")} - {*before}
        if gained:
            break
    token = min(gained)
    request = replace(FIRST_TOKEN_REQUEST, target_new=lm.tokenizer.decode([token]).strip())
    (state,) = OtherFirstWords().prepare(bench, [request], [update])
    with Transaction(update):
        result = OtherFirstWords().measure(bench, edit_of(request, state))
    leaks = about(result.measurements, "leaks")
    assert (leaks.failed, leaks.total) == (after.count(token), len(words))
    assert leaks.outcome is Outcome.FAIL
    keys = compute_row_keys(lm, bench.lowest_site, [((word,), 0) for word in (own, *words)]).double()
    (change,) = update.changes
    reached = (keys @ change.right).abs()[:, 0]
    assert about(result.measurements, "reach").value == pytest.approx(float(reached[1:].max() / reached[0]))


@pytest.mark.parametrize("request_", [FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST], ids=["first-token", "mid-prompt"])
def test_first_words_controls_fail_and_pass_even_where_no_edit_is_judged(request_) -> None:
    bench = bench_of(talkative(), limits=STRICT)
    (state,) = OtherFirstWords().prepare(bench, [request_])
    bad, good = (
        control(bench, edit_of(request_, state))
        for control in (OtherFirstWords().known_bad, OtherFirstWords().known_good)
    )
    assert bad is not None
    assert good is not None
    assert [row.outcome for row in bad.measurements] == [Outcome.FAIL]
    assert [row.outcome for row in good.measurements] == [Outcome.PASS]


def test_first_words_broken_model_is_unmeasured() -> None:
    bench = bench_of(talkative(), limits=STRICT)
    (state,) = OtherFirstWords().prepare(bench, [FIRST_TOKEN_REQUEST])
    break_site(bench)
    (leaks,) = OtherFirstWords().measure(bench, edit_of(FIRST_TOKEN_REQUEST, state)).measurements
    assert leaks.outcome is Outcome.UNMEASURED
    assert leaks.value is None
