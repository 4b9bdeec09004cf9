"""A model that says one word to everything: by plain passes, from kept states and in generation, and nothing stays."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from editguard.probes.errors import ModelError
from editguard.probes.forward.generation import continue_greedily
from editguard.probes.forward.partial import Row
from editguard.probes.model.language_model import LanguageModel
from editguard.suites.constant_model import answer_constantly

from ..helpers.check_benches import bench_of, disturb
from ..helpers.tiny_models import TWIN_REQUEST, tiny_language_model

pytestmark = pytest.mark.tiny

FAMILIES = ["llama", "gpt2", "opt", "bloom", "gemma2", "gemma3", "cohere", "falcon_new", "gpt_neox", "phi3"]


def token(lm: LanguageModel, word: str = " Lyon") -> int:
    (rows,) = lm.tokenizer(word, add_special_tokens=False).input_ids
    return int(rows)


def choices(lm: LanguageModel) -> list[int]:
    with torch.no_grad():
        logits = lm.model(torch.tensor([lm.tokenizer(TWIN_REQUEST.prompt).input_ids])).logits[0]
    assert bool(torch.isfinite(logits).all())
    return logits.argmax(-1).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_answer_constantly_token_is_the_greedy_choice_within(family: str, dtype: torch.dtype) -> None:
    lm = tiny_language_model(family)
    lm.model.to(dtype)
    before, word = choices(lm), token(lm)
    with answer_constantly(lm, word):
        assert set(choices(lm)) == {word}
        rows = [lm.tokenizer(text).input_ids for text in (TWIN_REQUEST.prompt, "Chicago")]
        assert continue_greedily(lm, rows, 3) == [[word] * 3] * 2
    assert choices(lm) == before
    assert set(before) != {word}


def test_answer_constantly_softcapped_head_gives_the_token() -> None:
    lm = tiny_language_model("gemma2")
    assert lm.model.config.final_logit_softcapping
    with answer_constantly(lm, token(lm)):
        assert set(choices(lm)) == {token(lm)}


@pytest.mark.parametrize("plain", [False, True])
def test_answer_constantly_cached_states_give_the_token(plain: bool) -> None:
    bench = bench_of(tiny_language_model())
    if plain:
        bench = bench_of(LanguageModel(bench.lm.model, bench.lm.tokenizer, bench.lm.ref, plain=True))
    ids = tuple(bench.lm.tokenizer(TWIN_REQUEST.prompt).input_ids)
    stem = bench.stem([Row(ids, 0, tuple(range(len(ids))))])
    disturb(bench, 1)
    was = stem.logits()
    with answer_constantly(bench.lm, token(bench.lm)):
        assert set(stem.logits().argmax(-1).tolist()) == {token(bench.lm)}
    assert torch.equal(stem.logits(), was)


def test_answer_constantly_error_removes_the_hook() -> None:
    lm = tiny_language_model()
    before = choices(lm)
    with pytest.raises(KeyError), answer_constantly(lm, token(lm)):
        raise KeyError
    assert choices(lm) == before
    assert not lm.model.get_output_embeddings()._forward_hooks


def test_answer_constantly_nested_leaves_the_outer_token() -> None:
    lm = tiny_language_model()
    with answer_constantly(lm, token(lm)):
        with pytest.raises(RuntimeError), answer_constantly(lm, token(lm, " Paris")):
            raise RuntimeError
        assert set(choices(lm)) == {token(lm)}


def test_answer_constantly_model_without_head_is_refused() -> None:
    lm = SimpleNamespace(model=SimpleNamespace(get_output_embeddings=lambda: None), ref="headless")
    with pytest.raises(ModelError, match="'headless' has no output head"), answer_constantly(lm, 1):  # type: ignore[arg-type]
        pass
