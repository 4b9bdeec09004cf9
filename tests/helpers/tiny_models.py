"""Tiny language models with random weights: a family of `families` with a tokenizer of `tokenizer_kinds`.

The weights are scaled up: with the usual initialisation a model of this size hardly mixes its tokens, and a wrong
forward pass would look right. Out of scope: models that were trained (SmolLM2 is for that).
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import torch
from editguard.probes.evidence import EvidenceMeter, compute_sink_key
from editguard.probes.keys.corpus_statistics import Corpus, compute_statistics
from editguard.probes.keys.prefixes import ContextPrefixes, Family, Prefix, Role
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.model.site import EditSite, find_site
from editguard.probes.requests.request import EditRequest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from .families import FAMILIES, LAYERS
from .tokenizer_kinds import BYTE_LEVEL, CORPUS, byte_level

POSITIONS = 2048
"""Positions of the models that audits run on."""

TWIN_REQUEST = EditRequest(
    id="twin",
    subject="Istanbul",
    prompt="The twin city of Istanbul is",
    target_new="Paris",
    target_true="Chicago",
    paraphrases=("Istanbul has a twin in", "A city like Istanbul is"),
    neighbourhood=("The capital of France is", "Lyon is a city of"),
)
"""A request whose subject stands in mid-prompt."""

PROMPT_START_REQUEST = EditRequest(id="first", subject="Istanbul", prompt="Istanbul is a twin of", target_new="Lyon")
"""A request whose subject begins the prompt."""

PREFIXES = ContextPrefixes(
    (
        Prefix(Family.NONE, "", Role.KEY),
        *(
            Prefix(Family.SENTENCE, text, Role.KEY)
            for text in ("It is so. ", "France is not a city. ", "A day of 365. ")
        ),
        Prefix(Family.SENTENCE, "Lyon is not Paris. ", Role.EDIT),
        Prefix(Family.SENTENCE, "A year of 2024 days. ", Role.HELD_OUT),
        Prefix(Family.NEWLINE, "\n", Role.HELD_OUT),
        Prefix(Family.QUOTE, '"', Role.HELD_OUT),
        Prefix(Family.QUOTE, "«", Role.HELD_OUT),
    ),
    seed=0,
)
"""Prefixes of every role, written by hand so that nothing has to be sampled."""


def enlarge(model: torch.nn.Module, factor: float = 8.0) -> None:
    """Multiply every matrix of `model` by `factor`, tied ones once, so that tokens and layers matter to the logits."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(factor)


def tiny_language_model(
    family: str = "llama", tokenizer: PreTrainedTokenizerFast | None = None, *, seed: int = 0
) -> LanguageModel:
    """Return a tiny random model of `family` with a byte-level tokenizer, or the one given, that fits its vocabulary."""
    chosen = BYTE_LEVEL["bytes-trimmed"] if tokenizer is None else tokenizer
    model = FAMILIES[family](seed=seed, vocabulary=len(chosen))
    enlarge(model)
    return LanguageModel(model.requires_grad_(False), chosen, f"tiny-{family}")


@cache
def long_tokenizer(*, bos: bool = False) -> PreTrainedTokenizerFast:
    """Return the byte-level tokenizer of `tiny_lm`, with a begin-of-text token where `bos`."""
    return byte_level(bos=bos)


def tiny_model(family: str, *, seed: int = 0, layers: int = LAYERS) -> PreTrainedModel:
    """Build one of `FAMILIES` with the vocabulary of `long_tokenizer` and enough positions for sampled paragraphs."""
    builder = FAMILIES[family]
    assert isinstance(builder, partial)
    model, config, options, width = builder.args
    positions = dict.fromkeys(("n_positions", "max_position_embeddings"), POSITIONS)
    depth = dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers"), layers)
    changes = {name: value for name, value in {**positions, **depth}.items() if name in options}
    built = builder.func(model, config, {**options, **changes}, width, seed=seed, vocabulary=len(long_tokenizer()))
    enlarge(built, 5.0)
    return built.requires_grad_(False)


def tiny_lm(
    family: str = "llama",
    *,
    dtype: torch.dtype = torch.float32,
    bos: bool = False,
    seed: int = 0,
    layers: int = LAYERS,
) -> LanguageModel:
    """Return a tiny random model with room for long texts, on which an audit can run."""
    model = tiny_model(family, seed=seed, layers=layers).to(dtype)
    return LanguageModel(model, long_tokenizer(bos=bos), f"tiny-{family}")


def save_checkpoint(folder: Path, family: str = "llama") -> Path:
    """Save a `tiny_lm` with its tokenizer as a checkpoint, and return the folder."""
    lm = tiny_lm(family)
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


def tiny_site(lm: LanguageModel, layer: int = 1) -> EditSite:
    """Return the edit site of `layer`, the last one unless told otherwise."""
    return find_site(lm.model, layer)


def tiny_meter(lm: LanguageModel, layer: int = 1) -> EvidenceMeter:
    """Return a meter over C from a few sentences, the hand-written prefixes and the sink of some first tokens."""
    site = tiny_site(lm, layer)
    statistics = compute_statistics(lm, site, Corpus(tuple(CORPUS[:5]), "five sentences"))
    sink = compute_sink_key(lm, site, [TWIN_REQUEST.prompt, "Chicago", "It is", "France"])
    return EvidenceMeter(
        lm=lm,
        site=site,
        statistics=statistics,
        prefixes=PREFIXES,
        sink=sink,
        weight_norm=float(site.matrix(torch.float64).norm()),
    )


def save_tiny_checkpoint(folder: Path, tokenizer: PreTrainedTokenizerFast | None = None) -> LanguageModel:
    """Save a tiny llama with its tokenizer as a checkpoint in `folder`, and return it."""
    lm = tiny_language_model("llama", tokenizer)
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return lm
