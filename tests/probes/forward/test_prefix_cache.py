"""Rows that continue from a cached prefix give what an ordinary pass gives, in every family and to every reader."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from editguard.probes.forward.live_rows import LiveRows
from editguard.probes.forward.partial import Row, Stem, compute_full_logits
from editguard.probes.forward.prefix_cache import PrefixCache, build_prefix_cache, join
from editguard.probes.keys.subject_keys import compute_activations
from editguard.probes.model.language_model import LanguageModel

from ...helpers.families import FAMILIES
from ...helpers.tiny_models import tiny_lm, tiny_site

pytestmark = pytest.mark.tiny

each_family = pytest.mark.parametrize("family", FAMILIES)
TEXTS = ("", "It is 2024. ", "It is 2024, and Paris is not the capital of Lyon. ", "\n", '"')


def rows_of(lm: LanguageModel) -> tuple[Row, ...]:
    """Behind no prefix, a short one, a long one, part of one, and one that is longer than the place wanted."""
    texts = ("France is", TEXTS[1] + "France is", TEXTS[2] + "France is", "It is 1984. France is", "\nFrance is")
    ids = [tuple(lm.tokenizer(text).input_ids) for text in texts]
    rows = [Row(row, len(row) - 2, (len(row) - 2, len(row) - 1)) for row in ids]
    return (*rows, Row(ids[2], 2, (2, 5)), Row(ids[0], 0, (0,)))


def build_test_cache(lm: LanguageModel, layer: int = 1) -> PrefixCache:
    cache = build_prefix_cache(lm, tiny_site(lm, layer), TEXTS)
    assert cache is not None
    return cache


def close(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    return float((actual - expected).abs().max()) < 1e-4 * float(expected.std())


@each_family
def test_prefix_cache_every_reader_agrees_with_an_ordinary_pass(family: str) -> None:
    lm = tiny_lm(family)
    site, cache, rows = tiny_site(lm, 1), build_test_cache(lm), rows_of(lm)
    at = [(row.ids, row.at) for row in rows]
    with torch.no_grad():
        expected = compute_full_logits(lm, rows)
        for reader in (Stem(lm, site, rows, cache), LiveRows(lm, site, rows, cache)):
            assert close(reader.first, expected)
            assert close(reader.logits(), expected)
    plain, joined = compute_activations(lm, site, at), compute_activations(lm, site, at, prefix_cache=cache)
    assert close(joined.keys, plain.keys)
    assert close(joined.values, plain.values)


@each_family
def test_stem_with_cache_edited_weight_reaches_cached_tokens(family: str) -> None:
    lm = tiny_lm(family)
    site, rows = tiny_site(lm, 0), rows_of(lm)
    stem = Stem(lm, site, rows, build_test_cache(lm, 0))
    noise = torch.randn(site.d_model, site.d_ff, generator=torch.Generator().manual_seed(3))
    site.write(site.matrix() + 0.5 * noise)
    with torch.no_grad():
        assert close(stem.logits(), compute_full_logits(lm, rows))
        assert not close(stem.logits(), stem.first)


def test_join_runs_only_uncached_tokens() -> None:
    lm = tiny_lm()
    cache, rows = build_test_cache(lm), rows_of(lm)
    joined = join(lm, [row.ids for row in rows[:3]], cache, [row.at for row in rows[:3]])
    # The space that ends a prefix becomes part of the next word.
    assert joined.leads == [0, *(len(lm.tokenizer(text).input_ids) - 1 for text in TEXTS[1:3])]
    assert joined.past == joined.leads[2]
    assert joined.width == len(rows[0].ids)
    assert joined.inputs["attention_mask"].sum(1).tolist() == [len(row.ids) for row in rows[:3]]


def test_lead_is_never_longer_than_allowed() -> None:
    lm = tiny_lm()
    row = rows_of(lm)[2].ids
    for most in (0, 1, 5):
        assert join(lm, [row], build_test_cache(lm), [most]).leads == [most]


def test_join_without_prefixes_gives_an_ordinary_pass() -> None:
    lm = tiny_lm()
    joined = join(lm, [(1, 2, 3), (4,)], None, [2, 0])
    assert (joined.leads, joined.past, joined.hidden, joined.width) == ([0, 0], 0, None, 3)
    assert joined.inputs["use_cache"] is False


def test_prefix_cache_prefix_of_another_is_stored_once() -> None:
    lm = tiny_lm()
    rows = build_test_cache(lm).rows
    assert tuple(lm.tokenizer("It is 2024").input_ids) not in rows
    assert len(rows) == len(set(rows))


def test_build_prefix_cache_without_text_returns_none() -> None:
    lm = tiny_lm()
    assert build_prefix_cache(lm, tiny_site(lm), ["", ""]) is None


def test_build_prefix_cache_model_that_cannot_continue_returns_none(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm()
    forward = type(lm.model).forward

    def forgetful(self: Any, *args: Any, **kwargs: Any) -> Any:
        cache = kwargs.get("past_key_values")
        if cache is not None and cache.get_seq_length():
            for layer in cache.layers:
                layer.values = layer.values * 1.1
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(lm.model), "forward", forgetful)
    assert build_prefix_cache(lm, tiny_site(lm), TEXTS) is None


def test_build_prefix_cache_logits_not_finite_returns_none(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm()
    forward = type(lm.model).forward

    def breaking(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = forward(self, *args, **kwargs)
        if kwargs.get("past_key_values") is not None:
            output.logits = output.logits * torch.nan
        return output

    monkeypatch.setattr(type(lm.model), "forward", breaking)
    assert build_prefix_cache(lm, tiny_site(lm), TEXTS) is None


@pytest.mark.parametrize("error", [TypeError, ValueError, RuntimeError, AttributeError])
def test_build_prefix_cache_foreign_cache_returns_none(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    lm = tiny_lm()

    def refusing(self: Any, *_: Any, **__: Any) -> Any:
        raise error("no cache")

    monkeypatch.setattr(type(lm.model), "forward", refusing)
    assert build_prefix_cache(lm, tiny_site(lm), TEXTS) is None
