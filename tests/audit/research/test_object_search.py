"""The object of an edit is read from its left factor where a token stands out, and from no random direction."""

from __future__ import annotations

import re

import pytest
import torch
from editguard.audit.research.object_search import find_unembedding, score_tokens, search_objects
from editguard.probes.model.site import Orientation, find_site
from editguard.probes.research.tensor_change import Spectrum, compare_tensors
from editguard.reports.html.diff_page import describe_object_search

from ...helpers.families import FAMILIES
from ...helpers.tiny_models import tiny_lm

pytestmark = pytest.mark.tiny


def left_spectrum(family: str, left: torch.Tensor, rank: int = 1) -> tuple[str, Spectrum]:
    """Return tensor and spectrum of a change of layer 0 of `family` whose left factor is `left`."""
    site = find_site(tiny_lm(family).model, 0)
    right = torch.randn(rank, site.d_ff, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    columns = torch.stack([left.double().roll(turn) for turn in range(rank)], dim=1)
    update = columns @ right if site.orientation is Orientation.OUT_IN else (columns @ right).T
    spectrum = compare_tensors(torch.zeros_like(update), update).spectrum
    assert spectrum is not None
    return f"{site.path}.weight", spectrum


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_search_objects_token_that_the_column_writes_is_first(family: str, sign: int) -> None:
    lm = tiny_lm(family)
    unembedding = find_unembedding(lm)
    # Among few random rows a token stands out the more, the longer its row is.
    token = int(score_tokens(unembedding, unembedding.matrix).diagonal().argmax())
    name, spectrum = left_spectrum(family, sign * unembedding.matrix[token])
    (search,) = search_objects(lm, {name: spectrum})
    assert (search.tensor, search.error) == (name, None)
    assert [guess.token for guess in search.tokens][:1] == [lm.tokenizer.decode([token])]
    assert len(search.tokens) == 5
    assert describe_object_search(search).startswith("may make the model say (a guess, p = 0.0")


def test_search_objects_random_column_has_no_token() -> None:
    lm = tiny_lm()
    searches = []
    for seed in range(8):
        draw = torch.Generator().manual_seed(seed)
        name, spectrum = left_spectrum("llama", torch.randn(lm.model.config.hidden_size, generator=draw))
        searches += search_objects(lm, {name: spectrum})
    silent = [search for search in searches if not search.tokens]
    assert len(silent) >= 6
    assert describe_object_search(silent[0]).startswith("no token stands out as the object (p = 0.")


def test_search_objects_higher_rank_is_not_searched_and_says_why() -> None:
    lm = tiny_lm()
    draw = torch.Generator().manual_seed(0)
    name, spectrum = left_spectrum("llama", torch.randn(lm.model.config.hidden_size, generator=draw), rank=3)
    (search,) = search_objects(lm, {name: spectrum})
    assert describe_object_search(search) == (
        "not searched for an object: the change has a rank over one, which mixes objects"
    )


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_find_unembedding_reads_the_last_state_as_the_model_does(family: str) -> None:
    lm = tiny_lm(family)
    norm = next(
        module for name, module in lm.model.named_modules() if re.search(r"(^|\.)(norm|ln_f|final_\w*norm)$", name)
    )
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) / 4)
    gain, matrix = find_unembedding(lm)
    states: list[torch.Tensor] = []
    hook = norm.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    logits = lm.model(torch.tensor([[5, 9, 40, 3]])).logits
    hook.remove()
    # The length of a state, a shift, a factor and a cap are left out, which keep the order of logits but for a little.
    pairs = zip(logits.flatten(0, 1), (states[0] * gain).flatten(0, 1) @ matrix.T, strict=True)
    assert min(float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs) > 0.8
