"""Keys of a subject are what a whole forward pass has there, in every family, whatever else is in the batch."""

from __future__ import annotations

import pytest
import torch
from editguard.probes.errors import ModelError, RequestError
from editguard.probes.forward.hooks import get_pad_id, stop_after
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
    with capture(site) as captured, torch.no_grad():
        lm.model(torch.tensor([ids]))
    return Activations(captured.input[0, last], captured.output[0, last])


def same(result: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("request_", [TWIN_REQUEST, PROMPT_START_REQUEST], ids=["mid-prompt", "first"])
@each_family
def test_compute_subject_keys_equal_a_whole_forward(family: str, request_: EditRequest) -> None:
    lm = tiny_language_model(family)
    for layer in range(LAYERS):
        site = tiny_site(lm, layer)
        result = compute_subject_keys(lm, site, request_, TEXTS)
        expected = [brute_force(lm, site, text + request_.prompt, request_.subject) for text in TEXTS]
        same(result.keys, torch.stack([row.keys for row in expected]))
        same(result.values, torch.stack([row.values for row in expected]))
        same(result.no_prefix_key, expected[0].keys)
        same(result.no_prefix_value, expected[0].values)
        same(result.mean_key, torch.stack([row.keys for row in expected]).mean(0))
        same(result.mean_value, torch.stack([row.values for row in expected]).mean(0))


@each_family
def test_compute_subject_keys_empty_prefix_equals_no_prefix(family: str) -> None:
    lm = tiny_language_model(family)
    result = compute_subject_keys(lm, tiny_site(lm), TWIN_REQUEST, TEXTS)
    same(result.keys[0], result.no_prefix_key)
    same(result.values[0], result.no_prefix_value)
    for index in range(1, len(TEXTS)):
        assert (result.keys[index] - result.no_prefix_key).norm() > 1e-3 * result.no_prefix_key.norm()


@pytest.mark.parametrize("budget", [1, 40, 4096])
@pytest.mark.parametrize("family", ["llama", "opt", "bloom"])
def test_compute_subject_keys_any_batch_size_gives_the_same(family: str, budget: int) -> None:
    lm = tiny_language_model(family)
    site = tiny_site(lm)
    whole = compute_subject_keys(lm, site, TWIN_REQUEST, TEXTS)
    again = compute_subject_keys(lm, site, TWIN_REQUEST, TEXTS[::-1], budget=budget)
    same(again.keys.flip(0), whole.keys)


@pytest.mark.parametrize("side", ["left", "right"])
def test_compute_subject_keys_padding_side_does_not_matter(side: str) -> None:
    lm = tiny_language_model("llama", byte_level())
    site = tiny_site(lm)
    expected = compute_subject_keys(lm, site, TWIN_REQUEST, TEXTS)
    lm.tokenizer.padding_side = side
    assert torch.equal(compute_subject_keys(lm, site, TWIN_REQUEST, TEXTS).keys, expected.keys)


def test_compute_activations_token_mixing_site_equals_plain() -> None:
    lm = tiny_language_model("gpt2")
    site = find_site(lm.model, 1, "transformer.h.{layer}.attn.c_proj")
    ids = lm.tokenizer(TWIN_REQUEST.prompt).input_ids
    rows = [(tuple(ids), len(ids) - 1), (tuple(ids[:2]), 1), (tuple(ids), 1)]
    result, plain = compute_activations(lm, site, rows), compute_plain_activations(lm, site, rows)
    same(result.keys, plain.keys)
    same(result.values, plain.values)


def test_compute_subject_keys_bos_comes_before_the_subject() -> None:
    lm = tiny_language_model("llama", BYTE_LEVEL["bytes-bos"])
    assert lm.adds_bos
    result = compute_subject_keys(lm, tiny_site(lm), PROMPT_START_REQUEST, ("",))
    assert result.position.last > 0
    assert not result.position.is_first_token


def test_compute_activations_later_text_reaches_only_encoders() -> None:
    causal = tiny_language_model("llama")
    rows = [((5, 6, 7, 8), 1), ((5, 6, 9, 10), 1)]
    result = compute_activations(causal, tiny_site(causal), rows)
    assert torch.equal(result.keys[0], result.keys[1])

    model = OTHERS["t5_encoder"]()
    enlarge(model)
    encoder = LanguageModel(model, causal.tokenizer, "encoder")
    assert not encoder.causal
    result = compute_activations(encoder, tiny_site(encoder), rows)
    assert (result.keys[0] - result.keys[1]).norm() > 1e-3 * result.keys[0].norm()
    with capture(tiny_site(encoder)) as captured, torch.no_grad():
        model(torch.tensor([rows[1][0]]))
    same(result.keys[1], captured.input[0, 1])


def test_compute_subject_keys_are_fp32_for_any_weights() -> None:
    lm = tiny_language_model("llama")
    expected = compute_subject_keys(lm, tiny_site(lm), TWIN_REQUEST, TEXTS)
    lm.model.to(torch.bfloat16)
    result = compute_subject_keys(lm, tiny_site(lm), TWIN_REQUEST, TEXTS)
    assert result.keys.dtype == result.values.dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(result.keys, expected.keys)
    assert float(cosine.min()) > 0.98


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [("The city is", "Istanbul"), ("Paris is Paris and", "Paris"), ("The city is", " ")],
    ids=["absent", "twice", "empty"],
)
def test_compute_subject_keys_ambiguous_subject_is_refused(prompt: str, subject: str) -> None:
    lm = tiny_language_model("llama")
    with pytest.raises(RequestError):
        compute_subject_keys(lm, tiny_site(lm), EditRequest("x", subject, prompt, "Lyon"), ("",))


def test_locate_prefix_with_the_subject_does_not_move_the_place() -> None:
    lm = tiny_language_model("llama")
    prefix = "Istanbul is a city. "
    position = locate(lm, TWIN_REQUEST, prefix)
    assert (
        lm.tokenizer.decode(position.input_ids[: position.last + 1]) == "Istanbul is a city. The twin city of Istanbul"
    )


def test_pad_id_is_the_tokenizers_or_zero() -> None:
    tokenizer: PreTrainedTokenizerFast = byte_level()
    lm = tiny_language_model("llama", tokenizer)
    assert tokenizer.pad_token_id is None
    assert get_pad_id(lm) == 0
    tokenizer.pad_token = "<|im_start|>"
    assert get_pad_id(lm) == tokenizer.convert_tokens_to_ids("<|im_start|>") != 0


class _Idle(nn.Module):
    def forward(self, given: Tensor) -> Tensor:
        return given


def test_stop_after_idle_site_is_an_error_and_leaves_no_hook() -> None:
    idle = _Idle()

    def without() -> None:
        with stop_after(idle):
            pass

    with pytest.raises(ModelError):
        without()
    assert not idle._forward_hooks


def test_stop_after_ends_at_the_site_and_passes_other_errors() -> None:
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
