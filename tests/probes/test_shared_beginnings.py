"""What stands before the subject in several rows is run once, and the keys are what they are without that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from editguard.probes.keys import SubjectKeys, all_subject_keys
from editguard.probes.model import LanguageModel
from editguard.probes.prefix_cache import PrefixCache, prefix_cache
from editguard.probes.requests import EditRequest

from ..audit.tiny_lm import tiny_lm
from ..families import FAMILIES
from ..tiny import tiny_site

pytestmark = pytest.mark.tiny

TEXTS = ("", "It is 2024. ", "It is 2024, and Paris is not the capital of Lyon. ")
REQUESTS = tuple(
    EditRequest(f"{n}", subject, prompt, "Lyon")
    for n, (subject, prompt) in enumerate(
        [("France", "The capital of France is"), ("Lyon", "The capital of Lyon is"), ("Paris", "The city of Paris is"),
         ("Paris", "Paris is"), ("2024", "The capital in the year 2024 is")]
    )
)  # fmt: skip


def keys_of(lm: LanguageModel, known: PrefixCache | None, requests: tuple[EditRequest, ...]) -> list[SubjectKeys]:
    found = all_subject_keys(lm, tiny_site(lm, 1), requests, TEXTS, known=known)
    assert all(isinstance(one, SubjectKeys) for one in found)
    return [one for one in found if isinstance(one, SubjectKeys)]


def tokens_run(monkeypatch: pytest.MonkeyPatch, lm: LanguageModel) -> list[int]:
    counts: list[int] = []
    forward = type(lm.model).forward

    def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
        counts.append(int(kwargs["input_ids"].numel()))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(lm.model), "forward", counting)
    return counts


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_are_those_of_each_request_alone(family: str) -> None:
    lm = tiny_lm(family)
    known = prefix_cache(lm, tiny_site(lm, 1), TEXTS)
    assert known is not None
    for one, request in zip(keys_of(lm, known, REQUESTS), REQUESTS, strict=True):
        (alone,) = keys_of(lm, None, (request,))
        scale = float(alone.keys.std())
        assert float((one.keys - alone.keys).abs().max()) < 1e-4 * scale
        assert float((one.bare_key - alone.bare_key).abs().max()) < 1e-4 * scale
        assert float((one.values - alone.values).abs().max()) < 1e-4 * float(alone.values.std())


def test_a_shared_beginning_is_run_once_behind_each_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm()
    known = prefix_cache(lm, tiny_site(lm, 1), TEXTS)
    assert known is not None
    counts = tokens_run(monkeypatch, lm)
    keys_of(lm, known, REQUESTS[:2])
    together = sum(counts)
    counts.clear()
    for request in REQUESTS[:2]:
        keys_of(lm, known, (request,))
    assert together < 0.75 * sum(counts)


def test_what_was_kept_before_stays_as_it_was() -> None:
    lm = tiny_lm()
    site = tiny_site(lm, 1)
    known = prefix_cache(lm, site, TEXTS)
    assert known is not None
    row = tuple(lm.tokenizer("The capital of France").input_ids)
    grown = known.grown(lm, site, [row])
    assert len(grown.lead(row, len(row))) == len(row)
    assert known.lead(row, len(row)) == ()
    assert grown.lead(known.rows[0], 99) == known.lead(known.rows[0], 99)
    assert known.grown(lm, site, [known.rows[0]]) is known


def test_grown_states_serve_no_pass_through_the_whole_model() -> None:
    lm = tiny_lm()
    site = tiny_site(lm, 1)
    known = prefix_cache(lm, site, TEXTS)
    assert known is not None
    grown = known.grown(lm, site, [tuple(lm.tokenizer("The capital of France").input_ids)])
    with pytest.raises(AssertionError):
        grown.states(torch.tensor([[0]]), None)


def test_a_block_that_runs_its_mlp_first_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm()
    site = tiny_site(lm, 1)
    known = prefix_cache(lm, site, TEXTS)
    assert known is not None
    block: Any = site.block

    def mlp_first(hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        behind = hidden_states + block.mlp(block.post_attention_layernorm(hidden_states))
        changed, _ = block.self_attn(hidden_states=block.input_layernorm(hidden_states), **kwargs)
        return torch.as_tensor(behind + changed)

    monkeypatch.setattr(block, "forward", mlp_first)
    assert known.grown(lm, site, [tuple(lm.tokenizer("The capital of France").input_ids)]) is known
