"""A bench over a tiny model that says only a few words, so that targets are hit and missed by turns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.model.stored_weight import store_weight
from editguard.probes.requests.request import EditRequest
from editguard.suites.check import Bench, EditUnderTest, Limits, Measurement, State
from editguard.suites.unchanged_prompts import RolePrompt, ask_unedited
from transformers import PreTrainedTokenizerFast

from .tiny_models import PREFIXES, TWIN_REQUEST, tiny_language_model, tiny_site
from .tokenizer_kinds import CORPUS

__all__ = [
    "ALWAYS",
    "ASKED",
    "LIMITS",
    "about",
    "bench_of",
    "break_site",
    "disturb",
    "edit_of",
    "pick",
    "says_only",
    "takes_over",
    "talkative",
    "unedited",
    "unsaid",
]

LIMITS = Limits(
    perplexity_ratio=1.05,
    efficacy=0.5,
    locality=0.9,
    entropy_ratio=0.5,
    relative_update=0.3,
    accumulated_ratio=1.1,
    accumulated_update=1.5,
)
ALWAYS = replace(LIMITS, efficacy=0.0, locality=0.0, leaks=1.0)
"""Limits that any number meets: what does not pass under them was not measured."""
ASKED = replace(TWIN_REQUEST, target_new="Lyon is", target_true="Paris")
_WORDS = " Paris Lyon is not"


def talkative(
    family: str = "llama", words: str = _WORDS, tokenizer: PreTrainedTokenizerFast | None = None
) -> LanguageModel:
    """Return a tiny model whose greedy choice is nearly always a token of `words`: all others have logit 0."""
    return says_only(tiny_language_model(family, tokenizer), words)


def says_only(lm: LanguageModel, words: str) -> LanguageModel:
    """Return `lm` with logit 0 for all tokens but those of `words`."""
    head = lm.model.get_output_embeddings().weight
    ids = lm.tokenizer(words, add_special_tokens=False).input_ids
    with torch.no_grad():
        rows = head[ids].clone()
        head.zero_()
        head[ids] = rows
    return lm


def bench_of(lm: LanguageModel, layer: int = 1, limits: Limits = LIMITS, *, further: Sequence[int] = ()) -> Bench:
    """Return the bench of edits at `layer`, and at the `further` layers above it."""
    weights = tuple(store_weight(tiny_site(lm, each)) for each in (layer, *further))
    return Bench(lm=lm, prefixes=PREFIXES, corpus=tuple(CORPUS[:5]), limits=limits, weights=weights)


def unedited(bench: Bench) -> torch.Tensor:
    """Return the unedited W of the lowest site [d_model, d_ff]."""
    return bench.weights[0].matrix()


def edit_of(request: EditRequest, state: State, *, needs_prefix: bool = False) -> EditUnderTest[State]:
    """Return the record of an edit whose check prepared `state`."""
    return EditUnderTest(request=request, state=state, needs_prefix=needs_prefix)


def disturb(bench: Bench, seed: int, size: float = 1.0) -> None:
    """Add noise to the site, `size` times as large as its weight."""
    noise = torch.randn(unedited(bench).shape, generator=torch.Generator().manual_seed(seed))
    weight = unedited(bench)
    bench.lowest_site.write(weight + size * noise / noise.norm() * weight.norm())


def break_site(bench: Bench) -> None:
    bench.lowest_site.write(torch.full_like(unedited(bench), torch.nan))


def pick(measurements: Iterable[Measurement], condition: str, protocol: str) -> Measurement:
    """Return the one measurement of this condition and protocol."""
    (measurement,) = [item for item in measurements if (item.condition, item.protocol) == (condition, protocol)]
    return measurement


def about(measurements: Iterable[Measurement], metric: str) -> Measurement:
    """Return the one measurement of this metric."""
    (measurement,) = [item for item in measurements if item.metric == metric]
    return measurement


def unsaid(prompts: Sequence[str], family: str = "llama") -> tuple[Bench, str]:
    """Return a bench, and a word that its model could say and that stands in none of its answers to `prompts`."""
    words = (" Paris", " Lyon", " is", " not", " Chicago", " France", " capital", " Istanbul")
    bench = bench_of(talkative(family, "".join(words)))
    (state,) = ask_unedited(bench, [ASKED], [[RolePrompt("neighbour", prompt) for prompt in prompts]])
    assert state is not None
    written = {token for answer in state.written for token in answer}
    for word in words:
        (token,) = bench.lm.tokenizer(word, add_special_tokens=False).input_ids
        if token not in written:
            return bench, word.strip()
    raise AssertionError("the model says all its words to these prompts; take fewer")


def takes_over(bench: Bench, text: str, target: str, spared: Sequence[str] = ()) -> None:
    """Write a rank-one update after which the token behind `text` is `target`, and that behind each of `spared` is as before.

    For a bench over the last layer of a model without a norm that subtracts a mean: what is put in at the site is then what
    the output head sees.
    """
    lm = bench.lm
    (token, *_) = lm.tokenizer(f" {target}", add_special_tokens=False).input_ids
    keys = torch.stack([_key(bench, prompt) for prompt in (text, *spared)])
    head = lm.model.get_output_embeddings().weight
    words = head.abs().sum(-1).nonzero()[:, 0]
    # The direction that gives 1 to the target's logit and 0 to all others.
    value = torch.linalg.pinv(head[words]) @ (words == token).float()
    key = torch.linalg.pinv(keys)[:, 0]
    bench.lowest_site.write(unedited(bench) + 1e4 * torch.outer(value, key))


def _key(bench: Bench, text: str) -> torch.Tensor:
    keys: list[torch.Tensor] = []
    handle = bench.lowest_site.module.register_forward_pre_hook(lambda _, given: keys.append(given[0][0, -1].clone()))
    try:
        with torch.no_grad():
            bench.lm.model(torch.tensor([bench.lm.tokenizer(text).input_ids]))
    finally:
        handle.remove()
    return keys[0]
