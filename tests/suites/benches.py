"""A bench over a tiny model that says only a few words, so that targets are hit and missed by turns."""

from __future__ import annotations

import torch
from editguard.probes.model import LanguageModel
from editguard.suites.check import Bench, Limits

from ..tiny import PREFIXES, tiny_language_model, tiny_site
from ..tokenizer_kinds import CORPUS

__all__ = ["LIMITS", "bench_of", "break_site", "disturb", "says_only", "talkative"]

LIMITS = Limits(
    perplexity_ratio=1.05,
    efficacy=0.5,
    locality=0.9,
    entropy_ratio=0.5,
    relative_update=0.3,
    accumulated_ratio=1.1,
    accumulated_update=1.5,
)
_WORDS = " Paris Lyon is not"


def talkative(family: str = "llama", words: str = _WORDS) -> LanguageModel:
    """Return a tiny model whose greedy choice is nearly always a token of `words`: all others have logit 0."""
    return says_only(tiny_language_model(family), words)


def says_only(lm: LanguageModel, words: str) -> LanguageModel:
    """Return `lm` with logit 0 for all tokens but those of `words`."""
    head = lm.model.get_output_embeddings().weight
    kept = lm.tokenizer(words, add_special_tokens=False).input_ids
    with torch.no_grad():
        rows = head[kept].clone()
        head.zero_()
        head[kept] = rows
    return lm


def bench_of(lm: LanguageModel, layer: int = 1, limits: Limits = LIMITS) -> Bench:
    site = tiny_site(lm, layer)
    return Bench(lm, site, PREFIXES, tuple(CORPUS[:5]), limits, site.matrix())


def disturb(bench: Bench, seed: int, size: float = 1.0) -> None:
    """Add noise to the site, `size` times as large as its weight."""
    noise = torch.randn(bench.weight.shape, generator=torch.Generator().manual_seed(seed))
    bench.site.write(bench.weight + size * noise / noise.norm() * bench.weight.norm())


def break_site(bench: Bench) -> None:
    bench.site.write(torch.full_like(bench.weight, torch.nan))
