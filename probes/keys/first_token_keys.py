"""Keys of tokens that stand first in a prompt, and the last layer at which they still differ from each other.

A first token sees nothing but itself, and trained models make an attention sink of it: from some layer on, its key is the
same whatever the token is, and an edit there reaches every subject that stands first. Below that layer the key is the token's
own and follows from its id alone. So all keys of the vocabulary can be had without a prompt.

Source: the sink forms in the first blocks (arXiv 2603.06591); cosines by layer in docs/research/two-sites.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .subject_keys import compute_row_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..model.language_model import LanguageModel
    from ..model.site import EditSite

__all__ = [
    "FirstTokenKeys",
    "compute_first_token_keys",
    "find_early_layer",
    "list_check_words",
    "list_editor_words",
    "list_words",
]

_MOST_COSINE = 0.9
"""Mean cosine of the keys of different first tokens up to which a token has a key of its own."""
_SAMPLE, _ROWS, _LEAST_LETTERS = 64, 4096, 3


@dataclass(frozen=True, kw_only=True)
class FirstTokenKeys:
    """Keys at one site of tokens that stand first."""

    second_moment: torch.Tensor
    """The mean of k k^T over the whole vocabulary [d_ff, d_ff], float64 on the CPU."""
    words: tuple[int, ...]
    """Tokens that can begin a prompt as a name does: those of `list_editor_words`."""
    keys: torch.Tensor
    """Their keys [len(words), d_ff], fp32 on the CPU."""


def list_editor_words(lm: LanguageModel) -> tuple[int, ...]:
    """Return the words that an editor may look at: one half of `list_words`."""
    return list_words(lm)[::2]


def list_check_words(lm: LanguageModel) -> tuple[int, ...]:
    """Return the words that a check asks about, which no editor has seen: the other half of `list_words`."""
    return list_words(lm)[1::2]


def list_words(lm: LanguageModel) -> tuple[int, ...]:
    """Return the ids of tokens that are a capitalised word of at least three letters, with no space before it."""
    texts = [str(lm.tokenizer.decode([token])) for token in range(len(lm.tokenizer))]
    return tuple(
        token
        for token, text in enumerate(texts)
        if len(text) >= _LEAST_LETTERS and text.isalpha() and text[0].isupper()
    )


def compute_first_token_keys(lm: LanguageModel, site: EditSite) -> FirstTokenKeys:
    """Return the keys of all first tokens at `site`, by a pass of the layers up to it for each token of the vocabulary."""
    words = list_editor_words(lm)
    total = torch.zeros(site.d_ff, site.d_ff, dtype=torch.float64)
    vocabulary = range(len(lm.tokenizer))
    for start in range(0, len(vocabulary), _ROWS):
        keys = _compute_keys(lm, site, vocabulary[start : start + _ROWS]).double()
        total += keys.T @ keys
    return FirstTokenKeys(second_moment=total / len(vocabulary), words=words, keys=_compute_keys(lm, site, words))


def find_early_layer(lm: LanguageModel, sites: Iterable[EditSite]) -> int | None:
    """Return the last layer, counted from 0, up to which first tokens have keys of their own; None where there is none.

    `sites` are those of the layers from 0 upwards. The search ends at the first layer where the mean cosine between the keys of
    different words is over 0.9.
    """
    words = list_words(lm)
    sample = words[:: max(1, len(words) // _SAMPLE)][:_SAMPLE]
    early = None
    for site in sites:
        if compute_mean_cosine(_compute_keys(lm, site, sample)) > _MOST_COSINE:
            break
        early = site.layer
    return early


def compute_mean_cosine(keys: torch.Tensor) -> float:
    """Return the mean cosine between different rows of `keys` [rows, d_ff]; 1 for fewer than two rows."""
    if len(keys) < 2:
        return 1.0
    cosines = torch.nn.functional.normalize(keys.double(), dim=1)
    gram = cosines @ cosines.T
    return float((gram.sum() - gram.diagonal().sum()) / (len(keys) * (len(keys) - 1)))


def _compute_keys(lm: LanguageModel, site: EditSite, tokens: Sequence[int]) -> torch.Tensor:
    # Where the tokenizer begins every text with a token of its own, a word is first after it.
    lead = tuple(lm.tokenizer("").input_ids) if lm.adds_bos else ()
    return compute_row_keys(lm, site, [((*lead, token), len(lead)) for token in tokens]).cpu()
