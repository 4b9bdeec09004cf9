"""Folders of models, adapters and GGUF files that are spoilt: read, or refused in one sentence."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from editguard.probes.model.folders.adapter import Adapter, read_adapter
from editguard.probes.model.folders.differences import compare_folders
from editguard.probes.model.folders.gguf_file import read_architecture
from editguard.probes.model.language_model import LanguageModel, load_model
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ..helpers.tiny_models import tiny_lm
from .harness import EXAMPLES, FUZZ_SETTINGS, read_or_refuse, spoil

FAMILIES = ("llama", "gpt2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for family in FAMILIES:
        folders[family] = tmp_path_factory.mktemp(family)
        lm = tiny_lm(family)
        lm.model.save_pretrained(folders[family])
        lm.tokenizer.save_pretrained(folders[family])
    return folders


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json"])
@pytest.mark.parametrize("family", FAMILIES)
# Each takes a tenth of a second, and not a thousandth.
@settings(FUZZ_SETTINGS, max_examples=max(40, EXAMPLES // 10))
@given(data=st.data())
def test_load_model_spoilt_folder_is_read_or_refused(
    family: str, name: str, data: st.DataObject, folders: dict[str, Path]
) -> None:
    path = folders[family] / name
    whole = path.read_bytes()
    path.write_bytes(data.draw(spoil([whole])))
    try:
        lm = read_or_refuse(lambda: load_model(folders[family]), folders[family])
        assert lm is None or isinstance(lm, LanguageModel)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json", "chat_template.jinja"])
@settings(FUZZ_SETTINGS, max_examples=max(40, EXAMPLES // 10))
@given(data=st.data())
def test_compare_folders_spoilt_folder_is_read_or_refused(
    name: str, data: st.DataObject, folders: dict[str, Path]
) -> None:
    path = folders["llama"] / name
    whole = path.read_bytes() if path.exists() else b"{% for message in messages %}{{ message }}{% endfor %}"
    path.write_bytes(data.draw(spoil([whole])))
    try:
        differences = read_or_refuse(lambda: compare_folders(folders["gpt2"], folders["llama"]), folders["llama"])
        assert differences is None or all("\n" not in difference.sentence for difference in differences)
    finally:
        path.write_bytes(whole)
        if name.endswith("jinja"):
            path.unlink()


FACTORS = {"base_model.model.a.lora_A.weight": torch.ones(2, 3), "base_model.model.a.lora_B.weight": torch.ones(4, 2)}
CONFIG = json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none"}).encode()


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@FUZZ_SETTINGS
@given(data=st.data())
def test_read_adapter_spoilt_folder_is_read_or_refused(name: str, data: st.DataObject, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes(CONFIG)
    save_file(FACTORS, tmp_path / "adapter_model.safetensors")
    path = tmp_path / name
    path.write_bytes(data.draw(spoil([path.read_bytes()])))
    adapter = read_or_refuse(lambda: read_adapter(tmp_path), tmp_path)
    assert adapter is None or isinstance(adapter, Adapter)


def _field(name: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value


GGUF = (
    b"GGUF"
    + struct.pack("<IQQ", 3, 1, 3)
    + _field(b"a", 9, struct.pack("<IQQ", 8, 2, 1) + b"x" + struct.pack("<Q", 1) + b"y")
    + _field(b"general.architecture", 8, struct.pack("<Q", 5) + b"llama")
    + _field(b"b", 6, struct.pack("<f", 1.0))
    + struct.pack("<Q", 1)
    + b"w"
    + struct.pack("<IQIQ", 1, 4, 0, 0)
)
_huge = st.sampled_from([2**31, 2**32, 2**62, 2**63, 2**64 - 1])


@FUZZ_SETTINGS
@given(data=st.data())
def test_read_architecture_spoilt_file_is_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    content = data.draw(spoil([GGUF]) | st.just(GGUF))
    place = data.draw(st.integers(0, max(0, len(content) - 8)))
    if data.draw(st.booleans()):
        content = content[:place] + struct.pack("<Q", data.draw(_huge)) + content[place + 8 :]
    (tmp_path / "model.gguf").write_bytes(content)
    architecture = read_or_refuse(lambda: read_architecture(tmp_path / "model.gguf"), tmp_path)
    assert architecture is None or isinstance(architecture, str)
