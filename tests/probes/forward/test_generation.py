"""Text of the model: greedy equals a loop by hand, sampled comes from its seed, padding reaches nothing."""

from __future__ import annotations

import pytest
import torch
from editguard.probes.forward.generation import continue_greedily, sample_continuations
from editguard.probes.model.language_model import LanguageModel

from ...helpers.tiny_models import tiny_language_model
from ...helpers.tokenizer_kinds import byte_level

pytestmark = pytest.mark.tiny

ROWS = [(11, 42, 7, 99, 23), (60,), (8, 9, 10)]


def by_hand(lm: LanguageModel, row: tuple[int, ...], tokens: int) -> list[int]:
    ids = list(row)
    for _ in range(tokens):
        with torch.no_grad():
            ids.append(int(lm.model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == 2:  # the end of text of every tiny model
            break
    return ids[len(row) :]


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "bloom", "gemma2", "falcon_new"])
def test_continue_greedily_any_length_equals_a_token_loop(family: str) -> None:
    lm = tiny_language_model(family)
    for row, continuation in zip(ROWS, continue_greedily(lm, ROWS, 6), strict=True):
        expected = by_hand(lm, row, 6)
        assert continuation[: len(expected)] == expected


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_continue_greedily_draft_does_not_change_the_text(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_language_model(family)
    expected = continue_greedily(lm, ROWS, 6)
    wrong = [[*row[:2], (row[2] + 1) % 100, *row[3:]] for row in expected]
    drafts = ([[] for _ in ROWS], [[99] * 6 for _ in ROWS], wrong, [expected[0], *wrong[1:]])
    for draft in drafts:
        assert continue_greedily(lm, ROWS, 6, draft) == expected
    monkeypatch.setattr(lm.model, "generate", None)
    assert continue_greedily(lm, ROWS, 6, expected) == expected, "a right draft is generated again"


def test_continue_greedily_rows_may_have_own_lengths() -> None:
    lm = tiny_language_model("llama")
    whole = continue_greedily(lm, ROWS, 6)
    for drafts in (None, whole, [[99], [], whole[2]]):
        continuations = continue_greedily(lm, ROWS, [2, 6, 4], drafts)
        assert continuations == [whole[0][:2], whole[1], whole[2][:4]]


def test_continue_greedily_ignores_beams_of_the_checkpoint() -> None:
    lm = tiny_language_model("llama")
    expected = continue_greedily(lm, ROWS, 6)
    lm.model.generation_config.num_beams = 3
    assert continue_greedily(lm, ROWS, 6) == expected


def test_continue_greedily_stops_at_the_end_of_the_text() -> None:
    lm = tiny_language_model("llama")
    (row,) = continue_greedily(lm, ROWS[:1], 6)
    lm.model.generation_config.eos_token_id = [row[2], 9999]
    ended, *others = continue_greedily(lm, ROWS, 6)
    assert ended == row[:3]
    assert max(map(len, others)) > 3
    assert continue_greedily(lm, ROWS, 6, [ended, *others]) == [ended, *others]


def test_sample_seed_decides_and_process_state_is_unchanged() -> None:
    lm = tiny_language_model("llama")
    state = torch.random.get_rng_state()
    first = sample_continuations(lm, ROWS, 8, seed=1, top_k=20)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(77)
    assert sample_continuations(lm, ROWS, 8, seed=1, top_k=20) == first
    assert sample_continuations(lm, ROWS, 8, seed=2, top_k=20) != first


def test_sample_follows_the_softmax_of_the_largest_logits() -> None:
    lm, rows, top_k = tiny_language_model("llama"), 4000, 5
    with torch.no_grad():
        logits = lm.model(torch.tensor(ROWS[:1])).logits[0, -1]
    best = (logits * 8).topk(top_k)
    lm.model.get_output_embeddings().weight.data *= 8
    drawn = torch.tensor([row[0] for row in sample_continuations(lm, ROWS[:1] * rows, 1, seed=3, top_k=top_k)])
    assert set(drawn.tolist()) <= set(best.indices.tolist())
    expected = best.values.double().softmax(-1) * rows
    counts = torch.stack([(drawn == token).sum() for token in best.indices]).double()
    # Chi-square with 4 degrees of freedom is under 18.5 with probability 0.999.
    assert float(((counts - expected) ** 2 / expected).sum()) < 18.5
    assert float(counts.min()) > 0


def test_sample_top_1_is_greedy() -> None:
    lm = tiny_language_model("llama")
    assert sample_continuations(lm, ROWS, 6, seed=1, top_k=1) == continue_greedily(lm, ROWS, 6)


def test_sample_padding_side_of_the_tokenizer_is_ignored() -> None:
    lm = tiny_language_model("llama", byte_level())
    expected = continue_greedily(lm, ROWS, 5)
    for side in ("left", "right"):
        lm.tokenizer.padding_side = side
        assert continue_greedily(lm, ROWS, 5) == expected


def test_sample_least_number_of_tokens_is_respected() -> None:
    lm = tiny_language_model("llama")
    ends = set(range(3, len(lm.tokenizer), 2))
    lm.model.generation_config.eos_token_id = sorted(ends)
    continuations = sample_continuations(lm, ROWS, 5, seed=0, top_k=50, least=5)
    assert all(len(row) == 5 and not ends & set(row) for row in continuations)
    assert any(ends & set(row) for row in sample_continuations(lm, ROWS, 5, seed=0, top_k=50)), "the ends never come up"
