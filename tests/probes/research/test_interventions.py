"""One thing about a bare prompt is changed, and the keys are those of a model that was built that way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from editguard.probes.errors import ModelError, RequestError
from editguard.probes.keys.subject_keys import Activations, compute_activations, compute_subject_keys, locate
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.model.site import EditSite
from editguard.probes.requests.request import EditRequest
from editguard.probes.research.interventions import (
    compute_first_token_keys,
    compute_keys_after_bos,
    compute_shifted_keys,
)
from torch import Tensor
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from ...helpers.capture import capture
from ...helpers.families import OTHERS
from ...helpers.tiny_models import PROMPT_START_REQUEST, TWIN_REQUEST, enlarge, tiny_language_model, tiny_site
from ...helpers.tokenizer_kinds import BYTE_LEVEL, SENTENCEPIECE, WORDPIECE, byte_level

pytestmark = pytest.mark.tiny

REQUESTS = (
    TWIN_REQUEST,
    PROMPT_START_REQUEST,
    replace(PROMPT_START_REQUEST, id="long", prompt=f"{PROMPT_START_REQUEST.prompt} a city of"),
)
TABLES = {"gpt2": "transformer.wpe", "gpt_neo": "transformer.wpe", "opt": "model.decoder.embed_positions"}
ROTARY = ("llama", "gptj", "gpt_neox", "qwen2", "falcon_new")


def plain(lm: LanguageModel, site: EditSite, requests: Sequence[EditRequest] = REQUESTS) -> Activations:
    """Key and value of each subject in its bare prompt, with nothing changed."""
    subject_keys = [compute_subject_keys(lm, site, request, ()) for request in requests]
    return Activations(
        torch.stack([item.no_prefix_key for item in subject_keys]),
        torch.stack([item.no_prefix_value for item in subject_keys]),
    )


def same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def bert() -> LanguageModel:
    tokenizer = WORDPIECE["wordpiece"]
    model = OTHERS["bert"](vocabulary=len(tokenizer))
    enlarge(model)
    return LanguageModel(model, tokenizer, "encoder")


# Positions


@pytest.mark.parametrize("shift", [1, 3])
@pytest.mark.parametrize("family", TABLES)
def test_shifted_keys_position_table_equals_a_shifted_table(family: str, shift: int) -> None:
    lm = tiny_language_model(family)
    site = tiny_site(lm)
    actual, before = compute_shifted_keys(lm, site, REQUESTS, shift), plain(lm, site)
    table = lm.model.get_submodule(TABLES[family]).weight
    table.copy_(table.roll(-shift, 0))
    expected = plain(lm, site)
    same(actual.keys, expected.keys)
    same(actual.values, expected.values)
    # Also that of the subject which is the first token.
    assert bool(((actual.keys - before.keys).norm(dim=1) > 1e-2 * before.keys.norm(dim=1)).all())


@pytest.mark.parametrize("family", ROTARY)
def test_shifted_keys_rotary_positions_change_only_rounding(family: str) -> None:
    lm = tiny_language_model(family)
    site = tiny_site(lm)
    actual, expected = compute_shifted_keys(lm, site, REQUESTS, 5), plain(lm, site)
    same(actual.keys, expected.keys)
    same(actual.values, expected.values)


@pytest.mark.parametrize("family", [*TABLES, *ROTARY])
def test_shifted_keys_shift_of_0_changes_nothing(family: str) -> None:
    lm = tiny_language_model(family)
    same(compute_shifted_keys(lm, tiny_site(lm), REQUESTS, 0).keys, plain(lm, tiny_site(lm)).keys)


def test_shifted_keys_encoder_runs_whole_rows() -> None:
    lm = bert()
    site = tiny_site(lm)
    actual = compute_shifted_keys(lm, site, REQUESTS, 2)
    table = lm.model.get_submodule("embeddings.position_embeddings").weight
    with torch.no_grad():
        table.copy_(table.roll(-2, 0))
    same(actual.keys, plain(lm, site).keys)


def test_shifted_keys_model_without_positions_is_refused() -> None:
    lm = tiny_language_model("bloom")
    with pytest.raises(ModelError, match="BloomForCausalLM takes no position_ids"):
        compute_shifted_keys(lm, tiny_site(lm), REQUESTS)


def test_shifted_keys_positions_not_from_0_are_refused() -> None:
    tokenizer = WORDPIECE["wordpiece"]
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    model = RobertaModel(config).eval()
    enlarge(model)
    lm = LanguageModel(model, tokenizer, "encoder")
    with pytest.raises(ModelError, match="RobertaModel does not read a prompt alike"):
        compute_shifted_keys(lm, tiny_site(lm), REQUESTS)


def test_shifted_keys_shift_past_the_last_position_is_refused() -> None:
    lm = tiny_language_model("gpt2")
    longest = max(locate(lm, request).last + 1 for request in REQUESTS)
    compute_shifted_keys(lm, tiny_site(lm), REQUESTS, 256 - longest)
    for shift in (257 - longest, -1):
        with pytest.raises(RequestError, match=f"of {longest} tokens cannot be shifted by {shift}: .* 0 to 255"):
            compute_shifted_keys(lm, tiny_site(lm), REQUESTS, shift)


# BOS


def declared(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer.bos_token = "<s>"
    return tokenizer


def test_keys_after_bos_tokenizer_without_bos_gets_one() -> None:
    lm = tiny_language_model("llama", declared(byte_level()))
    site = tiny_site(lm)
    result = compute_keys_after_bos(lm, site, REQUESTS)
    assert result.with_bos
    for row, request in enumerate(REQUESTS):
        place = locate(lm, request)
        with capture(site) as capture_record, torch.no_grad():
            lm.model(torch.tensor([[lm.tokenizer.convert_tokens_to_ids("<s>"), *place.input_ids]]))
        same(result.activations.keys[row], capture_record.input[0, place.last + 1])
        same(result.activations.values[row], capture_record.output[0, place.last + 1])
    # Nothing stood before these subjects; now a BOS does.
    assert (result.activations.keys - plain(lm, site).keys).norm(dim=1).min() > 1e-2


@pytest.mark.parametrize("kind", ["bytes-bos", "sentencepiece-bpe"])
def test_keys_after_bos_added_bos_is_removed(kind: str) -> None:
    tokenizer = (BYTE_LEVEL | SENTENCEPIECE)[kind]
    lm = tiny_language_model("llama", tokenizer)
    site = tiny_site(lm)
    result = compute_keys_after_bos(lm, site, REQUESTS)
    assert not result.with_bos
    for row, request in enumerate(REQUESTS):
        ids, last = tokenizer(request.prompt, add_special_tokens=False).input_ids, locate(lm, request).last - 1
        with capture(site) as capture_record, torch.no_grad():
            lm.model(torch.tensor([ids]))
        same(result.activations.keys[row], capture_record.input[0, last])
        same(result.activations.values[row], capture_record.output[0, last])
    assert (result.activations.keys - plain(lm, site).keys).norm(dim=1).min() > 1e-2


def test_keys_after_bos_no_bos_token_is_refused_by_name() -> None:
    lm = tiny_language_model("llama", byte_level())
    assert lm.tokenizer.bos_token_id is None
    with pytest.raises(ModelError, match="tokenizer of 'tiny-llama' has no BOS token"):
        compute_keys_after_bos(lm, tiny_site(lm), REQUESTS)


# First tokens


def test_first_token_keys_any_subject_read_token_0() -> None:
    lm = tiny_language_model("gpt2")
    site = tiny_site(lm)
    keys = compute_first_token_keys(lm, site, REQUESTS)
    firsts = [lm.tokenizer(request.prompt).input_ids[0] for request in REQUESTS]
    assert firsts[0] != firsts[1] == firsts[2]
    same(keys, compute_activations(lm, site, [((token,), 0) for token in firsts]).keys)
    assert torch.equal(keys[1], keys[2]), "a causal first token sees nothing of what follows"


def test_first_token_keys_added_special_token_is_token_0() -> None:
    lm = bert()
    site = tiny_site(lm)
    keys = compute_first_token_keys(lm, site, REQUESTS)
    for row, request in enumerate(REQUESTS):
        with capture(site) as capture_record, torch.no_grad():
            lm.model(torch.tensor([lm.tokenizer(request.prompt).input_ids]))
        same(keys[row], capture_record.input[0, 0])


@pytest.mark.parametrize("read", [compute_shifted_keys, compute_keys_after_bos, compute_first_token_keys])
def test_interventions_missing_subject_or_no_request_is_refused(read: object) -> None:
    lm = tiny_language_model("llama", declared(byte_level()))
    for requests, message in (([replace(TWIN_REQUEST, subject="Ankara")], "Ankara"), ([], "0 requests")):
        with pytest.raises(RequestError, match=message):
            read(lm, tiny_site(lm), requests)  # type: ignore[operator]
