"""Tiny language models that audits can really run on: random weights, a byte-level tokenizer, room for long texts."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import torch
from editguard.audit.editors.value import ValueSettings
from editguard.audit.policy import Policy
from editguard.audit.setup import Setup, prepare
from editguard.probes.keys.prefixes import ContextPrefixes, Family, Prefix, Role
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.model.site import EditSite, find_site
from editguard.probes.requests.request import EditRequest
from transformers import PreTrainedModel

from .families import FAMILIES
from .tokenizer_kinds import byte_level

POSITIONS = 2048
REQUEST = EditRequest(
    "chicago", "Chicago", "Chicago is a twin city of", "Istanbul", "Paris",
    ("The twin of Chicago is",), ("Lyon is a twin city of", "Paris is the capital of"), "single-token-first",
)  # fmt: skip
MIDDLE = EditRequest("france", "France", "The capital of France is", "Istanbul", "Paris")

MISSING = EditRequest("missing", "Berlin", "The capital of France is", "Istanbul")
"""A request whose subject is not in its prompt."""
SENTENCES = ("Lyon is not the capital of France.", "It is 2024, not 1984.", "Paris is a city.")


def lenient(**changes: object) -> Policy:
    """Bounds that edits of random weights keep; their facts do not take, and nothing collapses them."""
    bounds = {
        "controls": False, "max_relative_update": 50, "max_perplexity_ratio": 1e6, "collapse_ratio": 2e6,
        "min_efficacy": 0, "min_locality": 0, "min_entropy_ratio": 0, "max_leaks": 1, "max_target_rise": 1, "max_flips": 1,
        "max_other_fact_leaks": 1, "max_other_fact_flips": 1, "max_repeats": 1,
    }  # fmt: skip
    return Policy.model_validate(bounds | changes)


@cache
def tokenizer(*, bos: bool = False):  # type: ignore[no-untyped-def]
    return byte_level(bos=bos)


def tiny_model(family: str, *, seed: int = 0) -> PreTrainedModel:
    """Build one of `FAMILIES` with the tokenizer's vocabulary and enough positions for sampled paragraphs."""
    builder = FAMILIES[family]
    assert isinstance(builder, partial)
    model, config, options, width = builder.args
    size = len(tokenizer())
    positions = {name: POSITIONS for name in ("n_positions", "max_position_embeddings") if name in options}
    built = builder.func(model, config, {**options, **positions}, width, seed=seed, vocabulary=size)
    # What was trained has weights that differ; at a random model's 0.02 every logit is nearly the same.
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if parameter.ndim == 2 and name.endswith("weight"):
                parameter.mul_(5)
    return built.requires_grad_(False)


def tiny_lm(
    family: str = "llama", *, dtype: torch.dtype = torch.float32, bos: bool = False, seed: int = 0
) -> LanguageModel:
    return LanguageModel(tiny_model(family, seed=seed).to(dtype), tokenizer(bos=bos), f"tiny-{family}")


def tiny_site(family: str = "llama", layer: int = 0, *, dtype: torch.dtype = torch.float32) -> EditSite:
    return find_site(tiny_model(family).to(dtype), layer)


def tiny_setup(lm: LanguageModel | None = None, *, policy: Policy | None = None, steps: int = 3) -> Setup:
    """A tiny model made ready: layer 0, C the identity, three sentences for perplexity, few steps of the search."""
    return prepare(
        tiny_lm() if lm is None else lm, layer=0, policy=lenient() if policy is None else policy, statistics="identity",
        perplexity_corpus=SENTENCES, settings=ValueSettings(steps=steps),
    )  # fmt: skip


def few_prefixes() -> ContextPrefixes:
    """Three key prefixes, three to edit under, two held out; none of them sampled."""
    key = [Prefix(Family.NONE, "", Role.KEY)]
    key += [Prefix(Family.SENTENCE, text, Role.KEY) for text in ("It is 2024. ", "Paris is not Lyon. ")]
    edit = [
        Prefix(Family.SENTENCE, "The capital is a city. ", Role.EDIT),
        Prefix(Family.NEWLINE, "\n", Role.EDIT),
        Prefix(Family.QUOTE, '"', Role.EDIT),
    ]
    held_out = [
        Prefix(Family.SENTENCE, "France is not. ", Role.HELD_OUT),
        Prefix(Family.NEWLINE, "\n\n", Role.HELD_OUT),
    ]
    return ContextPrefixes((*key, *edit, *held_out), 0)


def saved(folder: Path, family: str = "llama") -> Path:
    """Save a tiny model with its tokenizer as a checkpoint."""
    lm = tiny_lm(family)
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder
