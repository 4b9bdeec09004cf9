"""Tiny models with random weights, one of each family that the edit site is found in; nothing is downloaded.

`FAMILIES["llama"]()` builds one in milliseconds: eval mode, float32, seeded, with biases that are not zero. With
``square=True`` the MLP is as wide as the model, so that nothing can be told from a shape. `OTHERS` holds the models
that are refused, or read without being edited.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
import transformers as hf
from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["D_FF", "D_MODEL", "FAMILIES", "LAYERS", "OTHERS", "SITE_PATHS", "SQUARE_FAMILIES", "VOCAB", "random_ids"]

D_MODEL, D_FF, LAYERS, VOCAB = 16, 24, 2, 128
"""Sizes of every model here, but for Bloom, whose d_ff is four times d_model by definition."""

_IDS = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_GPT = {**_IDS, "n_embd": D_MODEL, "n_layer": LAYERS, "n_head": 2, "n_positions": 256}
_SMALL = {
    **_IDS,
    "hidden_size": D_MODEL,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
}
_LLAMA = {**_SMALL, "num_key_value_heads": 1}
_T5 = {"vocab_size": VOCAB, "d_model": D_MODEL, "d_ff": D_FF, "d_kv": 8, "num_layers": LAYERS, "num_heads": 2}


class Builder(Protocol):
    """Builds one tiny model."""

    def __call__(self, *, square: bool = False, seed: int = 0, vocabulary: int = VOCAB) -> PreTrainedModel: ...


def random_ids(batch: int = 2, tokens: int = 7, seed: int = 0) -> torch.Tensor:
    """Return token ids [batch, tokens] without special tokens."""
    return torch.randint(3, VOCAB, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def _build(
    model: type[PreTrainedModel],
    config: type[PreTrainedConfig],
    options: dict[str, Any],
    width: str | None = None,
    *,
    square: bool = False,
    seed: int = 0,
    vocabulary: int = VOCAB,
) -> PreTrainedModel:
    """Build a model; `width` is what its config calls d_ff, None where that cannot be set."""
    if square and width is None:
        raise ValueError(f"{model.__name__} has no square form; use a family of SQUARE_FAMILIES.")
    wide = {} if width is None else {width: D_MODEL if square else D_FF}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = model(config(**{**options, "vocab_size": vocabulary}, **wide)).eval()
        with torch.no_grad():
            for name, parameter in built.named_parameters():
                # transformers starts biases at zero, where a forgotten bias would go unseen.
                if name.endswith("bias"):
                    parameter.normal_(std=0.1)
    return built


def _family(
    model: type[PreTrainedModel],
    config: type[PreTrainedConfig],
    options: dict[str, Any],
    width: str | None = "intermediate_size",
) -> Builder:
    return partial(_build, model, config, options, width)


_FALCON = partial(_family, hf.FalconForCausalLM, hf.FalconConfig, width="ffn_hidden_size")

FAMILIES: dict[str, Builder] = {
    "gpt2": _family(hf.GPT2LMHeadModel, hf.GPT2Config, _GPT, "n_inner"),
    "gptj": _family(hf.GPTJForCausalLM, hf.GPTJConfig, {**_GPT, "rotary_dim": 4}, "n_inner"),
    "gpt_neo": _family(
        hf.GPTNeoForCausalLM,
        hf.GPTNeoConfig,
        {
            **_IDS,
            "hidden_size": D_MODEL,
            "num_layers": LAYERS,
            "num_heads": 2,
            "attention_types": [[["global", "local"], LAYERS // 2]],
            "max_position_embeddings": 256,
        },
    ),
    "gpt_neox": _family(hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig, _SMALL),
    "opt": _family(hf.OPTForCausalLM, hf.OPTConfig, {**_SMALL, "word_embed_proj_dim": D_MODEL}, "ffn_dim"),
    "bloom": _family(
        hf.BloomForCausalLM, hf.BloomConfig, {**_IDS, "hidden_size": D_MODEL, "n_layer": LAYERS, "n_head": 2}, None
    ),
    "falcon_new": _FALCON({**_SMALL, "new_decoder_architecture": True, "num_kv_heads": 1, "bias": True}),
    "falcon_parallel": _FALCON({**_SMALL, "new_decoder_architecture": False, "parallel_attn": True}),
    "falcon_sequential": _FALCON({**_SMALL, "new_decoder_architecture": False, "parallel_attn": False}),
    "phi": _family(hf.PhiForCausalLM, hf.PhiConfig, _SMALL),
    "llama": _family(hf.LlamaForCausalLM, hf.LlamaConfig, _LLAMA),
    "mistral": _family(hf.MistralForCausalLM, hf.MistralConfig, _LLAMA),
    "qwen2": _family(hf.Qwen2ForCausalLM, hf.Qwen2Config, _LLAMA),
    "qwen3": _family(hf.Qwen3ForCausalLM, hf.Qwen3Config, {**_LLAMA, "head_dim": 8}),
    "gemma2": _family(hf.Gemma2ForCausalLM, hf.Gemma2Config, {**_LLAMA, "head_dim": 8}),
    "gemma3": _family(hf.Gemma3ForCausalLM, hf.Gemma3TextConfig, {**_LLAMA, "head_dim": 8}),
    "stablelm": _family(hf.StableLmForCausalLM, hf.StableLmConfig, _LLAMA),
    "starcoder2": _family(hf.Starcoder2ForCausalLM, hf.Starcoder2Config, _LLAMA),
    "olmo2": _family(hf.Olmo2ForCausalLM, hf.Olmo2Config, _LLAMA),
    "cohere": _family(hf.CohereForCausalLM, hf.CohereConfig, _LLAMA),
    "phi3": _family(hf.Phi3ForCausalLM, hf.Phi3Config, _LLAMA),
}
"""Causal decoders whose every layer can be edited."""

SQUARE_FAMILIES = tuple(name for name in FAMILIES if name != "bloom")
"""Families that can be built with d_ff == d_model."""

_LLAMA_PATH = "model.layers.{layer}.mlp.down_proj"
_GPT_PATH = "transformer.h.{layer}.mlp.c_proj"
_NEOX_NAME = "transformer.h.{layer}.mlp.dense_4h_to_h"

SITE_PATHS: dict[str, str] = dict.fromkeys(FAMILIES, _LLAMA_PATH) | {
    "gpt2": _GPT_PATH,
    "gptj": "transformer.h.{layer}.mlp.fc_out",
    "gpt_neo": _GPT_PATH,
    "gpt_neox": "gpt_neox.layers.{layer}.mlp.dense_4h_to_h",
    "opt": "model.decoder.layers.{layer}.fc2",
    "bloom": _NEOX_NAME,
    "falcon_new": _NEOX_NAME,
    "falcon_parallel": _NEOX_NAME,
    "falcon_sequential": _NEOX_NAME,
    "phi": "model.layers.{layer}.mlp.fc2",
    "starcoder2": "model.layers.{layer}.mlp.c_proj",
}
"""Where each family's down-projection lies, read off its source by hand."""

_EXPERTS = {**_LLAMA, "num_experts_per_tok": 1}

OTHERS: dict[str, Callable[..., PreTrainedModel]] = {
    "mixtral": _family(hf.MixtralForCausalLM, hf.MixtralConfig, {**_EXPERTS, "num_local_experts": 2}),
    "olmoe": _family(hf.OlmoeForCausalLM, hf.OlmoeConfig, {**_EXPERTS, "num_experts": 2}),
    # Layer 0 is dense, layer 1 a mixture with a shared expert.
    "qwen2_moe": _family(
        hf.Qwen2MoeForCausalLM,
        hf.Qwen2MoeConfig,
        {
            **_EXPERTS,
            "num_experts": 2,
            "moe_intermediate_size": 8,
            "shared_expert_intermediate_size": 8,
            "mlp_only_layers": [0],
        },
    ),
    "t5": _family(hf.T5ForConditionalGeneration, hf.T5Config, _T5, None),
    "t5_encoder": _family(hf.T5EncoderModel, hf.T5Config, _T5, None),
    "bert": _family(hf.BertModel, hf.BertConfig, _SMALL),
}
