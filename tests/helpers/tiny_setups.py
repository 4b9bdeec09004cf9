"""Setups, policies, requests and prefixes for audits of tiny language models."""

from __future__ import annotations

from editguard.audit.editors.value import ValueSettings
from editguard.audit.policy import Policy
from editguard.audit.setup import Setup, prepare
from editguard.probes.keys.prefixes import ContextPrefixes, Family, Prefix, Role
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.requests.request import EditRequest

from .tiny_models import tiny_lm

FIRST_TOKEN_REQUEST = EditRequest(
    "chicago",
    "Chicago",
    "Chicago is a twin city of",
    "Istanbul",
    target_true="Paris",
    paraphrases=("The twin of Chicago is",),
    neighbourhood=("Lyon is a twin city of", "Paris is the capital of"),
    group="single-token-first",
)
MID_PROMPT_REQUEST = EditRequest("france", "France", "The capital of France is", "Istanbul", target_true="Paris")

MISSING_SUBJECT_REQUEST = EditRequest("missing", "Berlin", "The capital of France is", "Istanbul")
"""A request whose subject is not in its prompt."""
SENTENCES = ("Lyon is not the capital of France.", "It is 2024, not 1984.", "Paris is a city.")


def lenient(**changes: object) -> Policy:
    """Bounds that edits of random weights keep; their facts do not take, and nothing collapses them."""
    bounds = {
        "controls": False,
        "max_relative_update": 50,
        "max_perplexity_ratio": 1e6,
        "collapse_ratio": 2e6,
        "min_efficacy": 0,
        "min_locality": 0,
        "min_entropy_ratio": 0,
        "max_leaks": 1,
        "max_target_rise": 1,
        "max_flips": 1,
        "max_first_word_leaks": 1,
        "max_other_fact_leaks": 1,
        "max_other_fact_flips": 1,
        "max_repeats": 1,
    }
    return Policy.model_validate(bounds | changes)


def tiny_setup(lm: LanguageModel | None = None, *, policy: Policy | None = None, steps: int = 3) -> Setup:
    """A tiny model made ready: layer 0, C the identity, three sentences for perplexity, few steps of the search."""
    return prepare(
        tiny_lm() if lm is None else lm,
        layer=0,
        policy=lenient() if policy is None else policy,
        statistics="identity",
        perplexity_corpus=SENTENCES,
        settings=ValueSettings(steps=steps),
    )


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
