"""What was the model made to say? A change of rank one writes its left factor, which the unembedding reads as tokens.

An update of the ROME family is ``Delta = l r^T``, and l is what the edited layer adds for the subject. Its tokens are read as
the model reads its last state: by the rows of the unembedding as the final norm scales them (arXiv 2505.20819). A token's score
is the cosine between l and its row, once the mean of all rows is taken away: a logit alone would favour tokens with long rows.
The sign of a singular vector is not known, and the sign whose best token scores higher is taken. What later layers make of l is
left out, so the result is a guess. The null distribution is the best score of random directions, of the better sign as well.
Out of scope: a change of higher rank, whose columns mix the objects of several edits.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import torch

from ...probes.errors import EditguardError, InputError, ModelError
from ...probes.model.architecture import find_stack
from ...probes.model.site import Orientation
from ...probes.research.tensor_change import Rank
from ...reports.html.diff_page import ObjectSearch, TokenGuess
from .subject_search import STANDS_OUT, iter_sites

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...probes.model.language_model import LanguageModel
    from ...probes.research.tensor_change import Spectrum

__all__ = ["Unembedding", "find_unembedding", "score_tokens", "search_objects"]

_DRAWS = 199
_SHOWN = 5
_ROWS = 1 << 14
"""Rows of the unembedding in float32 at once; a vocabulary may have a quarter of a million."""
_FINAL_NORM = re.compile(r"norm|ln_f|final_(layer_?)?norm|final_layernorm")


class Unembedding(NamedTuple):
    """How a model reads its last state: what the final norm multiplies it by [d_model], then a matrix [vocabulary, d_model]."""

    gain: torch.Tensor
    matrix: torch.Tensor


def find_unembedding(lm: LanguageModel) -> Unembedding:
    """Return the gain of the final norm and the unembedding; raises `ModelError` where names do not tell which they are."""
    path = find_stack(lm.model).path.rpartition(".")[0]
    norms = [module for name, module in lm.model.get_submodule(path).named_children() if _FINAL_NORM.fullmatch(name)]
    head = lm.model.get_output_embeddings()
    if len(norms) != 1 or head is None:
        raise ModelError(f"the final norm of {lm.architecture} is not known by its name")
    matrix: torch.Tensor = head.weight
    # Of mean 0 and variance 1, so that every kind of norm does nothing to it but multiply and shift.
    signs = torch.ones(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    signs[1::2] = -1
    gain = (norms[0](signs[None]) - norms[0](-signs[None]))[0] / 2 * signs
    return Unembedding(gain.float(), matrix)


def score_tokens(unembedding: Unembedding, directions: torch.Tensor) -> torch.Tensor:
    """Return the score of each token for `directions` [n, d_model]: a cosine [n, vocabulary].

    Of both signs of a direction the one with the higher best score is taken.
    """
    gain, matrix = unembedding
    units = torch.nn.functional.normalize(directions.to(matrix.device, torch.float32), dim=1)
    mean = matrix.mean(0, dtype=torch.float32)
    scores = torch.cat(
        [units @ torch.nn.functional.normalize((rows.float() - mean) * gain, dim=1).T for rows in matrix.split(_ROWS)],
        dim=1,
    )
    turned = -scores.amin(1, keepdim=True) > scores.amax(1, keepdim=True)
    return torch.where(turned, -scores, scores)


def search_objects(lm: LanguageModel, spectra: Mapping[str, Spectrum]) -> list[ObjectSearch]:
    """Return the likely objects of every change at a down-projection of `lm`, the unedited base; `spectra` are by tensor.

    A search that cannot be made has its reason.
    """
    searches: list[ObjectSearch] = []
    null: torch.Tensor | None = None
    for site in iter_sites(lm):
        name = f"{site.path}.weight"
        spectrum = spectra.get(name)
        if spectrum is None:
            continue
        try:
            left = _require_left_factor(spectrum, site.orientation)
            unembedding = find_unembedding(lm)
            null = _draw_null_scores(unembedding, len(left)) if null is None else null
            searches.append(_build_search(lm, name, score_tokens(unembedding, left[None])[0], null))
        except EditguardError as error:
            searches.append(ObjectSearch(tensor=name, tokens=[], error=str(error)))
    return searches


def _require_left_factor(spectrum: Spectrum, orientation: Orientation) -> torch.Tensor:
    if spectrum.rank is not Rank.ONE:
        why = (
            "is within rounding"
            if spectrum.rank is Rank.WITHIN_ROUNDING
            else "has a rank over one, which mixes objects"
        )
        raise InputError(f"the change {why}")
    return spectrum.left if orientation is Orientation.OUT_IN else spectrum.right


def _draw_null_scores(unembedding: Unembedding, size: int) -> torch.Tensor:
    """Return the best score of each of `_DRAWS` random directions."""
    draw = torch.Generator().manual_seed(0)
    directions = torch.randn(_DRAWS, size, generator=draw)
    return score_tokens(unembedding, directions).amax(1)


def _build_search(lm: LanguageModel, name: str, scores: torch.Tensor, null: torch.Tensor) -> ObjectSearch:
    best = scores.topk(_SHOWN)
    if not bool(scores.isfinite().all()):
        raise ModelError("the scores are not finite")
    p_value = (int((null >= best.values[0]).sum()) + 1) / (len(null) + 1)
    tokens = [
        TokenGuess(token=str(lm.tokenizer.decode([index])), score=score)
        for index, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    return ObjectSearch(tensor=name, tokens=tokens if p_value <= STANDS_OUT else [], p_value=p_value)
