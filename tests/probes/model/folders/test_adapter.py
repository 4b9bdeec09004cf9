"""A plain LoRA adapter is merged by its equation; every other kind is refused by name, and nothing is written then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from editguard.probes.errors import ModelError
from editguard.probes.model.fingerprint import compute_checksum
from editguard.probes.model.folders.adapter import merge_adapter, read_adapter
from editguard.probes.model.language_model import load_model
from safetensors.torch import save_file

from ....helpers.tiny_models import save_tiny_checkpoint, tiny_language_model

pytestmark = pytest.mark.tiny

RANK, ALPHA = 4, 6
CONFIG = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": RANK, "lora_alpha": ALPHA, "bias": "none"}
PATHS = {
    "llama": ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"),
    "gpt2": ("transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_proj"),
}


def factors(family: str) -> dict[str, torch.Tensor]:
    """Return an adapter's tensors for both paths of `family`, as PEFT names them."""
    model, draw = tiny_language_model(family).model, torch.Generator().manual_seed(0)
    tensors = {}
    for path in PATHS[family]:
        weight = model.get_submodule(path).weight
        outputs, inputs = weight.shape if family == "llama" else weight.T.shape
        tensors[f"base_model.model.{path}.lora_A.weight"] = torch.randn(RANK, inputs, generator=draw)
        tensors[f"base_model.model.{path}.lora_B.weight"] = torch.randn(outputs, RANK, generator=draw)
    return tensors


def save_adapter(folder: Path, tensors: dict[str, torch.Tensor], **settings: object) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | settings), encoding="utf-8")
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize("family", PATHS)
def test_load_model_with_an_adapter_answers_as_the_base_with_both_branches(family: str, tmp_path: Path) -> None:
    base = tiny_language_model(family)
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    tensors = factors(family)
    lm = load_model(tmp_path / "base", device="cpu", adapter=save_adapter(tmp_path / "adapter", tensors))
    hooks = []
    for path in PATHS[family]:
        down, up = (tensors[f"base_model.model.{path}.lora_{name}.weight"] for name in "AB")

        def add_branch(
            _: torch.nn.Module,
            inputs: tuple[torch.Tensor],
            output: torch.Tensor,
            down: torch.Tensor = down,
            up: torch.Tensor = up,
        ) -> torch.Tensor:
            return output + inputs[0] @ down.T @ up.T * (ALPHA / RANK)

        hooks.append(base.model.get_submodule(path).register_forward_hook(add_branch))
    ids = torch.tensor([[5, 9, 40, 3]])
    torch.testing.assert_close(lm.model(ids).logits, base.model(ids).logits, rtol=1e-4, atol=1e-3)
    for hook in hooks:
        hook.remove()
    assert not torch.allclose(lm.model(ids).logits, base.model(ids).logits, atol=0.1)
    assert lm.ref == f"{tmp_path / 'base'} with {tmp_path / 'adapter'}"


def test_merge_adapter_names_what_it_changed_and_nothing_else_changes(tmp_path: Path) -> None:
    model = tiny_language_model("llama").model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    names = merge_adapter(model, read_adapter(save_adapter(tmp_path / "adapter", factors("llama"))))
    assert names == [f"{path}.weight" for path in PATHS["llama"]]
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert sorted(changed) == sorted(names)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"use_dora": True}, "use_dora is set"),
        ({"use_rslora": True}, "use_rslora is set"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern is set"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is set"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
    ],
)
def test_read_adapter_other_than_plain_lora_is_refused_by_name(
    tmp_path: Path, settings: dict[str, object], reason: str
) -> None:
    with pytest.raises(ModelError, match=f"is not plain LoRA .{reason}.*merge_and_unload"):
        read_adapter(save_adapter(tmp_path / "adapter", factors("llama"), **settings))


@pytest.mark.parametrize("r", [0, -1, "4", True, None, float("inf"), 5])
def test_read_adapter_wrong_rank_is_refused(tmp_path: Path, r: object) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_adapter(save_adapter(tmp_path / "adapter", factors("llama"), r=r))


def test_read_adapter_tensors_that_are_no_pair_are_refused(tmp_path: Path) -> None:
    whole = factors("llama")
    first = next(iter(whole))
    for number, (tensors, reason) in enumerate(
        (
            ({name: tensor for name, tensor in whole.items() if name != first}, "do not fit"),
            ({**whole, first: torch.zeros(RANK)}, "do not fit"),
            ({**whole, "base_model.model.lm_head.weight": torch.zeros(3, 3)}, "not plain LoRA"),
            ({}, "holds no factors"),
        )
    ):
        with pytest.raises(ModelError, match=reason):
            read_adapter(save_adapter(tmp_path / str(number), tensors))
    pickled = save_adapter(tmp_path / "pickled", whole)
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        read_adapter(pickled)


def test_merge_adapter_of_another_base_writes_nothing(tmp_path: Path) -> None:
    model = tiny_language_model("llama").model
    before = compute_checksum(model)
    wide = {name: torch.cat([tensor, tensor], int("lora_A" in name)) for name, tensor in factors("llama").items()}
    fits = {name: tensor for name, tensor in factors("llama").items() if "q_proj" in name}
    down = {name: tensor for name, tensor in wide.items() if "down_proj" in name}
    for name, tensors in (("other-size", {**fits, **down}), ("other-family", factors("gpt2"))):
        with pytest.raises(ModelError, match=r"no base of the adapter .* made for 'org/base'"):
            merge_adapter(model, read_adapter(save_adapter(tmp_path / name, tensors)))
    assert compute_checksum(model) == before


def test_load_model_with_an_adapter_keeps_the_dtype_of_the_base(tmp_path: Path) -> None:
    save_tiny_checkpoint(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", factors("llama"))
    lm = load_model(tmp_path / "base", device="cpu", dtype="bfloat16", adapter=adapter)
    assert lm.dtype == torch.bfloat16
