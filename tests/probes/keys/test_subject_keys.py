"""Keys of a subject are what a whole forward pass has there, in every family, whatever else is in the batch."""

from __future__ import annotations

import pytest
import torch
from editguard.probes.errors import ModelError, RequestError
from editguard.probes.forward.hooks import pad_id, stop_after
from editguard.probes.keys.subject_keys import (
    Activations,
    compute_activations,
    compute_plain_activations,
    compute_subject_keys,
    locate,
)
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.model.site import EditSite, find_site
from editguard.probes.requests.request import EditRequest
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from ...helpers.capture import capture
from ...helpers.families import FAMILIES, LAYERS, OTHERS
from ...helpers.tiny_models import PROMPT_START_REQUEST, TWIN_REQUEST, enlarge, tiny_language_model, tiny_site
from ...helpers.tokenizer_kinds import BYTE_LEVEL, byte_level

pytestmark = pytest.mark.tiny

TEXTS = ("", "It is so. ", "\n", "France is not a city, and 365 days are a year. ", "«")

each_family = pytest.mark.parametrize("family", FAMILIES)


def brute_force(lm: LanguageModel, site: EditSite, text: str, subject: str) -> Activations:
    """Key and value by a whole forward of one text; the token is found by what the ids decode to."""
    ids = lm.tokenizer(text).input_ids
    end = text.rindex(subject) + len(subject)
    last = next(n for n in range(len(ids)) if len(lm.tokenizer.decode(ids[: n + 1])) >= end)
    with capture(site) as seen, torch.no_grad():
        lm.model(torch.tensor([ids]))
    return Activations(seen.input[0, last], seen.output[0, last])


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("request_", [TWIN_REQUEST, PROMPT_START_REQUEST], ids=["mid-prompt", "first"])
@each_family
def test_keys_and_values_are_those_of_a_whole_forward(family: str, request_: EditRequest) -> None:
    lm = tiny_language_model(family)
    for layer in range(LAYERS):
        site = tiny_site(lm, layer)
        found = compute_subject_keys(lm, site, request_, TEXTS)
        expected = [brute_force(lm, site, text + request_.prompt, request_.subject) for text in TEXTS]
        same(found.keys, torch.stack([row.keys for row in expected]))
        same(found.values, torch.stack([row.values for row in expected]))
        same(found.no_prefix_key, expected[0].keys)
        same(found.no_prefix_value, expected[0].values)
        same(found.mean_key, torch.stack([row.keys for row in expected]).mean(0))
        same(found.mean_value, torch.stack([row.values for row in expected]).mean(0))


@each_family
def test_the_empty_prefix_equals_the_bare_key_and_another_does_not(family: str) -> None:
    lm = tiny_language_model(family)
    found = compute_subject_keys(lm, tiny_site(lm), TWIN_REQUEST, TEXTS)
    same(found.keys[0], found.no_prefix_key)
    same(found.values[0], found.no_prefix_value)
    for index in range(1, len(TEXTS)):
        assert (found.keys[index] - found.no_prefix_key).norm() > 1e-3 * found.no_prefix_key.norm()


@pytest.mark.parametrize("budget", [1, 40, 4096])
@pytest.mark.parametrize("family", ["llama", "opt", "bloom"])
def test_batches_of_any_size_give_the_same_keys_in_the_order_asked_for(family: str, budget: int) -> None:
    lm = tiny_language_model(family)
    site = tiny_site(lm)
    whole = compute_subject_keys(lm, site, TWIN_REQUEST, TEXTS)
    again = compute_subject_keys(lm, site, TWIN_REQUEST, TEXTS[::-1], budget=budget)
    same(again.keys.flip(0), whole.keys)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokenizers_padding_side_does_not_matter(side: str) -> None:
    lm = tiny_language_model("llama", byte_level())
    site = tiny_site(lm)
    expected = compute_subject_keys(lm, site, TWIN_REQUEST, TEXTS)
    lm.tokenizer.padding_side = side
    assert torch.equal(compute_subject_keys(lm, site, TWIN_REQUEST, TEXTS).keys, expected.keys)


def test_a_map_whose_module_mixes_tokens_is_read_as_plain_passes_read_it() -> None:
    lm = tiny_language_model("gpt2")
    site = find_site(lm.model, 1, "transformer.h.{layer}.attn.c_proj")
    ids = lm.tokenizer(TWIN_REQUEST.prompt).input_ids
    rows = [(tuple(ids), len(ids) - 1), (tuple(ids[:2]), 1), (tuple(ids), 1)]
    found, plain = compute_activations(lm, site, rows), compute_plain_activations(lm, site, rows)
    same(found.keys, plain.keys)
    same(found.values, plain.values)


def test_a_tokenizer_that_adds_bos_keeps_the_subject_off_the_first_place() -> None:
    lm = tiny_language_model("llama", BYTE_LEVEL["bytes-bos"])
    assert lm.adds_bos
    found = compute_subject_keys(lm, tiny_site(lm), PROMPT_START_REQUEST, ("",))
    assert found.position.last > 0
    assert not found.position.is_first_token


def test_what_follows_the_subject_does_not_reach_a_causal_key_but_reaches_an_encoders() -> None:
    causal = tiny_language_model("llama")
    rows = [((5, 6, 7, 8), 1), ((5, 6, 9, 10), 1)]
    found = compute_activations(causal, tiny_site(causal), rows)
    assert torch.equal(found.keys[0], found.keys[1])

    model = OTHERS["t5_encoder"]()
    enlarge(model)
    encoder = LanguageModel(model, causal.tokenizer, "encoder")
    assert not encoder.causal
    found = compute_activations(encoder, tiny_site(encoder), rows)
    assert (found.keys[0] - found.keys[1]).norm() > 1e-3 * found.keys[0].norm()
    with capture(tiny_site(encoder)) as seen, torch.no_grad():
        model(torch.tensor([rows[1][0]]))
    same(found.keys[1], seen.input[0, 1])


def test_keys_are_fp32_whatever_the_weights_are() -> None:
    lm = tiny_language_model("llama")
    expected = compute_subject_keys(lm, tiny_site(lm), TWIN_REQUEST, TEXTS)
    lm.model.to(torch.bfloat16)
    found = compute_subject_keys(lm, tiny_site(lm), TWIN_REQUEST, TEXTS)
    assert found.keys.dtype == found.values.dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(found.keys, expected.keys)
    assert float(cosine.min()) > 0.98


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [("The city is", "Istanbul"), ("Paris is Paris and", "Paris"), ("The city is", " ")],
    ids=["absent", "twice", "empty"],
)
def test_a_subject_that_is_not_there_exactly_once_is_refused(prompt: str, subject: str) -> None:
    lm = tiny_language_model("llama")
    with pytest.raises(RequestError):
        compute_subject_keys(lm, tiny_site(lm), EditRequest("x", subject, prompt, "Lyon"), ("",))


def test_a_prefix_that_names_the_subject_does_not_draw_the_place_to_itself() -> None:
    lm = tiny_language_model("llama")
    prefix = "Istanbul is a city. "
    position = locate(lm, TWIN_REQUEST, prefix)
    assert (
        lm.tokenizer.decode(position.input_ids[: position.last + 1]) == "Istanbul is a city. The twin city of Istanbul"
    )


def test_the_pad_id_is_the_tokenizers_or_0() -> None:
    tokenizer: PreTrainedTokenizerFast = byte_level()
    lm = tiny_language_model("llama", tokenizer)
    assert tokenizer.pad_token_id is None
    assert pad_id(lm) == 0
    tokenizer.pad_token = "<|im_start|>"
    assert pad_id(lm) == tokenizer.convert_tokens_to_ids("<|im_start|>") != 0


class _Idle(nn.Module):
    def forward(self, given: Tensor) -> Tensor:
        return given


def test_a_site_that_does_not_run_is_an_error_and_no_hook_stays() -> None:
    idle = _Idle()

    def without() -> None:
        with stop_after(idle):
            pass

    with pytest.raises(ModelError):
        without()
    assert not idle._forward_hooks


def test_the_forward_ends_at_the_site_and_other_errors_go_through() -> None:
    lm = tiny_language_model("llama")
    site, ran = tiny_site(lm, 0), []
    tiny_site(lm, 1).module.register_forward_hook(lambda *_: ran.append(1))
    compute_subject_keys(lm, site, TWIN_REQUEST, ("",))
    assert ran == []
    assert not site.module._forward_hooks

    def broken() -> None:
        with stop_after(site.module):
            raise ValueError("not ours")

    with pytest.raises(ValueError, match="not ours"):
        broken()
    assert not site.module._forward_hooks
