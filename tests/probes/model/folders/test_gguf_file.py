"""A GGUF file is converted where its architecture is known; a header that is not whole is one sentence."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from editguard.probes.errors import ModelError
from editguard.probes.model.checkpoint import open_checkpoint
from editguard.probes.model.folders.gguf_file import describe_conversion, read_architecture
from editguard.probes.model.language_model import load_model

from ....helpers.tiny_models import tiny_language_model

pytestmark = pytest.mark.tiny

MAPS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
PERMUTED = ("attn_q", "attn_k")


def write_llama(path: Path, architecture: str = "llama") -> dict[str, torch.Tensor]:
    """Write the tiny Llama as llama.cpp's converter does, and return its tensors."""
    lm = tiny_language_model("llama")
    config, weights = lm.model.config, lm.model.state_dict()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    pieces = sorted(lm.tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([piece for piece, _ in pieces])
    writer.add_token_types([1] * len(pieces))
    merges = json.loads(lm.tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for layer in range(config.num_hidden_layers):
        names |= {f"model.layers.{layer}.{ours}": f"blk.{layer}.{theirs}" for ours, theirs in MAPS.items()}
    for ours, theirs in names.items():
        array = weights[f"{ours}.weight"].numpy()
        heads = config.num_attention_heads if theirs.endswith("attn_q") else config.num_key_value_heads
        if theirs.endswith(PERMUTED):
            rows, columns = array.shape
            array = array.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
        writer.add_tensor(f"{theirs}.weight", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {f"{name}.weight": weights[f"{name}.weight"] for name in names}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITGUARD_CACHE", str(tmp_path / "cache"))


def test_load_model_from_a_gguf_file_has_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    expected = write_llama(path)
    lm = load_model(path, device="cpu")
    assert (lm.architecture, lm.dtype, lm.ref) == ("LlamaForCausalLM", torch.float32, str(path))
    assert all(torch.equal(tensor, lm.model.state_dict()[name]) for name, tensor in expected.items())
    checkpoint = open_checkpoint(str(path))
    assert all(torch.equal(checkpoint.tensor(name), tensor) for name, tensor in expected.items())
    assert describe_conversion(path) == (
        f"The GGUF file {str(path)!r} is dequantised to float32, and all that is measured is of these weights."
    )


@pytest.mark.parametrize("architecture", ["rwkv6", "general", "tokenizer"])
def test_load_model_from_gguf_of_an_unknown_architecture_is_refused(tmp_path: Path, architecture: str) -> None:
    write_llama(tmp_path / "tiny.gguf", architecture)
    with pytest.raises(ModelError, match=f"of the architecture '{architecture}', which transformers does not read"):
        load_model(tmp_path / "tiny.gguf", device="cpu")


def header(*fields: bytes, tensors: int = 0, count: int | None = None) -> bytes:
    number = len(fields) if count is None else count
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, number) + b"".join(fields)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


LLAMA = text("general.architecture") + struct.pack("<I", 8) + text("llama")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "does not begin with GGUF"),
        (b"not a model", "does not begin with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version is 9"),
        (header(), "names no general.architecture"),
        (header(LLAMA, count=2**60), "ends before"),
        (header(LLAMA, tensors=2**60), "ends before"),
        (header(text("a") + struct.pack("<IIQ", 9, 4, 2**61)), "ends before"),
        (header(text("a") + struct.pack("<IIQQ", 9, 9, 1, 0)), "unknown type 9"),
        (header(text("a") + struct.pack("<I", 77)), "unknown type 77"),
        (header(struct.pack("<Q", 2**62)), "ends before"),
        (header(LLAMA)[:-2], "ends before"),
    ],
)
def test_read_architecture_header_that_is_not_whole_is_one_sentence(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "spoilt.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"cannot be read as GGUF .*{reason}"):
        read_architecture(path)


def test_read_architecture_of_whole_header_is_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    path.write_bytes(header(text("x") + struct.pack("<If", 6, 1.0), LLAMA))
    assert read_architecture(path) == "llama"
