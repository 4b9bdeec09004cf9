"""Keys of tokens that stand first: the same as by plain passes, over the whole vocabulary, and where they stop to differ."""

from __future__ import annotations

import pytest
import torch
from editguard.probes.keys import first_token_keys
from editguard.probes.keys.first_token_keys import (
    compute_first_token_keys,
    find_early_layer,
    list_check_words,
    list_editor_words,
    list_words,
)
from editguard.probes.model.site import find_site

from ...helpers.tiny_models import tiny_lm

pytestmark = pytest.mark.tiny


def plain_key(lm, site, token: int) -> torch.Tensor:
    """The down-projection's input at a text of one token, by an ordinary call."""
    keys: list[torch.Tensor] = []
    handle = site.module.register_forward_pre_hook(lambda _, args: keys.append(args[0].reshape(-1, site.d_ff)))
    try:
        with torch.no_grad():
            lm.model(torch.tensor([[token]]))
    finally:
        handle.remove()
    return keys[0][0].double()


@pytest.mark.parametrize("layer", [0, 1])
def test_compute_first_token_keys_equals_plain_passes_of_single_tokens(layer: int) -> None:
    lm = tiny_lm()
    site = find_site(lm.model, layer)
    known = compute_first_token_keys(lm, site)
    every = torch.stack([plain_key(lm, site, token) for token in range(len(lm.tokenizer))])
    assert torch.allclose(known.second_moment, every.T @ every / len(every), atol=1e-6 * float(every.square().max()))
    assert known.words
    assert torch.allclose(known.keys.double(), every[list(known.words)], atol=1e-5)


def test_list_words_editors_and_checks_see_different_ones() -> None:
    lm = tiny_lm()
    seen, asked = set(list_editor_words(lm)), set(list_check_words(lm))
    assert seen.isdisjoint(asked)
    assert seen | asked == set(list_words(lm))
    texts = [lm.tokenizer.decode([word]) for word in list_words(lm)]
    assert texts
    assert all(text[0].isupper() and text.isalpha() for text in texts)


@pytest.mark.parametrize(("cosines", "found"), [((0.6, 0.99), 0), ((0.2, 0.9), 1), ((0.91, 0.2), None)])
def test_find_early_layer_stops_at_the_first_layer_of_equal_keys(
    monkeypatch: pytest.MonkeyPatch, cosines: tuple[float, ...], found: int | None
) -> None:
    lm = tiny_lm()
    measured = iter(cosines)
    monkeypatch.setattr(first_token_keys, "compute_mean_cosine", lambda _: next(measured))
    sites = [find_site(lm.model, layer) for layer in (0, 1)]
    assert find_early_layer(lm, sites) == found


def test_compute_mean_cosine_is_that_of_all_pairs() -> None:
    rows = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    pairs = [
        float(torch.nn.functional.cosine_similarity(rows[first], rows[second], dim=0))
        for first in range(5)
        for second in range(5)
        if first != second
    ]
    assert first_token_keys.compute_mean_cosine(rows) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
    assert first_token_keys.compute_mean_cosine(rows[:1]) == 1.0
