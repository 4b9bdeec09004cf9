"""Perplexity equals a loop of plain forward passes, in all its forms; a broken model is never a pass."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from editguard.probes.errors import InputError, NotFinite
from editguard.probes.model.language_model import LanguageModel
from editguard.suites.check import Bench, Measurement, Outcome
from editguard.suites.checks.perplexity import CorpusPerplexity, Perplexity, PerplexityScores

from ...helpers.check_benches import bench_of, break_site, disturb, edit_of
from ...helpers.tiny_models import TWIN_REQUEST, enlarge, tiny_language_model, tiny_site
from ...helpers.tokenizer_kinds import CORPUS

pytestmark = pytest.mark.tiny

SENTENCES = (*CORPUS[:5], "A", "Paris is not Lyon")


def by_hand(lm: LanguageModel, sentences: tuple[str, ...] = SENTENCES) -> PerplexityScores:
    """Each sentence alone, unpadded, one token after the other."""
    means, every = [], []
    for sentence in sentences:
        ids = lm.tokenizer(sentence).input_ids
        if len(ids) < 2:
            continue
        with torch.no_grad():
            logits = lm.model(torch.tensor([ids])).logits[0].double()
        losses = [float(logits[n].logsumexp(-1) - logits[n, ids[n + 1]]) for n in range(len(ids) - 1)]
        means.append(float(np.mean(losses)))
        every += losses
    perplexities = sorted(np.exp(means))
    middle = perplexities[(len(perplexities) - 1) // 2]
    return PerplexityScores(float(np.mean(perplexities)), middle, perplexities[-1], math.exp(np.mean(every)))


def measured(bench: Bench, before: CorpusPerplexity) -> dict[str, Measurement]:
    rows = Perplexity().measure(bench, edit_of(TWIN_REQUEST, before)).measurements
    return {item.metric: item for item in rows}


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "bloom", "gptj", "falcon_new"])
def test_perplexity_equals_a_plain_loop_before_and_after(family: str, layer: int) -> None:
    lm = tiny_language_model(family)
    bench = bench_of(lm, layer)
    corpus = CorpusPerplexity(lm, bench.lowest_site, SENTENCES)
    assert tuple(corpus.before) == pytest.approx(by_hand(lm), rel=1e-4)
    disturb(bench, seed=1)
    assert tuple(corpus.score_again()) == pytest.approx(by_hand(lm), rel=1e-4)
    assert corpus.score_again().mean != pytest.approx(corpus.before.mean, rel=1e-3)


def test_perplexity_unchanged_model_has_ratio_1_and_passes() -> None:
    bench = bench_of(tiny_language_model("llama"))
    before = Perplexity().prepare(bench, [TWIN_REQUEST])[0]
    rows = measured(bench, before)
    assert rows["ratio"].value == pytest.approx(1.0, abs=1e-6)
    assert rows["ratio"].outcome is Outcome.PASS
    assert rows["mean"].value == pytest.approx(by_hand(bench.lm, bench.corpus).mean, rel=1e-4)
    assert {rows[name].outcome for name in ("mean", "median", "max", "exp-mean-nll")} == {Outcome.INFO}


def test_perplexity_worse_model_fails_by_the_ratio_of_means() -> None:
    bench = bench_of(tiny_language_model("llama"))
    before = Perplexity().prepare(bench, [TWIN_REQUEST])[0]
    disturb(bench, seed=1, size=5.0)
    ratio = by_hand(bench.lm, bench.corpus).mean / before.before.mean
    rows = measured(bench, before)
    assert ratio > 1.05
    assert rows["ratio"].value == pytest.approx(ratio, rel=1e-3)
    assert rows["ratio"].outcome is Outcome.FAIL
    assert rows["mean"].baseline == pytest.approx(before.before.mean)


def test_perplexity_broken_model_is_unmeasured_in_every_form() -> None:
    bench = bench_of(tiny_language_model("llama"))
    before = Perplexity().prepare(bench, [TWIN_REQUEST])[0]
    break_site(bench)
    for item in measured(bench, before).values():
        assert item.outcome is Outcome.UNMEASURED
        assert item.value is None


def test_perplexity_corpus_is_run_once_a_run() -> None:
    bench = bench_of(tiny_language_model("llama"))
    first = Perplexity().prepare(bench, [TWIN_REQUEST])[0]
    disturb(bench, seed=1)
    assert Perplexity().prepare(bench, [TWIN_REQUEST])[0] is first


@pytest.mark.parametrize("sentences", [(), ("A",), ("", "A")], ids=["none", "one-token", "empty"])
def test_perplexity_corpus_without_two_tokens_is_refused(sentences: tuple[str, ...]) -> None:
    lm = tiny_language_model("llama")
    with pytest.raises(InputError, match=f"None of the {len(sentences)} sentences"):
        CorpusPerplexity(lm, tiny_site(lm), sentences)


@pytest.mark.parametrize("how", ["nan", "overflow"])
def test_perplexity_model_broken_before_any_edit_is_refused(how: str) -> None:
    lm = tiny_language_model("llama")
    if how == "nan":
        break_site(bench_of(lm))
    else:
        enlarge(lm.model.lm_head, 1e6)
    with pytest.raises(NotFinite, match="no edit of it can be judged"):
        CorpusPerplexity(lm, tiny_site(lm), SENTENCES)


def test_perplexity_sentence_beyond_the_context_is_named() -> None:
    lm = tiny_language_model("gpt2")
    with pytest.raises(InputError, match="300 tokens, and the model reads 256"):
        CorpusPerplexity(lm, tiny_site(lm), ["A city.", "€" * 100])
